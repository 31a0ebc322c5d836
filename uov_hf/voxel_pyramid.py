"""Voxels at strides 1, 2, 4, … as sorted keys, and the kernel maps between them.

The host needs some sizes: counts of pairs, voxels of the next level. They are fetched together: one transfer for the
extent of the coordinates, one for their check, then one for each level. Each transfer stops an accelerator's
queue.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import torch
import torch.nn.functional as F

from .array_checks import check_array
from .sparse_conv import KernelMap, OffsetGroup, Segments


# Empty cells on the low side of every axis at the coarsest level: a kernel that reaches over the end of a row of cells
# must land in an empty cell, never in the next row. Kernels up to 2 · GUARD_CELLS + 1 are safe at every level.
GUARD_CELLS = 2
MAX_KEY_BITS = 62

BLOCK_KERNEL_SIZE = 3  # of the convolutions on every level; its map is made with the level

# Pairs of one product on a CPU: what is gathered for it should still be in the cache when it is multiplied. On an
# accelerator a product has all pairs of its offset: every launch costs, and nothing stays in a cache.
GROUP_PAIRS = {"cpu": 4096}


@dataclass(frozen=True)
class VoxelLevel:
    """The voxels of one stride as ascending keys: batch, x, y, z packed into the bits of an int32 or int64.

    Args:
        keys (`torch.Tensor` of shape `(num_voxels,)`): Ascending and without duplicates.
        bits (`tuple[int, int, int]`): Width of the x, y and z field; the batch index has the rest.
        num_coarser (`int`): How often the stride can be doubled: cells of that size still begin at a multiple of it.
    """

    keys: torch.Tensor
    bits: tuple[int, int, int]
    num_coarser: int

    def fields(self) -> list[torch.Tensor]:
        """Batch index, x, y and z of every voxel (shifted to be non-negative)."""
        x_bits, y_bits, z_bits = self.bits
        return [
            self.keys >> (x_bits + y_bits + z_bits),
            (self.keys >> (y_bits + z_bits)) & ((1 << x_bits) - 1),
            (self.keys >> z_bits) & ((1 << y_bits) - 1),
            self.keys & ((1 << z_bits) - 1),
        ]


def _pack(fields: Sequence[torch.Tensor], bits: tuple[int, int, int]) -> torch.Tensor:
    (batch, x, y, z), (x_bits, y_bits, z_bits) = fields, bits
    return (((batch << x_bits | x) << y_bits | y) << z_bits) | z


def sort_voxels(
    voxel_coords: torch.Tensor, num_levels: int, voxel_features: torch.Tensor | None = None
) -> tuple[VoxelLevel, torch.Tensor]:
    """Sort voxels by key.

    Coordinates may be negative: a shift by a multiple of the total stride keeps the cells of all levels.

    Args:
        voxel_coords (`torch.Tensor` of shape `(num_voxels, 4)`): Batch index, x, y, z.
        num_levels (`int`): Number of strides 1, 2, 4, ….
        voxel_features (`torch.Tensor`, *optional*): Checked to be finite in the same transfer as the coordinates.

    Returns:
        `tuple[VoxelLevel, torch.Tensor]`: The finest level, and the row of `voxel_coords` of each sorted voxel.

    Raises:
        ValueError: The coordinates are no whole numbers of this shape, a batch index is negative, a feature is not
            finite, a voxel occurs twice, or the coordinates span more cells than an int64 key can number.
    """
    check_array("voxel_coords", voxel_coords, ("num_voxels", 4), "iu")
    coords = voxel_coords.long()
    if len(coords) == 0:
        # Any width will do that is at least 1 on the coarsest level: each level is a bit narrower.
        return VoxelLevel(coords[:, 0], (num_levels,) * 3, num_levels - 1), coords[:, 0]
    low, high = _extent(coords, voxel_features)
    stride = 2 ** (num_levels - 1)
    low = [0, *((axis // stride - GUARD_CELLS) * stride for axis in low[1:])]
    batch_bits, x_bits, y_bits, z_bits = ((top - bottom).bit_length() for bottom, top in zip(low, high, strict=True))
    bits = x_bits, y_bits, z_bits
    if batch_bits + sum(bits) > MAX_KEY_BITS or min(low) < torch.iinfo(torch.int64).min:
        raise ValueError(
            f"`voxel_coords` span 2^{sum(bits)} cells in {2**batch_bits} samples, more than the 2^{MAX_KEY_BITS} "
            "that a voxel key can number. Remove far outliers, e.g. with `point_cloud_range` of `UOVFeatureExtractor`."
        )
    dtype = torch.int32 if batch_bits + sum(bits) <= 30 else torch.int64
    fields = [(column - start).to(dtype) for column, start in zip(coords.unbind(1), low, strict=True)]
    keys, order = _sort(_pack(fields, bits))
    repeated = keys[1:] == keys[:-1]
    if repeated.any():
        row = voxel_coords[order[:-1][repeated][0]].tolist()
        raise ValueError(
            f"`voxel_coords` must be unique, but {int(repeated.sum())} voxels occur again, the first being {row} "
            "(batch, x, y, z). `UOVFeatureExtractor` gives one row per voxel."
        )
    return VoxelLevel(keys, bits, num_levels - 1), order


def _extent(coords: torch.Tensor, voxel_features: torch.Tensor | None) -> tuple[list[int], list[int]]:
    """Lowest and highest value of each column; the features are checked in the same transfer."""
    parts = [coords.amin(0), coords.amax(0)]
    if voxel_features is not None:
        parts.append(voxel_features.isfinite().all().long().view(1))
    values = torch.cat(parts).tolist()
    low, high, are_finite = values[:4], values[4:8], values[8:] != [0]
    if low[0] < 0:
        raise ValueError(f"The batch index (column 0 of `voxel_coords`) starts at 0, got {low[0]}.")
    if not are_finite:
        raise ValueError(
            "`voxel_features` contain NaN or infinity, which batch normalisation would spread to every voxel. "
            "`UOVFeatureExtractor` leaves such points out."
        )
    return low, high


def _submanifold_map(present: torch.Tensor, neighbours: torch.Tensor, counts: list[int]) -> KernelMap:
    """Map from the results of `_neighbours` and their counts for each offset.

    Every pair (i, k, o) has a mirror image (o, -k, i), so opposite offsets have equally many pairs and form a group.
    """
    num_voxels, device = neighbours.shape[1], neighbours.device
    rows = torch.arange(num_voxels, dtype=torch.int32, device=device)
    if not num_voxels:
        return KernelMap([], rows, rows, _segments(rows, 0))
    centre, group_pairs = len(counts), GROUP_PAIRS.get(device.type, sys.maxsize)
    steps = [step for step, count in enumerate(counts, start=1) for _ in range(0, count, group_pairs)]
    counts = [min(count - first, group_pairs) for count in counts for first in range(0, count, group_pairs)]
    pairs = _places(present.flatten(), sum(counts))
    higher = neighbours.flatten().index_select(0, pairs).split(counts)
    lower = pairs.remainder(num_voxels).int().split(counts)
    inputs, outputs = (torch.cat([rows, *_interleave(*halves)]) for halves in ((lower, higher), (higher, lower)))

    groups, start = [OffsetGroup(slice(centre, centre + 1), slice(0, num_voxels), num_voxels, True)], num_voxels
    for step, count in zip(steps, counts, strict=True):
        offsets = slice(centre - step, centre + step + 1, 2 * step)
        groups.append(OffsetGroup(offsets, slice(start, start + 2 * count), count))
        start += 2 * count
    return KernelMap(groups, inputs, outputs, _segments(outputs, num_voxels))


def _interleave(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """first[0], second[0], first[1], …"""
    return chain.from_iterable(zip(first, second, strict=True))


def _neighbours(level: VoxelLevel, kernel_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a voxel has a neighbour under each offset after the centre, and its row: `(K // 2, num_voxels)` each."""
    keys, radius, (_, y_bits, z_bits) = level.keys, kernel_size // 2, level.bits
    columns = [divmod(column, kernel_size) for column in range(kernel_size**2 // 2 + 1, kernel_size**2)]
    shifts = [((x - radius) << (y_bits + z_bits)) + ((y - radius) << z_bits) - radius for x, y in columns]
    targets = torch.stack([keys + shift for shift in shifts])  # (columns, num_voxels), each column's lowest cell
    padded = torch.cat([keys, keys.new_full((1,), torch.iinfo(keys.dtype).max)])
    above = torch.arange(1, len(keys) + 1, dtype=torch.int32, device=keys.device)
    own_column = _follow(padded, keys + 1, above, radius)
    others = _follow(padded, targets, _search(keys, targets), kernel_size)
    present, rows = (torch.cat([own, other.flatten(0, 1)]) for own, other in zip(own_column, others, strict=True))
    return present, rows


def _search(keys: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Rows (int32) of the first keys that are not below `targets`, each row of which ascends."""
    if keys.device.type != "cpu":
        return torch.searchsorted(keys, targets, out_int32=True)
    # numpy begins where the last search ended, and is three times as fast on one thread.
    return torch.from_numpy(np.searchsorted(keys.numpy(), targets.numpy()).astype(np.int32))


def _follow(
    keys: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, num_cells: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether the keys `targets`, `targets + 1`, … exist, and their rows, searched upwards from `rows`."""
    present, found = [], []
    for step in range(num_cells):
        present.append(keys.index_select(0, rows.flatten()).view_as(targets) == targets + step)
        found.append(rows)
        rows = rows + present[-1]
    return torch.stack(present, -2), torch.stack(found, -2)


def _sort(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascending keys and their old rows; equal keys come in any order."""
    if keys.device.type != "cpu":
        return torch.sort(keys)
    order = torch.from_numpy(np.argsort(keys.numpy()))  # five times as fast as torch
    return keys.index_select(0, order), order


def _places(mask: torch.Tensor, count: int) -> torch.Tensor:
    """Where a flat mask is true. With the count given, the host does not wait for an accelerator."""
    if mask.device.type != "cpu":
        return torch.nonzero_static(mask, size=count).squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))  # twice as fast as torch


@dataclass(frozen=True)
class _Parents:
    """The cells of twice the size that contain the voxels, before the host has their number.

    Args:
        keys (`torch.Tensor` of shape `(num_voxels,)`): ascending keys of the cells, as often as they have voxels.
        ranks (`torch.Tensor` of shape `(num_voxels,)`): the row of each of these keys among those without duplicates.
        rows (`torch.Tensor` of shape `(num_voxels,)`): the cell's row for each voxel.
        places (`torch.Tensor` of shape `(num_voxels,)`): where in its cell a voxel lies, 0…7.
        bits (`tuple[int, int, int]`): of the cells' level.
    """

    keys: torch.Tensor
    ranks: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    bits: tuple[int, int, int]


def _find_parents(fine: VoxelLevel) -> _Parents:
    batch, *axes = fine.fields()
    x_bits, y_bits, z_bits = (width - 1 for width in fine.bits)
    bits = x_bits, y_bits, z_bits
    keys, order = _sort(_pack([batch, *(axis >> 1 for axis in axes)], bits))
    is_next = torch.cat([keys[:1] != keys[:1], keys[1:] != keys[:-1]])  # of the cell after the last key's
    ranks = is_next.cumsum(0)
    rows = torch.empty_like(ranks).scatter_(0, order, ranks)
    x, y, z = (axis & 1 for axis in axes)
    return _Parents(keys, ranks, rows, x * 4 + y * 2 + z, bits)


def _down_map(parents: _Parents, num_outputs: int, counts: list[int]) -> KernelMap:
    """Map from every voxel to its cell of twice the size; `counts` are the voxels in each of the 8 places."""
    num_inputs, device = len(parents.rows), parents.rows.device
    rows = torch.arange(num_inputs, dtype=torch.int32, device=device)
    children = torch.full((8 * num_outputs,), -1, dtype=torch.int32, device=device)
    children.scatter_(0, parents.places.long() * num_outputs + parents.rows, rows)
    pairs = _places(children >= 0, num_inputs)
    inputs, outputs = children.index_select(0, pairs), pairs.remainder(num_outputs).int()
    order = torch.empty_like(inputs).scatter_(0, inputs.long(), rows)
    ends = list(accumulate(counts))
    groups = [
        OffsetGroup(slice(place, place + 1), slice(end - count, end), count)
        for place, (count, end) in enumerate(zip(counts, ends, strict=True))
        if count
    ]
    return KernelMap(groups, inputs, outputs, _segments(outputs, num_outputs), by_input=Segments(order, None))


def _segments(rows: torch.Tensor, num_rows: int) -> Segments:
    """The places at which each of `num_rows` rows occurs in `rows`."""
    counts = torch.zeros(num_rows + 1, dtype=torch.int32, device=rows.device)
    counts.scatter_add_(0, rows.long() + 1, torch.ones_like(rows))
    return Segments(_stable_order(rows).int(), counts.cumsum(0, dtype=torch.int32))


def _stable_order(rows: torch.Tensor) -> torch.Tensor:
    """The stable order of non-negative int32; numpy counts 16 bits at a time, several times as fast as a sort."""
    if rows.device.type != "cpu":
        return torch.sort(rows, stable=True).indices
    low, high = rows.numpy().astype(np.uint16), (rows >> 16).numpy().astype(np.uint16)
    order = low.argsort(kind="stable")
    return torch.from_numpy(order[high[order].argsort(kind="stable")] if high.any() else order)


class VoxelPyramid:
    """Sorted voxels at strides 1, 2, 4, … and their kernel maps; a level is made when a map first needs it."""

    def __init__(self, finest: VoxelLevel):
        self._levels, self._num_coarser = [finest], finest.num_coarser
        self._submanifold: dict[tuple[int, int], KernelMap] = {}
        self._down: list[KernelMap] = []
        self._num_made = 0

    @torch.compiler.disable
    def submanifold(self, level: int, kernel_size: int) -> KernelMap:
        """Map of a stride-1 convolution with a kernel of 3 or 5 cells on the voxels of `level`."""
        if kernel_size % 2 != 1 or not BLOCK_KERNEL_SIZE <= kernel_size <= 2 * GUARD_CELLS + 1:
            raise ValueError(f"`kernel_size` must be odd, from 3 to {2 * GUARD_CELLS + 1}, got {kernel_size}.")
        self._reach(level)
        if (level, kernel_size) not in self._submanifold:
            present, neighbours = _neighbours(self._levels[level], kernel_size)
            self._submanifold[level, kernel_size] = _submanifold_map(present, neighbours, present.sum(1).tolist())
        return self._submanifold[level, kernel_size]

    @torch.compiler.disable
    def down(self, level: int) -> KernelMap:
        """Map of the kernel-2, stride-2 convolution from `level` to `level + 1`."""
        if not level < self._num_coarser:
            raise ValueError(f"`level` must be below {self._num_coarser}, the coarsest level, got {level}.")
        self._reach(level)
        return self._down[level]

    @torch.compiler.disable
    def up(self, level: int) -> KernelMap:
        """Map of the inverse of `down(level)`: from `level + 1` back onto the voxels of `level`."""
        return self.down(level).transposed()

    def _reach(self, level: int) -> None:
        if not 0 <= level <= self._num_coarser:
            raise ValueError(f"`level` must lie between 0 and {self._num_coarser}, got {level}.")
        while self._num_made <= level:
            self._make(self._num_made)
            self._num_made += 1

    def _make(self, number: int) -> None:
        """The map of the blocks' kernel on a level, the next level and the map down to it, in one transfer."""
        level = self._levels[number]
        present, neighbours = _neighbours(level, BLOCK_KERNEL_SIZE)
        sizes = present.sum(1)
        parents = _find_parents(level) if level.num_coarser else None
        if parents is not None:
            num_cells = F.pad(parents.ranks + 1, (1, 0))[-1:]
            per_place = sizes.new_zeros(8).scatter_add_(0, parents.places.long(), torch.ones_like(parents.ranks))
            sizes = torch.cat([sizes, per_place, num_cells])
        counts = sizes.tolist()
        self._submanifold[number, BLOCK_KERNEL_SIZE] = _submanifold_map(present, neighbours, counts[: len(neighbours)])
        if parents is not None:
            *children, num_parents = counts[len(neighbours) :]
            keys = level.keys.new_empty(num_parents).scatter_(0, parents.ranks, parents.keys)
            self._levels.append(VoxelLevel(keys, parents.bits, level.num_coarser - 1))
            self._down.append(_down_map(parents, num_parents, children))
