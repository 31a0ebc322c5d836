"""The error of point labels on synthetic towns and on PandaSet, vote by vote.

    python benchmarks/label_votes.py --real ../shared/data/real

Towns of 6 scenes with 6 keyframes (3 seconds) are rendered for each seed, at 225 x 400 pixels, with six cameras. The
teacher is `synthetic` with its default errors; it segments each image plain, flipped and at 3/4 of its size.
Scored are all points farther than 2 m whose class is one of the 16: those that a camera sees (before any occlusion
test), and the others. A point without a label is an error. --output_dir keeps towns and segments for another run;
point labels are made anew. --real is a folder with `pandaset` and the predictions of a real network for its images in
`espnetv2_cityscapes/pandaset`; without it, the towns alone are measured.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
from common import REPOSITORY, add_real, make_parser, make_real_label_set, table
from matplotlib import pyplot as plt

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import Frames, load_frames
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.labels import Consolidation, LabelSet, PointLabels, label_points
from uov_hf.labels.consolidation import parse_rule
from uov_hf.synthetic import generate_street
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


NUM_SCENES, FRAMES_PER_SCENE, IMAGE_SIZE = 6, 6, (225, 400)
MIN_RANGE = 2.0  # metres; nearer points are the ego car
VOTES = "occlusion", "cameras", "augmentations", "time", "superpoints"
RULES: dict[str, str | Consolidation] = {
    "paper's rule": "paper",
    **{f"only {vote}": parse_rule(rules=vote) for vote in VOTES},
    **{f"all but {vote}": parse_rule(rules=",".join(one for one in VOTES if one != vote)) for vote in VOTES},
    "all votes": "consolidated",
    "all votes, abstention below 0.4": parse_rule("consolidated", min_confidence=0.4),
}
DRAWN = "paper's rule", "all votes"
CLASS_COLUMNS = "paper's rule", "only time", "all but time", "all votes"


def main() -> None:
    parser = add_real(make_parser(__doc__))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="Of the towns; none: no towns.")
    parser.add_argument("--output_dir", type=Path, default=Path("out/label_votes"))
    parser.add_argument("--figure", type=Path, default=REPOSITORY / "docs/figures/label_risk_coverage.svg")
    args = parser.parse_args()
    if args.real:
        # One camera and no augmentations: these votes change nothing there.
        names = [name for name in RULES if not name.endswith(("cameras", "augmentations"))]
        print_scores("PandaSet", score_rules([make_real_label_set(args.real, args.output_dir / "real")], names))
    if args.seeds:
        street = score_rules((make_label_set(args.output_dir, seed) for seed in args.seeds), list(RULES))
        draw_risk(args.figure, {name: street[name] for name in DRAWN})
        print_scores("Synthetic towns", street)


def score_rules(sources: Iterable[tuple[LabelSet, Frames]], names: list[str]) -> dict[str, list["Score"]]:
    """The scores of some of the rules on every source."""
    scores: dict[str, list[Score]] = {name: [] for name in names}
    for label_set, frames in sources:
        for name in names:
            scores[name].append(Score(label_set, frames, RULES[name]))
            print(f"{label_set.folder.name}: {name:32s} accuracy {scores[name][-1].accuracy:.4f}", flush=True)
    return scores


def print_scores(title: str, scores: dict[str, list["Score"]]) -> None:
    print(f"\n{title}: {sum(score.num_seen for score in scores[DRAWN[0]]):,} scored points that a camera sees\n")
    header = "rule", "label mean IoU", "accuracy", "coverage", "errors removed", "accuracy, unseen points"
    print(table(header, table_rows(scores)))
    print(f"\n{table(['IoU in %', 'points', *CLASS_COLUMNS], class_rows(scores))}")


def make_label_set(output_dir: Path, seed: int) -> tuple[LabelSet, Frames]:
    """The segments of a seed's towns, made where they are missing, and the frames."""
    street, labels = output_dir / f"street-{seed}", output_dir / f"labels-{seed}"
    if not (street / "splits.json").exists():
        splits = {"train": NUM_SCENES}
        generate_street(street, NUM_SCENES, FRAMES_PER_SCENE, seed, IMAGE_SIZE, splits=splits, num_workers=2)
    vocabulary, frames = load_vocabulary("nuscenes"), load_frames("nuscenes", "all", data_dir=street)
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(street))
    label_set = LabelSet.create(labels, teacher, vocabulary, {"augmentations": ["flip", "scale=0.75"]})
    label_set.write(frames, teacher)
    shutil.rmtree(labels / "points", ignore_errors=True)  # of other code, perhaps
    return label_set, frames


class Score:
    """The labels of one rule on the towns of one seed, against the truth.

    Attributes:
        matrix (`ConfusionMatrix`): Of the points that a camera sees.
        unseen_accuracy (`float`): Of the points that no camera sees.
        confidence, is_right (`np.ndarray` of shape `(num_labelled,)`): Of the points with a label that a camera sees.
    """

    def __init__(self, label_set: LabelSet, frames: Frames, rule: str | Consolidation):
        label_points(label_set, frames, rule)
        columns = zip(*scored_points(label_set, frames, rule), strict=True)
        truth, labels, confidence, seen = (np.concatenate(parts) for parts in columns)
        is_labelled = seen & (labels != IGNORED)
        self.matrix = ConfusionMatrix(len(label_set.class_names), IGNORED)
        self.matrix.update(labels[seen], truth[seen])
        self.class_names = label_set.class_names
        self.unseen_accuracy = (truth == labels)[~seen].mean()
        self.confidence, self.is_right = confidence[is_labelled], (truth == labels)[is_labelled]

    @property
    def num_seen(self) -> int:
        return self.matrix.counts.sum()

    @property
    def mean_iou(self) -> float:
        """Over the classes that have points; a wrong label of another class counts against the class of its point."""
        has_points = self.matrix.counts.any(axis=1)
        return np.mean(np.array(self.per_category_iou)[has_points])

    @property
    def per_category_iou(self) -> list[float]:
        return self.matrix.compute()["per_category_iou"]

    @property
    def accuracy(self) -> float:
        return self.matrix.compute()["overall_accuracy"]

    @property
    def coverage(self) -> float:
        return len(self.confidence) / self.num_seen


def scored_points(
    label_set: LabelSet, frames: Frames, rule: str | Consolidation
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each frame: true class, label, confidence, and whether a camera sees the point."""
    label_points(label_set, frames, "paper")  # has a pair for every point in view, hidden or not
    paper, point_labels = PointLabels(label_set.folder), PointLabels(label_set.folder, rule)
    for frame in frames.select_columns(["frame_id", "points", "labels"]):
        seen = np.zeros(len(frame["points"]), bool)
        seen[paper.read(frame["frame_id"], ["pair_to_point"])["pair_to_point"]] = True
        scored = (np.hypot(*frame["points"][:, :2].T) > MIN_RANGE) & (frame["labels"] != IGNORED)
        row = point_labels.read(frame["frame_id"], ["labels", "confidence"])
        yield frame["labels"][scored], row["labels"][scored], row["confidence"][scored], seen[scored]


def table_rows(scores: dict[str, list[Score]]) -> Iterator[list[str]]:
    """Means and standard deviations over the seeds, and the share of the paper's errors that is gone on each seed."""
    paper = scores["paper's rule"]
    for name, ones in scores.items():
        spreads = [spread([getattr(one, key) for one in ones]) for key in ("mean_iou", "accuracy", "coverage")]
        cuts = [1 - (1 - one.accuracy) / (1 - before.accuracy) for one, before in zip(ones, paper, strict=True)]
        cut = "—" if ones is paper else " / ".join(f"{100 * cut:.1f}" for cut in cuts)
        yield [name, *spreads, cut, spread([one.unseen_accuracy for one in ones])]


def class_rows(scores: dict[str, list[Score]]) -> Iterator[list[str]]:
    """Of each class: its points, and the mean of its IoU by some of the rules."""
    for row, name in enumerate(scores[DRAWN[0]][0].class_names):
        num_points = sum(one.matrix.counts[row].sum() for one in scores[DRAWN[0]])
        if num_points:
            ious = ([one.per_category_iou[row] for one in scores[rule]] for rule in CLASS_COLUMNS)
            yield [name.replace("_", " "), f"{num_points:,}", *map(spread, ious)]


def spread(values: list[float]) -> str:
    """Mean ± standard deviation, in %."""
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"


def draw_risk(path: Path, scores: dict[str, list[Score]]) -> None:
    """Of the points with the most confident labels, up to a share of all: the share that is wrong."""
    matplotlib.rcParams["svg.hashsalt"] = "uov-hf"  # the same figure is the same file
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, ones in scores.items():
        order = np.argsort(-np.concatenate([one.confidence for one in ones]).astype(np.float32), kind="stable")
        num_kept = np.arange(1, len(order) + 1)
        risk = np.cumsum(~np.concatenate([one.is_right for one in ones])[order]) / num_kept
        shown = np.linspace(len(order) // 50, len(order) - 1, 200).astype(int)
        axes.plot(100 * num_kept[shown] / sum(one.num_seen for one in ones), 100 * risk[shown], label=name)
    axes.set_xlabel("points with a label, % of those a camera sees")
    axes.set_ylabel("wrong labels, % of them")
    axes.set_xlim(0, 100)
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
