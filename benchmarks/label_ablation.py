"""What each vote is worth: the error of point labels on synthetic towns, vote by vote, into docs/results.md.

    python benchmarks/label_ablation.py
    python benchmarks/label_ablation.py --students      # also trains a student on either preset's labels, per seed

Towns of 6 scenes with 6 keyframes (3 seconds) are rendered for each seed, at 225 x 400 pixels, six cameras; the
teacher is `synthetic` with its default mistakes, shown each image plain, flipped and at three quarters of its size.
Scored are all points that a camera sees (before any occlusion test), farther than 2 m, whose class is one of the 16; a
point without a label is an error. What an earlier run rendered and labelled in --output_dir is used again. All
settings of the votes were chosen on the towns of other seeds.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import Frames, load_frames
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.labels import PRESETS, Consolidation, LabelSet, PointLabels, label_points
from uov_hf.synthetic import generate_street
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


REPOSITORY = Path(__file__).resolve().parents[1]
NUM_SCENES, FRAMES_PER_SCENE, IMAGE_SIZE = 6, 6, (225, 400)
AUGMENTATIONS = ["flip", "scale=0.75"]
MIN_RANGE = 2.0  # metres; nearer is the ego car
MIN_CONFIDENCE = 0.4  # of the last row
CURVE = ("confidence", "is_right")
FULL = PRESETS["consolidated"]


def ladder() -> dict[str, Consolidation]:
    """The rules of the table: the paper's, one vote more in each row, and all but the occlusion test."""
    rules, rule = {"paper's rule": PRESETS["paper"]}, PRESETS["paper"]
    for name, switches in {
        "+ occlusion": {"occlusion": FULL.occlusion},
        "+ camera vote": {"camera_vote": "score"},
        "+ superpoint vote": {"superpoint_vote": FULL.superpoint_vote},
        "+ time vote": {"time_vote": FULL.time_vote},
        "+ augmentation vote": {"augmentation_vote": True, "clean_pairs": True},  # the preset; pairs are not scored
        f"+ abstention below {MIN_CONFIDENCE}": {"min_confidence": MIN_CONFIDENCE},
    }.items():
        rule = replace(rule, **switches)
        rules[name] = rule
    return rules | {"all votes, but no occlusion test": replace(FULL, occlusion=None)}


@dataclass
class Score:
    """One rule on the towns of one seed: its matrix, and the points that have a label, in the order of confidence.

    Args:
        matrix (`ConfusionMatrix`): Of the scored points.
        confidence (`np.ndarray` of shape `(num_labelled,)`): Of the scored points with a label.
        is_right (`np.ndarray` of shape `(num_labelled,)`): Whether the label is the true one.
    """

    matrix: ConfusionMatrix
    confidence: np.ndarray
    is_right: np.ndarray

    @property
    def mean_iou(self) -> float:
        return self.matrix.compute()["mean_iou"]

    @property
    def accuracy(self) -> float:
        return self.matrix.compute()["overall_accuracy"]

    @property
    def coverage(self) -> float:
        return len(self.confidence) / self.matrix.counts.sum()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Of the towns.")
    parser.add_argument("--output_dir", type=Path, default=Path("out/label_ablation"))
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs", help="Where results.md and figures/ are.")
    parser.add_argument("--students", action="store_true", help="Train students, too (minutes each).")
    parser.add_argument("--max_train_steps", type=int, default=550, help="Of each student.")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    scores = {name: [] for name in ladder()}
    for seed in args.seeds:
        label_set, frames = make_labels(args.output_dir, seed)
        scored = scored_points(label_set, frames)
        for name, rule in ladder().items():
            scores[name].append(score(label_set, frames, rule, scored))
            print(f"seed {seed}: {name:22s} accuracy {scores[name][-1].accuracy:.4f}", flush=True)
    table = "\n".join(write_table(scores, args.seeds))
    print(f"\n{table}")
    figure = args.docs / "figures" / "label_risk_coverage.svg"
    draw_risk(figure, {"paper's rule": scores["paper's rule"], "all votes": scores["+ augmentation vote"]})
    replace_section(args.docs / "results.md", "label ablation", table)
    if args.students:
        from label_students import compare_students  # beside this file

        table = "\n".join(compare_students(args.seeds, args.output_dir, AUGMENTATIONS, args.max_train_steps))
        print(f"\n{table}")
        replace_section(args.docs / "results.md", "label students", table)


def make_labels(output_dir: Path, seed: int) -> tuple[LabelSet, Frames]:
    """The label set of a seed's towns, and their frames; both are made first where they are not there."""
    street = output_dir / f"street-{seed}"
    if not (street / "splits.json").exists():
        generate_street(
            street, NUM_SCENES, FRAMES_PER_SCENE, seed, IMAGE_SIZE, splits={"train": NUM_SCENES}, num_workers=2
        )
    vocabulary, frames = load_vocabulary("nuscenes"), load_frames("nuscenes", "all", data_dir=street)
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(street))
    settings = {"augmentations": AUGMENTATIONS}
    label_set = LabelSet.create(output_dir / f"labels-{seed}", teacher, vocabulary, settings)
    label_set.write(frames, teacher)
    return label_set, frames


def scored_points(label_set: LabelSet, frames) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Which points of each frame are scored, and the true labels of those."""
    label_points(label_set, frames, "paper")
    point_labels, scored = PointLabels(label_set.folder, "paper"), {}
    for frame in frames.select_columns(["frame_id", "points", "labels"]):
        seen = np.zeros(len(frame["points"]), bool)
        seen[point_labels.read(frame["frame_id"], ["pair_to_point"])["pair_to_point"]] = True
        seen &= np.hypot(frame["points"][:, 0], frame["points"][:, 1]) > MIN_RANGE
        seen &= frame["labels"] != IGNORED
        scored[frame["frame_id"]] = seen, frame["labels"][seen]
    return scored


def score(label_set: LabelSet, frames, rule: Consolidation, scored: dict) -> Score:
    """Label the frames by a rule and hold the labels against the truth."""
    label_points(label_set, frames, rule)
    point_labels = PointLabels(label_set.folder, rule)
    matrix, confidence, is_right = ConfusionMatrix(len(label_set.class_names), IGNORED), [], []
    for frame_id, (seen, truth) in scored.items():
        row = point_labels.read(frame_id, ["labels", "confidence"])
        labels = row["labels"][seen]
        matrix.update(labels, truth)
        confidence.append(row["confidence"][seen][labels != IGNORED].astype(np.float32))
        is_right.append((labels == truth)[labels != IGNORED])
    return Score(matrix, np.concatenate(confidence), np.concatenate(is_right))


def write_table(scores: dict[str, list[Score]], seeds: list[int]) -> list[str]:
    """Markdown: means over the seeds, their deviations, and how much of the paper's error is gone on each seed."""
    paper = next(iter(scores.values()))
    lines = [
        f"`python benchmarks/label_ablation.py`, towns of the seeds {', '.join(map(str, seeds))}, "
        f"{sum(one.matrix.counts.sum() for one in paper):,} scored points; mean ± standard deviation over the seeds, "
        "in %. A row with a plus has the votes of the rows above it, too.",
        "",
        "| rule | label mean IoU | accuracy | coverage | error cut, seed by seed |",
        "|---|---:|---:|---:|---|",
    ]
    for name, ones in scores.items():
        cells = [_spread([getattr(one, key) for one in ones]) for key in ("mean_iou", "accuracy", "coverage")]
        cuts = [1 - (1 - one.accuracy) / (1 - start.accuracy) for one, start in zip(ones, paper, strict=True)]
        cut = " / ".join(f"{100 * cut:.1f}" for cut in cuts) if ones is not paper else "—"
        lines.append(f"| {name} | {' | '.join(cells)} | {cut} |")
    return lines


def _spread(values: list[float]) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{100 * np.mean(values):.1f} ± {100 * deviation:.1f}"


def draw_risk(path: Path, scores: dict[str, list[Score]]) -> None:
    """Risk over coverage: of the points with the most confident labels, up to a share of all, how many are wrong."""
    matplotlib.rcParams["svg.hashsalt"] = "uov-hf"  # the same figure is the same file
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, ones in scores.items():
        confidence, is_right = (np.concatenate([getattr(one, key) for one in ones]) for key in CURVE)
        order = np.argsort(-confidence, kind="stable")
        num_kept = np.arange(1, len(order) + 1)
        coverage = num_kept / sum(one.matrix.counts.sum() for one in ones)
        risk = np.cumsum(~is_right[order]) / num_kept
        shown = np.linspace(len(order) // 50, len(order) - 1, 200).astype(int)
        axes.plot(100 * coverage[shown], 100 * risk[shown], label=name)
    axes.set_xlabel("points with a label, % of those a camera sees")
    axes.set_ylabel("wrong labels, % of them")
    axes.set_xlim(0, 100)
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def replace_section(path: Path, name: str, content: str) -> None:
    """Put `content` between the comments `<!-- name: begin -->` and `<!-- name: end -->` of a Markdown file."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = path.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise ValueError(f"{path} must have the lines {begin} and {end}; the table goes between them.")
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    path.write_text(f"{before}\n{content}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
