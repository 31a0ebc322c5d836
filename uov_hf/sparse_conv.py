"""Sparse 3D convolution in plain torch: sorted keys → kernel maps → gather, GEMM and one segmented sum.

A sparse convolution sums, for every output voxel o and every kernel offset k that has an input voxel i, `x_i @ W_k`.
A `KernelMap` lists the triples (i, k, o) grouped by k, so that each offset is one dense product; `SparseConv` has the
weight in spconv's layout `(out, k, k, k, in)`, so that the same numbers serve both engines.

Everything here is exact in the dtype it is given, runs on any device, and gives the same bits for the same input and
thread count: no atomics, no flag and no thread count of the process is touched.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import nn
from torch.autograd.function import once_differentiable


# Empty cells on the low side of every axis at the coarsest level: a kernel that reaches over the end of a row of cells
# must land in an empty cell, never in the next row. Kernels up to 2 · GUARD_CELLS + 1 are safe at every level.
GUARD_CELLS = 2
MAX_KEY_BITS = 62

# Pairs of one product: what is gathered for it should still be in the cache when it is multiplied.
GROUP_PAIRS = 4096

# A GEMM with a small weight is some 15 % faster if the weight lies transposed: worth a copy where it is used often.
TRANSPOSE_UP_TO = 128 * 128
TRANSPOSE_FROM = 500

_workspaces = threading.local()


def _workspace(name: str, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """Uninitialised `(rows, columns)` memory that this thread uses again: fresh pages cost more than filling them."""
    if like.device.type != "cpu":
        return like.new_empty(rows, columns)  # the accelerator's allocator reuses its memory already
    memory, size = getattr(_workspaces, name, None), rows * columns * like.element_size()
    if memory is None or memory.numel() < size:
        with torch.inference_mode(False):  # an inference tensor could not be written to by a later training step
            memory = torch.empty(size, dtype=torch.uint8)
        setattr(_workspaces, name, memory)
    return memory[:size].view(like.dtype).view(rows, columns)


@dataclass(frozen=True)
class Segments:
    """Which products each row sums: `order[starts[r]:starts[r + 1]]`, or `order[r]` alone where `starts` is None."""

    order: torch.Tensor
    starts: torch.Tensor | None

    def sum(self, products: torch.Tensor) -> torch.Tensor:
        """Sum `(num_pairs, C)` into `(num_rows, C)`, in a fixed order."""
        if self.starts is None:
            return products.index_select(0, self.order)
        if self.order.numel() == 0:
            return products.new_zeros(self.starts.numel() - 1, products.shape[1])
        return torch.embedding_bag(products, self.order, self.starts, mode=0, include_last_offset=True)[0]


@dataclass(frozen=True)
class OffsetGroup:
    """Kernel offsets with equally many pairs, so that their products are one batched GEMM.

    Args:
        offsets (`slice`):
            The B offsets, of 0…K − 1 with the last axis fastest.
        num_pairs (`int`):
            Number n of pairs of each of them.
        inputs, outputs (`torch.Tensor` of shape `(B · n,)`, *optional*):
            The rows that meet, offset after offset. None where every row meets itself: nothing to gather.
    """

    offsets: slice
    num_pairs: int
    inputs: torch.Tensor | None
    outputs: torch.Tensor | None


@dataclass(frozen=True)
class KernelMap:
    """Which input row meets which output row under each kernel offset.

    Args:
        groups (`list[OffsetGroup]`):
            All pairs.
        sizes (`list[int]`):
            Number of pairs of every group, B · n.
        by_output, by_input (`Segments`):
            The pairs of every output and input row, pairs being numbered group after group. `by_input` is None for
            a submanifold map: the mirror image of a pair is in the other half of its group.
    """

    groups: list[OffsetGroup]
    sizes: list[int]
    by_output: Segments
    by_input: Segments | None = None

    def transposed(self) -> "KernelMap":
        """The map of the inverse convolution: the same pairs under the same offsets, from output to input."""
        groups = [replace(group, inputs=group.outputs, outputs=group.inputs) for group in self.groups]
        return KernelMap(groups, self.sizes, by_output=self.sums_by_input, by_input=self.by_output)

    @cached_property
    def sums_by_input(self) -> Segments:
        """`by_input`, or what it is by symmetry; only gradients need it."""
        if self.by_input is not None or not self.sizes:
            return self.by_input or self.by_output
        order = self.by_output.order
        centre, *others = torch.arange(order.numel(), dtype=order.dtype, device=order.device).split(self.sizes)
        mirror = torch.cat([centre, *(pairs.roll(pairs.numel() // 2) for pairs in others)])
        return Segments(mirror.index_select(0, order), self.by_output.starts)

    def convolve(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """From `(num_inputs, in)` and a `(out, k, k, k, in)` weight to `(num_outputs, out)`; casts under autocast."""
        if torch.is_autocast_enabled(features.device.type):
            dtype = torch.get_autocast_dtype(features.device.type)
            features, weight = features.to(dtype), weight.to(dtype)
        return _SparseConvolution.apply(features, weight, self)


@cache
def _mkl_is_slow() -> bool:
    """Whether oneDNN's float32 GEMM is there and the better one: MKL keeps its fast kernels for Intel's processors."""
    try:
        vendor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    has_both = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_both and "vendor_id" in vendor and "GenuineIntel" not in vendor


def _multiply(rows: torch.Tensor, taps: torch.Tensor, out: torch.Tensor) -> None:
    """`(B, n, in)` rows by `(B, in, out)` taps."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and _mkl_is_slow():
        for matrix, tap, product in zip(rows, taps, out, strict=True):
            product.copy_(torch.ops.mkldnn._linear_pointwise(matrix, tap.t(), None, "none", [], ""))
    else:
        torch.bmm(rows, taps, out=out)


def _gather(features: torch.Tensor, rows: torch.Tensor | None, num_pairs: int, workspace: str) -> torch.Tensor:
    """The `rows` of `features`, `(B, num_pairs, C)`, valid until the next gather into the same workspace."""
    if rows is not None:
        gathered = _workspace(workspace, rows.numel(), features.shape[1], features)
        features = torch.index_select(features, 0, rows, out=gathered)
    return features.view(-1, num_pairs, features.shape[1])


class _SparseConvolution(torch.autograd.Function):
    """y_o = Σ_k W_k x_i(o,k); backward: dx_i = Σ_k W_kᵀ dy_o(i,k) and dW_k = Σ_pairs dy_o x_iᵀ."""

    @staticmethod
    def forward(ctx, features, weight, kernel_map):
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        features, sizes = features.contiguous(), kernel_map.sizes
        taps = weight.flatten(1, 3).permute(1, 2, 0)  # (K, in, out)
        if taps[0].numel() <= TRANSPOSE_UP_TO and sum(sizes) >= TRANSPOSE_FROM * len(taps):
            taps = taps.contiguous()
        products = _workspace("products", sum(sizes), len(weight), features)
        for group, product in zip(kernel_map.groups, products.split(sizes), strict=True):
            rows = _gather(features, group.inputs, group.num_pairs, "inputs")
            _multiply(rows, taps[group.offsets], product.view(-1, group.num_pairs, len(weight)))
        return kernel_map.by_output.sum(products)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        features, weight = ctx.saved_tensors
        needs_features, needs_weight, _ = ctx.needs_input_grad
        features, grad_output, kernel_map = features.contiguous(), grad_output.contiguous(), ctx.kernel_map
        taps = weight.flatten(1, 3).transpose(0, 1)  # (K, out, in)
        grad_taps = torch.zeros_like(weight).flatten(1, 3).transpose(0, 1) if needs_weight else None
        products = _workspace("products", sum(kernel_map.sizes), features.shape[1], features)
        for group, product in zip(kernel_map.groups, products.split(kernel_map.sizes), strict=True):
            grads = _gather(grad_output, group.outputs, group.num_pairs, "grads")
            if needs_features:
                _multiply(grads, taps[group.offsets], product.view(-1, group.num_pairs, features.shape[1]))
            if needs_weight:
                rows = _gather(features, group.inputs, group.num_pairs, "inputs")
                grad_taps[group.offsets] += torch.bmm(grads.transpose(1, 2), rows)
        grad_features = kernel_map.sums_by_input.sum(products) if needs_features else None
        return grad_features, grad_taps.transpose(0, 1).view_as(weight) if needs_weight else None, None


class SparseConv(nn.Module):
    """y_o = Σ_k W_k x_i(o,k): which rows meet is the kernel map's business, so one module serves every kind.

    Args:
        in_channels, out_channels (`int`):
            Width of the input and output features.
        kernel_size (`int`):
            Cells per axis: 3 or 5 for submanifold maps, 2 for the maps down and up.
        transposed (`bool`, *optional*, defaults to `False`):
            Whether it is used with maps up. It only changes the initialisation, as in MinkowskiEngine.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, transposed: bool = False):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.transposed = kernel_size, transposed
        self.weight = nn.Parameter(torch.empty(out_channels, kernel_size, kernel_size, kernel_size, in_channels))
        self.reset_parameters()

    def reset_parameters(self):
        """U(−a, a) with a = 1 / √(fan · kernel volume), the fan being the output's for transposed convolutions."""
        fan = self.out_channels if self.transposed else self.in_channels
        bound = 1 / math.sqrt(fan * self.kernel_size**3)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: torch.Tensor, kernel_map) -> torch.Tensor:
        return kernel_map.convolve(features, self.weight)


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
    order = torch.sort(rows, stable=True).indices
    ends = torch.bincount(rows, minlength=num_rows).cumsum(0)
    return Segments(order.int(), torch.cat([ends.new_zeros(1), ends]).int())


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
