"""The annotated scans of a split, as they are evaluated."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.frames import Frame, Frames
from uov_hf.feature_extraction_uov import UOVFeatureExtractor
from uov_hf.geometry.projection import Camera, pair_points_with_pixels
from uov_hf.labels.point_labels import PointLabels
from uov_hf.views import views


COLUMNS = ["frame_id", "points", "intensity_max", "labels", "instances", "lidar2cam", "intrinsics", "image_sizes"]


@dataclass(frozen=True)
class LabelledScan:
    """A scan to segment, with its true labels.

    Args:
        frame_id (`str`): Of its frame.
        points (`np.ndarray` of shape `(num_points, 4)`): x, y, z in metres, raw intensity.
        voxels (`dict[str, torch.Tensor]`): `voxel_coords`, `voxel_features`, `point_to_voxel` of the points.
        labels (`np.ndarray` of shape `(num_points,)`): The truth; 255 where it is not scored.
        regions (`dict[str, np.ndarray]`): Masks `(num_points,)`: `all_points`, and `seen_points` and `unseen_points`
            or, without a camera, `no_camera_points`. The masks after the first are disjoint and add up to it.
        teacher_labels (`np.ndarray` of shape `(num_points,)`, *optional*): The point labels; 255 = none.
        instances (`np.ndarray` of shape `(num_points,)`, *optional*): True instances, if the dataset has any.
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


# A scan without voxels, and the full scale of its intensities -> the scan that is evaluated instead.
Change = Callable[[LabelledScan, float], LabelledScan]


class LabelledScans(Dataset):
    """The annotated scans of a split, read one at a time; no image is opened.

    Points are seen if the label set pairs them with pixels. Without point labels, points are seen if they project into
    an image. A scan has no camera if the dataset has none for it or, with point labels, if no point has a pixel.

    Args:
        frames (`Frames`): The split.
        feature_extractor (`UOVFeatureExtractor`): Points to voxels, as in the training of the model.
        point_labels (`PointLabels`, *optional*): The teacher's labels of these frames.
        min_range (`float`, *optional*, defaults to 0.0):
            Metres. Points nearer to the sensor's axis are not scored; within 2 m nearly all are the car's own body.
        num_views (`int`, *optional*, defaults to 1):
            Number of views of each scan; those after the first are turned and mirrored.
        needs_truth (`bool`, *optional*, defaults to `True`):
            Whether a frame without labels is an error. Otherwise it is segmented, and none of its points is scored.
        cameras (`Sequence[Camera]`, *optional*):
            For scans without a camera, such as those whose images are not at hand: points in their view are seen. They
            do not count with point labels.

    Raises:
        ValueError: If `num_views` is below 1; on access, if a frame has no labels and needs them.
    """

    def __init__(
        self,
        frames: Frames,
        feature_extractor: UOVFeatureExtractor,
        point_labels: PointLabels | None = None,
        min_range: float = 0.0,
        num_views: int = 1,
        needs_truth: bool = True,
        cameras: Sequence[Camera] = (),
    ):
        if num_views < 1:
            raise ValueError(f"`num_views` must be 1 (the scan alone) or more, got {num_views}.")
        self.frames = frames.select_columns(COLUMNS)
        self.feature_extractor, self.point_labels = feature_extractor, point_labels
        self.min_range, self.num_views, self.needs_truth, self.cameras = min_range, num_views, needs_truth, cameras
        self.change: Change | None = None

    def changed(self, change: Change) -> "LabelledScans":
        """The same scans after a change, such as a [`~uov_hf.evaluation.corruptions.Corruption`].

        Regions, truth and labels of the teacher are those of the scan before the change.
        """
        scans = copy.copy(self)
        scans.change = change
        return scans

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledScan:
        frame = self.frames[index]
        scan = self._without_voxels(frame)
        try:
            if self.change is not None:
                scan = self.change(scan, frame["intensity_max"])
            first, *others = [
                dict(self.feature_extractor(view, intensity_max=frame["intensity_max"], return_tensors="pt"))
                for view in views(scan.points, self.num_views, self.feature_extractor.voxel_size[1])
            ]
        except ValueError as error:
            raise ValueError(f"Frame {scan.frame_id}: {error}") from error
        return replace(scan, voxels=first, further_views=tuple(others))

    def _without_voxels(self, frame: Frame) -> LabelledScan:
        frame_id, points = frame["frame_id"], frame["points"]
        if self.point_labels is None:
            seen, teacher_labels = _in_view(points, _cameras_of(frame) or self.cameras), None
        else:
            row = self.point_labels.read(frame_id, ["pair_to_point", "labels"])
            pairs, teacher_labels = row["pair_to_point"], row["labels"]
            seen = _mask(len(points), pairs) if len(pairs) else None
        everywhere = np.ones(len(points), dtype=bool)
        parts = {"no_camera_points": everywhere} if seen is None else {"seen_points": seen, "unseen_points": ~seen}
        regions = {"all_points": everywhere, **parts}
        return LabelledScan(frame_id, points, {}, self._truth(frame), regions, teacher_labels, frame["instances"])

    def _truth(self, frame: Frame) -> np.ndarray:
        """The true labels `(num_points,)`; 255 where they are not scored."""
        points, labels = frame["points"], frame["labels"]
        if labels is None and self.needs_truth:
            raise ValueError(
                f"Frame {frame['frame_id']} has no labels to score against. Use an annotated split; for nuScenes, "
                "unpack nuScenes-lidarseg into --data_dir."
            )
        if labels is None:
            return np.full(len(points), IGNORED, dtype=np.uint8)
        near = np.hypot(points[:, 0], points[:, 1]) < self.min_range
        return np.where(near, IGNORED, labels)


def _cameras_of(frame: Frame) -> list[Camera]:
    return [*map(Camera, frame["lidar2cam"], frame["intrinsics"], frame["image_sizes"])]


def _in_view(points: np.ndarray, cameras: Sequence[Camera]) -> np.ndarray | None:
    """Mask `(num_points,)` of the points that project into an image, by the paper's rule; None without cameras."""
    return _mask(len(points), pair_points_with_pixels(points, cameras).point_index) if cameras else None


def _mask(num_points: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(num_points, dtype=bool)
    mask[rows] = True
    return mask
