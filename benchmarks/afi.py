"""Speed and memory of approximate flat interaction against the official computation, by turns on real scans.

    python benchmarks/afi.py

The official computation uses dense distance matrices: all distances from the sampled points, the 20 smallest of each
row, a full sort of every row for the decoding, a Python loop over the 20 directions, and farthest points by sweeps
over the whole scan (the official CUDA kernel, in torch). Scores are one-hot labels of 17 classes. Memory is the growth
of the process's peak by the first run. The second scan shows the growth of our time with the number of points. "Dense"
is the processor's default: one level of all points.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from common import REAL_SAMPLES, describe_machine

from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores


SCANS = {
    "nuScenes": ("nuscenes/samples/LIDAR_TOP/*.bin", 5),
    "SemanticKITTI": ("semantickitti/dataset/sequences/08/velodyne/*.bin", 4),
}
CONFIG = AFIConfig()
NUM_CLASSES = 17


def main():
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    (small, small_scores), (large, large_scores) = (read_scan(args.data_dir, *scan) for scan in SCANS.values())
    ways = {
        "ours": lambda: approximate_flat_interaction(small, small_scores),
        "official": lambda: official(small, small_scores),
        "ours, larger scan": lambda: approximate_flat_interaction(large, large_scores),
        "dense": lambda: approximate_flat_interaction(small, small_scores, DENSE),
        "dense, larger scan": lambda: approximate_flat_interaction(large, large_scores, DENSE),
    }
    memory, answers, before = {}, {}, peak_memory()
    for way in ("ours", "dense", "official"):  # the largest last, because a peak only grows
        answers[way] = ways[way]().argmax(1)
        memory[way] = peak_memory() - before
    times = {way: [] for way in ways}
    for _ in range(args.repeats):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            times[way].append(time.perf_counter() - start)
    seconds = {way: statistics.median(taken) for way, taken in times.items()}
    results = {
        "num_points": [len(small), len(large)],
        "seconds": seconds,
        "extra_memory_mb": memory,
        "same_labels": (answers["ours"] == answers["official"]).float().mean().item(),
        "speed_ratio": statistics.median(a / b for a, b in zip(times["official"], times["ours"], strict=True)),
        "growth_of_time": {way: seconds[f"{way}, larger scan"] / seconds[way] for way in ("ours", "dense")},
        "growth_of_points": len(large) / len(small),
    }
    print(to_markdown(results))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, default=REAL_SAMPLES, help="the real scans")
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds, after one to warm up")
    return parser.parse_args()


def read_scan(data_dir: Path, pattern: str, num_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points, and one-hot labels by direction and height, a fifth of them at random."""
    paths = sorted(data_dir.glob(pattern))
    if not paths:
        raise SystemExit(f"No scan at {data_dir / pattern}. `--data_dir` is the folder of real samples.")
    points = np.fromfile(paths[0], np.float32).reshape(-1, num_columns)[:, :3].copy()
    rng = np.random.default_rng(0)
    labels = np.digitize(np.arctan2(points[:, 1], points[:, 0]), np.linspace(-3, 3, 12)) + 4 * (points[:, 2] > -1)
    labels = np.where(rng.random(len(points)) < 0.2, rng.integers(0, NUM_CLASSES, len(points)), labels)
    return torch.from_numpy(points), torch.from_numpy(labels_to_scores(labels, NUM_CLASSES))


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB


def official(points: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Level by level: (points, scores, trust, mean offsets)."""
    levels = [(points, scores, None, None)]
    for size in CONFIG.level_sizes:
        levels.append(encode(*levels[-1], size))
    answer = levels[-1][1]
    for coarse, fine in zip(levels[:0:-1], levels[-2::-1], strict=True):
        answer = decode(answer, coarse, fine)
    return answer


def encode(points, scores, trust, offsets, size):
    centres = farthest_points(points, size)
    near = square_distance(points[centres], points).topk(CONFIG.num_neighbors, dim=1, largest=False, sorted=False)[1]
    lines, distances = unit(points[near] - points[centres][:, None])
    sector = (lines @ sphere().T).argmax(dim=-1)
    if trust is None:
        weights, strength = None, 1.0
    else:
        weights, strength = agreement(lines, distances, trust, offsets, centres, near)
    found = [], [], []
    for direction in range(CONFIG.num_directions):
        here = (sector == direction).float()
        count = here.sum(dim=1) - int(direction == 0)
        mean = (here[..., None] * lines * distances[..., None]).sum(dim=1) / (count[:, None] + 1e-8)
        histogram = l1((here[..., None] * scores[near]).sum(dim=1))
        share = count.clamp(min=0) if weights is None else (here * weights).sum(dim=1)
        for parts, part in zip(found, (mean, histogram, share), strict=True):
            parts.append(part)
    offsets, histograms, trust = (torch.stack(parts, dim=1) for parts in found)
    if weights is None:
        trust = trust / (trust.sum(dim=1, keepdim=True) + 1e-8)
    nearness = l1(trust / (offsets.norm(dim=-1) + 1e-8))
    seen = (nearness[..., None] * histograms).sum(dim=1)
    own, highest = scores[centres], scores[near].max(dim=1).values
    return points[centres], l1(strength * seen + 0.1 * own + 1e-8 * highest), trust, offsets


def agreement(lines, distances, trust, offsets, centres, near):
    trusted, ahead, behind = look_along(lines, trust[centres][:, None], offsets[centres][:, None])
    trusted_back, onward, back = look_along(lines, trust[near], offsets[near])
    reach = (ahead + behind + onward + back) / (distances + behind + onward + 1e-8)
    weights = trusted * trusted_back * reach * ((ahead + behind != 0) & (onward + back != 0))
    strength = weights.sum(dim=1, keepdim=True)
    return weights / (strength + 1e-7), strength / (strength.mean() + 1e-8)


def look_along(lines, trust, offsets):
    headings, lengths = unit(offsets)
    cosines = (lines[:, :, None] * headings).sum(dim=-1)
    trusted = (trust * (cosines.abs() > CONFIG.min_cosine)).sum(dim=-1)
    ahead, behind = ((lengths * (sign * cosines > CONFIG.min_cosine)).amax(dim=-1) for sign in (1, -1))
    return trusted, ahead, behind


def decode(answer, coarse, fine):
    points, _, trust, offsets = coarse
    order = square_distance(fine[0], points).sort(dim=-1)[1]  # every row, whole
    voters = order[:, : CONFIG.num_voters]
    lines, _ = unit(points[voters] - fine[0][:, None])
    cosines = (lines[:, :, None] * unit(offsets)[0][voters]).sum(dim=-1)
    weights = (trust[voters] * (cosines.abs() > CONFIG.min_cosine)).sum(dim=-1)
    support = weights.sum(dim=1, keepdim=True) + 1e-8
    weights = l1(weights / support + 1e-6)
    votes = (weights[..., None] * answer[voters]).sum(dim=1)
    own_weight = 0.3 if len(fine[0]) == 3 * len(points) else 0.01
    return l1(support * votes + (1e-8 + own_weight * support.mean()) * fine[1])


def farthest_points(points, size):
    picks, pick = [0], 0
    nearest = torch.full((len(points),), 1e10)
    nearest[points.square().sum(dim=1) <= 1e-3] = -1
    for _ in range(size - 1):
        nearest = torch.minimum(nearest, (points - points[pick]).square().sum(dim=1))
        pick = int(nearest.argmax())
        picks.append(pick)
    return torch.tensor(picks)


def square_distance(queries, points):
    return -2 * queries @ points.T + queries.square().sum(dim=1)[:, None] + points.square().sum(dim=1)


def sphere():
    steps = torch.arange(CONFIG.num_directions, dtype=torch.float64)
    y, angle = 1 - 2 * steps / (CONFIG.num_directions - 1), steps * np.pi * (3 - 5**0.5)
    radius = (1 - y * y).sqrt()
    return torch.stack([radius * angle.cos(), y, radius * angle.sin()], dim=1).float()


def unit(vectors):
    lengths = vectors.norm(dim=-1)
    return vectors / (lengths + 1e-8)[..., None], lengths


def l1(values):
    return values / (values.sum(dim=-1, keepdim=True) + 1e-9)


def to_markdown(results: dict) -> str:
    small, large = results["num_points"]
    seconds, memory, growth = results["seconds"], results["extra_memory_mb"], results["growth_of_time"]
    return "\n".join(
        [
            describe_machine(),
            "",
            "| way | points | time | extra memory |",
            "|---|---:|---:|---:|",
            f"| official | {small:,} | {seconds['official']:.3f} s | {memory['official']:.0f} MB |",
            f"| ours | {small:,} | {seconds['ours']:.3f} s | {memory['ours']:.0f} MB |",
            f"| ours | {large:,} | {seconds['ours, larger scan']:.3f} s | |",
            f"| dense | {small:,} | {seconds['dense']:.3f} s | {memory['dense']:.0f} MB |",
            f"| dense | {large:,} | {seconds['dense, larger scan']:.3f} s | |",
            "",
            f"{results['speed_ratio']:.1f} times as fast, {100 * results['same_labels']:.2f} % of labels the same.",
            f"{results['growth_of_points']:.2f} times the points take {growth['ours']:.2f} times as long, dense "
            f"{growth['dense']:.2f} times.",
        ]
    )


if __name__ == "__main__":
    main()
