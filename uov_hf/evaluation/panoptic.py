"""Panoptic quality, and instances of a semantic prediction by clustering."""

import math
from typing import TypedDict

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from uov_hf.array_checks import check_array, check_ids


IOU_STEP = 2.0**-32
# Smaller segments are neither misses nor false alarms; the values are those of each benchmark's own evaluation.
MIN_POINTS = {"nuscenes": 15, "semantic_kitti": 50}
CELL_SIZE = 0.1  # metres; the clustering merges the points of a cell


class PanopticMeans(TypedDict):
    """Panoptic, segmentation and recognition quality, means over classes; NaN without classes."""

    pq: float
    sq: float
    rq: float


class PanopticMetrics(PanopticMeans):
    """Means over all classes that have a segment, over things and over stuff, and the qualities of each class.

    The quality of a class without segments is NaN.
    """

    things: PanopticMeans
    stuff: PanopticMeans
    per_category_pq: list[float]
    per_category_sq: list[float]
    per_category_rq: list[float]


class PanopticQuality:
    """PQ = Σ IoU of the matched segments / (TP + FP / 2 + FN / 2), for each class.

    It counts as the evaluations of SemanticKITTI and nuScenes do (`PanopticEval` of semantic-kitti-api). Points
    without a true label do not count. Two segments of one class match if their IoU is over 0.5. All points of a stuff
    class in a scan are one segment, and so are the points of a thing class that have no instance.

    IoUs are added in whole steps of 2^-32, so that the sums do not depend on the order of the scans.

    Args:
        is_thing (`np.ndarray` of shape `(num_labels,)`): bool, the classes that have instances.
        min_points (`int`, *optional*, defaults to 30): Smaller unmatched segments are neither FP nor FN.
        ignore_index (`int`, *optional*, defaults to 255): The label of points that do not count.

    Attributes:
        counts (`np.ndarray` of shape `(4, num_labels)`, int64): TP, FP, FN and the sum of IoUs.

    Raises:
        ValueError: `is_thing` is no bool array of one class or more, or `ignore_index` is the number of a class.
    """

    def __init__(self, is_thing: np.ndarray, min_points: int = 30, ignore_index: int = 255):
        self.is_thing = np.asarray(is_thing)
        check_array("is_thing", self.is_thing, ("1 or more",), "b")
        if ignore_index < len(self.is_thing):
            raise ValueError(
                f"`ignore_index` must be {len(self.is_thing)} or more, the number of no class, got {ignore_index}."
            )
        self.min_points = min_points
        self.ignore_index = ignore_index
        self.counts = np.zeros((4, len(self.is_thing)), dtype=np.int64)

    def update(
        self, predictions: np.ndarray, predicted_instances: np.ndarray, labels: np.ndarray, instances: np.ndarray
    ) -> None:
        """Count one scan: four integer arrays of shape `(num_points,)`; instances are numbered within a class.

        Raises:
            ValueError: The shapes differ, or a value is no whole number, no class and not `ignore_index`.
        """
        check_ids("labels", labels, "num_points", len(self.is_thing), self.ignore_index)
        check_ids("predictions", predictions, len(labels), len(self.is_thing), self.ignore_index)
        for name, array in (("predicted_instances", predicted_instances), ("instances", instances)):
            check_array(name, array, (len(labels),), "iu")
        scored = labels != self.ignore_index
        predicted, predicted_class = self._segments(predictions[scored], predicted_instances[scored])
        true, true_class = self._segments(labels[scored], instances[scored])
        is_false_alarm = np.bincount(predicted) >= self.min_points
        is_miss = np.bincount(true) >= self.min_points

        matched_predicted, matched_true, iou = _matches(predicted, predicted_class, true, true_class)
        is_false_alarm[matched_predicted], is_miss[matched_true] = False, False
        is_false_alarm &= predicted_class != self.ignore_index  # points without a prediction
        matched_class = true_class[matched_true]
        for row, classes in enumerate((matched_class, predicted_class[is_false_alarm], true_class[is_miss])):
            self.counts[row] += np.bincount(classes, minlength=self.counts.shape[1])
        np.add.at(self.counts[3], matched_class, np.rint(iou / IOU_STEP).astype(np.int64))

    def compute(self) -> PanopticMetrics:
        """The qualities of everything counted so far."""
        hits, false_alarms, misses, steps = self.counts.astype(np.float64)
        segments = hits + false_alarms / 2 + misses / 2
        present = segments > 0
        segments[~present] = np.nan
        quality, recognition = steps * IOU_STEP / segments, hits / segments
        segmentation = np.where(present, steps * IOU_STEP / np.maximum(hits, 1), np.nan)

        def means(classes: np.ndarray) -> PanopticMeans:
            pq, sq, rq = (_mean(values[classes]) for values in (quality, segmentation, recognition))
            return {"pq": pq, "sq": sq, "rq": rq}

        return {
            **means(present),
            "things": means(present & self.is_thing),
            "stuff": means(present & ~self.is_thing),
            "per_category_pq": quality.tolist(),
            "per_category_sq": segmentation.tolist(),
            "per_category_rq": recognition.tolist(),
        }

    def _segments(self, classes: np.ndarray, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The segment of each point, numbered from 0, and the class of each segment."""
        is_thing = self.is_thing[np.where(classes == self.ignore_index, 0, classes)] & (classes != self.ignore_index)
        instances = np.where(is_thing, instances, 0)
        if len(instances) and not 0 <= instances.min() <= instances.max() < 1 << 32:
            instances = np.unique(instances, return_inverse=True)[1]  # ids such as hashes become numbers
        keys, segment_of_point = np.unique(
            classes.astype(np.int64) << 32 | instances.astype(np.int64), return_inverse=True
        )
        return segment_of_point, keys >> 32


def _matches(
    predicted: np.ndarray, predicted_class: np.ndarray, true: np.ndarray, true_class: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted segment, true segment and IoU of every pair of one class whose IoU is over 0.5."""
    pairs, overlap = np.unique(predicted * len(true_class) + true, return_counts=True)
    in_predicted, in_true = np.divmod(pairs, len(true_class))
    union = np.bincount(predicted)[in_predicted] + np.bincount(true)[in_true] - overlap
    iou = overlap / union
    matched = (predicted_class[in_predicted] == true_class[in_true]) & (iou > 0.5)
    return in_predicted[matched], in_true[matched], iou[matched]


def cluster_things(
    points: np.ndarray, predictions: np.ndarray, is_thing: np.ndarray, radius: float = 0.5
) -> np.ndarray:
    """Instances of a semantic prediction by Euclidean clustering, without any learning.

    Two points of one predicted thing class belong to one instance if a chain of such points connects them in steps of
    at most `radius` metres, measured between centres of cells of 0.1 m. Objects that touch become one instance.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns): Metres.
        predictions (`np.ndarray` of shape `(num_points,)`): Predicted classes; 255 for none.
        is_thing (`np.ndarray` of shape `(num_labels,)`): bool, the classes that have instances.
        radius (`float`, *optional*, defaults to 0.5): Metres.

    Returns:
        `np.ndarray` of shape `(num_points,)`, int64: Instances from 1; 0 for stuff and points that are not finite.

    Raises:
        ValueError: An array has another shape, or the radius is not above 0 and finite.
    """
    check_array("points", points, ("num_points", "3 or more"))
    check_array("predictions", predictions, (len(points),), "iu")
    if not 0 < radius < math.inf:
        raise ValueError(f"`radius` must be a finite number of metres above 0, got {radius}.")
    instances, num_instances = np.zeros(len(points), dtype=np.int64), 0
    finite = np.isfinite(points[:, :3]).all(axis=1)
    for thing in np.flatnonzero(is_thing):
        rows = np.flatnonzero((predictions == thing) & finite)
        if len(rows):
            clusters = _euclidean_clusters(points[rows, :3].astype(np.float64), radius)
            instances[rows] = num_instances + 1 + clusters
            num_instances += clusters.max() + 1
    return instances


def _euclidean_clusters(positions: np.ndarray, radius: float) -> np.ndarray:
    """The cluster of each position, from 0."""
    cells, cell_of_point, num_points = np.unique(
        np.floor(positions / CELL_SIZE), axis=0, return_inverse=True, return_counts=True
    )
    cell_of_point = cell_of_point.reshape(-1)
    centers = np.stack([np.bincount(cell_of_point, column) for column in positions.T], axis=1) / num_points[:, None]
    pairs = cKDTree(centers).query_pairs(radius, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), dtype=bool), pairs.T), shape=(len(cells), len(cells)))
    return connected_components(graph, directed=False)[1][cell_of_point]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
