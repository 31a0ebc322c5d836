"""The evidence of the calibration check: neighbouring points differ in colour where the depth jumps between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import Delaunay, QhullError

from uov_hf.geometry.occlusion import OcclusionConfig
from uov_hf.geometry.projection import Camera, project_points, visible_points


WIDEST_GAP = 2.0  # degrees; points farther apart are no neighbours
GRAZING = 0.75  # metres: no surface's plane passes so near to the camera, so the depth jumps between such neighbours
LEAST_JUMP = 0.05  # of the distance
MARGIN = 0.03  # of the image's width: a correction must not move points out of the image
BLURS = {"coarse": 0.3, "fine": 0.07}  # degrees: the coarse score has few optima, the fine score has sharp ones
SURROUNDINGS = 1.0  # degrees, beyond the blur
NOISE = 4.0  # grey levels: smaller differences are no contrast
MOST_CONTRAST = 2.0  # times the local average; more contrast is no more evidence
MOST_JUMPS, SMOOTH_PER_JUMP = 1500, 2  # pairs that are compared, of all views together
NUM_PARTS = 8  # of the pairs, each left out in turn for standard errors


@dataclass(frozen=True, eq=False)
class View:
    """A scan and the image that a camera took of it."""

    points: NDArray[np.floating]  # (num_points, >=3): metres, in the lidar frame
    image: NDArray[np.uint8]  # (height, width, 3): without lens distortion
    camera: Camera  # its calibration, which is checked
    velocity: NDArray[np.float64] | None = None  # (6,): of the lidar in its own axes, m/s and rad/s


class Outlines:
    """Pairs of neighbouring points in some views of one camera.

    Neighbours on one surface have similar colours; where the depth jumps, an outline runs between them, and their
    colours differ. This holds best with the right calibration. Points that are hidden from the camera (parallax) are
    left out: they lie on something else in any calibration.

    Args:
        views (sequence of `View`):
            Their `lidar2cam` (num_views, 4, 4) and, if all have one, `velocity` (num_views, 6) are attributes.
    """

    def __init__(self, views: Sequence[View]):
        pairs = [_Neighbours(view) for view in views]
        rng, num_jumps = np.random.default_rng(0), sum(int(of_view.is_jump.sum()) for of_view in pairs)
        for of_view in pairs:
            of_view.thin_out(min(1.0, MOST_JUMPS / max(num_jumps, 1)), rng)
        self.is_jump = np.concatenate([of_view.is_jump for of_view in pairs])
        self.num_hidden = sum(of_view.num_hidden for of_view in pairs)
        self.num_in_view = sum(of_view.num_in_view for of_view in pairs)
        # A part is a vertical strip of a view: neighbours are not independent, so they are left out together.
        self.part = np.arange(len(self.is_jump)) * NUM_PARTS // max(len(self.is_jump), 1)
        self._points = [of_view.points.reshape(-1, 3) for of_view in pairs]
        self.lidar2cam = np.array([view.camera.lidar2cam for view in views])
        self._intrinsics = np.array([view.camera.intrinsics for view in views])
        velocities = [view.velocity for view in views if view.velocity is not None]
        self.velocity = np.array(velocities) if len(velocities) == len(views) else None
        view_of_point = np.repeat(np.arange(len(views)), [len(points) for points in self._points])
        self._pixels = {level: _Pixels(views, view_of_point, blur) for level, blur in BLURS.items()}

    def score(self, lidar2cam: NDArray[np.float64], level: str = "fine") -> float:
        """How much more the colours differ across jumps than on surfaces, in units of the local average difference.

        Args:
            lidar2cam (`np.ndarray` of shape `(num_views, 4, 4)`): The calibration to score.
            level (`str`, *optional*, defaults to `"fine"`): A key of `BLURS`.
        """
        contrast = self._contrast(lidar2cam, level)
        return float(contrast[self.is_jump].mean() - contrast[~self.is_jump].mean())

    def scores_without(self, lidar2cam: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fine score without each of the parts, (NUM_PARTS,)."""
        contrast, means = self._contrast(lidar2cam, "fine"), []
        for kind in (self.is_jump, ~self.is_jump):
            counts = np.bincount(self.part[kind], minlength=NUM_PARTS)
            sums = np.bincount(self.part[kind], contrast[kind], minlength=NUM_PARTS)
            means.append((sums.sum() - sums) / (counts.sum() - counts))
        return means[0] - means[1]

    def _contrast(self, lidar2cam: NDArray[np.float64], level: str) -> NDArray[np.float32]:
        """How much the colours of each pair differ, (num_pairs,)."""
        to_image = self._intrinsics @ lidar2cam[:, :3]  # (num_views, 3, 4)
        parts = zip(self._points, to_image, strict=True)
        on_image = np.concatenate([points @ matrix[:, :3].T + matrix[:, 3] for points, matrix in parts])
        column, row = (on_image[:, :2] / np.maximum(on_image[:, 2:], 0.1)).T
        colors = self._pixels[level].at(column, row).reshape(-1, 2, 3)
        return np.minimum(np.linalg.norm(colors[:, 0] - colors[:, 1], axis=1), MOST_CONTRAST)


class _Pixels:
    """The local contrast of all images, of any sizes, in one array: one look-up serves all views."""

    def __init__(self, views: Sequence[View], view_of_point: NDArray[np.int64], blur: float):
        height, width = np.array([view.camera.image_size for view in views]).T
        first = np.cumsum(height * width) - height * width
        contrasts = [_local_contrast(view.image, view.camera.intrinsics[0, 0], blur) for view in views]
        self._colors = np.concatenate([contrast.reshape(-1, 3) for contrast in contrasts]).astype(np.float32)
        # The search looks up the same points thousands of times.
        self._first, self._stride = first[view_of_point], width[view_of_point]
        self._last_row, self._last_column = height[view_of_point] - 1, width[view_of_point] - 1

    def at(self, column: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float32]:
        """The values (num_points, 3) at pixels; outside of its image a point takes the value at the border."""
        column = np.rint(column).clip(0, self._last_column).astype(np.int64)
        row = np.rint(row).clip(0, self._last_row).astype(np.int64)
        return self._colors.take(self._first + row * self._stride + column, axis=0)


class _Neighbours:
    """The pairs of one view: `points` (num_pairs, 2, 3) in the lidar frame, and `is_jump` (num_pairs,)."""

    def __init__(self, view: View):
        pixels, in_view = project_points(view.points, view.camera)
        visible = visible_points(view.points, view.camera, OcclusionConfig())
        self.num_in_view, self.num_hidden = int(in_view.sum()), int((in_view & ~visible).sum())
        height, width = view.camera.image_size
        room = np.array([width, height]) / 2 - MARGIN * width
        seen = np.flatnonzero(visible & (np.abs(pixels - np.array([width, height]) / 2) < room).all(axis=1))
        pairs = seen[_triangulate(pixels[seen])]  # (num_pairs, 2)
        pairs = pairs[np.argsort(pixels[pairs, 0].mean(axis=1), kind="stable")]  # from left to right
        points = np.asarray(view.points)[pairs, :3].astype(np.float64)
        in_camera = points @ view.camera.lidar2cam[:3, :3].T + view.camera.lidar2cam[:3, 3]
        near = _angle(in_camera) < WIDEST_GAP
        self.points, self.is_jump = points[near], _is_jump(in_camera[near])

    def thin_out(self, share: float, rng: np.random.Generator) -> None:
        """Keep a share of the jumps, and up to `SMOOTH_PER_JUMP` times as many pairs on surfaces."""
        jumps, smooth = np.flatnonzero(self.is_jump), np.flatnonzero(~self.is_jump)
        num_jumps = round(share * len(jumps))
        num_smooth = min(SMOOTH_PER_JUMP * num_jumps, len(smooth))
        rows = [rng.choice(jumps, num_jumps, replace=False), rng.choice(smooth, num_smooth, replace=False)]
        kept = np.sort(np.concatenate(rows))
        self.points, self.is_jump = self.points[kept], self.is_jump[kept]


def _local_contrast(image: NDArray[np.uint8], focal_length: float, blur: float) -> NDArray[np.floating]:
    """The image (height, width, 3) as differences from its surroundings, in units of the local average difference.

    So an outline counts equally everywhere: a bright sky above an even road does not shift the camera up or down.
    """
    near, far = focal_length * np.radians([blur, blur + SURROUNDINGS])
    colors = image.astype(np.float32)
    difference = gaussian_filter(colors, (near, near, 0)) - gaussian_filter(colors, (far, far, 0))
    average = np.sqrt(gaussian_filter((difference**2).sum(axis=2), far))
    return difference / (average + NOISE)[..., None]


def _triangulate(pixels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pairs of neighbours (num_pairs, 2) among pixels (num_points, 2): the edges of Delaunay's triangles."""
    try:
        corners = Delaunay(pixels).simplices
    except (QhullError, ValueError):  # too few, or all on one line
        return np.empty((0, 2), np.int64)
    sides = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]]])
    return np.unique(np.sort(sides, axis=1), axis=0)


def _angle(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees between the two points of each pair (num_pairs, 2, 3); the approximation holds for small angles."""
    unit = pairs / np.linalg.norm(pairs, axis=2, keepdims=True)
    return np.degrees(np.linalg.norm(unit[:, 0] - unit[:, 1], axis=1))


def _is_jump(pairs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the line through both points passes so near to the camera (the origin) that no surface can be there."""
    first, second = pairs[:, 0], pairs[:, 1]
    gap = np.maximum(np.linalg.norm(first - second, axis=1), 1e-9)
    passes_at = np.linalg.norm(np.cross(first, second), axis=1) / gap
    distance = np.linalg.norm(pairs, axis=2)
    return (passes_at < GRAZING) & (np.ptp(distance, axis=1) > LEAST_JUMP * distance.min(axis=1))
