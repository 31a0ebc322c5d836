"""The torch engine against spconv's CPU build, by turns in one run, on the MinkUNet34 of the paper and real scans.

    python benchmarks/sparse_conv.py --output out/sparse_conv.json

spconv runs on one thread, the only mode in which its CPU build is right (with more, its gather races); torch's engine
runs on `--num_threads`. Both compute the same network from the same weights, and the largest difference between their
outputs is part of the table. Scans are voxelised as the paper does. Peak is the fastest large float32 product that
torch reaches on as many threads; its share is that of all multiply-adds of the forward pass in the time it takes.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from uov_hf import UOVConfig, UOVFeatureExtractor
from uov_hf.sparse_conv import SparseConv
from uov_hf.sparse_unet import SparseUNet
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


REPOSITORY = Path(__file__).resolve().parents[1]
# The scan, and how the paper scales its intensity.
SCANS = {
    "nuScenes": ("nuscenes/samples/LIDAR_TOP/*.pcd.bin", {"intensity_scaling": "raw"}),
    "SemanticKITTI": (
        "semantickitti/dataset/sequences/08/velodyne/*.bin",
        {"intensity_scaling": "unit_plus_one"},
    ),
}


def main():
    args = parse_args()
    disarm_spconv()
    torch.manual_seed(0)
    network = SparseUNet(UOVConfig())
    results = {"machine": describe_machine(), "scans": {}}
    for name, (pattern, settings) in SCANS.items():
        path = find_scan(args.data_dir, pattern)
        batch = UOVFeatureExtractor(**settings)(path, intensity_max=1.0)
        results["scans"][name] = compare(network, batch["voxel_coords"], batch["voxel_features"], args)
    print(to_markdown(results))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, default=REPOSITORY.parent / "shared" / "data", help="the real scans")
    parser.add_argument("--num_threads", type=int, default=2, help="of the torch engine")
    parser.add_argument("--repeats", type=int, default=9, help="timed rounds, after one to warm up")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    return parser.parse_args()


def disarm_spconv():
    """spconv's CPU build asks CUDA for a stream in backward and dies of it."""
    import spconv.pytorch.ops

    spconv.pytorch.ops.get_current_stream = lambda: 0


def find_scan(data_dir: Path, pattern: str) -> Path:
    paths = sorted(data_dir.glob(pattern))
    if not paths:
        raise SystemExit(f"No scan at {data_dir / pattern}. `--data_dir` is the folder of real samples.")
    return paths[0]


def compare(network: SparseUNet, coords: torch.Tensor, features: torch.Tensor, args) -> dict:
    """Times of both engines, by turns, and what they were spent on."""
    engines = {"spconv": 1, "torch": args.num_threads}
    times = {"kernel maps": []} | {(engine, mode): [] for engine in engines for mode in ("forward", "training")}
    peaks = {engine: [] for engine in engines}
    for _ in range(args.repeats + 1):
        outputs = {}
        for mode, run in {"forward": forward, "training": train}.items():
            for engine, num_threads in engines.items():
                torch.set_num_threads(num_threads)
                network.config.sparse_backend = engine
                seconds, outputs[engine, mode] = timed(lambda run=run: run(network, coords, features))
                times[engine, mode].append(seconds)
                peaks[engine].append(measure_peak())
        times["kernel maps"].append(timed(lambda: build_maps(coords, len(network.encoder)))[0])
    fast = {key: statistics.median(rounds[1:]) for key, rounds in times.items()}
    least = {key: min(rounds[1:]) for key, rounds in times.items()}
    flops = count_flops(network, coords, features)
    result = {"num_voxels": len(coords), "gflop": flops / 1e9, "kernel_map_ms": 1000 * fast["kernel maps"]}
    result["kernel_map_share"] = fast["kernel maps"] / fast["torch", "forward"]
    result["largest_difference"] = (outputs["torch", "forward"] - outputs["spconv", "forward"]).abs().max().item()
    for engine, num_threads in engines.items():
        result[engine] = {
            "num_threads": num_threads,
            "forward_ms": 1000 * fast[engine, "forward"],
            "training_ms": 1000 * fast[engine, "training"],
            "peak_gflops": max(peaks[engine]) / 1e9,
            "share_of_peak": flops / fast[engine, "forward"] / max(peaks[engine]),
        }
    for mode in ("forward", "training"):
        result[f"{mode}_ratio"] = fast["spconv", mode] / fast["torch", mode]
        result[f"{mode}_ratio_of_fastest_rounds"] = least["spconv", mode] / least["torch", mode]
    return result


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def forward(network, coords, features):
    with torch.no_grad():
        return network.eval()(coords, features)


def train(network, coords, features):
    """Forward and backward; what the optimiser does is the same for both engines and left out."""
    network.train()(coords, features).square().mean().backward()
    network.zero_grad()


def build_maps(coords, num_stages):
    """All that the torch engine computes from coordinates alone."""
    pyramid = VoxelPyramid(sort_voxels(coords, num_stages + 1)[0])
    for level in range(num_stages + 1):
        pyramid.submanifold(level, 3)


def measure_peak(size: int = 1536) -> float:
    """Operations per second of a large product, with the threads that are set."""
    left, right, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    torch.mm(left, right, out=out)
    return 2 * size**3 / min(timed(lambda: torch.mm(left, right, out=out))[0] for _ in range(3))


def count_flops(network, coords, features) -> int:
    """Multiplications and additions of all convolutions and linear layers of a forward pass."""
    counts = []

    def count_conv(module, inputs):
        counts.append(2 * sum(inputs[1].sizes) * module.in_channels * module.out_channels)

    def count_linear(module, inputs):
        counts.append(2 * len(inputs[0]) * module.in_features * module.out_features)

    hooks = []
    for module in network.modules():
        if isinstance(module, (SparseConv, nn.Linear)):
            count = count_conv if isinstance(module, SparseConv) else count_linear
            hooks.append(module.register_forward_pre_hook(count))
    network.config.sparse_backend = "torch"
    forward(network, coords, features)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def describe_machine() -> dict:
    names = [line.split(":")[1].strip() for line in read_cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "num_cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def read_cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def to_markdown(results: dict) -> str:
    machine = results["machine"]
    lines = [
        f"{machine['processor']}, {machine['num_cores']} cores, load average {machine['load_average']:.1f}, "
        f"torch {machine['torch']}",
        "",
        "| scan | voxels | GFLOP | engine | threads | forward | forward + backward | peak | of peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, scan in results["scans"].items():
        for engine in ("spconv", "torch"):
            row = scan[engine]
            lines.append(
                f"| {name} | {scan['num_voxels']} | {scan['gflop']:.1f} | {engine} | {row['num_threads']} | "
                f"{row['forward_ms']:.0f} ms | {row['training_ms']:.0f} ms | {row['peak_gflops']:.0f} GFLOP/s | "
                f"{row['share_of_peak']:.0%} |"
            )
    lines += [
        "",
        "| scan | forward | forward + backward | kernel maps | largest difference |",
        "|---|---|---|---|---|",
    ]
    for name, scan in results["scans"].items():
        lines.append(
            f"| {name} | {scan['forward_ratio']:.2f}× ({scan['forward_ratio_of_fastest_rounds']:.2f}×) | "
            f"{scan['training_ratio']:.2f}× ({scan['training_ratio_of_fastest_rounds']:.2f}×) | "
            f"{scan['kernel_map_share']:.1%} of the forward | {scan['largest_difference']:.0e} |"
        )
    return "\n".join([*lines, "", "Ratios are of medians; in brackets, of the fastest rounds."])


if __name__ == "__main__":
    main()
