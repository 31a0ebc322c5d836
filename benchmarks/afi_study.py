"""Which parameters of approximate flat interaction mend flipped labels, on a labelled frame of PandaSet.

    python benchmarks/afi_study.py

A fifth of the labels of each frame is flipped to any class. Besides the metrics (means over frames) the table says
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
HEARD = {"base_vote": 0.01}
SETTINGS = {
    "levels of 1365, 455, 151, 50 points (the paper's)": {},
    "the same, base vote 0.01": HEARD,
    "levels of 1/3, 1/9, 1/27, 1/81 of the points, base vote 0.01": {"level_shares": THIRDS, **HEARD},
    "one level of 1/3, base vote 0.01": {"level_shares": THIRDS[:1], **HEARD},
    "one level of all points": {"level_shares": (1.0,)},
    "one level of all points, base vote 0.01 (the processor's)": {"level_shares": (1.0,), **HEARD},
    "the same with 8 neighbours": {"level_shares": (1.0,), "num_neighbors": 8, **HEARD},
}


def main():
    args = parse_args()
    frames = [read_frame(args.data_dir, name, args.seed) for name in args.frames]
    print("| | mean IoU in % | accuracy in % | wrong labels still wrong | right labels lost |")
    print("|---|---:|---:|---:|---:|")
    ways = {"as they are": as_they_are}
    ways |= {f"vote of {size}": partial(vote, size=size) for size in (20, 8)}
    ways |= {f"AFI, {name}": partial(refine, config=AFIConfig(**settings)) for name, settings in SETTINGS.items()}
    for name, way in ways.items():
        mean_iou, accuracy, kept, lost = np.mean([figures_of(way, *frame) for frame in frames], axis=0)
        print(f"| {name} | {mean_iou:.1f} | {accuracy:.2f} | {kept:.1f} % | {lost:.2f} % |", flush=True)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = REPOSITORY.parent / "shared" / "data" / "pandaset" / "001"
    parser.add_argument("--data_dir", type=Path, default=folder, help="a sequence with lidar/ and labels/")
    parser.add_argument("--frames", nargs="+", default=["00"], help="01 is the next, a tenth of a second later")
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
