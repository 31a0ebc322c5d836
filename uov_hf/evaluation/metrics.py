"""Metrics of predictions: IoU and accuracy, the calibration of confidences, and the risk of what is not abstained."""

from typing import TypedDict

import numpy as np
import torch
from scipy.special import digamma

from uov_hf.array_checks import check_array, to_array, to_int64


CONFIDENCE_STEP = 2.0**-24  # float32 has no finer one between 0.5 and 1


class SegmentationMetrics(TypedDict):
    """Metrics of a confusion matrix; NaN where a metric is undefined.

    Args:
        mean_iou (`float`): Mean of `per_category_iou` over the classes that have truth.
        num_classes (`int`): Classes that have truth.
        per_category_iou (`list[float]`): TP / (TP + FP + FN) of each class; NaN without truth.
        overall_accuracy (`float`): Share of right predictions.
        fwiou (`float`): IoU weighted by the share of labels of each class.
        official_mean_iou (`float`): As the official code computes it: mean over all classes, where a class without
            truth and predictions counts as 1, and one without truth alone as 0 (method 5.1).
        official_fwiou (`float`): As the official code computes it, without weights: hits / (2 points − hits).
        num_points (`int`): Scored points.
    """

    mean_iou: float
    num_classes: int
    per_category_iou: list[float]
    overall_accuracy: float
    fwiou: float
    official_mean_iou: float
    official_fwiou: float
    num_points: int


class ConfusionMatrix:
    """Counts of (label, prediction) over any number of scans.

    Points labelled `ignore_index` are not scored. A scored point whose prediction is `ignore_index` (no prediction) is
    a miss of its class and no false alarm of any other.

    Args:
        num_labels (`int`): Classes are 0 … num_labels − 1.
        ignore_index (`int`, *optional*, defaults to 255): The label of points that do not count.

    Attributes:
        counts (`np.ndarray` of shape `(num_labels, num_labels + 1)`, int64):
            Rows are labels, columns predictions; the last column counts points without a prediction.
    """

    def __init__(self, num_labels: int, ignore_index: int = 255):
        if num_labels < 1 or 0 <= ignore_index < num_labels:
            raise ValueError(
                f"`ignore_index` must lie outside the {num_labels} classes 0 … {num_labels - 1}, got {ignore_index}."
            )
        self.num_labels = num_labels
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_labels, num_labels + 1), dtype=np.int64)

    def update(self, predictions: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> None:
        """Count one scan.

        Args:
            predictions, labels (`np.ndarray` or `torch.Tensor` of shape `(num_points,)`):
                Integer class ids, or `ignore_index`.

        Raises:
            ValueError: If the shapes differ, or an id is no class.
        """
        predictions, labels = _as_ids("predictions", predictions), _as_ids("labels", labels)
        if predictions.shape != labels.shape:
            raise ValueError(
                f"`predictions` must have one id for each of the {len(labels)} `labels`, got {len(predictions)}."
            )
        scored = labels != self.ignore_index
        rows = self._cells(labels[scored], "labels")
        columns = self._cells(predictions[scored], "predictions")
        cells = rows * (self.num_labels + 1) + columns
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add another matrix over the same classes, such as that of another process."""
        if other.counts.shape != self.counts.shape:
            raise ValueError(f"Cannot merge a matrix of {other.num_labels} classes into one of {self.num_labels}.")
        self.counts += other.counts

    def compute(self) -> SegmentationMetrics:
        """The metrics of everything counted so far."""
        hits = np.diag(self.counts).astype(np.float64)
        labelled = self.counts.sum(axis=1)
        predicted = self.counts[:, : self.num_labels].sum(axis=0)
        union = labelled + predicted - hits
        union_iou = np.divide(hits, union, out=np.ones(self.num_labels), where=union > 0)
        # False alarms of a class without truth are misses of other classes already: they count once.
        iou = np.where(labelled > 0, union_iou, np.nan)
        num_points = int(labelled.sum())
        total = num_points or np.nan  # without points all but the IoUs is NaN
        return {
            "mean_iou": float(np.nanmean(iou)) if num_points else np.nan,
            "num_classes": int((labelled > 0).sum()),
            "per_category_iou": iou.tolist(),
            "overall_accuracy": float(hits.sum() / total),
            "fwiou": float(np.nansum(labelled * iou) / total),
            "official_mean_iou": float(union_iou.mean()) if num_points else np.nan,
            "official_fwiou": float(hits.sum() / (2 * total - hits.sum())),
            "num_points": num_points,
        }

    def _cells(self, ids: np.ndarray, name: str) -> np.ndarray:
        """Row or column of each id; the ignored id comes after the classes."""
        unknown = ids[((ids < 0) | (ids >= self.num_labels)) & (ids != self.ignore_index)]
        if unknown.size:
            raise ValueError(
                f"`{name}` must be 0 … {self.num_labels - 1} or {self.ignore_index} (ignored), got {unknown[0]}."
            )
        return np.where(ids == self.ignore_index, self.num_labels, ids)


class ConfidenceBin(TypedDict):
    """Mean confidence and accuracy of the predictions in one bin."""

    confidence: float
    accuracy: float
    num_points: int


class CalibrationMetrics(TypedDict):
    """Calibration of confidences.

    Args:
        expected_calibration_error (`float`): Mean of |accuracy − confidence| over the bins, weighted by their points;
            NaN without points.
        bins (`list[ConfidenceBin]`): The bins that have points.
    """

    expected_calibration_error: float
    bins: list[ConfidenceBin]


class ConfidenceBins:
    """Confidence against accuracy in bins of equal width, over any number of scans (Guo et al., arXiv:1706.04599).

    Confidences are added in whole steps of 2^-24, so that the sums depend neither on the order of the scans nor on
    their distribution over processes.

    Args:
        num_bins (`int`, *optional*, defaults to 15): Bins from 0 to 1; each includes its upper end.

    Attributes:
        counts (`np.ndarray` of shape `(3, num_bins)`, int64):
            Points, right predictions, and the sum of the confidences in steps.
    """

    def __init__(self, num_bins: int = 15):
        if num_bins < 1:
            raise ValueError(f"`num_bins` must be at least 1, got {num_bins}.")
        self.num_bins = num_bins
        self.counts = np.zeros((3, num_bins), dtype=np.int64)

    def update(self, confidences: np.ndarray, is_right: np.ndarray) -> None:
        """Count predictions.

        Args:
            confidences (`np.ndarray` of shape `(num_points,)`): From 0 to 1.
            is_right (`np.ndarray` of shape `(num_points,)`): bool.

        Raises:
            ValueError: If a confidence is outside 0 to 1, or the arrays have other shapes.
        """
        confidences, is_right = _check_predictions(confidences, is_right)
        bins = np.clip(np.ceil(confidences * self.num_bins).astype(np.int64) - 1, 0, None)
        steps = np.rint(confidences / CONFIDENCE_STEP)
        for row, weights in enumerate((None, is_right, steps)):
            self.counts[row] += np.bincount(bins, weights, minlength=self.num_bins).astype(np.int64)

    def compute(self) -> CalibrationMetrics:
        """The calibration of everything counted so far."""
        num_points, num_right, confidence = self.counts[:, self.counts[0] > 0].astype(np.float64)
        confidence *= CONFIDENCE_STEP
        error = np.abs(num_right - confidence).sum() / num_points.sum() if len(num_points) else np.nan
        rows = zip(confidence / num_points, num_right / num_points, num_points, strict=True)
        return {
            "expected_calibration_error": float(error),
            "bins": [{"confidence": float(c), "accuracy": float(a), "num_points": int(n)} for c, a, n in rows],
        }


class AbstentionMetrics(TypedDict):
    """The risk if the least confident predictions are left out; NaN without points.

    Args:
        area_under_risk_coverage (`float`): Mean of the risk over all coverages; lower is better.
        risk_at_coverage (`dict[str, float]`): Share of wrong predictions among the most confident `"50%"` … `"100%"`
            of the points.
    """

    area_under_risk_coverage: float
    risk_at_coverage: dict[str, float]


class RiskCoverage:
    """The risk–coverage curve of selective prediction, over any number of scans (Geifman and El-Yaniv, NeurIPS 2017).

    Points with the same confidence count as in random order. A confidence is rounded up to 7 binary digits of
    1 − confidence, so that the memory does not grow and the many confidences near 1 remain apart.

    Attributes:
        counts (`np.ndarray` of shape `(2, num_bins)`, int64):
            Points and wrong predictions, the most confident first.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((2, _doubt_bins(np.zeros(1))[0] + 1), dtype=np.int64)

    def update(self, confidences: np.ndarray, is_right: np.ndarray) -> None:
        """Count predictions.

        Args:
            confidences (`np.ndarray` of shape `(num_points,)`): From 0 to 1. A point without a prediction has 0.
            is_right (`np.ndarray` of shape `(num_points,)`): bool.

        Raises:
            ValueError: If a confidence is outside 0 to 1, or the arrays have other shapes.
        """
        confidences, is_right = _check_predictions(confidences, is_right)
        bins = _doubt_bins(confidences)
        for row, wrong in enumerate((None, ~is_right)):
            self.counts[row] += np.bincount(bins, wrong, minlength=self.counts.shape[1]).astype(np.int64)

    def compute(self) -> AbstentionMetrics:
        """The curve of everything counted so far."""
        points, wrong = np.concatenate([np.zeros((2, 1)), self.counts.cumsum(axis=1)], axis=1)
        total = points[-1] or np.nan
        # Between two bins the wrong predictions grow as a line. So the sum of wrong(k) / k over the points k of a bin
        # has a closed form, by the harmonic numbers.
        filled = np.flatnonzero(self.counts[0])
        rate = self.counts[1, filled] / self.counts[0, filled]
        harmonic = digamma(points + 1)
        gap = wrong[filled] - rate * points[filled]
        area = (rate * self.counts[0, filled] + gap * (harmonic[filled + 1] - harmonic[filled])).sum()
        coverages = np.arange(10, 4, -1) / 10
        risks = np.interp(coverages * total, points, wrong) / (coverages * total)
        return {
            "area_under_risk_coverage": float(area / total),
            "risk_at_coverage": {f"{100 * c:.0f}%": float(r) for c, r in zip(coverages, risks, strict=True)},
        }


def _check_predictions(confidences: np.ndarray, is_right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The confidences, float64, and which predictions are right, both `(num_points,)`."""
    confidences, is_right = to_array("confidences", confidences), to_array("is_right", is_right)
    check_array("confidences", confidences, ("num_points",), "f")
    check_array("is_right", is_right, (len(confidences),), "b")
    confidences = confidences.astype(np.float64)
    valid = (confidences >= 0) & (confidences <= 1)
    if not valid.all():
        raise ValueError(f"`confidences` must be probabilities from 0 to 1, got {confidences[~valid][0]}.")
    return confidences, is_right


def _doubt_bins(confidences: np.ndarray) -> np.ndarray:
    """The bin of each confidence, 0 for 1: the exponent and the first 7 binary digits of 1 − confidence."""
    doubt = (1 - confidences).astype(np.float32).view(np.int32) >> 16
    smallest = np.array([CONFIDENCE_STEP], dtype=np.float32).view(np.int32)[0] >> 16
    return np.maximum(doubt - smallest + 1, 0)


def _as_ids(name: str, values: np.ndarray | torch.Tensor) -> np.ndarray:
    ids = values.cpu().numpy() if isinstance(values, torch.Tensor) else to_array(name, values)
    check_array(name, ids, ("num_points",), "iu")
    return to_int64(ids)
