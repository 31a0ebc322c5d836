"""Statistics of point labels before training: coverage, agreement and, with a ground truth, accuracy."""

from collections import deque
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple, TypedDict

import numpy as np
from tqdm import tqdm

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.frames import Frame, Frames
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.labels.label_set import LabelSet
from uov_hf.labels.labelling import pair_with_segments
from uov_hf.labels.point_labels import PointLabels
from uov_hf.labels.time_vote import voxel_keys


RANGE_EDGES = (2.0, 10.0, 20.0, 30.0, 40.0)  # metres around the sensor's axis; nearer is the car's own body
RANGE_NAMES = ("2–10 m", "10–20 m", "20–30 m", "30–40 m", "over 40 m")
TIME_VOXEL = 0.2  # metres
NUM_EARLIER_SCANS = 4  # of the same sequence, with which a scan is compared
COLUMNS = ["frame_id", "points", "labels", "camera_names", "lidar2cam", "intrinsics", "image_sizes", "lidar2global"]
NUM_CONFIDENCES = 20  # steps of confidence from 0 to 1
NO_SEGMENT = -1


class ShareNumbers(TypedDict):
    """A share, and the same by range and by camera; None without a trial."""

    share: float | None
    num_trials: int
    by_range: dict[str, float | None]
    by_camera: dict[str, float | None]


class ClassNumbers(TypedDict):
    """The labels of one class; precision, recall and IoU are None without a ground truth."""

    name: str
    num_points: int
    share: float | None
    precision: float | None
    recall: float | None
    iou: float | None


class AbstentionNumbers(TypedDict):
    """Coverage and precision of the labels that have at least some confidence."""

    min_confidence: float
    coverage: float | None
    precision: float | None


class LabelNumbers(TypedDict):
    """The numbers of a label card, as card.json contains them; the last five need a ground truth.

    Args:
        num_frames, num_segments (`int`): Frames, and segments that points fall on.
        coverage_of_all, coverage_of_seen, camera_agreement, time_agreement, accuracy (`ShareNumbers`): See
            [`LabelStatistics`].
        classes (`list[ClassNumbers]`): In the order of their ids.
        precision (`float`, *optional*): Share of right labels among the labels of scored points.
        by_min_confidence (`list[AbstentionNumbers]`, *optional*): Effect of a `min_confidence`.
        mean_iou (`float`, *optional*): On scored points, over the classes with truth.
        num_classes (`int`): The classes with truth; a class without truth is in no mean.
    """

    num_frames: int
    num_segments: int
    coverage_of_all: ShareNumbers
    coverage_of_seen: ShareNumbers
    camera_agreement: ShareNumbers
    time_agreement: ShareNumbers
    accuracy: ShareNumbers
    precision: float | None
    by_min_confidence: list[AbstentionNumbers] | None
    mean_iou: float | None
    num_classes: int
    classes: list[ClassNumbers]


class CameraView(NamedTuple):
    """The points that a camera sees.

    Args:
        seen (`np.ndarray` of shape `(num_points,)`): bool.
        classes (`np.ndarray` of shape `(num_points,)`): Class of the segment at each point; -1 for no segment.
    """

    seen: np.ndarray
    classes: np.ndarray


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

    def update(
        self, is_hit: np.ndarray, range_bins: np.ndarray, is_trial: np.ndarray, seen_by: dict[str, np.ndarray]
    ) -> None:
        """Count the points where `is_trial`; all arrays are `(num_points,)`, `seen_by` has one for each camera."""
        self.by_range += _count(is_hit, is_trial, range_bins, len(RANGE_NAMES))
        for camera, seen in seen_by.items():
            counts = _count(is_hit, is_trial & seen, range_bins, len(RANGE_NAMES)).sum(axis=0)
            self.by_camera[camera] = self.by_camera.get(camera, np.zeros(2, np.int64)) + counts

    def compute(self) -> ShareNumbers:
        """The shares of everything counted so far."""
        hits, trials = self.by_range.sum(axis=0).tolist()
        return {
            "share": _ratio(hits, trials),
            "num_trials": trials,
            "by_range": dict(zip(RANGE_NAMES, (_ratio(*row) for row in self.by_range.tolist()), strict=True)),
            "by_camera": {camera: _ratio(*counts.tolist()) for camera, counts in self.by_camera.items()},
        }


class LabelStatistics:
    """Counts over frames; their size does not grow with the number of frames. Points within 2 m are never counted.

    Args:
        label_set (`LabelSet`): The segments of the teacher.
        point_labels (`PointLabels`): The point labels made from them.
        has_truth (`bool`): Whether the frames' `labels` are in the label set's classes.

    Attributes:
        coverage_of_all, coverage_of_seen (`Share`):
            Points with a label, among all points and among those that a camera of the label set sees. As in the
            paper, a point hidden behind another counts as seen.
        camera_agreement (`Share`):
            A trial is a point at which two cameras have a segment, not both background; they agree if both segments
            have the same class. This depends on the label set only, not on the votes.
        time_agreement (`Share`):
            A trial is a labelled point and one of the four scans before it, if that scan has labels in the same voxel
            of 0.2 m; they agree if the point has the most frequent of those labels.
        accuracy (`Share`):
            Points with the right label, among the seen points that have a true label; no label is an error.
        class_counts (`np.ndarray` of shape `(num_classes,)`): Points of each label.
        confusion (`ConfusionMatrix`): Of the points of `accuracy`.
        by_confidence (`np.ndarray` of shape `(20, 2)`):
            Hits and labelled points among those of `accuracy`, by the label's confidence in steps of 0.05.
    """

    def __init__(self, label_set: LabelSet, point_labels: PointLabels, has_truth: bool):
        self.label_set, self.point_labels, self.has_truth = label_set, point_labels, has_truth
        self.num_frames = self.num_segments = 0
        self.coverage_of_all, self.coverage_of_seen = Share(), Share()
        self.camera_agreement, self.time_agreement, self.accuracy = Share(), Share(), Share()
        num_classes = len(label_set.class_names)
        self.class_counts = np.zeros(num_classes, np.int64)
        self.confusion = ConfusionMatrix(num_classes, IGNORED)
        self.by_confidence = np.zeros((NUM_CONFIDENCES, 2), np.int64)
        self._earlier: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=NUM_EARLIER_SCANS)

    def start_sequence(self) -> None:
        """Discard the scans of the previous sequence."""
        self._earlier.clear()

    def update(self, frame: Frame) -> None:
        """Count one frame, the next of its sequence."""
        row = self.point_labels.read(frame["frame_id"], ["labels", "confidence"])
        labels = row["labels"]
        camera_views = self._view_cameras(frame)
        range_bins = find_range_bins(frame["points"])
        is_counted, is_labelled = range_bins >= 0, labels != IGNORED
        seen_by = {camera: view.seen for camera, view in camera_views.items()}
        is_seen = np.logical_or.reduce([np.zeros(len(labels), bool), *seen_by.values()])

        self.num_frames += 1
        self.class_counts += np.bincount(labels[is_counted & is_labelled], minlength=len(self.class_counts))
        self.coverage_of_all.update(is_labelled, range_bins, is_counted, {})
        self.coverage_of_seen.update(is_labelled, range_bins, is_counted & is_seen, seen_by)
        self._compare_cameras(camera_views, range_bins)
        self._compare_with_earlier(frame, labels, range_bins, seen_by)
        if self.has_truth and frame["labels"] is not None:
            is_scored = is_counted & is_seen & (frame["labels"] != IGNORED)
            is_hit = labels == frame["labels"]
            self.accuracy.update(is_hit, range_bins, is_scored, seen_by)
            self.confusion.update(labels[is_scored], frame["labels"][is_scored])
            confidences = np.clip(row["confidence"].astype(np.float32) * NUM_CONFIDENCES, 0, NUM_CONFIDENCES - 1)
            self.by_confidence += _count(is_hit, is_scored & is_labelled, confidences.astype(int), NUM_CONFIDENCES)

    def _view_cameras(self, frame: Frame) -> dict[str, CameraView]:
        """The points and segments that each camera of the label set sees."""
        row = self.label_set.read(frame["frame_id"], ["segmentation", "segment_labels"])
        pairs = pair_with_segments(frame, row)
        class_of_segment = np.append(NO_SEGMENT, self.label_set.prompt_to_class[row["segment_labels"]])
        self.num_segments += len(np.unique(pairs["pair_segment"][pairs["pair_segment"] > 0]))
        camera_views = {}
        for index, camera in enumerate(frame["camera_names"]):
            if row["segmentation"][index] is not None:
                here = pairs["pair_camera"] == index
                point = pairs["pair_to_point"][here]
                seen, classes = np.zeros(len(frame["points"]), bool), np.full(len(frame["points"]), NO_SEGMENT)
                seen[point] = True
                classes[point] = class_of_segment[pairs["pair_segment"][here]]
                camera_views[camera] = CameraView(seen, classes)
        return camera_views

    def _compare_cameras(self, camera_views: dict[str, CameraView], range_bins: np.ndarray) -> None:
        for one, other in combinations(camera_views, 2):
            first, second = camera_views[one].classes, camera_views[other].classes
            both_have_segments = (first != NO_SEGMENT) & (second != NO_SEGMENT) & (range_bins >= 0)
            is_trial = both_have_segments & ~((first == IGNORED) & (second == IGNORED))
            self.camera_agreement.update(first == second, range_bins, is_trial, {one: is_trial, other: is_trial})

    def _compare_with_earlier(
        self, frame: Frame, labels: np.ndarray, range_bins: np.ndarray, seen_by: dict[str, np.ndarray]
    ) -> None:
        if frame["lidar2global"] is None:
            return
        keys = global_voxels(frame["points"], frame["lidar2global"])
        is_usable = (range_bins >= 0) & (labels != IGNORED)
        for earlier_keys, earlier_labels in self._earlier:
            place = np.minimum(np.searchsorted(earlier_keys, keys), len(earlier_keys) - 1)
            is_trial = is_usable & (earlier_keys[place] == keys)
            self.time_agreement.update(earlier_labels[place] == labels, range_bins, is_trial, seen_by)
        if is_usable.any():
            self._earlier.append(most_frequent_labels(keys[is_usable], labels[is_usable], len(self.class_counts)))

    def compute(self) -> LabelNumbers:
        """The numbers of everything counted so far."""
        counts = self.confusion.counts
        hits, predicted, labelled = np.diag(counts), counts[:, :-1].sum(axis=0), counts.sum(axis=1)
        metrics = self.confusion.compute()
        classes: list[ClassNumbers] = [
            {
                "name": name,
                "num_points": int(self.class_counts[row]),
                "share": _ratio(int(self.class_counts[row]), int(self.class_counts.sum())),
                "precision": _ratio(int(hits[row]), int(predicted[row])),
                "recall": _ratio(int(hits[row]), int(labelled[row])),
                "iou": None if np.isnan(metrics["per_category_iou"][row]) else metrics["per_category_iou"][row],
            }
            for row, name in enumerate(self.label_set.class_names)
        ]
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
            "num_classes": metrics["num_classes"],
            "classes": classes,
        }

    def _withhold(self) -> list[AbstentionNumbers]:
        """Coverage and precision if labels with less confidence than a threshold were dropped."""
        kept = self.by_confidence[::-1].cumsum(axis=0)[::-1]  # hits and labels from each confidence on
        num_scored = int(self.confusion.counts.sum())
        rows = [(step / NUM_CONFIDENCES, hits, trials) for step, (hits, trials) in enumerate(kept.tolist())]
        return [
            {"min_confidence": least, "coverage": _ratio(trials, num_scored), "precision": _ratio(hits, trials)}
            for least, hits, trials in rows
        ]


def gather_statistics(
    frames: Frames, label_set: LabelSet, point_labels: PointLabels, show_progress: bool = False
) -> LabelStatistics:
    """Count all frames in one pass, which keeps only counts and the last scans of a sequence.

    Raises:
        KeyError: If a frame has no labels.
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
    """Index of each point in `RANGE_NAMES`; -1 for a point within 2 m of the sensor's axis, or not finite."""
    distances = np.hypot(points[:, 0], points[:, 1])
    bins = np.searchsorted(RANGE_EDGES, distances, side="right") - 1
    return np.where(np.isfinite(distances), bins, -1)


def global_voxels(points: np.ndarray, lidar2global: np.ndarray) -> np.ndarray:
    """The key of each point's voxel in the global frame; points that are not finite are at its origin."""
    world = points[:, :3].astype(np.float64) @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    return voxel_keys(np.nan_to_num(world, posinf=0, neginf=0), TIME_VOXEL)


def most_frequent_labels(keys: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The voxels that occur, ascending, and the most frequent label in each (the lowest of equally frequent ones)."""
    voxels, voxel_of_point = np.unique(keys, return_inverse=True)
    cells = np.bincount(voxel_of_point * num_classes + labels, minlength=len(voxels) * num_classes)
    return voxels, cells.reshape(len(voxels), num_classes).argmax(axis=1)


def _count(is_hit: np.ndarray, is_trial: np.ndarray, bins: np.ndarray, num_bins: int) -> np.ndarray:
    """Hits and trials `(num_bins, 2)`."""
    return np.stack([np.bincount(bins[mask], minlength=num_bins) for mask in (is_hit & is_trial, is_trial)], axis=1)


def _ratio(hits: int, trials: int) -> float | None:
    return hits / trials if trials else None
