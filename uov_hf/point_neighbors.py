"""Farthest-point sampling and nearest neighbours, on a CPU with scipy's k-d tree where it is installed."""

import math
from bisect import bisect_left, bisect_right

import numpy as np
import torch

from .array_checks import check_array


try:
    from scipy.spatial import cKDTree
except ImportError:
    cKDTree = None  # type: ignore[assignment,misc]  # distances to all points: slower, the same neighbours

# Distances to all points are computed in chunks: as large as a cache on a CPU, and on an accelerator, where a chunk is
# about ten launches, as large as its memory allows (a few arrays of 0.25 GB).
CHUNK_ELEMENTS, DEVICE_CHUNK_ELEMENTS = 1 << 20, 1 << 26


def where_to_search(points: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move points to the CPU, where the k-d tree is, or to `device` without scipy."""
    return points.cpu() if cKDTree is not None else points.to(device)


def farthest_points(points: torch.Tensor, size: int) -> torch.Tensor:
    """Indices `(size,)`: the first point, then repeatedly the point that is farthest from all picked ones.

    A pick only changes the distances of points nearer than the farthest point so far. Among points sorted along the
    longest axis these form one slab, so that each step is a few operations on that slab.

    Raises:
        ValueError: `points` are not `(num_points, 3)` numbers, or fewer than `size`.
    """
    check_array("points", points, ("num_points", 3), "f")
    if not 1 <= size <= len(points):
        raise ValueError(f"`size` must lie between 1 and {len(points)}, the number of points, got {size}.")
    cloud = points.cpu().numpy()
    axis = np.ptp(cloud, axis=0).argmax()
    order = np.argsort(cloud[:, axis], kind="stable")
    cloud = np.ascontiguousarray(cloud[order].T)  # (3, N)
    along = cloud[axis].tolist()  # for `bisect`
    x, y, z = cloud
    distances = np.where(x * x + y * y + z * z > 1e-3, np.inf, -1).astype(cloud.dtype)  # squared; -1: never picked
    picks = np.zeros(size, np.int64)
    place, farthest = int(np.flatnonzero(order == 0)[0]), math.inf
    for number in range(1, size):
        reach = 1.001 * math.sqrt(max(farthest, 0))  # a little more, for rounding
        slab = slice(bisect_left(along, along[place] - reach), bisect_right(along, along[place] + reach))
        squares = cloud[:, slab] - cloud[:, place, None]
        squares *= squares
        squares[0] += squares[1]
        squares[0] += squares[2]
        np.minimum(distances[slab], squares[0], out=distances[slab])
        place = int(distances.argmax())
        farthest = distances[place]
        if distances[place + 1 :].max(initial=-1) == farthest:  # seldom; a search for all of them takes longer
            tied = np.flatnonzero(distances == farthest)
            place = int(tied[order[tied].argmin()])
        picks[number] = order[place]
    return torch.from_numpy(picks).to(points.device)


def nearest_points(queries: torch.Tensor, points: torch.Tensor, k: int) -> torch.Tensor:
    """Indices `(len(queries), k)` of the nearest points, or of all if there are fewer; ties go to the lowest.

    The points and queries are finite, and the squares of their distances, too.

    Raises:
        ValueError: They are not `(any, 3)` numbers, or `k` is less than 1.
    """
    for name, array in (("queries", queries), ("points", points)):
        check_array(name, array, ("any", 3), "f")
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}.")
    if k >= len(points):
        return torch.arange(len(points), device=points.device).repeat(len(queries), 1)
    # Some drivers write (0, 0, 0) for each beam without an echo. A search near them would compare all of them.
    rows = _first_copies(points, k)
    return rows[_nearest(queries, points[rows], k)] if len(rows) < len(points) else _nearest(queries, points, k)


def _first_copies(points: torch.Tensor, k: int) -> torch.Tensor:
    """Ascending rows of the first `k` points at every position: only these can be among the `k` nearest."""
    points = points.to(torch.promote_types(points.dtype, torch.float32)) + 0.0  # −0 becomes 0
    bits = points.contiguous().view(torch.int32 if points.dtype == torch.float32 else torch.int64).long()
    keys = (bits[:, 0] * 73856093) ^ (bits[:, 1] * 19349663) ^ (bits[:, 2] * 83492791)
    order = keys.sort(stable=True).indices
    # Positions that share a key interrupt each other's runs: then more copies than necessary stay.
    sorted_bits = bits[order]
    is_new = torch.ones(len(points), dtype=torch.bool, device=points.device)
    is_new[1:] = (sorted_bits[1:] != sorted_bits[:-1]).any(dim=1)
    places = torch.arange(len(points), device=points.device)
    starts = places.masked_fill(~is_new, 0).cummax(dim=0).values
    return order[places - starts < k].sort().values


def _nearest(queries: torch.Tensor, points: torch.Tensor, k: int) -> torch.Tensor:
    if k >= len(points):
        return torch.arange(len(points), device=points.device).repeat(len(queries), 1)
    on_cpu = points.device.type == "cpu"
    chunk_size = (CHUNK_ELEMENTS if on_cpu else DEVICE_CHUNK_ELEMENTS) // len(points) + 1
    tree = cKDTree(points.numpy()) if on_cpu and cKDTree is not None else None
    if tree is not None:
        distances, neighbors = _query(tree, queries, k + 1)
    else:
        found = [_squares(some, points).topk(k + 1, largest=False) for some in queries.split(chunk_size)]
        distances, neighbors = (torch.cat(parts) for parts in zip(*found, strict=True))  # (len(queries), k + 1)
    kth = distances[:, k - 1] * (1 + 1e-6)
    neighbors = neighbors[:, :k].contiguous()
    # The order of equal distances is arbitrary, and the tree computes in float64: the next point may be as near.
    doubtful = (distances[:, k] <= kth).nonzero().squeeze(1)
    if tree is not None and 4 * k < len(points):
        farther, candidates = _query(tree, queries[doubtful], 4 * k)
        enough = farther[:, -1] > kth[doubtful]  # no equal is missing
        rows, candidates = doubtful[enough], candidates[enough].sort(dim=1).values
        squares = _squares(queries[rows, None], points[candidates]).squeeze(1)
        neighbors[rows] = candidates[_lowest(squares, k)].view(-1, k)
        doubtful = doubtful[~enough]
    for rows in doubtful.split(chunk_size):
        neighbors[rows] = _lowest(_squares(queries[rows], points), k).nonzero()[:, 1].view(-1, k)
    return neighbors


def _query(tree: "cKDTree", queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and indices, both `(len(queries), k)`, the nearest first."""
    distances, indices = tree.query(queries.numpy(), k=k, workers=torch.get_num_threads())
    return torch.from_numpy(distances), torch.from_numpy(indices)


def _lowest(values: torch.Tensor, k: int) -> torch.Tensor:
    """A mask of the k lowest values of each row; among equals the first."""
    kth = values.topk(k, largest=False).values[:, -1:]
    lower, equal = values < kth, values == kth
    equal &= equal.cumsum(dim=1) <= k - lower.sum(dim=1, keepdim=True)
    return lower | equal


def _squares(queries: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Squared distances (..., len(queries), len(points)), summed over x, y, z in this order."""
    axes = zip(queries.unbind(dim=-1), points.unbind(dim=-1), strict=True)
    x, y, z = ((one[..., :, None] - other[..., None, :]).square_() for one, other in axes)
    return x + y + z
