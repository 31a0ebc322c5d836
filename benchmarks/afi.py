"""Speed and memory of approximate flat interaction against the official computation, by turns on real scans.

    python benchmarks/afi.py

The official computation uses dense distance matrices: all distances from the sampled points, the 20 smallest of each
row, a full sort of every row for the decoding, a Python loop over the 20 directions, and farthest points by sweeps
over the whole scan (the official CUDA kernel, in torch). Scores are one-hot labels of 17 classes. Memory is the growth
of the process's peak by the first run. The second scan shows the growth of our time with the number of points. "Dense"
is the processor's default: one level of all points.
"""

import resource
import statistics
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, make_parser, table, timed

from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores


SCANS = {
    "nuScenes": ("nuscenes/samples/LIDAR_TOP/*.bin", 5),
    "SemanticKITTI": ("semantickitti/dataset/sequences/08/velodyne/*.bin", 4),
}
CONFIG = AFIConfig()
NUM_CLASSES = 17


def main():
    parser = make_parser(__doc__, with_data_dir=True)
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds, after one to warm up")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    scans = [read_scan(args.data_dir, *scan) for scan in SCANS.values()]
    (small, large), sizes = scans, [len(points) for points, _ in scans]
    ways = {
        "official": lambda: official(*small),
        "ours": lambda: approximate_flat_interaction(*small),
        "ours, larger scan": lambda: approximate_flat_interaction(*large),
        "dense": lambda: approximate_flat_interaction(*small, DENSE),
        "dense, larger scan": lambda: approximate_flat_interaction(*large, DENSE),
    }
    memory, answers, before = {}, {}, peak_memory()
    for way in ("ours", "dense", "official"):  # the largest last, because a peak only grows
        answers[way] = ways[way]().argmax(1)
        memory[way] = f"{peak_memory() - before:.0f} MB"
    rounds = [{way: timed(run)[0] for way, run in ways.items()} for _ in range(args.repeats)]
    seconds = {way: statistics.median(times[way] for times in rounds) for way in ways}
    print(describe_machine(), "", sep="\n")
    rows = [
        (way.split(",")[0], f"{sizes[',' in way]:,}", f"{taken:.3f} s", memory.get(way, ""))
        for way, taken in seconds.items()
    ]
    print(table(["way", "points", "time", "extra memory"], rows))
    same = (answers["ours"] == answers["official"]).float().mean().item()
    ratio = statistics.median(times["official"] / times["ours"] for times in rounds)
    growth = [f"{seconds[f'{way}, larger scan'] / seconds[way]:.2f}" for way in ("ours", "dense")]
    print(f"\n{ratio:.1f} times as fast, {100 * same:.2f} % of labels the same.")
    print("{:.2f} times the points take {} times as long, dense {} times.".format(sizes[1] / sizes[0], *growth))


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


if __name__ == "__main__":
    main()
