"""The benchmark of point labels: the official rule gives our labels, and its tiles are a teacher of any image."""

import numpy as np
import point_labels

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet
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
