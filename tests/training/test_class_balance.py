"""Rare classes weigh more; the weights are those of the labels that are trained on, and reach the loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from uov_hf import UOVFeatureExtractor
from uov_hf.configuration_uov import IGNORED
from uov_hf.data import load_frames
from uov_hf.labels import PointLabels
from uov_hf.training.class_balance import NUM_COUNTED, class_weights
from uov_hf.training.samples import DistillationSamples


def labelled_frames(labels_of_frames):
    """What `class_weights` reads of frames with these labels; `read` counts the frames that were read."""
    read = []
    point_labels = SimpleNamespace(
        read=lambda frame_id, columns: (
            read.append(frame_id) or {"labels": np.array(labels_of_frames[frame_id], np.uint8)}
        )
    )
    return SimpleNamespace(frames=SimpleNamespace(frame_ids=list(labels_of_frames)), point_labels=point_labels), read


@pytest.mark.parametrize("power, ratio", [(0.0, 1.0), (0.5, 3.0), (1.0, 9.0)])
def test_a_class_weighs_by_its_share_to_the_power(power, ratio):
    one, _ = labelled_frames({"a": [0] * 9 + [1], "b": [IGNORED] * 50})
    other, _ = labelled_frames({"c": [0] * 9 + [1]})
    weights = class_weights([one, other], 3, power)
    assert weights[1] / weights[0] == pytest.approx(ratio)
    assert (18 * weights[0] + 2 * weights[1]) / 20 == pytest.approx(1)
    assert np.isfinite(weights).all() and weights.dtype == np.float32


def test_without_any_label_all_weights_are_finite():
    assert np.isfinite(class_weights([labelled_frames({"a": [IGNORED]})[0]], 3, 0.5)).all()


def test_of_a_large_dataset_some_frames_are_counted():
    frames, read = labelled_frames({f"{index}": [index % 2] for index in range(3 * NUM_COUNTED + 1)})
    class_weights([frames], 2, 0.5)
    assert NUM_COUNTED / 2 < len(read) <= NUM_COUNTED


def test_a_frame_without_point_labels_and_a_dataset_without_frames_are_left_out():
    """`--on_error skip` leaves a broken frame without point labels; an empty split gets its own error later."""
    frames, _ = labelled_frames({"a": [0] * 9 + [1]})
    expected = class_weights([frames], 2, 0.5)
    frames.frames.frame_ids.append("broken")
    empty, _ = labelled_frames({})
    assert np.array_equal(class_weights([frames, empty], 2, 0.5), expected)


@pytest.mark.parametrize("with_confidence", [False, True])
def test_samples_have_the_weight_of_each_label(tiny_street, street_labels, with_confidence):
    frames, point_labels = load_frames("nuscenes", split="all", data_dir=tiny_street), PointLabels(street_labels)
    weights = np.linspace(1, 2, 16, dtype=np.float32)
    extractor = UOVFeatureExtractor()
    sample = DistillationSamples(frames, point_labels, extractor, None, 0, with_confidence, weights)[0, 0]
    labels, teacher = sample["labels"], point_labels.read(frames.frame_ids[0], ["confidence"])["confidence"]
    expected = torch.from_numpy(weights)[labels.clamp(max=15)] * (labels != IGNORED)
    if with_confidence:
        expected = expected * torch.from_numpy(teacher.astype(np.float32))
    torch.testing.assert_close(sample["confidence"], expected)
