"""The benchmarks of point labels: the official rule gives our labels, and their error is counted point by point."""

import shutil
from dataclasses import replace

import label_votes
import numpy as np
import point_labels
import pytest

from uov_hf.data import load_frames
from uov_hf.labels import PRESETS, LabelSet, PointLabels
from uov_hf.labels.consolidation import VOTES as FIELDS
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


def test_the_papers_preset_gives_the_labels_of_the_official_loop(tiny_street, tmp_path):
    vocabulary = load_vocabulary("nuscenes")
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(tiny_street))
    frames = load_frames("nuscenes", split="all", data_dir=tiny_street)
    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    contestants = point_labels.prepare(tmp_path / "official", frames, label_set, vocabulary)
    answers = {name: label() for name, label in contestants.items()}
    official = answers["official"]
    assert (official != 255).any() and (official == 255).any()
    for name in ("plain loop", "ours, paper", "official from disk", "ours, paper, from disk"):
        np.testing.assert_array_equal(answers[name], official, err_msg=name)


def test_the_tiles_are_a_teacher_of_any_image():
    tiles = point_labels.Tiles(["car", "road"])
    (answer,) = tiles.segment({"image_sizes": [(90, 160)]})
    assert answer.segmentation.shape == (90, 160) and len(np.unique(answer.segmentation)) == len(answer.labels) == 80


def test_the_error_of_labels_is_that_of_a_loop_over_points(tiny_street, street_labels, tmp_path):
    frames = load_frames("nuscenes", split="all", data_dir=tiny_street)
    label_set = LabelSet(shutil.copytree(street_labels, tmp_path / "labels"))
    score = label_votes.Score(label_set, frames, label_votes.RULES["all but time"])
    paper, voted = (PointLabels(label_set.folder, rule) for rule in ("paper", label_votes.RULES["all but time"]))
    num_seen = num_right = num_labelled = num_unseen = num_unseen_right = 0
    for frame in frames:
        seen = set(paper.read(frame["frame_id"])["pair_to_point"].tolist())
        labels = voted.read(frame["frame_id"])["labels"].tolist()
        for point, (x, y) in enumerate(frame["points"][:, :2].astype(float)):
            truth, is_seen = frame["labels"][point], point in seen
            if np.hypot(x, y) > 2 and truth != 255:
                num_seen, num_unseen = num_seen + is_seen, num_unseen + (not is_seen)
                num_right += is_seen and labels[point] == truth
                num_unseen_right += not is_seen and labels[point] == truth
                num_labelled += is_seen and labels[point] != 255
    assert score.num_seen == num_seen and score.accuracy == pytest.approx(num_right / num_seen)
    assert score.coverage == pytest.approx(num_labelled / num_seen)
    assert score.unseen_accuracy == pytest.approx(num_unseen_right / num_unseen) and num_unseen > 0


@pytest.mark.parametrize("vote", label_votes.VOTES)
def test_the_table_has_each_vote_alone_and_left_out(vote):
    field, full = FIELDS[vote], PRESETS["consolidated"]
    assert label_votes.RULES[f"only {vote}"] == replace(PRESETS["paper"], **{field: getattr(full, field)})
    without = replace(full, **{field: getattr(PRESETS["paper"], field)}, clean_pairs=False)  # which changes no label
    assert label_votes.RULES[f"all but {vote}"] == without
