"""Where a lidar point falls in a camera image, whether the camera sees it there, and the pairs of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import max_pool2d


@dataclass(frozen=True, eq=False)
class Camera:
    """
    A calibrated pinhole camera, seen from the lidar frame at the lidar's timestamp.

    Args:
        lidar2cam (`np.ndarray` of shape `(4, 4)`):
            Rigid motion from the lidar frame to the camera frame (x right, y down, z forward), metres. The motion of
            the vehicle between the two exposures is part of it.
        intrinsics (`np.ndarray` of shape `(3, 3)`):
            Pixels per unit of x / z and y / z, last row (0, 0, 1).
        image_size (`tuple[int, int]`):
            Height and width in pixels.

    Raises:
        ValueError: where a shape is wrong, `lidar2cam` is no rigid motion, or `image_size` is no size.
    """

    lidar2cam: np.ndarray
    intrinsics: np.ndarray
    image_size: tuple[int, int]

    def __post_init__(self):
        set_field = object.__setattr__  # the dataclass is frozen
        set_field(self, "lidar2cam", _matrix("lidar2cam", self.lidar2cam, 4))
        set_field(self, "intrinsics", _matrix("intrinsics", self.intrinsics, 3))
        set_field(self, "image_size", _image_size(self.image_size))
        rotation = self.lidar2cam[:3, :3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) or np.linalg.det(rotation) < 0:
            raise ValueError(f"`lidar2cam` must rotate and translate only, got the 3 x 3 part {rotation.tolist()}.")
        if not np.allclose(self.lidar2cam[3], [0, 0, 0, 1]) or not np.allclose(self.intrinsics[2], [0, 0, 1]):
            raise ValueError("The last row of `lidar2cam` must be (0, 0, 0, 1), that of `intrinsics` (0, 0, 1).")

    def __reduce__(self):
        # Arrays come back from a pickle writable; the constructor makes them read-only again.
        return type(self), (self.lidar2cam, self.intrinsics, self.image_size)


@dataclass(frozen=True, eq=False)
class PointToPixel:
    """
    Pairs of a point and the pixel it falls on; a point seen by k cameras has k pairs.

    Args:
        point_index (`np.ndarray` of shape `(num_pairs,)`): int64, row in the cloud.
        camera_index (`np.ndarray` of shape `(num_pairs,)`): int64, place in the list of cameras.
        pixel_coords (`np.ndarray` of shape `(num_pairs, 2)`): float64, column and row.
    """

    point_index: np.ndarray
    camera_index: np.ndarray
    pixel_coords: np.ndarray


@dataclass(frozen=True)
class OcclusionConfig:
    """
    When a point counts as hidden: something nearer to the camera lies around its pixel, on all sides.

    A lidar samples a surface with one point per beam, and what lies between two beams hides as well as what lies under
    one. So every point covers a rectangle of `splat` beam spacings to either side; then the covered area shrinks again
    by `shrink` of them, so that gaps between beams stay closed while outlines come back. A point deeper than what
    covers its place, by more than the tolerance, is hidden.

    Args:
        azimuth_spacing, elevation_spacing (`float`, default to 0.33 and 1.33):
            Degrees between neighbouring beams, sideways and up. The defaults are nuScenes's 32 beams.
        splat, shrink (`float`, default to 0.9 and 0.5):
            In beam spacings. A gap between samples of up to twice `splat` is closed.
        tolerance (`float`, defaults to 0.5), relative_tolerance (`float`, defaults to 0.05):
            Metres, and share of the depth, that a point may lie behind what covers it and still be on that surface.
    """

    azimuth_spacing: float = 0.33
    elevation_spacing: float = 1.33
    splat: float = 0.9
    shrink: float = 0.5
    tolerance: float = 0.5
    relative_tolerance: float = 0.05

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value < np.inf:
                raise ValueError(f"`{name}` must be a finite number and at least 0, got {value}.")
        for name in ("azimuth_spacing", "elevation_spacing"):
            if getattr(self, name) == 0:
                raise ValueError(f"`{name}` must be more than 0 degrees, got 0.")
        if self.shrink > self.splat:
            raise ValueError(f"`shrink` must be at most `splat` ({self.splat}), got {self.shrink}.")


def project_points(points, camera: Camera, min_depth: float = 1.0):
    """
    Pixel (column, row) of every point, and which points the camera sees (docs/method.md, section 1.4).

    `in_view` is the paper's: depth > `min_depth`, 0 < column < width − 1, 0 < row < height − 1. There is no occlusion
    test. The arithmetic is float64 whatever comes in.

    Args:
        points (`np.ndarray` or `torch.Tensor` of shape `(num_points, >=3)`):
            Metres, in the lidar frame; columns after the third are not looked at. What else numpy makes such an array
            of, a list of points say, does too.
        camera (`Camera`):
            The camera to project into.
        min_depth (`float`, *optional*, defaults to 1.0):
            Metres in front of the camera; nearer points are the vehicle's own body.

    Returns:
        `pixel_coords` of shape `(num_points, 2)`, float64 (NaN where a point is not deeper than `min_depth`), and
        `in_view` of shape `(num_points,)`, bool; torch (same device) for torch, else numpy. A NaN point is never in
        view.
    """
    xyz = _as_tensor(points)
    pixel_coords, _ = _pixels_and_depth(xyz, camera, min_depth)
    in_view = _in_view(pixel_coords, camera)
    return (pixel_coords, in_view) if xyz is points else (pixel_coords.numpy(), in_view.numpy())


def visible_points(points, camera: Camera, occlusion: OcclusionConfig, min_depth: float = 1.0):
    """
    Which points the camera sees: those in view that nothing nearer hides.

    Args:
        points (`np.ndarray` or `torch.Tensor` of shape `(num_points, >=3)`):
            Metres, in the lidar frame; the whole scan, for what is hidden depends on what else is there.
        camera (`Camera`), min_depth (`float`, *optional*, defaults to 1.0):
            As in [`project_points`].
        occlusion (`OcclusionConfig`):
            What hides what.

    Returns:
        bool of shape `(num_points,)`, a part of `in_view` of [`project_points`]; torch for torch, else numpy.
    """
    xyz = _as_tensor(points)
    pixel_coords, depth = _pixels_and_depth(xyz, camera, min_depth)
    visible = _in_view(pixel_coords, camera) & ~_hidden(xyz, pixel_coords, depth, camera, occlusion)
    return visible if xyz is points else visible.numpy()


def pair_points_with_pixels(
    points: np.ndarray, cameras: Sequence[Camera], min_depth: float = 1.0, occlusion: OcclusionConfig | None = None
) -> PointToPixel:
    """
    Every pair of a point and a camera that sees it, camera by camera, points in file order within a camera.

    The paper has no occlusion test (`occlusion=None`): a point behind a car is paired with the car's pixels. With one,
    pairs of hidden points are left out.
    """
    seen = []
    for camera_index, camera in enumerate(cameras):
        pixel_coords, in_view = project_points(points, camera, min_depth)
        if occlusion is not None:
            in_view = visible_points(points, camera, occlusion, min_depth)
        point_index = np.flatnonzero(in_view)
        seen.append((point_index, np.full(len(point_index), camera_index), pixel_coords[point_index]))
    if not seen:
        return PointToPixel(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)))
    return PointToPixel(*(np.concatenate(parts) for parts in zip(*seen, strict=True)))


def round_to_pixels(pixel_coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Rows and columns (int64) of the nearest pixels, halves to even as in the paper; they index an image directly.

    Example: `segmentation[round_to_pixels(pairs.pixel_coords)]` is the segment under every pair.
    """
    column, row = np.rint(pixel_coords).astype(np.int64).T
    return row, column


def _as_tensor(points) -> torch.Tensor:
    """The points as a tensor; tensors come back as they are."""
    if not isinstance(points, torch.Tensor):
        points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"`points` must have shape (num_points, 3 or more), got {tuple(points.shape)}.")
    return points if isinstance(points, torch.Tensor) else torch.tensor(points[:, :3])


def _pixels_and_depth(points: torch.Tensor, camera: Camera, min_depth: float) -> tuple[torch.Tensor, torch.Tensor]:
    lidar2cam = torch.tensor(camera.lidar2cam, device=points.device)
    intrinsics = torch.tensor(camera.intrinsics, device=points.device)
    in_camera = points[:, :3].double() @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]  # (num_points, 3)
    deep = in_camera[:, 2:] > min_depth
    on_plane = torch.where(deep, in_camera / in_camera[:, 2:], torch.nan)
    return (on_plane @ intrinsics.T)[:, :2], in_camera[:, 2]


def _in_view(pixel_coords: torch.Tensor, camera: Camera) -> torch.Tensor:
    height, width = camera.image_size
    column, row = pixel_coords.unbind(-1)
    return (0 < column) & (column < width - 1) & (0 < row) & (row < height - 1)


CELLS_PER_BEAM = 4  # of the depth image, in both directions
MAX_STRETCH = 3.0  # how much wider than from the lidar the gap between two beams may look to a camera


def _hidden(points, pixel_coords, depth, camera: Camera, occlusion: OcclusionConfig) -> torch.Tensor:
    """Whether a point lies behind the surface that covers its pixel; the depth image has cells of a part of a beam."""
    spacing = np.radians([occlusion.azimuth_spacing, occlusion.elevation_spacing])
    cell_size = np.diag(camera.intrinsics)[:2] * spacing / CELLS_PER_BEAM  # pixels: width, height
    margin = int(np.ceil(MAX_STRETCH * occlusion.splat * CELLS_PER_BEAM)) + 1  # what is outside covers the border too
    num_columns, num_rows = (np.ceil(np.array(camera.image_size[::-1]) / cell_size).astype(int) + 2 * margin).tolist()
    column, row = (torch.floor(pixel_coords / torch.tensor(cell_size)) + margin).unbind(-1)
    placed = (0 <= column) & (column < num_columns) & (0 <= row) & (row < num_rows)
    cell = (row * num_columns + column)[placed].long()
    depth = depth[placed]

    stretch = (points[placed, :3].double().norm(dim=1) / depth).clamp(1, MAX_STRETCH)
    radius = torch.round(occlusion.splat * CELLS_PER_BEAM * stretch).long()
    surface = torch.full((num_rows, num_columns), torch.inf, dtype=torch.float64, device=depth.device)
    for size in radius.unique().tolist():
        here = radius == size
        samples = torch.full((num_rows * num_columns,), torch.inf, dtype=torch.float64, device=depth.device)
        samples = samples.scatter_reduce(0, cell[here], depth[here], "amin").view(num_rows, num_columns)
        surface = torch.minimum(surface, -_widest(-samples, size))
    surface = _widest(surface, round(occlusion.shrink * CELLS_PER_BEAM))

    hidden = torch.zeros(len(points), dtype=torch.bool, device=depth.device)
    behind = depth - surface.view(-1)[cell]
    hidden[placed] = behind > occlusion.tolerance + occlusion.relative_tolerance * depth
    return hidden


def _widest(image: torch.Tensor, radius: int) -> torch.Tensor:
    """The largest value within `radius` cells of every cell, in both directions."""
    for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        image = max_pool2d(image[None, None], kernel, stride=1, padding=padding)[0, 0]
    return image


def _image_size(sides) -> tuple[int, int]:
    if np.shape(sides) != (2,) or not all(side >= 1 and side % 1 == 0 for side in sides):
        raise ValueError(f"`image_size` must be (height, width), two positive whole numbers of pixels, got {sides}.")
    height, width = sides
    return int(height), int(width)


def _matrix(name: str, values, size: int) -> np.ndarray:
    matrix = np.array(values, dtype=np.float64)  # a copy: nobody changes it under us
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise ValueError(
            f"`{name}` must be {size} x {size} finite numbers, got shape {matrix.shape}: {matrix.tolist()}."
        )
    matrix.setflags(write=False)
    return matrix
