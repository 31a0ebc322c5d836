"""The scores of scans under one condition: clean, or one corruption of one severity."""

from collections.abc import Iterable
from typing import Protocol, TypedDict

import numpy as np
import torch
from accelerate import Accelerator

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.metrics import (
    AbstentionMetrics,
    CalibrationMetrics,
    ConfidenceBins,
    ConfusionMatrix,
    RiskCoverage,
    SegmentationMetrics,
)
from uov_hf.evaluation.predictions import Prediction
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.evaluation.scored_classes import ScoredClasses


class Counter(Protocol):
    """Whatever counts in whole numbers, so that processes add exactly, in any order."""

    counts: np.ndarray


class ConditionMetrics(TypedDict):
    """The metrics of all points of the scans under one condition.

    Args:
        all_points (`SegmentationMetrics`): Metrics of the labels.
        calibration (`CalibrationMetrics`): Calibration of the confidences.
        abstention (`AbstentionMetrics`): Risk if the least confident predictions are left out.
    """

    all_points: SegmentationMetrics
    calibration: CalibrationMetrics
    abstention: AbstentionMetrics


class ConditionScores:
    """Counts of the scans under one condition; their size does not grow with the number of scans.

    Args:
        classes (`ScoredClasses`): The classes that are scored.

    Attributes:
        confidences (`ConfidenceBins`): Counts the scored points that have a prediction.
        abstention (`RiskCoverage`): Counts all scored points. One without a prediction is the least confident, and
            wrong.
    """

    def __init__(self, classes: ScoredClasses):
        self.classes = classes
        self.confusion = ConfusionMatrix(len(classes.class_names), IGNORED)
        self.confidences, self.abstention = ConfidenceBins(), RiskCoverage()

    def update(self, prediction: Prediction, scan: LabelledScan) -> None:
        """Count the prediction of one scan; its labels and those of the scan are in their own classes."""
        labels, truth = self.classes.of_predictions[prediction.labels], self.classes.convert_truth(scan).labels
        self.confusion.update(labels, truth)
        scored = truth != IGNORED
        is_right, confidences = (labels == truth)[scored], prediction.confidences[scored]
        is_predicted = (prediction.labels != IGNORED)[scored]
        self.confidences.update(confidences[is_predicted], is_right[is_predicted])
        self.abstention.update(np.where(is_predicted, confidences, 0), is_right)

    @property
    def counters(self) -> list[Counter]:
        return [self.confusion, self.confidences, self.abstention]

    def reduce(self, accelerator: Accelerator) -> None:
        """Add the counts of all processes, in each of them."""
        reduce_counts(self.counters, accelerator)

    def compute(self) -> ConditionMetrics:
        """The metrics of everything counted so far."""
        return {
            "all_points": self.confusion.compute(),
            "calibration": self.confidences.compute(),
            "abstention": self.abstention.compute(),
        }


def reduce_counts(counters: Iterable[Counter], accelerator: Accelerator) -> None:
    """Add the `counts` of all processes, in each of them."""
    for counter in counters:
        counts = torch.from_numpy(counter.counts).to(accelerator.device)
        counter.counts = accelerator.reduce(counts, "sum").cpu().numpy()
