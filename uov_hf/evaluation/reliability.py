"""Calibration: whether of the answers given with 80 % confidence, 80 % are right."""

import numpy as np


STEP = 2.0**-24  # of a confidence; float32 has no finer one between 0.5 and 1


class CalibrationBins:
    """Confidence against truth, in bins of equal width, over any number of scans (Guo et al. 2017, arXiv:1706.04599).

    Confidences are added up in whole steps of 2^-24, so that the sums do not depend on the order of the scans, nor on
    how processes share them.

    Args:
        num_bins (`int`, *optional*, defaults to 15): Bins from 0 to 1; each holds its upper end.

    Attributes:
        counts (`np.ndarray` of shape `(3, num_bins)`, int64): Points, right answers, and the sum of the confidences.
    """

    def __init__(self, num_bins: int = 15):
        self.num_bins = num_bins
        self.counts = np.zeros((3, num_bins), dtype=np.int64)

    def update(self, confidences: np.ndarray, is_right: np.ndarray) -> None:
        """Count answers: their confidences `(num_points,)` from 0 to 1, and whether they are right.

        Raises:
            ValueError: where a confidence is none.
        """
        confidences = np.asarray(confidences, dtype=np.float64)
        if not ((confidences >= 0) & (confidences <= 1)).all():
            wrong = confidences[~((confidences >= 0) & (confidences <= 1))][0]
            raise ValueError(f"Confidences must be probabilities from 0 to 1, got {wrong}.")
        bins = np.clip(np.ceil(confidences * self.num_bins).astype(np.int64) - 1, 0, None)
        steps = np.rint(confidences / STEP)
        for row, weights in enumerate((None, np.asarray(is_right, dtype=np.float64), steps)):
            self.counts[row] += np.bincount(bins, weights, minlength=self.num_bins).astype(np.int64)

    def compute(self) -> dict:
        """`expected_calibration_error` (mean of |accuracy − confidence| of the bins, by their points; NaN without any)
        and `bins`: of each bin that has points `confidence`, `accuracy` (means) and `num_points`."""
        num_points, num_right, confidence = self.counts[:, self.counts[0] > 0].astype(np.float64)
        confidence *= STEP
        error = np.abs(num_right - confidence).sum() / num_points.sum() if len(num_points) else np.nan
        rows = zip(confidence / num_points, num_right / num_points, num_points, strict=True)
        return {
            "expected_calibration_error": float(error),
            "bins": [{"confidence": c, "accuracy": a, "num_points": int(n)} for c, a, n in rows],
        }
