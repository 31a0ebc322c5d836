"""Sparse 3D convolution in plain torch: kernel map → gather, GEMM and one segmented sum.

A sparse convolution sums, for every output voxel o and every kernel offset k that has an input voxel i, `x_i @ W_k`.
A `KernelMap` lists the triples (i, k, o) grouped by k, so that each offset is one dense product; `SparseConv` has the
weight in spconv's layout `(out, k, k, k, in)`, so that the same numbers serve both engines.

Everything here is exact in the dtype it is given, runs on any device, and gives the same bits for the same input and
thread count: no atomics, no flag and no thread count of the process is touched.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .array_checks import check_array


# A GEMM with a small weight is some 15 % faster if the weight lies transposed: worth a copy where it is used often.
TRANSPOSE_UP_TO = 128 * 128
TRANSPOSE_FROM = 500

# What is gathered should still be in a CPU's cache when it is multiplied. On an accelerator only memory limits it.
GATHER_BYTES = {"cpu": 2 << 20}
GATHER_BYTES_ON_ACCELERATORS = 256 << 20

_workspaces = threading.local()


def _workspace(name: str, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """Uninitialised `(rows, columns)` memory that this thread reuses: fresh pages cost more than filling them."""
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
    """The products that row r sums: `order[starts[r]:starts[r + 1]]`, or `order[r]` alone where `starts` is None."""

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
        offsets (`slice`): The B offsets, of 0…K − 1 with the last axis fastest.
        pairs (`slice`): Their B · n pairs in the lists of the map, offset after offset.
        num_pairs (`int`): Number n of pairs of each offset.
        is_identity (`bool`): Whether every row is paired with itself, in order, so that nothing is gathered.
    """

    offsets: slice
    pairs: slice
    num_pairs: int
    is_identity: bool = False


@dataclass(frozen=True)
class KernelMap:
    """The pairs of input and output rows under each kernel offset.

    Args:
        groups (`list[OffsetGroup]`): All pairs, one group after another.
        inputs, outputs (`torch.Tensor` of shape `(num_pairs,)`): The rows of each pair, int32.
        by_output, by_input (`Segments`):
            The pairs of every output and input row. `by_input` is None for a submanifold map: the mirror image of a
            pair is in the other half of its group.
    """

    groups: list[OffsetGroup]
    inputs: torch.Tensor
    outputs: torch.Tensor
    by_output: Segments
    by_input: Segments | None = None

    @property
    def sizes(self) -> list[int]:
        """Number of pairs of every group."""
        return [group.pairs.stop - group.pairs.start for group in self.groups]

    @property
    def num_inputs(self) -> int:
        """Number of input rows; a submanifold map has as many as outputs."""
        segments = self.by_input or self.by_output
        return len(segments.order) if segments.starts is None else len(segments.starts) - 1

    def transposed(self) -> "KernelMap":
        """The map of the inverse convolution: the same pairs under the same offsets, from output to input."""
        return KernelMap(self.groups, self.outputs, self.inputs, self.sums_by_input, by_input=self.by_output)

    @cached_property
    def sums_by_input(self) -> Segments:
        """`by_input`, or its equal by symmetry; only gradients need it."""
        if self.by_input is not None or not self.groups:
            return self.by_input or self.by_output
        order = self.by_output.order
        centre, *others = torch.arange(order.numel(), dtype=order.dtype, device=order.device).split(self.sizes)
        mirror = torch.cat([centre, *(pairs.roll(pairs.numel() // 2) for pairs in others)])
        return Segments(mirror.index_select(0, order), self.by_output.starts)

    def convolve(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Convolve `(num_inputs, in)` with a `(out, k, k, k, in)` weight to `(num_outputs, out)`.

        Raises:
            ValueError: `features` has another shape; further rows would be ignored.
        """
        check_array("features", features, (self.num_inputs, weight.shape[-1]), "f")
        if torch.is_autocast_enabled(features.device.type):
            features = features.to(torch.get_autocast_dtype(features.device.type))
        return _SparseConvolution.apply(features, weight, self)

    def gather(
        self, features: torch.Tensor, rows: torch.Tensor, workspace: str
    ) -> Iterator[tuple[OffsetGroup, torch.Tensor]]:
        """Yield each group with the rows `(B, n, C)` of its pairs, which are overwritten by the next ones.

        Args:
            features (`torch.Tensor` of shape `(num_rows, C)`): The rows to gather from.
            rows (`torch.Tensor` of shape `(num_pairs,)`): `inputs` or `outputs`.
            workspace (`str`): Name of the memory to gather into.
        """
        num_columns = features.shape[1]
        limit = GATHER_BYTES.get(features.device.type, GATHER_BYTES_ON_ACCELERATORS)
        for groups in self._gathered_together(limit // (num_columns * features.element_size())):
            first = groups[0].pairs.start
            if groups[0].is_identity:
                gathered = features
            else:
                gathered = _workspace(workspace, groups[-1].pairs.stop - first, num_columns, features)
                torch.index_select(features, 0, rows[first : groups[-1].pairs.stop], out=gathered)
            for group in groups:
                own = gathered[group.pairs.start - first : group.pairs.stop - first]
                yield group, own.view(-1, group.num_pairs, num_columns)

    def _gathered_together(self, most_pairs: int) -> Iterator[list[OffsetGroup]]:
        """Runs of groups with at most `most_pairs` pairs together, or of one larger group."""
        run: list[OffsetGroup] = []
        for group in self.groups:
            if run and (run[0].is_identity or group.pairs.stop - run[0].pairs.start > most_pairs):
                yield run
                run = []
            run.append(group)
        if run:
            yield run


def _multiply_in(dtype: torch.dtype, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Multiply in `dtype`, wider than that of the factors if long sums must not be rounded on the way."""
    with torch.autocast(left.device.type, enabled=False):
        if left.dtype == dtype:
            return torch.bmm(left, right)
        if left.device.type == "cuda" and torch.version.hip is None:
            return torch.bmm(left, right, out_dtype=dtype)
        return torch.bmm(left.to(dtype), right.to(dtype))


class _SparseConvolution(torch.autograd.Function):
    """y_o = Σ_k W_k x_i(o,k); backward: dx_i = Σ_k W_kᵀ dy_o(i,k) and dW_k = Σ_pairs dy_o x_iᵀ."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, weight: torch.Tensor, kernel_map: "KernelMap") -> torch.Tensor:
        ctx.kernel_map, ctx.weight_dtype = kernel_map, weight.dtype
        features, weight, num_pairs = features.contiguous(), weight.to(features.dtype), len(kernel_map.inputs)
        ctx.save_for_backward(features, weight)
        taps = weight.flatten(1, 3).permute(1, 2, 0)  # (K, in, out)
        if taps[0].numel() <= TRANSPOSE_UP_TO and num_pairs >= TRANSPOSE_FROM * len(taps):
            taps = taps.contiguous()
        products = _workspace("products", num_pairs, len(weight), features)
        for group, rows in kernel_map.gather(features, kernel_map.inputs, "inputs"):
            product = products[group.pairs].view(-1, group.num_pairs, len(weight))
            torch.bmm(rows, taps[group.offsets], out=product)
        return kernel_map.by_output.sum(products)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        features, weight = ctx.saved_tensors
        needs_features, needs_weight, _ = ctx.needs_input_grad
        grad_output, kernel_map, num_columns = grad_output.contiguous(), ctx.kernel_map, features.shape[1]
        taps = weight.flatten(1, 3).transpose(0, 1)  # (K, out, in)
        grad_features = grad_weight = None
        if needs_features:
            products = _workspace("products", len(kernel_map.inputs), num_columns, features)
            for group, grads in kernel_map.gather(grad_output, kernel_map.outputs, "grads"):
                torch.bmm(grads, taps[group.offsets], out=products[group.pairs].view(-1, group.num_pairs, num_columns))
            grad_features = kernel_map.sums_by_input.sum(products)
        if needs_weight:
            grad_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
            grad_taps = grad_weight.flatten(1, 3).transpose(0, 1)  # (K, out, in)
            all_rows = kernel_map.gather(features, kernel_map.inputs, "inputs")
            all_grads = kernel_map.gather(grad_output, kernel_map.outputs, "grads")
            for (group, rows), (_, grads) in zip(all_rows, all_grads, strict=True):
                grad_taps[group.offsets].add_(_multiply_in(grad_taps.dtype, grads.transpose(1, 2), rows))
            grad_weight = grad_weight.to(ctx.weight_dtype)
        return grad_features, grad_weight, None


class ConvolutionMap(Protocol):
    """What [`SparseConv`] needs of the maps of every engine."""

    def convolve(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor: ...


class SparseConv(nn.Module):
    """y_o = Σ_k W_k x_i(o,k), with the pairs (i, o) of a kernel map: one module for every kind of convolution.

    Args:
        in_channels, out_channels (`int`): Width of the input and output features.
        kernel_size (`int`): Cells per axis: 3 or 5 for submanifold maps, 2 for the maps down and up.
        transposed (`bool`, *optional*, defaults to `False`):
            Whether the module is used with maps up. Changes only the initialisation, as in MinkowskiEngine.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, transposed: bool = False):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.transposed = kernel_size, transposed
        self.weight = nn.Parameter(torch.empty(out_channels, kernel_size, kernel_size, kernel_size, in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from U(−a, a), a = 1 / √(fan · kernel volume); the fan is `out_channels` if transposed."""
        fan = self.out_channels if self.transposed else self.in_channels
        bound = 1 / math.sqrt(fan * self.kernel_size**3)
        nn.init.uniform_(self.weight, -bound, bound)

    @torch.compiler.disable(reason="its sizes are those of the scan")
    def forward(self, features: torch.Tensor, kernel_map: ConvolutionMap) -> torch.Tensor:
        return kernel_map.convolve(features, self.weight)
