"""Mask pooling without a full-size feature map against the naive way, in one run: time, peak memory, difference.

    python benchmarks/mask_pooling.py

Naive: upsample the patch features to the image, add up the pixels of each segment (`index_add_`, the fastest of the
ways that were tried: it needs no masks), and normalise. Ours: `uov_hf.teachers.pooling.pool_segments`. Each has a
process of its own, whose peak of resident memory above its inputs is read from the system (Linux). They take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from uov_hf.teachers.pooling import pool_segments


def pool_naively(features: Tensor, segmentation: Tensor, num_segments: int) -> Tensor:
    dense = interpolate(features[None], size=tuple(segmentation.shape), mode="bilinear")[0]  # (D, height, width)
    sums = dense.new_zeros(len(dense), num_segments + 1)
    sums.index_add_(1, segmentation.flatten(), dense.flatten(1))
    return normalize(sums[:, 1:].T, dim=-1)


METHODS = {"naive": pool_naively, "ours": pool_segments}


def make_inputs(height: int, width: int, patch_size: int, dim: int, num_segments: int) -> tuple[Tensor, Tensor]:
    """Random patch features, and the cells of random seeds as segments."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(dim, height // patch_size, width // patch_size, generator=generator)
    nearest = torch.full((height, width), torch.inf)
    segmentation = torch.zeros(height, width, dtype=torch.int64)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    for segment, (y, x) in enumerate(torch.rand(num_segments, 2, generator=generator).tolist(), start=1):
        distance = (rows - y * height) ** 2 + (columns - x * width) ** 2
        segmentation[distance < nearest] = segment
        nearest = torch.minimum(nearest, distance)
    return features, segmentation


def resident(kind: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at its peak since `forget_the_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def run_method(name: str, args: argparse.Namespace, output: str) -> None:
    """One measurement, in this process: seconds and peak bytes as JSON on standard output, the answer in a file."""
    torch.set_num_threads(args.num_threads)
    METHODS[name](*make_inputs(90, 160, args.patch_size, 8, 3), 3)  # loads what is loaded once
    features, segmentation = make_inputs(args.height, args.width, args.patch_size, args.dim, args.num_segments)
    forget_the_peak()
    before, start = resident("VmRSS"), time.perf_counter()
    embeds = METHODS[name](features, segmentation, args.num_segments)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": resident("VmHWM") - before}))
    save_file({"embeds": embeds.contiguous()}, output)


def measure(args: argparse.Namespace) -> tuple[dict[str, list[dict]], float]:
    """Each method's measurements, and the greatest difference between an embedding of one and of the other."""
    measured, answers = {name: [] for name in METHODS}, {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.num_rounds):
            for name in METHODS:
                output = str(Path(folder) / name)
                command = [sys.executable, *sys.argv, "--method", name, "--output", output]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                measured[name].append(json.loads(printed))
                answers[name] = load_file(output)["embeds"]
    return measured, float((answers["naive"] - answers["ours"]).abs().max())


def table(args: argparse.Namespace) -> str:
    measured, difference = measure(args)
    seconds = {name: min(run["seconds"] for run in runs) for name, runs in measured.items()}
    peaks = {name: max(run["bytes"] for run in runs) / 2**20 for name, runs in measured.items()}
    sizes = f"{args.height}×{args.width}, {args.dim} dimensions, patches of {args.patch_size} pixels"
    lines = [
        f"{sizes}, {args.num_segments} segments, {args.num_threads} of {os.cpu_count()} CPU threads, "
        f"torch {torch.__version__}; best time and greatest memory of {args.num_rounds} rounds.",
        "",
        "| | time | peak memory above the inputs |",
        "|---|---:|---:|",
        *(f"| {name} | {1000 * seconds[name]:,.0f} ms | {peaks[name]:,.0f} MiB |" for name in METHODS),
        f"| ratio | {seconds['naive'] / seconds['ours']:.0f} | {peaks['naive'] / peaks['ours']:.0f} |",
        "",
        f"Greatest difference of a component of a unit-length embedding: {difference:.1e}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--patch_size", type=int, default=16)
    parser.add_argument("--num_segments", type=int, default=100)
    parser.add_argument("--num_rounds", type=int, default=3)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--method", choices=list(METHODS), help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        run_method(args.method, args, args.output)
    else:
        print(table(args))


if __name__ == "__main__":
    main()
