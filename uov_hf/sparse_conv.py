"""Sparse 3D convolution in plain torch: sorted keys → kernel maps → gather, GEMM and one segmented sum.

A sparse convolution sums, for every output voxel o and every kernel offset k that has an input voxel i, `x_i @ W_k`.
A `KernelMap` lists the triples (i, k, o) grouped by k, so that each offset is one dense product; `SparseConv` has the
weight in spconv's layout `(out, k, k, k, in)`, so that the same numbers serve both engines.

Everything here is exact in the dtype it is given, runs on any device, and gives the same bits for the same input and
thread count: no atomics, no flag and no thread count of the process is touched.
"""

import math
import threading
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.autograd.function import once_differentiable


# Empty cells on the low side of every axis at the coarsest level: a kernel that reaches over the end of a row of cells
# must land in an empty cell, never in the next row. Kernels up to 2 · GUARD_CELLS + 1 are safe at every level.
GUARD_CELLS = 2
MAX_KEY_BITS = 62

_memory = threading.local()


def _scratch(name: str, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """Uninitialised `(rows, columns)` memory that this thread uses again: fresh pages cost more than a gather."""
    if like.device.type != "cpu":
        return like.new_empty(rows, columns)  # the accelerator's allocator reuses its memory already
    key, size = (name, like.dtype), rows * columns
    held = getattr(_memory, "tensors", None)
    if held is None:
        held = _memory.tensors = {}
    if key not in held or held[key].numel() < size:
        with torch.inference_mode(False):  # an inference tensor could not be written to by a later training step
            held[key] = torch.empty(size, dtype=like.dtype)
    return held[key][:size].view(rows, columns)


@dataclass(frozen=True)
class Segments:
    """Which products each row sums: `order[starts[r]:starts[r + 1]]`, or exactly `order[r]` where `starts` is None."""

    order: torch.Tensor
    starts: torch.Tensor | None

    def sum(self, products: torch.Tensor) -> torch.Tensor:
        """Sum `(num_pairs, C)` products into `(num_rows, C)` rows, in a fixed order."""
        if self.starts is None:
            return products.index_select(0, self.order)
        if len(self.order) == 0:
            return products.new_zeros(len(self.starts) - 1, products.shape[1])
        return torch.embedding_bag(products, self.order, self.starts, mode=0, include_last_offset=True)[0]


@dataclass(frozen=True)
class KernelMap:
    """Pairs of input and output rows, grouped by kernel offset (last axis fastest).

    Args:
        input_rows, output_rows (`torch.Tensor` of shape `(num_pairs,)`):
            Row pairs; the first `counts[0]` belong to offset 0, and so on.
        counts (`list[int]` of length K):
            Number of pairs of every kernel offset.
        by_input, by_output (`Segments`):
            The pairs of every input row, and of every output row.
        identity (`int`, *optional*):
            The offset under which every row meets itself (the centre of a submanifold kernel): it needs no gather.
    """

    input_rows: torch.Tensor
    output_rows: torch.Tensor
    counts: list[int]
    by_input: Segments
    by_output: Segments
    identity: int | None = None

    def transposed(self) -> "KernelMap":
        """The map of the inverse convolution: the same pairs and offsets, read from output to input."""
        return KernelMap(
            self.output_rows, self.input_rows, self.counts, self.by_output, self.by_input, identity=self.identity
        )

    def convolve(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """From `(num_inputs, in)` and a `(out, k, k, k, in)` weight to `(num_outputs, out)`; casts under autocast."""
        if torch.is_autocast_enabled(features.device.type):
            dtype = torch.get_autocast_dtype(features.device.type)
            features, weight = features.to(dtype), weight.to(dtype)
        return _GatherMatmulSum.apply(features, weight, self)


def _pieces(kernel_map: KernelMap):
    """(offset, first pair, end) of every kernel offset that has pairs."""
    start = 0
    for offset, count in enumerate(kernel_map.counts):
        if count:
            yield offset, start, start + count
        start += count


class _GatherMatmulSum(torch.autograd.Function):
    """y_o = Σ_k x_i(o,k) W_kᵀ; backward: dx_i = Σ_k dy_o(i,k) W_k and dW_k = Σ_pairs dy_oᵀ x_i."""

    @staticmethod
    def forward(ctx, features, weight, kernel_map):
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        taps = weight.flatten(1, 3)  # (out, K, in)
        products = _scratch("products", len(kernel_map.input_rows), weight.shape[0], features)
        gathered = _scratch("gathered", max(kernel_map.counts), weight.shape[-1], features)
        for offset, start, end in _pieces(kernel_map):
            inputs = features
            if offset != kernel_map.identity:
                rows = kernel_map.input_rows[start:end]
                inputs = torch.index_select(features, 0, rows, out=gathered[: end - start])
            torch.mm(inputs, taps[:, offset].t(), out=products[start:end])
        return kernel_map.by_output.sum(products)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        features, weight = ctx.saved_tensors
        kernel_map = ctx.kernel_map
        needs_features, needs_weight, _ = ctx.needs_input_grad
        grad_output = grad_output.contiguous()
        taps = weight.flatten(1, 3)
        grad_taps = torch.zeros_like(taps) if needs_weight else None
        products = _scratch("products", len(kernel_map.input_rows), weight.shape[-1], features)
        gathered = _scratch("gathered", max(kernel_map.counts), weight.shape[-1], features)
        gathered_grad = _scratch("gathered_grad", max(kernel_map.counts), weight.shape[0], features)
        for offset, start, end in _pieces(kernel_map):
            inputs, grads = features, grad_output
            if offset != kernel_map.identity:
                rows = kernel_map.output_rows[start:end]
                grads = torch.index_select(grad_output, 0, rows, out=gathered_grad[: end - start])
                if needs_weight:
                    rows = kernel_map.input_rows[start:end]
                    inputs = torch.index_select(features, 0, rows, out=gathered[: end - start])
            if needs_weight:
                torch.mm(grads.t(), inputs, out=grad_taps[:, offset])
            if needs_features:
                torch.mm(grads, taps[:, offset], out=products[start:end])
        grad_features = kernel_map.by_input.sum(products) if needs_features else None
        return grad_features, grad_taps.view_as(weight) if needs_weight else None, None


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

    def extra_repr(self):
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, transposed={self.transposed}"


@dataclass(frozen=True)
class VoxelLevel:
    """The voxels of one stride as ascending keys: batch, x, y, z packed into the bits of an int64.

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
        _, y_bits, z_bits = self.bits
        x_bits = self.bits[0]
        return [
            self.keys >> (x_bits + y_bits + z_bits),
            (self.keys >> (y_bits + z_bits)) & ((1 << x_bits) - 1),
            (self.keys >> z_bits) & ((1 << y_bits) - 1),
            self.keys & ((1 << z_bits) - 1),
        ]


def _pack(fields, bits: tuple[int, int, int]) -> torch.Tensor:
    batch, x, y, z = fields
    x_bits, y_bits, z_bits = bits
    return (((batch << x_bits | x) << y_bits | y) << z_bits) | z


def sort_voxels(voxel_coords: torch.Tensor, num_levels: int) -> tuple[VoxelLevel, torch.Tensor]:
    """Sort voxels by key; (finest level, row of `voxel_coords` that each sorted voxel came from).

    Coordinates may be negative: a shift by a multiple of the total stride keeps the cells of all levels.

    Args:
        voxel_coords (`torch.Tensor` of shape `(num_voxels, 4)`):
            Batch index, x, y, z.
        num_levels (`int`):
            How many strides 1, 2, 4, … there will be.

    Raises:
        ValueError: where a voxel occurs twice, or the coordinates span more cells than an int64 key can tell apart.
    """
    stride = 2 ** (num_levels - 1)
    coords = voxel_coords.long()
    if len(coords) == 0:
        return VoxelLevel(coords.new_empty(0), (1, 1, 1)), coords.new_empty(0)
    low = coords.amin(0)
    low = torch.div(low, stride, rounding_mode="floor") * stride - GUARD_CELLS * stride
    low[0] = 0
    coords = coords - low
    batch_bits, *bits = (int(high).bit_length() for high in coords.amax(0).tolist())
    if batch_bits + sum(bits) > MAX_KEY_BITS:
        raise ValueError(
            f"`voxel_coords` span 2^{sum(bits)} cells in {2**batch_bits} samples, more than the 2^{MAX_KEY_BITS} "
            "that a voxel key can number. Remove far outliers, e.g. with `point_cloud_range` of `UOVFeatureExtractor`."
        )
    bits = tuple(bits)
    keys, order = torch.sort(_pack(coords.unbind(1), bits))
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


def _submanifold_table(level: VoxelLevel, kernel_size: int) -> torch.Tensor:
    """`(K, num_voxels)`: the row of the neighbour under every kernel offset, −1 where there is none."""
    keys, radius = level.keys, kernel_size // 2
    _, y_bits, z_bits = level.bits
    num_voxels, num_offsets = len(keys), kernel_size**3
    table = torch.full((num_offsets, num_voxels), -1, dtype=torch.long, device=keys.device)
    rows = torch.arange(num_voxels, device=keys.device)
    padded = torch.cat([keys, keys.new_full((1,), torch.iinfo(torch.int64).max)])
    for column in range(kernel_size**2 // 2 + 1):  # half of the (x, y) columns: the other half is their mirror image
        dx, dy = column // kernel_size - radius, column % kernel_size - radius
        targets = keys + ((dx << (y_bits + z_bits)) + (dy << z_bits) - radius)
        candidates = torch.searchsorted(keys, targets)
        for dz in range(kernel_size):  # the cells of a column follow one another in the sorted keys
            hits = padded[candidates] == targets + dz
            offset = column * kernel_size + dz
            found, neighbours = rows[hits], candidates[hits]
            table[offset, found] = neighbours
            table[num_offsets - 1 - offset, neighbours] = found
            candidates = candidates + hits
    return table


def _kernel_map(table: torch.Tensor, num_inputs: int, identity: int | None) -> KernelMap:
    """Kernel map of a `(K, num_outputs)` table of input rows (−1: none)."""
    present = table >= 0
    counts = present.sum(1)
    offsets, output_rows = present.nonzero(as_tuple=True)
    input_rows = table[present]
    positions = torch.empty_like(table)
    positions[present] = torch.arange(len(input_rows), device=table.device)
    by_output = _segments(positions, present)
    if identity is None:  # every input has exactly one output
        order = torch.empty_like(input_rows)
        order[input_rows] = torch.arange(len(input_rows), device=table.device)
        by_input = Segments(order, None)
    else:  # by symmetry, the pair (i, k, o) is the mirror image of (o, −k, i), and pairs of one offset ascend in both
        starts = (counts.cumsum(0) - counts).unsqueeze(1)
        by_input = _segments((positions - starts).flip(0) + starts, present.flip(0))
    return KernelMap(input_rows, output_rows, counts.tolist(), by_input, by_output, identity)


def _segments(positions: torch.Tensor, present: torch.Tensor) -> Segments:
    order = positions.t()[present.t()]
    ends = present.sum(0).cumsum(0)
    return Segments(order, torch.cat([ends.new_zeros(1), ends]))


@dataclass
class VoxelPyramid:
    """Sorted voxels at strides 1, 2, 4, … and their kernel maps, each computed when first asked for."""

    finest: VoxelLevel
    _levels: list = field(default_factory=list)
    _maps: dict = field(default_factory=dict)

    def submanifold(self, level: int, kernel_size: int) -> KernelMap:
        """Map of a stride-1 convolution with an odd kernel on the voxels of `level`."""
        key = ("submanifold", level, kernel_size)
        if key not in self._maps:
            voxels = self._level(level)
            table = _submanifold_table(voxels, kernel_size)
            self._maps[key] = _kernel_map(table, len(voxels.keys), identity=kernel_size**3 // 2)
        return self._maps[key]

    def down(self, level: int) -> KernelMap:
        """Map of the kernel-2, stride-2 convolution from `level` to `level + 1`."""
        self._level(level + 1)
        return self._maps["down", level]

    def up(self, level: int) -> KernelMap:
        """Map of the inverse of `down(level)`: from `level + 1` back onto the voxels of `level`."""
        return self.down(level).transposed()

    def _level(self, level: int) -> VoxelLevel:
        if not self._levels:
            self._levels.append(self.finest)
        while len(self._levels) <= level:
            fine = self._levels[-1]
            coarse, parents, places = _coarsen(fine)
            table = torch.full((8, len(coarse.keys)), -1, dtype=torch.long, device=fine.keys.device)
            table[places, parents] = torch.arange(len(fine.keys), device=fine.keys.device)
            self._maps["down", len(self._levels) - 1] = _kernel_map(table, len(fine.keys), identity=None)
            self._levels.append(coarse)
        return self._levels[level]
