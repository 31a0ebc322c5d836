"""Views of a scan for test-time augmentation, and the mean of their predictions."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from .array_checks import check_array


def views(points: np.ndarray, num_views: int, azimuth_cell: float) -> list[np.ndarray]:
    """The points, followed by copies that are turned further and further about z; every other copy is mirrored.

    Args:
        points (`np.ndarray` of shape `(num_points, 3 or more)`): Metres.
        num_views (`int`): Number of arrays in the result.
        azimuth_cell (`float`):
            Width of a cylindrical voxel in radians. For a Cartesian grid any width serves, because a turn only has to
            differ from a right angle.

    Raises:
        ValueError: `points` are no floating-point numbers of this shape, or a setting is not above 0.
    """
    check_array("points", points, ("num_points", "3 or more"), "f")
    if num_views < 1 or not 0 < azimuth_cell < math.inf:
        raise ValueError(f"`num_views` and `azimuth_cell` must be above 0, got {num_views} and {azimuth_cell}.")
    turns = [points]
    for view in range(1, num_views):
        # A turn by whole cells moves the voxels but leaves the same points in each. So every view is turned by another
        # fraction of a cell on top, and the borders of its voxels cut the scan at other places.
        cells = round(2 * math.pi * view / (num_views * azimuth_cell)) + view / num_views
        turned = points.copy()
        turned[:, :2] = rotated(points[:, :2], cells * azimuth_cell)
        turned[:, 1] *= (-1) ** view
        turns.append(turned)
    return turns


def rotated(xy: np.ndarray, angle: float) -> np.ndarray:
    """`xy` `(num_points, 2)`, rotated about the origin by `angle` radians.

    Raises:
        ValueError: They are no floating-point numbers: whole ones would round the rotation.
    """
    check_array("xy", xy, ("num_points", 2), "f")
    cos, sin = math.cos(angle), math.sin(angle)
    return xy @ np.array([[cos, sin], [-sin, cos]], dtype=xy.dtype)


def average_over_views(all_views: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean probabilities of every point over the views in which it has a voxel.

    Args:
        all_views (`list` of `tuple`):
            For each view the logits `(num_voxels, C)`, and the voxel of each point `(num_points,)`, -1 for none.

    Returns:
        Logits `(num_points, C)` whose softmax is that mean, and the row of each point in them: -1 if no view has it.
    """
    point_to_voxel = torch.stack([voxels for _, voxels in all_views])  # (num_views, num_points)
    total = torch.zeros(point_to_voxel.shape[1], all_views[0][0].shape[1], device=point_to_voxel.device)
    for logits, voxels in all_views:
        probabilities = F.pad(logits.float().softmax(dim=1), (0, 0, 0, 1))  # row −1: no voxel
        total = total + probabilities[voxels]  # (num_points, C)
    num_views = (point_to_voxel >= 0).sum(dim=0)  # (num_points,)
    mean = total / num_views.clamp(min=1)[:, None]
    rows = torch.arange(len(mean), device=mean.device).masked_fill(num_views == 0, -1)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log(), rows
