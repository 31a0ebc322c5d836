"""Voxelisation of lidar points for the network."""

import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin

from .point_fields import array_to_points
from .point_files import read_points
from .voxel_grid import MAX_FLOAT32, VoxelGrid


DEFAULT_VOXEL_SIZES = {"cylindrical": (0.1, math.pi / 180, 0.1), "cartesian": (0.1, 0.1, 0.1)}
VOXEL_REDUCTIONS = ("first", "mean")
INTENSITY_SCALINGS = ("raw", "unit", "unit_plus_one")
MISSING_INTENSITIES = {"raw": 0.0, "unit": 0.25, "unit_plus_one": 1.25}
PAPER_INTENSITY_SCALINGS = {"nuscenes": "raw", "semantic_kitti": "unit_plus_one"}  # by taxonomy
SMALLEST_VOXEL = 1e-6  # metres or radians
KEYS_OF_TRANSFORMERS = ("feature_extractor_type", "processor_class", "auto_map")  # saved beside the settings


class UOVFeatureExtractor(FeatureExtractionMixin):
    """Voxelise scans as the paper does (method.md, 1.7).

    The index of a voxel is floor(coordinate / voxel_size) in float32. Its feature is the intensity of its first point
    in the order of the file.

    Cylindrical coordinates are rho = sqrt(x² + y²), phi = atan2(y, x), z. Their grid has a seam along the negative x
    axis: at phi = ±180° neighbouring points have distant indices (−180 and 179 with 1° voxels), and no convolution
    joins them. The paper has the same seam. Training rotates scans at random, which moves it.

    A point with a coordinate that is NaN or infinite, or outside `point_cloud_range`, has no voxel: its
    `point_to_voxel` is −1. A point whose intensity only is NaN or infinite has a voxel, with `missing_intensity`.

    An intensity below 0 or above `intensity_max` is clipped to this range: one wrong echo of 1e8 in one scan would
    ruin the running statistics of a training. A scan in which more than a tenth of the points are larger, without
    their signs, is refused, because `intensity_max` is wrong. Many negative ones give a warning.

    Args:
        voxel_size (`Sequence[float]` of length 3, *optional*):
            Size along (rho, phi, z) in metres, radians, metres, by default (0.1, π / 180, 0.1); or along (x, y, z) in
            metres, by default (0.1, 0.1, 0.1).
        coordinate_system (`"cylindrical"` or `"cartesian"`, *optional*, defaults to `"cylindrical"`):
            The coordinates of the grid.
        point_cloud_range (`Sequence[float]` of length 6, *optional*):
            Three lower bounds (included), then three upper bounds (excluded), in the coordinates and units of the
            grid. Unbounded by default, as in the paper.
        voxel_reduction (`"first"` or `"mean"`, *optional*, defaults to `"first"`):
            Whether the feature of a voxel is that of its first point or the mean of its points.
        intensity_scaling (`"raw"`, `"unit"` or `"unit_plus_one"`, *optional*, defaults to `"raw"`):
            `"raw"`: as in the file (the paper on nuScenes: 0 to 255). `"unit"`: divided by the sensor's full scale
            `intensity_max`. `"unit_plus_one"`: the same plus 1 (the paper on SemanticKITTI).
        missing_intensity (`float`, *optional*):
            The feature of points without intensity (three columns, or NaN), not scaled. By default a quarter of the
            full scale after `intensity_scaling`, which is closer to the training data than 0; 0 for `"raw"`, where
            the full scale is unknown.

    Raises:
        ValueError: A setting is unknown, out of range, or does not fit another one.
    """

    model_input_names = ["voxel_coords", "voxel_features", "point_to_voxel", "num_points"]

    def __init__(
        self,
        voxel_size: Sequence[float] | None = None,
        coordinate_system: str = "cylindrical",
        point_cloud_range: Sequence[float] | None = None,
        voxel_reduction: str = "first",
        intensity_scaling: str = "raw",
        missing_intensity: float | None = None,
        **kwargs: Any,
    ):
        unknown = sorted(set(kwargs) - set(KEYS_OF_TRANSFORMERS))
        if unknown:
            wrong, settings = ", ".join(unknown), ", ".join([*inspect.signature(type(self)).parameters][:-1])
            raise ValueError(f"`UOVFeatureExtractor` has no setting {wrong}. Its settings are {settings}.")
        super().__init__()
        _check_choice("coordinate_system", coordinate_system, DEFAULT_VOXEL_SIZES)
        _check_choice("voxel_reduction", voxel_reduction, VOXEL_REDUCTIONS)
        _check_choice("intensity_scaling", intensity_scaling, INTENSITY_SCALINGS)
        voxel_size = DEFAULT_VOXEL_SIZES[coordinate_system] if voxel_size is None else voxel_size
        self.voxel_size = _numbers("voxel_size", voxel_size, 3)
        self.coordinate_system = coordinate_system
        self.point_cloud_range = (
            None if point_cloud_range is None else _numbers("point_cloud_range", point_cloud_range, 6)
        )
        self.voxel_reduction = voxel_reduction
        self.intensity_scaling = intensity_scaling
        missing = MISSING_INTENSITIES[intensity_scaling] if missing_intensity is None else missing_intensity
        (self.missing_intensity,) = _numbers("missing_intensity", [missing], 1)
        if not all(SMALLEST_VOXEL <= size < math.inf for size in self.voxel_size):
            raise ValueError(
                f"`voxel_size` must be three positive finite numbers from {SMALLEST_VOXEL:g}, got {self.voxel_size}."
            )
        if not abs(self.missing_intensity) < MAX_FLOAT32:
            raise ValueError(f"`missing_intensity` must be finite, also in float32, got {self.missing_intensity}.")
        bounds = np.reshape(self.point_cloud_range or [0] * 3 + [1] * 3, (2, 3))
        if not (bounds[0] < bounds[1]).all():
            message = "`point_cloud_range` must be three lower bounds and three greater upper bounds"
            raise ValueError(f"{message}, got {self.point_cloud_range}.")

    def __call__(
        self,
        points: Any,
        intensity_max: float | Sequence[float | None] | np.ndarray | torch.Tensor | None = None,
        return_tensors: str | None = "pt",
        num_columns: int | None = None,
    ) -> BatchFeature:
        """Voxelise one scan or a batch of scans, concatenated without padding.

        Args:
            points (`np.ndarray`, `torch.Tensor`, path, or a list of these):
                Scans of shape `(num_points, 3 or more)`: x, y, z in metres in the lidar frame, intensity; further
                columns are ignored. A path is read by `read_points`. A scan may be empty.
            intensity_max (`float` or one for each scan, *optional*):
                The sensor's full scale (255 for nuScenes, 1 for KITTI). With the scaling `"raw"` it only limits the
                intensities, and may be left out.
            return_tensors (`str`, *optional*, defaults to `"pt"`): `"pt"` or `"np"`.
            num_columns (`int`, *optional*): Columns of `.bin` files, if they are not to be measured.

        Returns:
            `BatchFeature`: `voxel_coords` (`(num_voxels, 4)`, int32: scan, rho, phi, z or scan, x, y, z),
            `voxel_features` (`(num_voxels, 1)`, float32), `point_to_voxel` (`(num_points,)`, int64: row in the
            voxels of the batch, or −1) and `num_points` (`(num_scans,)`, int64). The voxels of a scan come in the
            order of their first points.

        Raises:
            ValueError: A scan has the wrong shape, a point is outside the largest grid, or `intensity_max` is missing
                or does not fit the intensities.
        """
        scans = list(points) if isinstance(points, (list, tuple)) else [points]
        if not scans:
            raise ValueError("`points` must be a scan or a list of scans, got an empty list.")
        if isinstance(intensity_max, (torch.Tensor, np.ndarray)):
            intensity_max = intensity_max.tolist()  # one transfer for all scans
        scales = list(intensity_max) if isinstance(intensity_max, Iterable) else [intensity_max] * len(scans)
        if len(scales) != len(scans):
            raise ValueError(f"`intensity_max` must be one number, or {len(scans)} (one per scan), got {len(scales)}.")
        coords, features, to_voxel, num_points, num_voxels = [], [], [], [], 0
        for index, (scan, scale) in enumerate(zip(scans, scales, strict=True)):
            scan_coords, scan_features, scan_to_voxel = self.voxelize(as_array(scan, num_columns), scale)
            coords.append(np.insert(scan_coords, 0, index, axis=1))
            features.append(scan_features)
            to_voxel.append(np.where(scan_to_voxel < 0, -1, scan_to_voxel + num_voxels))
            num_points.append(len(scan_to_voxel))
            num_voxels += len(scan_coords)
        batch = {
            "voxel_coords": np.concatenate(coords),
            "voxel_features": np.concatenate(features),
            "point_to_voxel": np.concatenate(to_voxel),
            "num_points": np.array(num_points, np.int64),
        }
        return BatchFeature(batch, tensor_type=return_tensors)

    def voxelize(
        self, points: np.ndarray, intensity_max: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxelise one scan; see [`~uov_hf.voxel_grid.VoxelGrid.voxelize`]."""
        return self.voxel_grid.voxelize(points, intensity_max)

    def check_points(self, points: np.ndarray, intensity_max: float | None = None) -> None:
        """Check that `voxelize` accepts a scan; see [`~uov_hf.voxel_grid.VoxelGrid.check_points`]."""
        self.voxel_grid.check_points(points, intensity_max)

    @property
    def voxel_grid(self) -> VoxelGrid:
        """The settings as they are now."""
        return VoxelGrid(**{field.name: getattr(self, field.name) for field in fields(VoxelGrid)})


def as_array(scan: Any, num_columns: int | None = None) -> np.ndarray:
    """A scan as an array `(num_points, columns)`; a path is read, a structured array is stacked."""
    if isinstance(scan, (str, Path)):
        return read_points(scan, num_columns)
    if isinstance(scan, torch.Tensor):
        scan = scan.detach().cpu()
        scan = (scan.float() if scan.dtype == torch.bfloat16 else scan).numpy()  # NumPy has no bfloat16
    if isinstance(scan, np.ndarray):
        return array_to_points(scan, "`points`")
    raise ValueError(f"`points` must be numpy arrays, torch tensors or paths of files, got {type(scan).__name__}.")


def _numbers(name: str, values: Sequence[float], size: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be {size} number{'s' * (size > 1)}, got {values!r}.") from error
    if len(numbers) != size:
        raise ValueError(f"`{name}` must be {size} numbers, got {len(numbers)}: {values}.")
    return numbers


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")
