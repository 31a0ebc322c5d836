"""The kernels of spconv-triton without a GPU, by Triton's interpreter: a program that test_spconv_triton.py runs.

    TRITON_INTERPRET=1 python tests/triton_interpreter.py

prints, as JSON, how far each kind of convolution and a tiny network are from plain torch. What needs a GPU is patched:
the package's checks for one, the benchmarks of Triton's autotuner, and the interpreter's product of bfloat16.
"""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
import triton.language as tl
from spconv_triton.pytorch._impl import gemm
from test_sparse_unet import gradients_of, tiny_network
from triton.runtime import interpreter
from triton.runtime.autotuner import Autotuner

from uov_hf import sparse_engines
from uov_hf.sparse_engines import SpconvPyramid
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


LIBRARY = replace(
    sparse_engines.LIBRARIES["spconv_triton"], dtypes={"cpu": sparse_engines.LIBRARIES["spconv_triton"].dtypes["cuda"]}
)
# Kind of map, kernel size, input and output channels.
KINDS = {
    "submanifold 3": ("submanifold", 3, 6, 9),
    "submanifold 5": ("submanifold", 5, 3, 8),
    "down": ("down", 2, 9, 8),
    "up": ("up", 2, 8, 9),
}


def patch_what_needs_a_gpu() -> None:
    torch.Tensor.is_cuda = property(lambda self: True)
    gemm._multiprocessor_count = lambda device: 4
    # The interpreter takes as long for a large block as for a small one: the largest is the fastest.
    Autotuner._bench = lambda self, *args, config, **meta: -math.prod(config.kwargs.values())
    multiply = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, accumulator, *options):
        """It keeps bfloat16 as the upper half of a float32, and would multiply these bits as integers."""
        if a.dtype == tl.bfloat16:
            widen = [(handle.data.astype(np.uint32) << 16).view(np.float32) for handle in (a, b)]
            a, b = (interpreter.TensorHandle(data, tl.float32) for data in widen)
        return multiply(self, a, b, accumulator, *options)

    interpreter.InterpreterBuilder.create_dot = create_dot


def batch(far: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Four scans: some voxels with negative coordinates, none, one (`far` away), and some."""
    generator = torch.Generator().manual_seed(0)
    scans = [torch.randint(low, low + 7, (90, 3), generator=generator) for low in (-30, 10)]
    samples = {0: scans[0], 2: torch.tensor([[-7 - far, 3 + far, 3]]), 3: scans[1]}
    coords = torch.cat([torch.nn.functional.pad(xyz, (1, 0), value=i) for i, xyz in samples.items()])
    coords = torch.unique(coords, dim=0).int()
    return coords, torch.rand(len(coords), 1, generator=generator)


def pyramid_of(finest, max_cells: int = LIBRARY.max_cells) -> SpconvPyramid:
    sparse_engines.LIBRARIES["spconv_triton"] = replace(LIBRARY, max_cells=max_cells)
    return SpconvPyramid("spconv_triton", finest, total_stride=2, row_bytes=64, kernel_volume=125)


def difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    return ((result.double() - expected).abs().max() / expected.abs().max()).item()


def convolve(kernel_map, tensors, grad_output=None) -> list[torch.Tensor]:
    """The output, and the gradients of features and weight."""
    features, weight = (tensor.requires_grad_() for tensor in tensors)
    output = kernel_map.convolve(features, weight)
    grad_output = torch.randn(output.shape, dtype=torch.float64) if grad_output is None else grad_output
    output.backward(grad_output.to(output.dtype))
    return [output.detach(), features.grad, weight.grad, grad_output]


def compare_kinds(dtype: torch.dtype, far: int = 0, autocast: bool = False, **limits) -> dict:
    """By kind: differences of the output and both gradients from plain torch in float64, and their dtypes."""
    finest, _ = sort_voxels(batch(far)[0], num_levels=2)
    ours, theirs, rows = VoxelPyramid(finest), pyramid_of(finest, **limits), {0: len(finest.keys)}
    torch.manual_seed(0)
    num_cells = [part.batch_size * math.prod(part.levels[0][1]) for part in theirs.parts]
    result = {"num_parts": len(theirs.parts), "num_cells": max(num_cells)}
    for name, (kind, kernel_size, in_channels, out_channels) in KINDS.items():
        arguments = (0, kernel_size) if kind == "submanifold" else (0,)
        features = torch.randn(rows[kind == "up"], in_channels).to(dtype)
        weight = torch.randn(out_channels, *[kernel_size] * 3, in_channels).to(dtype)
        expected = convolve(getattr(ours, kind)(*arguments), [features.double(), weight.double()])
        if autocast:
            features, weight = features.float(), weight.float()
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            actual = convolve(getattr(theirs, kind)(*arguments), [features.clone(), weight.clone()], expected[3])
        result[name] = {
            "differences": list(map(difference, actual[:3], expected[:3])),
            "dtypes": [str(tensor.dtype) for tensor in actual[:3]],
        }
        rows[1] = len(actual[0])
    return result


def compare_networks() -> dict:
    """Differences of the output and of the gradients of a tiny network, float32 by both engines."""
    network = tiny_network(hidden_sizes=[8] * 8, stem_channels=8)
    coords, features = batch()
    results = []
    sparse_engines.LIBRARIES["spconv_triton"] = LIBRARY
    for network.config.sparse_backend in ("torch", "spconv_triton"):
        results.append(gradients_of(network, coords, features))
    (expected, *gradients), (output, *actual) = results
    scale = max(gradient.abs().max() for gradient in gradients)
    gradients = [(a - e).abs().max() / scale for a, e in zip(actual, gradients, strict=True)]
    return {"output": difference(output, expected.double()), "gradients": max(gradients).item()}


def two_threads() -> float:
    """How far two threads, each with its own weight, are from what plain torch computes for them."""
    finest, _ = sort_voxels(batch()[0], num_levels=2)
    features = torch.rand(len(finest.keys), 4)
    weights = [torch.rand(5, 3, 3, 3, 4) for _ in range(2)]
    with torch.no_grad(), ThreadPoolExecutor(2) as threads:
        expected = [VoxelPyramid(finest).submanifold(0, 3).convolve(features, weight) for weight in weights]
        convolve = lambda weight: pyramid_of(finest).submanifold(0, 3).convolve(features, weight)  # noqa: E731
        return max(map(difference, threads.map(convolve, weights), expected))


def main() -> None:
    patch_what_needs_a_gpu()
    results = {
        "float32": compare_kinds(torch.float32),
        "float16": compare_kinds(torch.float16),
        "bfloat16": compare_kinds(torch.bfloat16),
        "autocast": compare_kinds(torch.bfloat16, autocast=True),
        "parts": compare_kinds(torch.float32, max_cells=30_000),
        "more cells than an int32 has": compare_kinds(torch.float32, far=2**20),
        "two threads": two_threads(),
        "network": compare_networks(),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
