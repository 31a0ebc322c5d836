"""The label card: the quality of a label set, measured before training.

    python -m uov_hf.evaluation.label_card labels/ --dataset nuscenes --data_dir data/nuscenes --preset paper

It writes README.md, figures and card.json into labels/card, which may be published with the label set. It also writes
a gallery of camera images and views from above into labels_gallery. The gallery shows sensor data, which most datasets
do not allow to publish. Missing point labels are made first. Without --dataset it uses the synthetic street that
generate_label_set.py rendered beside the label set.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from huggingface_hub import DatasetCard, DatasetCardData

from uov_hf.counts import positive_int
from uov_hf.data import Frames, load_frames
from uov_hf.data.shard_file import write_atomically
from uov_hf.evaluation.label_figures import (
    draw_abstention,
    draw_class_histogram,
    draw_confusion,
    draw_shares_by_range,
    taxonomy_colors,
    write_gallery,
)
from uov_hf.evaluation.label_statistics import (
    NUM_EARLIER_SCANS,
    TIME_VOXEL,
    LabelNumbers,
    LabelStatistics,
    gather_statistics,
)
from uov_hf.hub.cards import render_template
from uov_hf.hub.upload import hide_folders
from uov_hf.labels.consolidation import PRESETS, VOTES, parse_rule
from uov_hf.labels.label_set import LabelSet, is_label_set_id
from uov_hf.labels.point_labels import PointLabels, label_points


logger = logging.getLogger("uov_hf.evaluation.label_card")


class CardSource(TypedDict):
    """The frames and rule that a card describes; `num_missing` frames of the split have no labels."""

    dataset: str
    split: str
    preset: str
    num_missing: int


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m uov_hf.evaluation.label_card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("label_set", help="The folder that generate_label_set.py wrote, or an id on the Hub.")
    parser.add_argument("--dataset", help="As in generate_label_set.py.")
    parser.add_argument("--data_dir", help="Root folder of the raw dataset.")
    parser.add_argument("--dataset_config", help="E.g. v1.0-mini. Default: the only one there is in --data_dir.")
    parser.add_argument("--split", help="Default: what fits the configuration.")
    parser.add_argument("--data_fraction", type=float, default=1.0, help="1 / s uses every s-th sequence only.")
    parser.add_argument("--preset", choices=list(PRESETS), help="As in label_points.py, like the next two.")
    parser.add_argument("--rules", help=f"Instead of a preset: some of {', '.join(VOTES)}.")
    parser.add_argument("--min_confidence", type=float, default=0.0, help="Drop labels with less confidence.")
    parser.add_argument(
        "--output_dir", type=Path, help="Default: card/ in the label set. Needed for a label set on the Hub."
    )
    parser.add_argument(
        "--gallery_dir", type=Path, help="Default: <label set>_gallery; of one on the Hub <output_dir>_gallery."
    )
    parser.add_argument("--no_gallery", action="store_true", help="Numbers only.")
    parser.add_argument("--max_frames", type=positive_int, default=4, help="Of the gallery, spread over the split.")
    args = parser.parse_args()
    try:
        parse_rule(args.preset, args.rules, args.min_confidence)
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> None:
    args = parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uov_hf").setLevel(logging.INFO)
    fill_in_paths(args)
    label_set = LabelSet.open(args.label_set)
    split = load_frames(args.dataset, args.split, args.data_dir, args.dataset_config, data_fraction=args.data_fraction)
    frames = known_frames(split, label_set)
    rule = parse_rule(args.preset, args.rules, args.min_confidence)
    label_points(label_set, frames, rule, show_progress=True)
    point_labels = PointLabels(label_set.folder, rule)

    statistics = gather_statistics(frames, label_set, point_labels, show_progress=True)
    if not statistics.class_counts.any():
        logger.warning("No point of these frames has a label: a training on these labels would stop.")
    source: CardSource = {
        "dataset": name_dataset(args.dataset, label_set),
        "split": args.split or "default",
        "preset": name_rule(args.preset, args.rules, args.min_confidence),
        "num_missing": len(split) - len(frames),
    }
    write_label_card(args.output_dir, statistics, source)
    if not args.no_gallery:
        shown = frames.select(spread(len(frames), args.max_frames))
        write_gallery_page(args.gallery_dir, shown, point_labels, label_set, source["dataset"])


def fill_in_paths(args: argparse.Namespace) -> None:
    """Set the paths that were not given: in the label set and beside it, unless this is in the cache of the Hub.

    Raises:
        ValueError: There is no `--dataset` or no `--output_dir` for a label set in the cache.
    """
    if is_label_set_id(args.label_set) or LabelSet(args.label_set).is_cached:
        missing = " and ".join(f"--{name}" for name in ("dataset", "output_dir") if getattr(args, name) is None)
        if missing:
            raise ValueError(
                f"Give {missing}: {args.label_set} is no folder of yours, but a label set of the Hub. Its cache must "
                "not be written to, and has no dataset beside the label set."
            )
        args.gallery_dir = args.gallery_dir or args.output_dir.with_name(f"{args.output_dir.name}_gallery")
        return
    folder = Path(args.label_set).resolve()
    args.output_dir = args.output_dir or folder / "card"
    args.gallery_dir = args.gallery_dir or folder.with_name(f"{folder.name}_gallery")
    if args.dataset is None:
        args.dataset, args.data_dir, args.split = "nuscenes", str(folder.with_name("street")), args.split or "all"


def known_frames(frames: Frames, label_set: LabelSet) -> Frames:
    """The frames that are in the label set, in which broken ones may be missing.

    Raises:
        ValueError: If none of them is.
    """
    known = set(label_set.frame_ids)
    indices = [index for index, frame_id in enumerate(frames.frame_ids) if frame_id in known]
    if not indices:
        raise ValueError(
            f"{label_set.folder} was made from other frames: none of its {len(known)} frames is among the "
            f"{len(frames)} of this split. Give the --split, --dataset_config and --data_dir of its generation."
        )
    return frames.select(indices)


def name_rule(preset: str | None, rules: str | None, min_confidence: float) -> str:
    """The rule in the card, as on the command line."""
    return (rules or preset or "paper") + (f", min_confidence {min_confidence}" if min_confidence else "")


def name_dataset(dataset: str, label_set: LabelSet) -> str:
    """The name of the dataset in the card: an id or short name as given, but only the last part of a local path."""
    if label_set.teacher["name"] == "synthetic":
        return "the synthetic street of uov-hf"
    return Path(dataset).stem if Path(dataset).exists() else dataset


def spread(num_frames: int, num_shown: int) -> list[int]:
    """At most `num_shown` indices of `num_frames`, evenly spread."""
    indices = np.linspace(0, num_frames, min(num_shown, num_frames), endpoint=False)
    return indices.astype(int).tolist()


def write_label_card(folder: Path, statistics: LabelStatistics, source: CardSource) -> None:
    """Write README.md, its figures and card.json into `folder`, over an earlier card."""
    label_set, numbers = statistics.label_set, statistics.compute()
    draw_figures(folder / "figures", statistics, numbers)
    settings = {name: hide_folders(value) for name, value in (label_set.teacher | label_set.settings).items()}
    about = {"teacher_id": label_set.teacher_id, "taxonomy": label_set.taxonomy, "num_prompts": len(label_set.prompts)}
    card = {**source, **about, "settings": settings, **numbers}
    content = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "card.json", content.encode())

    card_data = DatasetCardData(
        license="other",
        pretty_name=f"Point labels of {source['dataset']}",
        annotations_creators=["machine-generated"],
        tags=["uov", "uov-hf", "lidar", "point-cloud", "pseudo-labels", "open-vocabulary"],
    )
    helpers = {"percent": percent, "cell": as_cell, "num_earlier_scans": NUM_EARLIER_SCANS, "time_voxel": TIME_VOXEL}
    page = render_template("uov_hf.evaluation", "label_card.md", card_data=card_data.to_yaml(), **helpers, **card)
    write_atomically(folder / "README.md", str(DatasetCard(page)).encode())
    logger.info("Card: %s", folder / "README.md")


def draw_figures(folder: Path, statistics: LabelStatistics, numbers: LabelNumbers) -> None:
    """Write `classes.png`, `by_range.png` and, with a ground truth, `confusion.png` and `abstention.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    class_names = statistics.label_set.class_names
    colors = taxonomy_colors(statistics.label_set.taxonomy, len(class_names))
    figures = {"classes": draw_class_histogram(numbers["classes"], colors), "by_range": draw_shares_by_range(numbers)}
    if numbers["by_min_confidence"] is not None:
        figures["confusion"] = draw_confusion(statistics.confusion.counts, class_names)
        figures["abstention"] = draw_abstention(numbers["by_min_confidence"])
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=100)


def write_gallery_page(
    folder: Path, frames: Frames, point_labels: PointLabels, label_set: LabelSet, dataset: str
) -> None:
    """Write pictures of the frames, and a README.md that shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    colors = taxonomy_colors(label_set.taxonomy, len(label_set.class_names))
    pages = write_gallery(folder, frames, point_labels, label_set.class_names, colors)
    page = render_template("uov_hf.evaluation", "label_gallery.md", dataset=dataset, pages=pages)
    write_atomically(folder / "README.md", page.encode())
    logger.info("Gallery with sensor data, not to be published: %s", folder / "README.md")


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def as_cell(value: Any) -> str:
    """A setting as a cell of a Markdown table."""
    if value is None or value == []:
        return "–"
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).replace("|", "\\|")


if __name__ == "__main__":
    main()
