"""Segmenters whose batch normalisations do something, and scans for them."""

import numpy as np
import torch
from small_models import small_network

from uov_hf import UOVForSemanticSegmentation
from uov_hf.sparse_unet import VoxelBatchNorm


CLUSTERS = [50, 1500, 8000]  # points of scans of three sizes
VOXELS = [
    {},
    {"coordinate_system": "cartesian", "intensity_scaling": "unit"},
    {"voxel_reduction": "mean", "intensity_scaling": "unit_plus_one", "missing_intensity": 0.7},
    {"coordinate_system": "cartesian", "voxel_reduction": "mean", "voxel_size": (0.3, 0.2, 0.5)},
    {"point_cloud_range": (1, -3, -1, 30, 3, 1)},
    {"coordinate_system": "cartesian", "point_cloud_range": (-9, -9, -1, 9, 9, 1)},
]


def clusters(num_points: int) -> np.ndarray:
    """Points `(num_points, 4)` close together, on all sides of the sensor, with intensities from 0 to 255."""
    rng = np.random.default_rng(num_points)
    centres = rng.uniform([-15, -15, -2], [15, 15, 2], (40, 3))
    points = centres[rng.integers(40, size=num_points)] + rng.normal(0, 0.3, (num_points, 3))
    return np.concatenate([points, rng.integers(0, 256, (num_points, 1))], axis=1).astype(np.float32)


def make_lively(model: UOVForSemanticSegmentation) -> UOVForSemanticSegmentation:
    """Draw the statistics, gains and biases of all batch normalisations, which start as 0 and 1."""
    for module in model.modules():
        if isinstance(module, VoxelBatchNorm):
            for values, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.2, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                torch.nn.init.uniform_(values, low, high)
    return model.eval()


def lively_segmenter(head: str, **fields) -> UOVForSemanticSegmentation:
    return make_lively(UOVForSemanticSegmentation.from_backbone(small_network(**fields), head))
