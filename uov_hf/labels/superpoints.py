"""Superpoints: small smooth patches of a scan, whose points nearly always have one class."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from uov_hf.array_checks import check_array, check_ids
from uov_hf.labels.votes import Votes


@dataclass(frozen=True)
class SuperpointConfig:
    """
    Neighbouring points belong to one superpoint if they are near, lie in one cell, and have parallel surfaces.

    Args:
        num_neighbors (`int`, defaults to 8):
            Nearest points that a point is compared with. Its surface is the plane through them.
        reach (`float`, defaults to 0.3), relative_reach (`float`, defaults to 0.1):
            Metres, and share of the distance to the sensor. Neighbours farther away than the larger are not joined.
        max_angle (`float`, defaults to 15.0): Degrees between the planes of two points that are joined.
        cell_size (`float`, defaults to 2.0):
            Metres; a superpoint ends at the borders of cubes of this side, which limits the effect of a wrong join.
    """

    num_neighbors: int = 8
    reach: float = 0.3
    relative_reach: float = 0.1
    max_angle: float = 15.0
    cell_size: float = 2.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"`{name}` must be more than 0, got {value}.")


def find_superpoints(positions: np.ndarray, config: SuperpointConfig) -> np.ndarray:
    """
    The superpoint of every point `(num_points,)`, counted from 0. Points at one position are in one superpoint.

    `positions` `(num_points, 3)` are finite metres in the lidar frame.

    Raises:
        ValueError: They are not.
    """
    check_array("positions", positions, ("num_points", 3), "f")
    if not np.isfinite(positions).all():
        raise ValueError(
            f"`positions` must be finite, got {np.sum(~np.isfinite(positions).all(axis=1))} that are not."
        )
    # Some drivers write (0, 0, 0) for each beam without an echo. A k-d tree cannot split points at one position, and a
    # search for their neighbours would compare each of them with all.
    places, place_of_point = np.unique(positions, axis=0, return_inverse=True)
    return _connect(places.astype(np.float64), config)[place_of_point.ravel()]  # NumPy 2.0 gives `(num_points, 1)`


def _connect(positions: np.ndarray, config: SuperpointConfig) -> np.ndarray:
    """The superpoint of every point, where all positions differ."""
    num_points, num_neighbors = len(positions), min(config.num_neighbors, len(positions) - 1)
    if num_neighbors < 1:
        return np.arange(num_points)
    found = cKDTree(positions).query(positions, k=num_neighbors + 1)
    distances, neighbors = np.asarray(found[0]), np.asarray(found[1])  # (num_points, k + 1); the point itself is first
    normals = _normals(positions[neighbors])
    one, other = np.repeat(np.arange(num_points), num_neighbors), neighbors[:, 1:].ravel()

    reach = np.maximum(config.reach, config.relative_reach * np.linalg.norm(positions, axis=1))
    cells = np.floor(positions / config.cell_size)
    joined = distances[:, 1:].ravel() <= reach[one]
    joined &= np.abs((normals[one] * normals[other]).sum(axis=1)) >= np.cos(np.radians(config.max_angle))
    joined &= (cells[one] == cells[other]).all(axis=1)
    graph = coo_array((joined[joined], (one[joined], other[joined])), shape=(num_points, num_points))
    return connected_components(graph, directed=False)[1]


def vote_in_superpoints(votes: Votes, superpoints: np.ndarray) -> Votes:
    """
    Add to the votes on each point the mean of those in its superpoint `(num_points,)`: v ← v + mean v.

    The own votes limit the effect of a wrong join.

    Raises:
        ValueError: There is not one superpoint for each point, numbered from 0.
    """
    check_ids("superpoints", superpoints, len(votes), max(len(votes), 1))
    sizes = np.bincount(superpoints)  # (num_superpoints,)
    members = (superpoints, np.arange(len(superpoints)))
    shares = (1 / sizes[superpoints]).astype(np.float32)
    mean = votes.spread(csr_array((shares, members), shape=(len(sizes), len(superpoints))))
    return votes + mean.select(superpoints)


def _normals(neighborhoods: np.ndarray) -> np.ndarray:
    """Unit normals `(num_points, 3)` of the planes through neighbourhoods `(num_points, k, 3)`, of either sign."""
    offsets = neighborhoods - neighborhoods.mean(axis=1, keepdims=True)
    covariance = offsets.transpose(0, 2, 1) @ offsets  # (num_points, 3, 3)
    return np.linalg.eigh(covariance)[1][:, :, 0]  # eigenvalues ascend: the first direction varies least
