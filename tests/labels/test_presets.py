"""The presets on the tiny street and on a real key frame."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import load_frames
from uov_hf.geometry.projection import Camera, OcclusionConfig, pair_points_with_pixels, round_to_pixels
from uov_hf.labels import PRESETS, Consolidation, LabelSet, PointLabels, decode_segmentation, label_points
from uov_hf.labels.labelling import SequenceLabeller
from uov_hf.labels.point_labels import SCHEMA
from uov_hf.labels.superpoints import SuperpointConfig
from uov_hf.labels.time_vote import TimeVoteConfig
from uov_hf.teachers import ImageSegments, Teacher, load_teacher
from uov_hf.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def street_labels(tiny_street, tmp_path_factory):
    vocabulary, frames = load_vocabulary("nuscenes"), load_frames("nuscenes", "all", data_dir=tiny_street)
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(tiny_street))
    settings = {"augmentations": ["flip"]}
    label_set = LabelSet.create(tmp_path_factory.mktemp("labels"), teacher, vocabulary, settings)
    label_set.write(frames, teacher)
    return label_set, frames


def label_points_as_the_paper(frame, label_set):
    """The rule as first written: cameras in the frame's order; the last one with a segment at a point decides."""
    row = label_set.read(frame["frame_id"], ["segmentation", "segment_labels", "segment_scores"])
    labelled = [index for index, png in enumerate(row["segmentation"]) if png is not None]
    cameras = [Camera(frame["lidar2cam"][i], frame["intrinsics"][i], frame["image_sizes"][i]) for i in labelled]
    pairs = pair_points_with_pixels(frame["points"], cameras)
    rows, columns = round_to_pixels(pairs.pixel_coords)
    segments = np.zeros(len(rows), np.int32)
    for place, index in enumerate(labelled):
        here = pairs.camera_index == place
        segments[here] = decode_segmentation(row["segmentation"][index])[rows[here], columns[here]]
    labels = np.full(len(frame["points"]), IGNORED, np.uint8)
    confidence = np.zeros(len(frame["points"]), np.float16)
    point, segment = pairs.point_index[segments > 0], segments[segments > 0] - 1
    # Pairs come camera by camera; of several values for one point numpy keeps the last.
    labels[point] = label_set.prompt_to_class[row["segment_labels"]][segment]
    confidence[point] = row["segment_scores"][segment]
    return {
        "pair_to_point": pairs.point_index.astype(np.int32),
        "pair_camera": np.array(labelled, np.int16)[pairs.camera_index],
        "pair_pixel": np.stack([columns, rows], axis=1).astype(np.int16),
        "pair_segment": segments,
        "labels": labels,
        "confidence": confidence,
    }


def test_the_papers_preset_is_the_rule_as_it_was_first_written_to_the_bit(street_labels):
    label_set, frames = street_labels
    label_points(label_set, frames, "paper")
    for frame in frames:
        row = PointLabels(label_set.folder, "paper").read(frame["frame_id"])
        assert row["soft_labels"] is None and row["soft_scores"] is None and (row["labels"] != IGNORED).any()
        for name, expected in label_points_as_the_paper(frame, label_set).items():
            assert row[name].dtype == expected.dtype and np.array_equal(row[name], expected), name


def test_the_papers_shortcut_is_the_vote_in_which_the_last_camera_counts(street_labels):
    label_set, frames = street_labels
    paper, counted = (
        SequenceLabeller(frames, label_set, rule) for rule in (PRESETS["paper"], Consolidation(min_confidence=1e-12))
    )
    for index in range(len(frames)):
        row, expected = paper.make_row(index), counted.make_row(index)
        assert (row["labels"] != IGNORED).any()
        for name in ("labels", "confidence", "pair_to_point", "pair_camera", "pair_pixel", "pair_segment"):
            assert row[name].dtype == expected[name].dtype and np.array_equal(row[name], expected[name]), name


def test_both_presets_label_every_frame_of_the_street(street_labels):
    label_set, frames = street_labels
    for preset in PRESETS:
        label_points(label_set, frames, preset)
    for frame in frames:
        row = PointLabels(label_set.folder, "consolidated").read(frame["frame_id"])
        assert list(row) == SCHEMA.names
        assert row["soft_labels"].shape == row["soft_scores"].shape == (len(frame["points"]), 3)
        labelled = row["labels"] != IGNORED
        assert np.array_equal(row["soft_labels"][labelled, 0], row["labels"][labelled])
        assert np.array_equal(row["soft_scores"][labelled, 0], row["confidence"][labelled])
        assert labelled.sum() > (PointLabels(label_set.folder).read(frame["frame_id"])["labels"] != IGNORED).sum()


def test_clean_pairs_are_of_the_class_of_their_point(street_labels):
    label_set, frames = street_labels
    label_points(label_set, frames, "consolidated")
    frame_id = frames.frame_ids[0]
    row, segments = PointLabels(label_set.folder, "consolidated").read(frame_id), label_set.read(frame_id)
    has_segment = row["pair_segment"] > 0
    classes = label_set.prompt_to_class[segments["segment_labels"][row["pair_segment"][has_segment] - 1]]
    assert np.array_equal(classes, row["labels"][row["pair_to_point"][has_segment]])
    assert 0 < has_segment.sum() < len(has_segment)


class Stripes(Teacher):
    """Every image is cut into eight upright stripes with prompts in turn."""

    name, embed_dim, settings = "stripes", 4, {}

    def encode_prompts(self, prompts):
        return np.tile(np.eye(4, dtype=np.float32)[:1], (len(prompts), 1))

    def segment(self, frame):
        stripes = [np.tile(np.arange(width) * 8 // width + 1, (height, 1)) for height, width in frame["image_sizes"]]
        embeds = self.encode_prompts(["any"] * 8)
        return [ImageSegments(ids, np.arange(8) * 20, np.full(8, 0.5), embeds) for ids in stripes]


def test_the_real_keyframe_goes_through_both_presets(shared_data, tmp_path):
    vocabulary = load_vocabulary("nuscenes")
    frames = load_frames("nuscenes", "mini_train", data_dir=shared_data / "nuscenes", dataset_config="v1.0-mini")
    frames = frames.select([0])
    teacher = Stripes(vocabulary.prompts)
    label_set = LabelSet.create(tmp_path, teacher, vocabulary, {})
    label_set.write(frames, teacher)
    for preset in PRESETS:
        label_points(label_set, frames, preset)
    paper, ours = (PointLabels(tmp_path, preset).read(frames.frame_ids[0]) for preset in ("paper", "consolidated"))
    assert len(paper["labels"]) == len(ours["labels"]) == len(frames[0]["points"])
    assert 0.5 < len(ours["pair_to_point"]) / len(paper["pair_to_point"]) < 1  # hidden points have no pair
    labelled = [(row["labels"] != IGNORED).mean() for row in (paper, ours)]
    assert labelled[1] > labelled[0] > 0.3


def test_real_scans_without_poses_get_every_vote_but_the_one_over_time(shared_data, tmp_path):
    """The scans of KITTI's object benchmark are single ones of many drives."""
    vocabulary, frames = (
        load_vocabulary("nuscenes"),
        load_frames("kitti_object", data_dir=shared_data / "kitti_object"),
    )
    teacher = Stripes(vocabulary.prompts)
    label_set = LabelSet.create(tmp_path, teacher, vocabulary, {})
    label_set.write(frames, teacher)
    timeless = replace(PRESETS["consolidated"], time_vote=None)
    for rule in ("consolidated", timeless):
        assert label_points(label_set, frames, rule).num_frames == 1
    row, expected = (PointLabels(tmp_path, rule).read(frames.frame_ids[0]) for rule in ("consolidated", timeless))
    assert (row["labels"] != IGNORED).any() and np.array_equal(row["labels"], expected["labels"])


def test_the_settings_of_the_presets_are_those_that_the_results_were_measured_with():
    """Another setting needs new results (docs/results.md), and gives point labels in the same folder."""
    off = {"occlusion": None, "augmentation_vote": False, "time_vote": None, "superpoint_vote": None}
    votes = {
        "occlusion": {
            "beam_spacing": None,
            "reach": 1.0,
            "outline": 0.3,
            "tolerance": 0.5,
            "relative_tolerance": 0.05,
        },
        "augmentation_vote": True,
        "time_vote": {
            "window": 5,
            "voxel_size": 0.3,
            "num_neighbors": 12,
            "reach": 0.3,
            "relative_reach": 0.03,
        },
        "superpoint_vote": {
            "num_neighbors": 8,
            "reach": 0.3,
            "relative_reach": 0.1,
            "max_angle": 15.0,
            "cell_size": 2.0,
        },
    }
    assert asdict(Consolidation()) == off | {"camera_vote": "last", "min_confidence": 0.0, "clean_pairs": False}
    assert asdict(Consolidation()) == asdict(PRESETS["paper"])
    assert asdict(PRESETS["consolidated"]) == votes | {
        "camera_vote": "all",
        "min_confidence": 0.0,
        "clean_pairs": True,
    }
    assert asdict(OcclusionConfig()) == votes["occlusion"]
    assert asdict(TimeVoteConfig()) == votes["time_vote"]
    assert asdict(SuperpointConfig()) == votes["superpoint_vote"]
