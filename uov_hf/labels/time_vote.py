"""The vote over time: the votes on the same place in the scans before and after."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from uov_hf.labels.votes import Votes, concatenate_votes


KEY_BITS = 21  # per axis, three in an int64. Keys repeat after 2²¹ voxels, far beyond the range of a scan


@dataclass(frozen=True)
class TimeVoteConfig:
    """
    Scans are transformed to one frame by `lidar2global`, and their votes are gathered in voxels. Each point gets the
    votes of the voxels around it, of its own scan and of the others.

    Args:
        window (`int`, defaults to 5): The number of scans before, and after, that count.
        voxel_size (`float`, defaults to 0.3):
            Metres. A voxel with votes on m points of one scan has the weight √m: a near surface has more points than a
            far one, but not more segments.
        num_neighbors (`int`, defaults to 12): The number of nearest voxels that count for a point.
        reach (`float`, defaults to 0.3), relative_reach (`float`, defaults to 0.03):
            Metres, and share of the distance to the sensor; the larger is σ. A voxel at distance d < 3σ has the weight
            exp(−d² / 2σ²), a farther one 0. Votes of another scan for things (classes that can move) count only if the
            voxel is nearer than σ to a point of this scan. So an object that has left a place leaves no labels there.

    Raises:
        ValueError: a field is out of range.
    """

    window: int = 5
    voxel_size: float = 0.3
    num_neighbors: int = 12
    reach: float = 0.3
    relative_reach: float = 0.03

    def __post_init__(self):
        for name in ("voxel_size", "num_neighbors", "reach"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be more than 0, got {getattr(self, name)}.")
        for name in ("window", "relative_reach"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")


@dataclass(frozen=True)
class VoxelVotes:
    """
    The votes of one scan, gathered in voxels.

    Args:
        centers (`np.ndarray` of shape `(num_voxels, 3)`): Mean of the points with votes; metres, global.
        votes (`Votes`): On the voxels.
    """

    centers: np.ndarray
    votes: Votes


def gather_in_voxels(votes: Votes, positions: np.ndarray, config: TimeVoteConfig) -> VoxelVotes:
    """Gather the votes on the points of one scan; `positions` `(num_points, 3)` are global, metres."""
    has_votes = np.flatnonzero(votes.is_any)
    votes, positions = votes.select(has_votes), positions[has_votes]
    keys, voxel = np.unique(voxel_keys(positions, config.voxel_size), return_inverse=True)
    sizes = np.bincount(voxel)
    members = (voxel, np.arange(len(voxel)))
    shape = len(keys), len(voxel)
    centers = csr_array((1 / sizes[voxel], members), shape=shape) @ positions
    weights = (1 / np.sqrt(sizes[voxel])).astype(np.float32)
    voxel_votes = votes.spread(csr_array((weights, members), shape=shape))
    return VoxelVotes(centers, voxel_votes)


def vote_over_time(
    positions: np.ndarray,
    ranges: np.ndarray,
    own: VoxelVotes,
    others: list[VoxelVotes],
    is_thing: np.ndarray,
    config: TimeVoteConfig,
) -> Votes:
    """
    The votes on the points of a scan, its own and those of other scans.

    Args:
        positions (`np.ndarray` of shape `(num_points, 3)`): Of the points; metres, global.
        ranges (`np.ndarray` of shape `(num_points,)`): Their distances to the sensor, metres.
        own (`VoxelVotes`): Of this scan.
        others (`list[VoxelVotes]`): Of the scans before and after, in the order of time.
        is_thing (`np.ndarray` of shape `(num_classes,)`): Which classes can move.
        config (`TimeVoteConfig`): Which voxels count.
    """
    scans = [own, *others]
    centers = np.concatenate([scan.centers for scan in scans])
    sigma = np.maximum(config.reach, config.relative_reach * ranges)  # (num_points,)
    has_left = ~_is_near_points(centers, positions, sigma)  # (num_voxels,)
    has_left[: len(own.centers)] = False  # in its own scan every vote counts
    counts = ~(has_left[:, None] & np.append(is_thing, False))  # (num_voxels, num_classes + 1)
    votes = concatenate_votes([scan.votes for scan in scans]).where(counts)
    num_voxels = min(config.num_neighbors, len(centers))
    if num_voxels == 0:
        return Votes(*np.zeros((2, len(positions), len(is_thing) + 1), np.float32))

    distances, voxels = cKDTree(centers).query(positions, k=range(1, num_voxels + 1))
    sigma = sigma[:, None]
    weights = np.where(distances < 3 * sigma, np.exp(-0.5 * (distances / sigma) ** 2), 0).astype(np.float32)
    starts = np.arange(0, voxels.size + 1, num_voxels)
    return votes.spread(csr_array((weights.ravel(), voxels.ravel(), starts), shape=(len(positions), len(centers))))


def _is_near_points(centers: np.ndarray, positions: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Which of `centers` `(num_voxels, 3)` are nearer to the nearest of `positions` than that point's `sigma`."""
    distances, nearest = cKDTree(positions).query(centers, distance_upper_bound=sigma.max(initial=0))
    return distances < np.append(sigma, 0)[nearest]  # where no point is within the bound, `nearest` is their number


def voxel_keys(positions: np.ndarray, voxel_size: float) -> np.ndarray:
    """The key of the voxel of each of `positions` `(num_points, 3)`, finite metres; int64 `(num_points,)`."""
    # The remainder first: the conversion of a larger number than int64 has depends on the processor.
    column, row, layer = np.mod(np.floor(positions / voxel_size), 2.0**KEY_BITS).astype(np.int64).T
    return (column << 2 * KEY_BITS) | (row << KEY_BITS) | layer
