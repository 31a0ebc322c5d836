"""Segmentation, scored: on all points of a scan, and apart on those that a camera saw and those none did."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.geometry.projection import Camera, pair_points_with_pixels
from uov_hf.training.augmentation import rotated


COLUMNS = ["frame_id", "points", "intensity_max", "labels", "instances", "lidar2cam", "intrinsics", "image_sizes"]
Matrices = dict[str, ConfusionMatrix]


@dataclass(frozen=True)
class LabelledScan:
    """A scan to segment, and what its answer is held against.

    Args:
        frame_id (`str`): Which frame it is of.
        points (`np.ndarray` of shape `(num_points, 4)`): x, y, z in metres, raw intensity.
        voxels (`dict[str, torch.Tensor]`): `voxel_coords`, `voxel_features`, `point_to_voxel` of the points.
        labels (`np.ndarray` of shape `(num_points,)`): The truth; 255 where it is not scored.
        regions (`dict[str, np.ndarray]`): Masks `(num_points,)`: `all_points`, and where it is known which points a
            camera saw, `seen_points` and `unseen_points`.
        teacher_labels (`np.ndarray` of shape `(num_points,)`, *optional*): The point labels; 255 = none.
        instances (`np.ndarray` of shape `(num_points,)`, *optional*): True instances, where there are any.
        further_views (`tuple`): The voxels of the same points turned and mirrored, for test-time augmentation.
    """

    frame_id: str
    points: np.ndarray
    voxels: dict[str, torch.Tensor]
    labels: np.ndarray
    regions: dict[str, np.ndarray]
    teacher_labels: np.ndarray | None = None
    instances: np.ndarray | None = None
    further_views: tuple[dict[str, torch.Tensor], ...] = ()


class LabelledScans(Dataset):
    """The annotated scans of a split, read one at a time; no image is opened.

    A camera saw the points that the label set pairs with its pixels; without point labels, those that the calibration
    puts into an image, and where there are no cameras nobody knows.

    Args:
        frames (`Frames`): The split.
        feature_extractor (`UOVFeatureExtractor`): Points to voxels, as the model was trained.
        point_labels (`PointLabels`, *optional*): What a teacher said about these frames, and which points it saw.
        min_range (`float`, *optional*, defaults to 0.0): Points nearer to the sensor's axis than this are not scored:
            metres; within 2 m nearly all are the car's own body.
        num_views (`int`, *optional*, defaults to 1): How often each scan is looked at, turned and mirrored.
        needs_truth (`bool`, *optional*, defaults to `True`): Without, a frame that is not annotated is segmented, and
            no point of it scored.

    Raises:
        ValueError: if there is no view; on access, where a frame has no ground truth and needs one.
    """

    def __init__(
        self,
        frames,
        feature_extractor,
        point_labels=None,
        min_range: float = 0.0,
        num_views: int = 1,
        needs_truth: bool = True,
    ):
        if num_views < 1:
            raise ValueError(f"`num_views` must be 1 (the scan alone) or more, got {num_views}.")
        self.frames = frames.select_columns(COLUMNS)
        self.feature_extractor = feature_extractor
        self.point_labels = point_labels
        self.min_range = min_range
        self.num_views = num_views
        self.needs_truth = needs_truth

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledScan:
        frame = self.frames[index]
        frame_id, points = frame["frame_id"], frame["points"]
        voxels = [
            dict(self.feature_extractor(seen, intensity_max=frame["intensity_max"], return_tensors="pt"))
            for seen in views(points, self.num_views, self.feature_extractor.voxel_size[1])
        ]
        if self.point_labels is None:
            seen, teacher_labels = _seen_by_calibration(frame), None
        else:
            said = self.point_labels.read(frame_id, ["pair_to_point", "labels"])
            seen, teacher_labels = _mask(len(points), said["pair_to_point"]), said["labels"]
        regions = {"all_points": np.ones(len(points), dtype=bool)}
        if seen is not None:
            regions |= {"seen_points": seen, "unseen_points": ~seen}
        return LabelledScan(
            frame_id,
            points,
            voxels[0],
            self._truth(frame),
            regions,
            teacher_labels,
            frame["instances"],
            (*voxels[1:],),
        )

    def _truth(self, frame: dict[str, Any]) -> np.ndarray:
        """The labels `(num_points,)` that count."""
        points, labels = frame["points"], frame["labels"]
        if labels is None and self.needs_truth:
            raise ValueError(
                f"Frame {frame['frame_id']} has no ground truth to score against. Take an annotated split; of "
                "nuScenes, unpack nuScenes-lidarseg into --data_dir."
            )
        if labels is None:
            return np.full(len(points), IGNORED, dtype=np.uint8)
        near = np.hypot(points[:, 0], points[:, 1]) < self.min_range
        return np.where(near, IGNORED, labels)


def views(points: np.ndarray, num_views: int, azimuth_cell: float) -> list[np.ndarray]:
    """The points `(num_points, 4)`, and then again, each time turned further about z and every other time mirrored.

    Args:
        azimuth_cell (`float`): Width of a cylindrical voxel in radians. For a Cartesian grid any number will do: there
            a turn only has to differ from a right angle.
    """
    seen = [points]
    for view in range(1, num_views):
        # A turn by whole cells, mirrored or not, moves the voxels and leaves the same points in each. So every view
        # is turned by another fraction of a cell on top, and its borders cut the scan in other places.
        cells = round(2 * math.pi * view / (num_views * azimuth_cell)) + view / num_views
        turned = points.copy()
        turned[:, :2] = rotated(points[:, :2], cells * azimuth_cell)
        turned[:, 1] *= (-1) ** view
        seen.append(turned)
    return seen


def _seen_by_calibration(frame: dict[str, Any]) -> np.ndarray | None:
    """Which points `(num_points,)` fall into an image, as the paper pairs them; None where there are no cameras."""
    cameras = [*map(Camera, frame["lidar2cam"], frame["intrinsics"], frame["image_sizes"])]
    return (
        _mask(len(frame["points"]), pair_points_with_pixels(frame["points"], cameras).point_index) if cameras else None
    )


def _mask(num_points: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(num_points, dtype=bool)
    mask[rows] = True
    return mask


def new_matrices(num_labels: int, with_teacher: bool = False) -> Matrices:
    """Empty matrices for all regions that scans may have, and for the teacher where it spoke about these."""
    regions = ["all_points", "seen_points", "unseen_points", *(["teacher_seen_points"] if with_teacher else [])]
    return {region: ConfusionMatrix(num_labels, IGNORED) for region in regions}


def count(matrices: Matrices, predictions: np.ndarray, scan: LabelledScan) -> None:
    """Hold predictions `(num_points,)` for one scan, and the teacher's where it has a matrix, against the labels."""
    for region, inside in scan.regions.items():
        matrices[region].update(predictions[inside], scan.labels[inside])
    if "teacher_seen_points" in matrices:
        seen = scan.regions["seen_points"]
        matrices["teacher_seen_points"].update(scan.teacher_labels[seen], scan.labels[seen])


def score_segmenter(
    segmenter: Callable[[LabelledScan], np.ndarray], scans: Iterable[LabelledScan], num_labels: int
) -> Matrices:
    """The answers `(num_points,)` of a segmenter held against the truth of scans, by region."""
    matrices = new_matrices(num_labels)
    for scan in scans:
        count(matrices, segmenter(scan), scan)
    return matrices


def check_classes(model_classes: dict[int, str], class_names: list[str]) -> None:
    """Raise where the model's classes are not those the ground truth is written in, in the same order."""
    names = [model_classes[index] for index in range(len(model_classes))]
    if names != list(class_names):
        raise ValueError(
            f"The model answers with the classes {names or 'none'}, the ground truth has {list(class_names)}. "
            "Evaluate on a dataset of the model's taxonomy, or bake these classes with `set_classes`."
        )
