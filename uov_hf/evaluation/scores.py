"""Scores of an evaluation: predictions counted by region, by range, by confidence and by instance."""

from collections.abc import Callable, Iterable
from typing import Literal, NotRequired, TypedDict

import numpy as np
import torch
from accelerate import Accelerator

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.conditions import ConditionScores, reduce_counts
from uov_hf.evaluation.label_statistics import RANGE_NAMES, find_range_bins
from uov_hf.evaluation.metrics import AbstentionMetrics, CalibrationMetrics, ConfusionMatrix, SegmentationMetrics
from uov_hf.evaluation.panoptic import MIN_POINTS, PanopticMetrics, PanopticQuality, cluster_things
from uov_hf.evaluation.predictions import Prediction
from uov_hf.evaluation.robustness import RobustnessResults
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.evaluation.scored_classes import ScoredClasses
from uov_hf.training.objectives import NO_TRUTH, OUTSIDE


Matrices = dict[str, ConfusionMatrix]
Part = Literal["seen_points", "unseen_points", "no_camera_points", "teacher_seen_points"]
PARTS: tuple[Part, ...] = ("seen_points", "unseen_points", "no_camera_points", "teacher_seen_points")


class EvaluationResults(TypedDict):
    """The results of an evaluation, as metrics.json contains them.

    Args:
        all_points (`SegmentationMetrics`): Metrics of all points.
        seen_points, unseen_points (`SegmentationMetrics`, *optional*): Metrics of the points that some camera or no
            camera of their scan sees, if there are such points.
        no_camera_points (`SegmentationMetrics`, *optional*): Metrics of the points of scans without a camera. The
            points of these three add up to all.
        teacher_seen_points (`SegmentationMetrics`, *optional*): Metrics of the teacher's labels on the seen points.
        by_range (`dict[str, SegmentationMetrics]`): Metrics by distance from the sensor.
        calibration (`CalibrationMetrics`): Calibration of the confidences.
        abstention (`AbstentionMetrics`): Risk if the least confident predictions are left out.
        panoptic (`PanopticMetrics`, *optional*): Panoptic quality, if there are true instances.
        robustness (`RobustnessResults`, *optional*): Metrics under corruptions, if they were evaluated.
    """

    all_points: SegmentationMetrics
    seen_points: NotRequired[SegmentationMetrics]
    unseen_points: NotRequired[SegmentationMetrics]
    no_camera_points: NotRequired[SegmentationMetrics]
    teacher_seen_points: NotRequired[SegmentationMetrics]
    by_range: dict[str, SegmentationMetrics]
    calibration: CalibrationMetrics
    abstention: AbstentionMetrics
    panoptic: NotRequired[PanopticMetrics]
    robustness: NotRequired[RobustnessResults]


class Scores:
    """Counts of an evaluation; their size does not grow with the number of scans.

    All counts are whole numbers, so that processes add them exactly, in any order.

    Args:
        classes (`ScoredClasses`): The classes that are scored.
        with_teacher (`bool`, *optional*, defaults to `False`): Whether the teacher's labels are scored, too.

    Attributes:
        num_scans, num_points, num_predicted (`int`): Scans, their points, and those that have a predicted label.
    """

    def __init__(self, classes: ScoredClasses, with_teacher: bool = False):
        self.classes = classes
        num_classes = len(classes.class_names)
        self.regions = new_matrices(num_classes, with_teacher)
        self.ranges = {name: ConfusionMatrix(num_classes, IGNORED) for name in RANGE_NAMES}
        self.overall = ConditionScores(classes)
        self.panoptic = PanopticQuality(classes.is_thing, MIN_POINTS.get(classes.taxonomy, 30), IGNORED)
        self.num_scans = self.num_points = self.num_predicted = 0

    @property
    def num_scored(self) -> int:
        """Points that have a true label."""
        return int(self.regions["all_points"].counts.sum())

    def update(self, prediction: Prediction, scan: LabelledScan) -> None:
        """Count the prediction of one scan; its labels and those of the scan are in their own classes."""
        self.overall.update(prediction, scan)
        labels, scan = self.classes.of_predictions[prediction.labels], self.classes.convert_truth(scan)
        self.num_scans += 1
        self.num_points += len(labels)
        self.num_predicted += int((prediction.labels != IGNORED).sum())
        count(self.regions, labels, scan)
        range_bins = find_range_bins(scan.points)
        for index, matrix in enumerate(self.ranges.values()):
            matrix.update(labels[range_bins == index], scan.labels[range_bins == index])
        if scan.instances is not None:
            clusters = cluster_things(scan.points, labels, self.classes.is_thing)
            self.panoptic.update(labels, clusters, scan.labels, np.asarray(scan.instances))

    def reduce(self, accelerator: Accelerator) -> None:
        """Add the counts of all processes, in each of them."""
        matrices = [*self.regions.values(), *self.ranges.values()]
        reduce_counts([*matrices, *self.overall.counters, self.panoptic], accelerator)
        own = torch.tensor([self.num_scans, self.num_points, self.num_predicted], device=accelerator.device)
        self.num_scans, self.num_points, self.num_predicted = accelerator.reduce(own, "sum").tolist()

    def check(self, needs_truth: bool) -> None:
        """Stop an evaluation of nothing; all processes call this after `reduce`.

        Args:
            needs_truth (`bool`): Whether the predictions are to be scored, and not exported alone.

        Raises:
            ValueError: No point has a predicted label or, if `needs_truth`, a true one.
        """
        points = f"{self.num_points:,} points (scans: {self.num_scans:,})"
        if not self.num_predicted:
            raise ValueError(
                f"Expected a predicted label at some points, got none at {points}. Likely causes: the split has no "
                f"frame, or all of its frames are broken, and the log names them; {OUTSIDE}, for example because they "
                "are in map coordinates, whose origin is not the sensor; with --predict_void, the head predicts void "
                "everywhere. Give another --split, or points in the frame of the sensor."
            )
        if needs_truth and not self.num_scored:
            raise ValueError(
                f"No point can be scored: expected ground truth of a class at some points, got none at {points}. "
                f"Every point is ignored, or nearer than --min_range. {NO_TRUTH}"
            )

    def compute(self) -> EvaluationResults:
        """The metrics of everything counted so far; regions and ranges without points are left out."""
        results: EvaluationResults = {
            **self.overall.compute(),
            "by_range": {name: matrix.compute() for name, matrix in self.ranges.items() if matrix.counts.any()},
        }
        for region in PARTS:
            if region in self.regions and self._has_result(region):
                results[region] = self.regions[region].compute()
        if self.panoptic.counts.any():
            results["panoptic"] = self.panoptic.compute()
        return results

    def _has_result(self, region: Part) -> bool:
        """Whether there are points to score; a teacher without any label has no result either, not an IoU of 0."""
        counts = self.regions[region].counts
        return bool((counts[:, :-1] if region == "teacher_seen_points" else counts).any())


def new_matrices(num_labels: int, with_teacher: bool = False) -> Matrices:
    """Empty matrices for all regions of scans and, if point labels are scored, for the teacher."""
    regions = ["all_points", *PARTS] if with_teacher else ["all_points", *PARTS[:-1]]
    return {region: ConfusionMatrix(num_labels, IGNORED) for region in regions}


def count(matrices: Matrices, predictions: np.ndarray, scan: LabelledScan) -> None:
    """Count the predictions `(num_points,)` of one scan and, if there is a matrix for it, the teacher's labels."""
    for region, inside in scan.regions.items():
        matrices[region].update(predictions[inside], scan.labels[inside])
    if "teacher_seen_points" in matrices and scan.teacher_labels is not None and "seen_points" in scan.regions:
        seen = scan.regions["seen_points"]
        matrices["teacher_seen_points"].update(scan.teacher_labels[seen], scan.labels[seen])


def score_segmenter(
    segmenter: Callable[[LabelledScan], np.ndarray], scans: Iterable[LabelledScan], num_labels: int
) -> Matrices:
    """Confusion matrices by region of a function that predicts labels `(num_points,)`."""
    matrices = new_matrices(num_labels)
    for scan in scans:
        count(matrices, segmenter(scan), scan)
    return matrices
