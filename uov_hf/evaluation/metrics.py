"""Segmentation metrics from a confusion matrix, as nuScenes-lidarseg defines them, and as the official code does."""

import numpy as np


class ConfusionMatrix:
    """Counts of (label, prediction) over any number of scans; its size does not grow with them.

    Points labelled `ignore_index` are not scored. A scored point whose prediction is `ignore_index` (nobody
    answered for it) is a miss of its class and no false alarm of any other.

    Args:
        num_labels (`int`): Classes are 0 … num_labels − 1.
        ignore_index (`int`, *optional*, defaults to 255): The label of points that do not count.

    Attributes:
        counts (`np.ndarray` of shape `(num_labels, num_labels + 1)`, int64):
            Rows are labels, columns predictions; the last column counts points without an answer.
    """

    def __init__(self, num_labels: int, ignore_index: int = 255):
        if num_labels < 1 or 0 <= ignore_index < num_labels:
            raise ValueError(
                f"`ignore_index` must lie outside the {num_labels} classes 0 … {num_labels - 1}, got {ignore_index}."
            )
        self.num_labels = num_labels
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_labels, num_labels + 1), dtype=np.int64)

    def update(self, predictions, labels) -> None:
        """Count one scan: two integer arrays or tensors of shape `(num_points,)`."""
        predictions, labels = _as_ids(predictions), _as_ids(labels)
        if predictions.shape != labels.shape:
            raise ValueError(
                f"{predictions.size} predictions do not go with {labels.size} labels: give one per point."
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

    def compute(self) -> dict:
        """The metrics of everything counted so far.

        Returns:
            `dict` with `per_category_iou` (list; TP / (TP + FP + FN), NaN where a class has neither labels nor
            predictions), `mean_iou` (mean over the classes that are not NaN), `overall_accuracy`, `fwiou` (IoU
            weighted by how often a class is labelled), `num_points`, and what the official code prints under the same
            names (method 5.1): `official_mean_iou`, for which an absent class counts as 1, and `official_fwiou`,
            which is not weighted: hits / (2 points − hits). Without a scored point all but `num_points` are NaN.
        """
        hits = np.diag(self.counts).astype(np.float64)
        labelled = self.counts.sum(axis=1)
        predicted = self.counts[:, : self.num_labels].sum(axis=0)
        union = labelled + predicted - hits
        iou = np.divide(hits, union, out=np.full(self.num_labels, np.nan), where=union > 0)
        num_points = int(labelled.sum())
        nothing = float("nan")
        return {
            "mean_iou": float(np.nanmean(iou)) if num_points else nothing,
            "per_category_iou": iou.tolist(),
            "overall_accuracy": float(hits.sum() / num_points) if num_points else nothing,
            "fwiou": float(np.nansum(labelled * iou) / num_points) if num_points else nothing,
            "official_mean_iou": float(np.nan_to_num(iou, nan=1.0).mean()) if num_points else nothing,
            "official_fwiou": float(hits.sum() / (2 * num_points - hits.sum())) if num_points else nothing,
            "num_points": num_points,
        }

    def _cells(self, ids: np.ndarray, name: str) -> np.ndarray:
        """Row or column of each id: the ignored id gets the last one, behind the classes."""
        unknown = ids[((ids < 0) | (ids >= self.num_labels)) & (ids != self.ignore_index)]
        if unknown.size:
            raise ValueError(
                f"`{name}` must be 0 … {self.num_labels - 1} or {self.ignore_index} (ignored), got {unknown[0]}."
            )
        return np.where(ids == self.ignore_index, self.num_labels, ids)


def _as_ids(values) -> np.ndarray:
    values = values.cpu().numpy() if hasattr(values, "cpu") else np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"Class ids must be integers, got {values.dtype}.")
    return values.reshape(-1).astype(np.int64)
