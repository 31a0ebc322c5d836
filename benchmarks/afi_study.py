"""Which parameters of approximate flat interaction mend flipped labels, on PandaSet's labelled frames.

    python benchmarks/afi_study.py

A fifth of the labels of each frame is flipped to any class. Besides the metrics (means over the frames) the table says
what share of the wrong labels is still wrong afterwards, and what share of the right ones is lost. The processor's
settings were chosen here; SemanticKITTI's scan (`afi_noise.py`) was kept for the report.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from afi_noise import REPOSITORY, flip_points, metrics_of, vote  # beside this file

from uov_hf.afi import AFIConfig, approximate_flat_interaction, labels_to_scores


THIRDS = tuple(3.0**-level for level in (1, 2, 3, 4))
ALL = {"level_shares": (1.0,)}
LEVELS = {
    "1365, 455, 151, 50 points (paper)": {},
    "1/3, 1/9, 1/27, 1/81 of the points": {"level_shares": THIRDS},
    "1/3": {"level_shares": THIRDS[:1]},
    "all": ALL,
}
SETTINGS = {
    **LEVELS,
    **{f"{name}; base vote 0.01": {**levels, "base_vote": 0.01} for name, levels in LEVELS.items()},
    "all; base vote 0.1": {**ALL, "base_vote": 0.1},
    "all; base vote 0.01, own weight 0.3": {**ALL, "base_vote": 0.01, "own_weights": (0.3,)},
    "all; base vote 0.01, 8 neighbours": {**ALL, "base_vote": 0.01, "num_neighbors": 8},
}


def main():
    args = parse_args()
    frames = [read_frame(args.data_dir, name, args.seed) for name in args.frames]
    print("| | mean IoU in % | accuracy in % | wrong labels still wrong | right labels lost |")
    print("|---|---:|---:|---:|---:|")
    ways = {"as they are": as_they_are}
    ways |= {f"vote of {size}": partial(vote, size=size) for size in (20, 12, 8)}
    ways |= {f"AFI, {name}": partial(refine, config=AFIConfig(**settings)) for name, settings in SETTINGS.items()}
    for name, way in ways.items():
        mean_iou, accuracy, kept, lost = np.mean([figures_of(way, *frame) for frame in frames], axis=0)
        print(f"| {name} | {mean_iou:.1f} | {accuracy:.2f} | {kept:.1f} % | {lost:.2f} % |", flush=True)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = REPOSITORY.parent / "shared" / "data" / "pandaset" / "001"
    parser.add_argument("--data_dir", type=Path, default=folder, help="a sequence with lidar/ and labels/")
    parser.add_argument("--frames", nargs="+", default=["00", "01"])
    parser.add_argument("--seed", type=int, default=100)
    return parser.parse_args()


def read_frame(folder: Path, name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Points, true labels, labels of which a fifth is flipped, and the number of classes."""
    if not (folder / "lidar" / f"{name}.bin").is_file():
        raise SystemExit(f"No scan {name} in {folder / 'lidar'}. `--data_dir` is a sequence of PandaSet.")
    points = np.fromfile(folder / "lidar" / f"{name}.bin", np.float32).reshape(-1, 4)[:, :3].copy()
    raw = np.fromfile(folder / "labels" / f"{name}.label", np.uint32)
    classes, truth = np.unique(raw, return_inverse=True)
    return points, truth, flip_points(truth, len(classes), np.random.default_rng(seed)), len(classes)


def figures_of(way, points, truth, labels, num_classes) -> tuple[float, float, float, float]:
    answer = way(points, labels_to_scores(labels, num_classes))
    wrong, flipped = answer != truth, labels != truth
    return *metrics_of(answer, truth, num_classes), 100 * wrong[flipped].mean(), 100 * wrong[~flipped].mean()


def as_they_are(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=1)


def refine(points: np.ndarray, scores: np.ndarray, config: AFIConfig) -> np.ndarray:
    return approximate_flat_interaction(points, scores, config).argmax(axis=1)


if __name__ == "__main__":
    main()
