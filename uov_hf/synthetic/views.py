"""The ray grids of a camera and of a spinning lidar, and the windows of a grid whose rays may hit a box."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from uov_hf.synthetic.shapes import EDGES, Floats, Ints


NEAREST = 0.05  # metres in front of a camera


@dataclass(frozen=True)
class Windows:
    """Rectangles of a ray grid: rays with `top` <= row < `bottom` and `left` <= column < `right` may hit `part`."""

    part: Ints
    top: Ints
    bottom: Ints
    left: Ints
    right: Ints


@dataclass(frozen=True, eq=False)
class PinholeView:
    """Rays through the pixel centres of a camera at `pose` (4, 4; x right, y down, z forward) in the global frame."""

    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """Unit length, (3, height, width), global frame."""
        height, width = self.image_size
        x = (np.arange(width) - self.intrinsics[0, 2]) / self.intrinsics[0, 0]
        y = (np.arange(height) - self.intrinsics[1, 2]) / self.intrinsics[1, 1]
        rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0))
        rays = np.einsum("ij,jhw->ihw", self.pose[:3, :3], rays / np.linalg.norm(rays, axis=0))
        return rays.astype(np.float32)

    def windows(self, corners: NDArray[np.float64]) -> Windows:
        """The pixels that boxes with these corners (P, 8, 3; camera frame) cover, clipped at the near plane."""
        part = np.flatnonzero(corners[..., 2].max(axis=1) > NEAREST)
        corners = corners[part]
        start, end = corners[:, EDGES[:, 0]], corners[:, EDGES[:, 1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (NEAREST - start[..., 2]) / (end[..., 2] - start[..., 2])
            cut = start + np.where((share > 0) & (share < 1), share, np.nan)[..., None] * (end - start)
        points = np.concatenate([corners, cut], axis=1)
        x, y, z = np.moveaxis(points, 2, 0)
        in_front = z >= NEAREST * 0.999  # NaN is not
        z = np.where(in_front, z, 1.0)
        height, width = self.image_size
        column = x / z * self.intrinsics[0, 0] + self.intrinsics[0, 2]
        row = y / z * self.intrinsics[1, 1] + self.intrinsics[1, 2]
        top, bottom = _span(row, in_front, height)
        left, right = _span(column, in_front, width)
        seen = (top < bottom) & (left < right)
        return Windows(part[seen], top[seen], bottom[seen], left[seen], right[seen])


def _span(value: Floats, valid: NDArray[np.bool_], size: int) -> tuple[Ints, Ints]:
    """First and past-the-last grid index between the smallest and the largest valid value of each row."""
    low = np.where(valid, value, np.inf).min(axis=1)
    high = np.where(valid, value, -np.inf).max(axis=1)
    return np.ceil(np.clip(low, 0, size)).astype(int), (np.floor(np.clip(high, -1, size - 1)) + 1).astype(int)


@dataclass(frozen=True, eq=False)
class SpinningView:
    """Rays of a spinning lidar at `pose` (4, 4; x right, y forward, z up) in the global frame.

    A row is a beam, a column a firing.
    """

    pose: NDArray[np.float64]
    elevations: Floats  # (beams,): radians, evenly spaced from the lowest
    azimuths: Floats  # (columns,): radians from x towards y, evenly spaced, one turn

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """Unit length, (3, beams, columns), global frame."""
        elevation, azimuth = self.elevations[:, None], self.azimuths[None, :]
        rays = np.stack(
            np.broadcast_arrays(
                np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
            )
        )
        return np.einsum("ij,jhw->ihw", self.pose[:3, :3], rays).astype(np.float32)

    def windows(self, corners: NDArray[np.float64]) -> Windows:
        """The rays that may hit boxes with these corners (P, 8, 3; lidar frame); across the seam, two windows."""
        part = np.arange(len(corners))
        center = corners.mean(axis=1)
        radius = np.linalg.norm(corners[..., :2] - center[:, None, :2], axis=2).max(axis=1)
        distance = np.linalg.norm(center[:, :2], axis=1)
        near = np.maximum(distance - radius, 1e-3)
        lowest, highest = corners[..., 2].min(axis=1), corners[..., 2].max(axis=1)
        low = np.arctan2(lowest, np.where(lowest > 0, distance + radius, near))
        high = np.arctan2(highest, np.where(highest > 0, near, distance + radius))
        step = self.elevations[1] - self.elevations[0]
        top = np.clip(np.ceil((low - self.elevations[0]) / step), 0, len(self.elevations)).astype(int)
        bottom = np.clip(np.floor((high - self.elevations[0]) / step) + 1, 0, len(self.elevations)).astype(int)
        middle = np.arctan2(center[:, 1], center[:, 0])
        sideways = np.arctan2(corners[..., 1], corners[..., 0]) - middle[:, None]
        sideways = (sideways + np.pi) % (2 * np.pi) - np.pi
        around = distance <= radius
        first, last = (
            np.where(around, sign * np.pi, extreme)
            for sign, extreme in ((-1, sideways.min(axis=1)), (1, sideways.max(axis=1)))
        )
        columns, step = len(self.azimuths), 2 * np.pi / len(self.azimuths)
        start = (middle + first - self.azimuths[0]) / step
        left = np.ceil(start % columns).astype(int)
        right = left + np.minimum(np.floor(start + (last - first) / step) - np.ceil(start) + 1, columns).astype(int)
        windows = [
            (part, top, bottom, left, np.minimum(right, columns)),
            (part, top, bottom, np.zeros_like(left), right - columns),
        ]
        table = np.concatenate([np.stack(window) for window in windows], axis=1)
        return Windows(*table[:, (table[1] < table[2]) & (table[3] < table[4])])
