"""Voxels at strides 1, 2, 4, … as sorted keys, and the kernel maps between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .sparse_conv import KernelMap, OffsetGroup, Segments


# Empty cells on the low side of every axis at the coarsest level: a kernel that reaches over the end of a row of cells
# must land in an empty cell, never in the next row. Kernels up to 2 · GUARD_CELLS + 1 are safe at every level.
GUARD_CELLS = 2
MAX_KEY_BITS = 62

# Pairs of one product: what is gathered for it should still be in the cache when it is multiplied.
GROUP_PAIRS = 4096


@dataclass(frozen=True)
class VoxelLevel:
    """The voxels of one stride as ascending keys: batch, x, y, z packed into the bits of an int32 or int64.

    Args:
        keys (`torch.Tensor` of shape `(num_voxels,)`):
            Ascending and without duplicates.
        bits (`tuple[int, int, int]`):
            Width of the x, y and z field; the batch index has the rest.
    """

    keys: torch.Tensor
    bits: tuple[int, int, int]

    def fields(self) -> list[torch.Tensor]:
        """Batch index, x, y and z of every voxel (shifted to be non-negative)."""
        x_bits, y_bits, z_bits = self.bits
        return [
            self.keys >> (x_bits + y_bits + z_bits),
            (self.keys >> (y_bits + z_bits)) & ((1 << x_bits) - 1),
            (self.keys >> z_bits) & ((1 << y_bits) - 1),
            self.keys & ((1 << z_bits) - 1),
        ]


def _pack(fields, bits: tuple[int, int, int]) -> torch.Tensor:
    (batch, x, y, z), (x_bits, y_bits, z_bits) = fields, bits
    return (((batch << x_bits | x) << y_bits | y) << z_bits) | z


def sort_voxels(voxel_coords: torch.Tensor, num_levels: int) -> tuple[VoxelLevel, torch.Tensor]:
    """Sort voxels by key; (finest level, row of `voxel_coords` that each sorted voxel came from).

    Coordinates may be negative: a shift by a multiple of the total stride keeps the cells of all levels.

    Args:
        voxel_coords (`torch.Tensor` of shape `(num_voxels, 4)`):
            Batch index, x, y, z.
        num_levels (`int`):
            Number of strides 1, 2, 4, ….

    Raises:
        ValueError: where a voxel occurs twice, or the coordinates span more cells than an int64 key can tell apart.
    """
    stride = 2 ** (num_levels - 1)
    coords = voxel_coords.long()
    if len(coords) == 0:
        return VoxelLevel(coords[:, 0], (1, 1, 1)), coords[:, 0]
    low = (torch.div(coords.amin(0), stride, rounding_mode="floor") - GUARD_CELLS) * stride
    low[0] = 0
    coords = coords - low
    batch_bits, *bits = (high.bit_length() for high in coords.amax(0).tolist())
    if batch_bits + sum(bits) > MAX_KEY_BITS:
        raise ValueError(
            f"`voxel_coords` span 2^{sum(bits)} cells in {2**batch_bits} samples, more than the 2^{MAX_KEY_BITS} "
            "that a voxel key can number. Remove far outliers, e.g. with `point_cloud_range` of `UOVFeatureExtractor`."
        )
    bits, dtype = tuple(bits), torch.int32 if batch_bits + sum(bits) <= 30 else torch.int64
    keys, order = torch.sort(_pack(coords.to(dtype).unbind(1), bits))
    repeated = keys[1:] == keys[:-1]
    if repeated.any():
        row = voxel_coords[order[:-1][repeated][0]].tolist()
        raise ValueError(
            f"`voxel_coords` must be unique, but {int(repeated.sum())} voxels occur again, the first being {row} "
            "(batch, x, y, z). `UOVFeatureExtractor` gives one row per voxel."
        )
    return VoxelLevel(keys, bits), order


def _coarsen(fine: VoxelLevel) -> tuple[VoxelLevel, torch.Tensor, torch.Tensor]:
    """The level of twice the stride, and for each fine voxel its parent's row and its place 0…7 in the parent."""
    batch, *axes = fine.fields()
    bits = tuple(max(width - 1, 1) for width in fine.bits)
    keys, parents = torch.unique(_pack([batch, *(axis >> 1 for axis in axes)], bits), return_inverse=True)
    x, y, z = (axis & 1 for axis in axes)
    return VoxelLevel(keys, bits), parents, x * 4 + y * 2 + z


def _submanifold_map(level: VoxelLevel, kernel_size: int) -> KernelMap:
    """Every voxel with its neighbours in the cube of `kernel_size` cells around it.

    A pair (i, k, o) is there again as (o, -k, i), so that opposite offsets have equally many pairs and form a group.
    """
    neighbours, centre = _neighbours(level, kernel_size), kernel_size**3 // 2
    present, num_voxels = neighbours >= 0, neighbours.shape[1]
    counts = present.sum(1).tolist()
    steps = [step for step, count in enumerate(counts, start=1) for _ in range(0, count, GROUP_PAIRS)]
    counts = [min(count - first, GROUP_PAIRS) for count in counts for first in range(0, count, GROUP_PAIRS)]
    offsets, lower = present.nonzero().unbind(1)
    higher = neighbours.flatten().index_select(0, offsets * num_voxels + lower).split(counts)
    lower = lower.int().split(counts)
    rows = torch.arange(num_voxels, dtype=torch.int32, device=neighbours.device)
    inputs, outputs = _interleave(lower, higher, rows), _interleave(higher, lower, rows)

    sizes = [2 * count for count in counts]
    groups = [OffsetGroup(slice(centre, centre + 1), num_voxels, None, None)] if num_voxels else []
    for step, count, *pairs in zip(steps, counts, inputs.split(sizes), outputs.split(sizes), strict=True):
        groups.append(OffsetGroup(slice(centre - step, centre + step + 1, 2 * step), count, *pairs))
    by_output = _segments(torch.cat([rows, outputs]), num_voxels)
    return KernelMap(groups, [num_voxels, *sizes] if num_voxels else [], by_output)


def _interleave(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """first[0], second[0], first[1], … in one tensor."""
    return torch.cat([like[:0], *(part for pair in zip(first, second, strict=True) for part in pair)])


def _neighbours(level: VoxelLevel, kernel_size: int) -> torch.Tensor:
    """`(K // 2, num_voxels)` rows of the neighbours under the offsets after the centre, -1 where there is none."""
    keys, radius, (_, y_bits, z_bits) = level.keys, kernel_size // 2, level.bits
    columns = [divmod(column, kernel_size) for column in range(kernel_size**2 // 2 + 1, kernel_size**2)]
    shifts = [((x - radius) << (y_bits + z_bits)) + ((y - radius) << z_bits) - radius for x, y in columns]
    targets = keys + keys.new_tensor(shifts).unsqueeze(1)  # (columns, num_voxels), the lowest cell of each column
    candidates = torch.searchsorted(keys, targets, out_int32=True)
    padded = torch.cat([keys, keys.new_full((1,), torch.iinfo(keys.dtype).max)])
    above = torch.arange(1, len(keys) + 1, dtype=torch.int32, device=keys.device)
    own_column = _follow(padded, keys + 1, above, radius)
    return torch.cat([own_column, _follow(padded, targets, candidates, kernel_size).flatten(0, 1)])


def _follow(keys: torch.Tensor, targets: torch.Tensor, candidates: torch.Tensor, num_cells: int) -> torch.Tensor:
    """Rows of the keys `targets`, `targets + 1`, …, -1 where missing: they follow one another from `candidates` on."""
    found = []
    for step in range(num_cells):
        hits = keys.index_select(0, candidates.flatten()).view_as(targets) == targets + step
        found.append(torch.where(hits, candidates, -1))
        candidates = candidates + hits
    return torch.stack(found, -2)


def _down_map(parents: torch.Tensor, places: torch.Tensor, num_outputs: int) -> KernelMap:
    """Every voxel with the cell of twice the size that it lies in, `places` (0…7) telling where in it."""
    children = torch.full((8, num_outputs), -1, dtype=torch.int32, device=parents.device)
    rows = torch.arange(parents.numel(), dtype=torch.int32, device=parents.device)
    children.view(-1)[places * num_outputs + parents] = rows
    present = children >= 0
    counts = present.sum(1).tolist()
    inputs, outputs = children[present], present.nonzero()[:, 1].int()
    order = torch.empty_like(inputs)
    order[inputs] = rows
    pairs = zip(counts, inputs.split(counts), outputs.split(counts), strict=True)
    groups = [OffsetGroup(slice(place, place + 1), *pair) for place, pair in enumerate(pairs) if pair[0]]
    sizes = [group.num_pairs for group in groups]
    return KernelMap(groups, sizes, by_output=_segments(outputs, num_outputs), by_input=Segments(order, None))


def _segments(rows: torch.Tensor, num_rows: int) -> Segments:
    """The places at which each of `num_rows` rows occurs in `rows`."""
    order = _stable_order(rows)
    ends = torch.bincount(rows, minlength=num_rows).cumsum(0)
    return Segments(order.int(), torch.cat([ends.new_zeros(1), ends]).int())


def _stable_order(rows: torch.Tensor) -> torch.Tensor:
    """The stable order of non-negative int32; numpy counts 16 bits at a time, several times as fast as a sort."""
    if rows.device.type != "cpu" or rows.numel() == 0:
        return torch.sort(rows, stable=True).indices
    low, high = rows.numpy().astype(np.uint16), (rows >> 16).numpy().astype(np.uint16)
    order = low.argsort(kind="stable")
    return torch.from_numpy(order[high[order].argsort(kind="stable")] if high.any() else order)


class VoxelPyramid:
    """Sorted voxels at strides 1, 2, 4, … and their kernel maps, each computed when first asked for."""

    def __init__(self, finest: VoxelLevel):
        self._levels, self._submanifold, self._down = [finest], {}, []

    def submanifold(self, level: int, kernel_size: int) -> KernelMap:
        """Map of a stride-1 convolution with an odd kernel on the voxels of `level`."""
        if (level, kernel_size) not in self._submanifold:
            self._reach(level)
            self._submanifold[level, kernel_size] = _submanifold_map(self._levels[level], kernel_size)
        return self._submanifold[level, kernel_size]

    def down(self, level: int) -> KernelMap:
        """Map of the kernel-2, stride-2 convolution from `level` to `level + 1`."""
        self._reach(level + 1)
        return self._down[level]

    def up(self, level: int) -> KernelMap:
        """Map of the inverse of `down(level)`: from `level + 1` back onto the voxels of `level`."""
        return self.down(level).transposed()

    def _reach(self, level: int) -> None:
        while len(self._levels) <= level:
            coarse, parents, places = _coarsen(self._levels[-1])
            self._down.append(_down_map(parents, places, len(coarse.keys)))
            self._levels.append(coarse)
