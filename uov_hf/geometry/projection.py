"""Projects lidar points into camera images, finds the visible ones, and pairs points with pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from uov_hf.array_checks import check_array, to_numbers, to_xyz
from uov_hf.geometry.occlusion import OcclusionConfig, find_hidden, length
from uov_hf.geometry.rotation import is_rigid


Points = TypeVar("Points", torch.Tensor, np.ndarray)  # a tensor gives tensors on its device, an array gives arrays


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated pinhole camera, relative to the lidar frame at the lidar's timestamp.

    Args:
        lidar2cam (`np.ndarray` of shape `(4, 4)`):
            Rigid motion from the lidar frame to the camera frame (x right, y down, z forward), metres. It includes the
            motion of the vehicle between the two exposures.
        intrinsics (`np.ndarray` of shape `(3, 3)`): Pixels per unit of x / z and y / z, last row (0, 0, 1).
        image_size (`tuple[int, int]`): Height and width in pixels.

    Raises:
        ValueError: A shape is wrong, `lidar2cam` is no rigid motion, or `image_size` is no size.
    """

    lidar2cam: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]

    def __post_init__(self):
        set_field = object.__setattr__  # the dataclass is frozen
        set_field(self, "lidar2cam", _matrix("lidar2cam", self.lidar2cam, 4))
        set_field(self, "intrinsics", _matrix("intrinsics", self.intrinsics, 3))
        set_field(self, "image_size", _image_size(self.image_size))
        if not is_rigid(self.lidar2cam):
            raise ValueError(
                "`lidar2cam` must rotate and translate only, with the last row (0, 0, 0, 1), got "
                f"{self.lidar2cam.tolist()}."
            )
        if np.abs(self.intrinsics[2] - [0, 0, 1]).max() > 1e-8:
            raise ValueError(f"The last row of `intrinsics` must be (0, 0, 1), got {self.intrinsics[2].tolist()}.")

    def __reduce__(self) -> tuple[type["Camera"], tuple[object, ...]]:
        # Arrays come back from a pickle writable; the constructor makes them read-only again.
        return type(self), (self.lidar2cam, self.intrinsics, self.image_size)


@dataclass(frozen=True, eq=False)
class PointToPixel:
    """Pairs of a point and its pixel; a point in view of k cameras has k pairs.

    Args:
        point_index (`np.ndarray` of shape `(num_pairs,)`): int64, row in the cloud.
        camera_index (`np.ndarray` of shape `(num_pairs,)`): int64, index in the list of cameras.
        pixel_coords (`np.ndarray` of shape `(num_pairs, 2)`): float64, column and row.
    """

    point_index: NDArray[np.int64]
    camera_index: NDArray[np.int64]
    pixel_coords: NDArray[np.float64]


def project_points(points: Points, camera: Camera, min_depth: float = 1.0) -> tuple[Points, Points]:
    """Pixel (column, row) of every point, and which points the camera sees (docs/explanation/method.md, section 1.4).

    `in_view` is the paper's: depth > `min_depth`, 0 < column < width − 1, 0 < row < height − 1. There is no occlusion
    test; [`visible_points`] has one. The arithmetic is float64 for any input.

    Args:
        points (`np.ndarray` or `torch.Tensor` of shape `(num_points, >=3)`):
            Metres, in the lidar frame; columns after the third are not used. A list of points is converted.
        camera (`Camera`): The camera to project into.
        min_depth (`float`, *optional*, defaults to 1.0):
            Metres in front of the camera; nearer points are the vehicle's own body.

    Returns:
        `pixel_coords` of shape `(num_points, 2)`, float64 (NaN where a point is not deeper than `min_depth`, or not
        finite), and `in_view` of shape `(num_points,)`, bool; torch (same device) for torch, else numpy.

    Raises:
        ValueError: `points` are no numbers of this shape, or `min_depth` is negative or not finite.
    """
    xyz = to_xyz(points)
    ahead, on_image, seen = _look(xyz, camera, min_depth)
    pixel_coords = on_image.new_full((len(xyz), 2), torch.nan).index_copy(0, ahead, on_image)
    in_view = seen.new_zeros(len(xyz)).index_copy(0, ahead, seen)
    return (pixel_coords, in_view) if isinstance(points, torch.Tensor) else (pixel_coords.numpy(), in_view.numpy())


def visible_points(points: Points, camera: Camera, occlusion: OcclusionConfig, min_depth: float = 1.0) -> Points:
    """Which points are in view and not hidden behind others.

    Args:
        points (`np.ndarray` or `torch.Tensor` of shape `(num_points, >=3)`):
            Metres, in the lidar frame. Pass the whole scan: any of its points may hide others.
        camera (`Camera`), min_depth (`float`, *optional*, defaults to 1.0):
            As for [`project_points`]; points that are not deeper hide nothing.
        occlusion (`OcclusionConfig`): When a point counts as hidden.

    Returns:
        bool of shape `(num_points,)`, a subset of `in_view` of [`project_points`]; torch (same device) for torch, else
        numpy. It does not depend on the order of the points.

    Raises:
        ValueError: As for [`project_points`].
    """
    xyz = to_xyz(points)
    ahead, _, seen = _look(xyz, camera, min_depth, occlusion)
    visible = seen.new_zeros(len(xyz)).index_copy(0, ahead, seen)
    return visible if isinstance(points, torch.Tensor) else visible.numpy()


def pair_points_with_pixels(
    points: np.ndarray, cameras: Sequence[Camera], min_depth: float = 1.0, occlusion: OcclusionConfig | None = None
) -> PointToPixel:
    """Every pair of a point and a camera that sees it, camera by camera, points in file order within a camera.

    The paper has no occlusion test: it pairs points behind a car with the car's pixels. This is the result without
    `occlusion`; with it (`OcclusionConfig()`), hidden points have no pairs.

    Raises:
        ValueError: As for [`project_points`].
    """
    xyz = to_xyz(points).double()
    pairs = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)))]
    for camera_index, camera in enumerate(cameras):
        ahead, on_image, seen = (found.numpy() for found in _look(xyz, camera, min_depth, occlusion))
        point_index = ahead[seen]
        pairs.append((point_index, np.full(len(point_index), camera_index), on_image[seen]))
    return PointToPixel(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))


def round_to_pixels(pixel_coords: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns (int64) of the nearest pixels, halves to even as in the paper; they index an image directly.

    Example: `segmentation[round_to_pixels(pairs.pixel_coords)]` is the segment under every pair.

    Raises:
        ValueError: `pixel_coords` `(num_pairs, 2)` are not finite, as those of points that are not in view, or not
            between −2^62 and 2^62.
    """
    check_array("pixel_coords", pixel_coords, ("num_pairs", 2))
    if not (np.abs(pixel_coords) < 2**62).all():  # false for NaN, which would become some number
        raise ValueError(
            f"`pixel_coords` must be finite, got {np.sum(~np.isfinite(pixel_coords).all(axis=1))} of "
            f"{len(pixel_coords)} pairs that are not, or too large numbers. Pass those in view."
        )
    column, row = np.rint(pixel_coords).astype(np.int64).T
    return row, column


def _look(
    points: torch.Tensor, camera: Camera, min_depth: float, occlusion: OcclusionConfig | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of the points `(num_points, 3)` before the camera `(M,)`, pixels `(M, 2)`, whether it sees them `(M,)`."""
    if not 0 <= min_depth < math.inf:  # points behind a camera would be mirrored into its image
        raise ValueError(f"`min_depth` must be a finite number of metres from 0, got {min_depth}.")
    lidar2cam = torch.tensor(camera.lidar2cam, device=points.device)
    intrinsics = torch.tensor(camera.intrinsics, device=points.device)
    height, width = camera.image_size
    rotation, translation = lidar2cam[:3, :3], lidar2cam[:3, 3:]
    xyz = points.double()
    depth = xyz @ rotation[2] + translation[2]  # not finite where a coordinate is not
    ahead = torch.nonzero((depth > min_depth) & (depth < torch.inf))[:, 0]
    xyz = xyz[ahead].T.contiguous()  # (3, M)
    in_camera = rotation @ xyz + translation
    column, row, _ = intrinsics @ (in_camera / in_camera[2])
    seen = (0 < column) & (column < width - 1) & (0 < row) & (row < height - 1)
    if occlusion is not None:
        seen &= ~find_hidden(in_camera.T, length(xyz.T), seen, occlusion)
    return ahead, torch.stack([column, row], dim=1), seen


def _image_size(sides: Any) -> tuple[int, int]:
    """Two whole numbers from any sequence, array or tensor."""
    numbers = to_numbers("image_size", sides)
    if numbers.shape != (2,) or not ((numbers >= 1) & (numbers % 1 == 0)).all():
        raise ValueError(f"`image_size` must be (height, width), two positive whole numbers of pixels, got {sides}.")
    height, width = numbers.tolist()
    return int(height), int(width)


def _matrix(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    matrix = to_numbers(name, values).astype(np.float64)  # a copy, so that later changes by the caller have no effect
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise ValueError(
            f"`{name}` must be {size} x {size} finite numbers, got shape {matrix.shape}: {matrix.tolist()}."
        )
    matrix.setflags(write=False)
    return matrix
