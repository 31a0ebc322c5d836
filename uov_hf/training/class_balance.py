"""Weights of classes: rare ones count more in the cross-entropy."""

from collections.abc import Iterable

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.frames import BROKEN
from uov_hf.training.samples import LabelledFrames


NUM_COUNTED = 500  # frames of each dataset, evenly spaced; more change no share that matters
SMALLEST_SHARE = 1e-4  # of all labels; a class that is rarer has the weight of one with this share


def class_weights(datasets: Iterable[LabelledFrames], num_classes: int, power: float) -> np.ndarray:
    """w_c ∝ share_c^−power, where share_c is the share of class c among the labels of the points.

    Args:
        datasets (`Iterable[LabelledFrames]`): Frames with point labels; at most 500 of each are counted.
        num_classes (`int`): Number of classes.
        power (`float`): From 0, equal weights, to 1: all classes count the same in a mean over all labels.

    Returns:
        `np.ndarray` of shape `(num_classes,)`, float32: The weights; their mean over all labels is 1.
    """
    counts = np.zeros(num_classes, dtype=np.int64)
    for dataset in datasets:
        frame_ids = dataset.frames.frame_ids
        for frame_id in frame_ids[:: max(1, -(-len(frame_ids) // NUM_COUNTED))]:
            try:
                labels = dataset.point_labels.read(frame_id, ["labels"])["labels"]
            except BROKEN:  # a broken frame that `--on_error skip` left without point labels; the training reports it
                continue
            counts += np.bincount(labels[labels != IGNORED], minlength=num_classes)
    shares = counts / max(counts.sum(), 1)
    weights = np.maximum(shares, SMALLEST_SHARE) ** -power
    total = (weights * shares).sum()
    return (weights / total if total else weights).astype(np.float32)
