"""Wrong labels of a real scan, mended by approximate flat interaction and by a vote of as many nearest points.

    python benchmarks/afi_noise.py

The labels are SemanticKITTI's, by raw id. Three kinds: as they are; a fifth of the points flipped to any class; a
fifth in blobs, all points of a ball together. Unlabelled points are without evidence, and not scored. "Dense" are the
processor's settings; they were chosen on other scans (`afi_study.py`).
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores
from uov_hf.evaluation.metrics import ConfusionMatrix


REPOSITORY = Path(__file__).resolve().parents[1]
SEQUENCE = "semantickitti/dataset/sequences/08"
UNLABELLED, IGNORED = 0, 255
SHARE = 0.2
CONFIGS = {
    "AFI, the paper's constants": AFIConfig(),
    "AFI, dense": DENSE,
}


def main():
    args = parse_args()
    points, truth, num_classes = read_labelled_scan(args.data_dir / SEQUENCE)
    rng = np.random.default_rng(args.seed)
    kinds = {
        "true labels": truth,
        "flipped points": flip_points(truth, num_classes, rng),
        "flipped blobs": flip_blobs(points, truth, num_classes, rng),
    }
    votes = {f"vote of {size}": size for size in (AFIConfig().num_neighbors, 8)}
    print(f"{len(points):,} points, {num_classes} classes: mean IoU in % (accuracy in %).\n")
    print(f"| labels | as they are | {' | '.join([*votes, *CONFIGS])} |")
    print("|---|" + "---:|" * (1 + len(votes) + len(CONFIGS)))
    for kind, labels in kinds.items():
        scores = labels_to_scores(labels, num_classes)
        answers = [labels, *(vote(points, scores, size) for size in votes.values())]
        answers += [approximate_flat_interaction(points, scores, config).argmax(axis=1) for config in CONFIGS.values()]
        figures = ["{:.1f} ({:.1f})".format(*metrics_of(answer, truth, num_classes)) for answer in answers]
        print(f"| {kind} | " + " | ".join(figures) + " |", flush=True)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, default=REPOSITORY.parent / "shared" / "data", help="the real scans")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_labelled_scan(folder: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Points, labels 0 … C − 1 or 255, and C."""
    scans = sorted(folder.glob("velodyne/*.bin"))
    if not scans:
        raise SystemExit(f"No scan at {folder}. `--data_dir` is the folder of real samples.")
    points = np.fromfile(scans[0], np.float32).reshape(-1, 4)[:, :3]
    raw = np.fromfile(folder / "labels" / f"{scans[0].stem}.label", np.uint32) & 0xFFFF
    classes = np.setdiff1d(raw, UNLABELLED)
    return points, np.where(raw == UNLABELLED, IGNORED, np.searchsorted(classes, raw)), len(classes)


def flip_points(truth, num_classes, rng) -> np.ndarray:
    flipped = (rng.random(len(truth)) < SHARE) & (truth != IGNORED)
    return np.where(flipped, rng.integers(0, num_classes, len(truth)), truth)


def flip_blobs(points, truth, num_classes, rng) -> np.ndarray:
    """Balls, larger with their distance from the sensor, each of one class, until enough points are wrong."""
    tree = cKDTree(points)
    labels, known = truth.copy(), truth != IGNORED
    while (labels != truth)[known].mean() < SHARE:
        centre = points[rng.integers(len(points))]
        radius = rng.uniform(0.3, 1.0) * (1 + np.linalg.norm(centre) / 15)
        labels[tree.query_ball_point(centre, radius)] = rng.integers(num_classes)
    return np.where(known, labels, IGNORED)


def vote(points: np.ndarray, scores: np.ndarray, size: int) -> np.ndarray:
    """The label that most of the nearest points have, the point itself among them."""
    _, nearest = cKDTree(points).query(points, k=size)
    return scores[nearest].sum(axis=1).argmax(axis=1)


def metrics_of(answer: np.ndarray, truth: np.ndarray, num_classes: int) -> tuple[float, float]:
    """Mean IoU and accuracy, in %."""
    matrix = ConfusionMatrix(num_classes, IGNORED)
    matrix.update(answer, truth)
    metrics = matrix.compute()
    return 100 * metrics["mean_iou"], 100 * metrics["overall_accuracy"]


if __name__ == "__main__":
    main()
