"""The voxels of a scan, in NumPy: the feature extractor and the program beside an exported network share them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .point_fields import array_to_points


# Voxel indices of one axis fit in 16 bits: 3.2 km at 0.1 m.
AXIS_BITS = 16
AXIS_LIMIT = 1 << (AXIS_BITS - 1)
# A scan may have so many wrong intensities, and a tenth of its points more; with others, `intensity_max` is wrong.
MAX_CLIPPED = 10
# A full scale is doubtful if so many intensities are all so many times smaller, as those of 0 to 1 for 255.
MIN_ECHOES, FAR_TOO_LARGE = 100, 200
SMALLEST_FLOAT32 = float(np.finfo(np.float32).tiny)  # above 0, without a loss of digits
MAX_FLOAT32 = float(np.finfo(np.float32).max)
FULL_SCALES = (1.0, 255.0, 65535.0)  # of the intensity, for most sensors


@dataclass(frozen=True)
class VoxelGrid:
    """The grid of a network and the feature of a voxel. `UOVFeatureExtractor` describes and checks the settings."""

    voxel_size: Sequence[float]
    coordinate_system: str
    point_cloud_range: Sequence[float] | None
    voxel_reduction: str
    intensity_scaling: str
    missing_intensity: float

    def voxelize(
        self, points: NDArray[Any], intensity_max: float | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
        """Voxelise one scan.

        Args:
            points (`np.ndarray` of shape `(num_points, 3 or more)`): x, y, z in metres, the intensity as in the file.
            intensity_max (`float`, *optional*):
                The sensor's full scale; intensities are clipped to it. Not needed with raw intensities.

        Returns:
            `tuple`: Indices of the voxels `(num_voxels, 3)` int32 in the order of their first points, their features
            `(num_voxels, 1)` float32, and the voxel of every point `(num_points,)` int64, −1 for none.

        Raises:
            ValueError: The points have another form or lie too far out, or `intensity_max` is missing or does
                not fit the intensities.
        """
        points = _to_float32(points)
        kept, indices = self._voxel_indices(points)
        feature = self._intensity(points[kept], intensity_max)
        first, inverse = _group(indices)
        voxel_feature = feature[first]
        if self.voxel_reduction == "mean":
            voxel_feature = np.bincount(inverse, feature) / np.bincount(inverse)
        point_to_voxel = np.full(len(points), -1, np.int64)
        point_to_voxel[kept] = inverse
        return indices[first], voxel_feature.astype(np.float32)[:, None], point_to_voxel

    def check_points(self, points: NDArray[Any], intensity_max: float | None = None) -> None:
        """Check that `voxelize` accepts a scan; this makes no voxels, and takes a part of the time.

        Raises:
            ValueError: It does not.
        """
        points = _to_float32(points)
        kept, _ = self._voxel_indices(points)
        self._intensity(points[kept], intensity_max)

    def _voxel_indices(self, points: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Rows of the points that have a voxel, and their voxel indices."""
        kept = np.flatnonzero(np.isfinite(points[:, :3]).all(axis=1))
        coords = points[kept, :3]
        if self.coordinate_system == "cylindrical":
            x, y, z = coords.T
            with np.errstate(over="ignore"):  # an infinite distance is out of every range
                coords = np.stack([np.sqrt(x * x + y * y), np.arctan2(y, x), z], axis=1)
        if self.point_cloud_range is not None:
            lower, upper = np.array(self.point_cloud_range, np.float32).reshape(2, 3)
            inside = ((coords >= lower) & (coords < upper)).all(axis=1)
            kept, coords = kept[inside], coords[inside]
        with np.errstate(over="ignore"):  # infinite indices are refused
            indices = np.floor(coords / np.array(self.voxel_size, np.float32))
        if len(indices) and np.abs(indices).max() >= AXIS_LIMIT:
            farthest = points[kept[np.abs(indices).max(axis=1).argmax()], :3]
            raise ValueError(
                f"`points` must lie within {AXIS_LIMIT} voxels of the sensor on each axis, got one at "
                f"({', '.join(f'{value:.9g}' for value in farthest)}) m. "
                "Points must be in the lidar frame, not on a map; `point_cloud_range` removes outliers."
            )
        return kept, indices.astype(np.int32)

    def _intensity(self, points: NDArray[np.floating], intensity_max: float | None) -> NDArray[np.floating]:
        if points.shape[1] == 3:
            return np.full(len(points), self.missing_intensity)
        return np.where(np.isfinite(points[:, 3]), self._scale(points[:, 3], intensity_max), self.missing_intensity)

    def _scale(self, intensity: NDArray[np.floating], intensity_max: float | None) -> NDArray[np.floating]:
        if self.intensity_scaling == "raw" and intensity_max is None:
            return intensity
        if intensity_max is None:
            raise ValueError(
                f"`intensity_scaling` {self.intensity_scaling!r} needs the sensor's full scale as `intensity_max` "
                "(255 for nuScenes, 1 for KITTI), got None."
            )
        if not isinstance(intensity_max, Real) or not SMALLEST_FLOAT32 <= intensity_max <= MAX_FLOAT32:
            raise ValueError(
                f"`intensity_max` must be above 0 and finite, got {intensity_max}. It is the sensor's full scale "
                "(255 for nuScenes, 1 for KITTI)."
            )
        intensity = _clip(intensity, float(intensity_max))
        if self.intensity_scaling == "raw":
            return intensity
        unit = intensity / np.float32(float(intensity_max))
        return unit + np.float32(1) if self.intensity_scaling == "unit_plus_one" else unit


def _to_float32(points: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32, a coordinate is infinite: it has no voxel
        return array_to_points(points, "`points`")[:, :4].astype(np.float32, copy=False)


def _clip(intensity: NDArray[np.floating], intensity_max: float) -> NDArray[np.floating]:
    """The intensities within 0 to `intensity_max`; NaN and infinite ones may be anything."""
    if np.count_nonzero(intensity < 0) > MAX_CLIPPED + len(intensity) / 10:
        warnings.warn(
            "More than a tenth of the intensities of a scan are negative, and are taken as 0. The network expects "
            "0 to `intensity_max`: shift them, if they have another zero.",
            stacklevel=2,
        )
    wrong = _is_too_large(intensity, intensity_max)
    if wrong.sum() > MAX_CLIPPED + len(intensity) / 10:
        worst = intensity[wrong]
        raise ValueError(
            f"`intensity_max` must be the sensor's full scale (255 for nuScenes, 1 for KITTI), got {intensity_max:g}, "
            f"but {wrong.sum()} of {len(intensity)} points have an intensity outside 0 to {intensity_max:g}: from "
            f"{worst.min():g} to {worst.max():g}."
        )
    echoes = intensity[np.isfinite(intensity) & (intensity > 0)]
    if len(echoes) >= MIN_ECHOES and echoes.max() * FAR_TOO_LARGE < intensity_max:
        warnings.warn(
            f"`intensity_max` must be the sensor's full scale (255 for nuScenes, 1 for KITTI), got {intensity_max:g}, "
            f"but the largest of {len(echoes)} intensities of a scan is {echoes.max():g}.",
            stacklevel=2,
        )
    return np.clip(intensity, 0, intensity_max)


def guess_full_scale(intensity: NDArray[np.floating]) -> float:
    """The full scale of a sensor, by its intensities; some of them may be wrong.

    Args:
        intensity (`np.ndarray` of shape `(num_points,)`): As in the file. NaN, infinite and zero ones do not count.

    Returns:
        `float`: The smallest of 1, 255 and 65535 for which at most a tenth of the intensities are larger, without
            their signs.

    Raises:
        ValueError: None of them is.
    """
    # Where there is no echo, many drivers write 0. Such points, often most of a scan, fit every full scale.
    # A tenth without `MAX_CLIPPED`: all intensities of a scan of ten points would else fit the smallest.
    echoes = intensity[np.isfinite(intensity) & (intensity != 0)]
    for full_scale in FULL_SCALES:
        if _is_too_large(echoes, full_scale).sum() <= len(echoes) / 10:
            return full_scale
    raise ValueError(
        "`intensity_max`, the sensor's full scale, must be given: it cannot be guessed from intensities from "
        f"{echoes.min():.9g} to {echoes.max():.9g}."
    )


def _is_too_large(intensity: NDArray[np.floating], full_scale: float) -> NDArray[np.bool_]:
    # Without signs: negative ones are of another zero, and do not show the scale.
    return np.isfinite(intensity) & (np.abs(intensity) > full_scale)


def _group(indices: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First point of every voxel, in the order of the points, and the voxel of every point."""
    x, y, z = (indices.T + AXIS_LIMIT).astype(np.int64)
    keys = (x << 2 * AXIS_BITS) | (y << AXIS_BITS) | z
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]
