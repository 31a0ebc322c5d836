"""What can be said about point labels before anyone trains on them: coverage, agreement, and truth where it exists."""

from collections import deque
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from tqdm import tqdm

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.labels.label_set import LabelSet
from uov_hf.labels.labelling import pair_with_segments
from uov_hf.labels.point_labels import PointLabels
from uov_hf.labels.time_vote import voxel_keys


RANGE_EDGES = (2.0, 10.0, 20.0, 30.0, 40.0)  # metres around the sensor's axis; nearer is the car's own body
RANGE_NAMES = ("2–10 m", "10–20 m", "20–30 m", "30–40 m", "over 40 m")
TIME_VOXEL = 0.2  # metres
NUM_EARLIER_SCANS = 4  # of the same sequence, that a scan is held against
COLUMNS = ["frame_id", "points", "labels", "camera_names", "lidar2cam", "intrinsics", "image_sizes", "lidar2global"]
NUM_CONFIDENCES = 20  # steps of confidence from 0 to 1
NOTHING_SAID = -1


@dataclass
class Share:
    """Hits among trials: in all, by range, and by camera.

    Args:
        by_range (`np.ndarray` of shape `(num_ranges, 2)`): Hits and trials of each range.
        by_camera (`dict[str, np.ndarray]`): Hits and trials `(2,)` of each camera. A point that two cameras see counts
            for both.
    """

    by_range: np.ndarray = field(default_factory=lambda: np.zeros((len(RANGE_NAMES), 2), np.int64))
    by_camera: dict[str, np.ndarray] = field(default_factory=dict)

    def update(self, is_hit: np.ndarray, range_bins: np.ndarray, is_trial: np.ndarray, seen_by: dict) -> None:
        """Count the points where `is_trial`; all arrays are `(num_points,)`, `seen_by` has one for each camera."""
        self.by_range += _count(is_hit, is_trial, range_bins, len(RANGE_NAMES))
        for camera, seen in seen_by.items():
            counts = _count(is_hit, is_trial & seen, range_bins, len(RANGE_NAMES)).sum(axis=0)
            self.by_camera[camera] = self.by_camera.get(camera, 0) + counts

    def compute(self) -> dict[str, Any]:
        """`share` (None without a trial) and `num_trials`, and the shares `by_range` and `by_camera`."""
        hits, trials = self.by_range.sum(axis=0).tolist()
        return {
            "share": _ratio(hits, trials),
            "num_trials": trials,
            "by_range": dict(zip(RANGE_NAMES, (_ratio(*row) for row in self.by_range.tolist()), strict=True)),
            "by_camera": {camera: _ratio(*counts.tolist()) for camera, counts in self.by_camera.items()},
        }


class LabelStatistics:
    """
    Counts over frames; their size does not grow with the number of frames. Points within 2 m are never counted.

    Args:
        label_set (`LabelSet`):
            What the teacher said.
        point_labels (`PointLabels`):
            What was made of it.
        has_truth (`bool`):
            Whether the frames' `labels` are in the label set's classes.

    Attributes:
        coverage_of_all, coverage_of_seen (`Share`):
            Points with a label, among all points and among those that a camera of the label set sees. "Seen" is the
            paper's: a point hidden behind another counts as seen.
        camera_agreement (`Share`):
            A trial is a point and two cameras that have a segment there, not both background; they agree where both
            segments are of one class. This is about the label set, before any vote.
        time_agreement (`Share`):
            A trial is a labelled point and an earlier scan (one of the four before it) that has labels in the same
            voxel of 0.2 m; they agree where the point has the commonest of those.
        accuracy (`Share`):
            Points with the true label, among the seen points that have a true one; no label is an error.
        class_counts (`np.ndarray` of shape `(num_classes,)`):
            Points of each label.
        confusion (`ConfusionMatrix`):
            Of the points of `accuracy`.
        by_confidence (`np.ndarray` of shape `(20, 2)`):
            Hits and labelled points among those of `accuracy`, by the label's confidence in steps of 0.05.
    """

    def __init__(self, label_set: LabelSet, point_labels: PointLabels, has_truth: bool):
        self.label_set = label_set
        self.point_labels = point_labels
        self.has_truth = has_truth
        self.num_frames = 0
        self.num_segments = 0
        self.coverage_of_all, self.coverage_of_seen = Share(), Share()
        self.camera_agreement, self.time_agreement, self.accuracy = Share(), Share(), Share()
        num_classes = len(label_set.class_names)
        self.class_counts = np.zeros(num_classes, np.int64)
        self.confusion = ConfusionMatrix(num_classes, IGNORED)
        self.by_confidence = np.zeros((NUM_CONFIDENCES, 2), np.int64)
        self._earlier: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=NUM_EARLIER_SCANS)

    def start_sequence(self) -> None:
        """Forget the scans of the sequence before."""
        self._earlier.clear()

    def update(self, frame: dict[str, Any]) -> None:
        """Count one frame, the next of its sequence."""
        row = self.point_labels.read(frame["frame_id"], ["labels", "confidence"])
        labels = row["labels"]
        said = self._what_cameras_say(frame)
        range_bins = find_range_bins(frame["points"])
        is_counted, is_labelled = range_bins >= 0, labels != IGNORED
        seen_by = {camera: seen for camera, (seen, _) in said.items()}
        is_seen = np.logical_or.reduce([np.zeros(len(labels), bool), *seen_by.values()])

        self.num_frames += 1
        self.class_counts += np.bincount(labels[is_counted & is_labelled], minlength=len(self.class_counts))
        self.coverage_of_all.update(is_labelled, range_bins, is_counted, {})
        self.coverage_of_seen.update(is_labelled, range_bins, is_counted & is_seen, seen_by)
        self._compare_cameras(said, range_bins)
        self._compare_with_earlier(frame, labels, range_bins, seen_by)
        if self.has_truth and frame["labels"] is not None:
            is_scored = is_counted & is_seen & (frame["labels"] != IGNORED)
            is_hit = labels == frame["labels"]
            self.accuracy.update(is_hit, range_bins, is_scored, seen_by)
            self.confusion.update(labels[is_scored], frame["labels"][is_scored])
            confidences = np.clip(row["confidence"].astype(np.float32) * NUM_CONFIDENCES, 0, NUM_CONFIDENCES - 1)
            self.by_confidence += _count(is_hit, is_scored & is_labelled, confidences.astype(int), NUM_CONFIDENCES)

    def _what_cameras_say(self, frame: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each camera of the label set: which points it sees, and the class of the segment there, -1 = none."""
        row = self.label_set.read(frame["frame_id"], ["segmentation", "segment_labels"])
        pairs = pair_with_segments(frame, row["segmentation"])
        class_of_segment = np.append(NOTHING_SAID, self.label_set.prompt_to_class[row["segment_labels"]])
        self.num_segments += len(np.unique(pairs["pair_segment"][pairs["pair_segment"] > 0]))
        said = {}
        for index, camera in enumerate(frame["camera_names"]):
            if row["segmentation"][index] is not None:
                here = pairs["pair_camera"] == index
                point = pairs["pair_to_point"][here]
                seen, classes = np.zeros(len(frame["points"]), bool), np.full(len(frame["points"]), NOTHING_SAID)
                seen[point] = True
                classes[point] = class_of_segment[pairs["pair_segment"][here]]
                said[camera] = (seen, classes)
        return said

    def _compare_cameras(self, said: dict[str, tuple[np.ndarray, np.ndarray]], range_bins: np.ndarray) -> None:
        for one, other in combinations(said, 2):
            first, second = said[one][1], said[other][1]
            both_speak = (first != NOTHING_SAID) & (second != NOTHING_SAID) & (range_bins >= 0)
            is_trial = both_speak & ~((first == IGNORED) & (second == IGNORED))
            self.camera_agreement.update(first == second, range_bins, is_trial, {one: is_trial, other: is_trial})

    def _compare_with_earlier(self, frame, labels: np.ndarray, range_bins: np.ndarray, seen_by: dict) -> None:
        if frame["lidar2global"] is None:
            return
        keys = voxels_in_the_world(frame["points"], frame["lidar2global"])
        is_usable = (range_bins >= 0) & (labels != IGNORED)
        for earlier_keys, earlier_labels in self._earlier:
            place = np.minimum(np.searchsorted(earlier_keys, keys), len(earlier_keys) - 1)
            is_trial = is_usable & (earlier_keys[place] == keys)
            self.time_agreement.update(earlier_labels[place] == labels, range_bins, is_trial, seen_by)
        if is_usable.any():
            self._earlier.append(commonest_labels(keys[is_usable], labels[is_usable], len(self.class_counts)))

    def compute(self) -> dict[str, Any]:
        """All of it for JSON: shares as in `Share.compute`, a row for each class, None where nothing was counted."""
        counts = self.confusion.counts
        hits = np.diag(counts)
        metrics = self.confusion.compute()
        columns = {
            "name": self.label_set.class_names,
            "num_points": self.class_counts.tolist(),
            "share": [_ratio(count, int(self.class_counts.sum())) for count in self.class_counts.tolist()],
            "precision": map(_ratio, hits.tolist(), counts[:, :-1].sum(axis=0).tolist()),
            "recall": map(_ratio, hits.tolist(), counts.sum(axis=1).tolist()),
            "iou": [None if np.isnan(iou) else iou for iou in metrics["per_category_iou"]],
        }
        return {
            "num_frames": self.num_frames,
            "num_segments": self.num_segments,
            "coverage_of_all": self.coverage_of_all.compute(),
            "coverage_of_seen": self.coverage_of_seen.compute(),
            "camera_agreement": self.camera_agreement.compute(),
            "time_agreement": self.time_agreement.compute(),
            "accuracy": self.accuracy.compute(),
            "precision": _ratio(int(hits.sum()), int(counts[:, :-1].sum())),
            "by_min_confidence": self._withhold() if metrics["num_points"] else None,
            "mean_iou": metrics["mean_iou"] if metrics["num_points"] else None,
            "classes": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        }

    def _withhold(self) -> list[dict[str, float | None]]:
        """What would be left, and how much of it right, if labels of less than some confidence were withheld."""
        kept = self.by_confidence[::-1].cumsum(axis=0)[::-1]  # hits and labels from each confidence on
        num_scored = int(self.confusion.counts.sum())
        return [
            {
                "min_confidence": step / NUM_CONFIDENCES,
                "coverage": _ratio(trials, num_scored),
                "precision": _ratio(hits, trials),
            }
            for step, (hits, trials) in enumerate(kept.tolist())
        ]


def gather_statistics(
    frames, label_set: LabelSet, point_labels: PointLabels, show_progress: bool = False
) -> LabelStatistics:
    """One pass over all frames; nothing but counts and the last scans of a sequence is kept.

    Raises:
        KeyError: the labels do not know a frame.
    """
    has_truth = frames.class_names == label_set.class_names
    statistics = LabelStatistics(label_set, point_labels, has_truth)
    with tqdm(total=len(frames), unit="frame", disable=None if show_progress else True) as bar:
        for sequence in frames.select_columns(COLUMNS).by_sequence():
            statistics.start_sequence()
            for frame in sequence:
                statistics.update(frame)
                bar.update()
    return statistics


def find_range_bins(points: np.ndarray) -> np.ndarray:
    """Place of each point in `RANGE_NAMES`; -1 for one within 2 m of the sensor's axis, or not finite."""
    distances = np.hypot(points[:, 0], points[:, 1])
    bins = np.searchsorted(RANGE_EDGES, distances, side="right") - 1
    return np.where(np.isfinite(distances), bins, -1)


def voxels_in_the_world(points: np.ndarray, lidar2global: np.ndarray) -> np.ndarray:
    """A number for the voxel of each point in the world; points that are not finite are at its origin."""
    world = points[:, :3].astype(np.float64) @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    return voxel_keys(np.nan_to_num(world, posinf=0, neginf=0), TIME_VOXEL)


def commonest_labels(keys: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The voxels that occur, ascending, and the commonest label in each; of equally common ones the lowest."""
    voxels, voxel_of_point = np.unique(keys, return_inverse=True)
    cells = np.bincount(voxel_of_point * num_classes + labels, minlength=len(voxels) * num_classes)
    return voxels, cells.reshape(len(voxels), num_classes).argmax(axis=1)


def _count(is_hit: np.ndarray, is_trial: np.ndarray, bins: np.ndarray, num_bins: int) -> np.ndarray:
    """Hits and trials `(num_bins, 2)`."""
    return np.stack([np.bincount(bins[mask], minlength=num_bins) for mask in (is_hit & is_trial, is_trial)], axis=1)


def _ratio(hits: int, trials: int) -> float | None:
    return hits / trials if trials else None
