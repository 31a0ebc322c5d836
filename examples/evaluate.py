"""Evaluation: a label for every point of unseen scenes -> mean IoU, a table, metrics.json.

    accelerate launch examples/evaluate.py --model_name_or_path out/tmp --dataset nuscenes --data_dir data/nuscenes

A pre-trained checkpoint answers zero-shot, by its class prompts; a distilled or fine-tuned one by its head. Points
that a camera saw and those that none did are scored apart; with --label_set the teacher is scored beside the model.
Without --dataset it evaluates on the test towns of the street that examples/pretrain.py rendered. docs/evaluation.md
says what each number is.
"""

import argparse
import json
from pathlib import Path

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from uov_hf import UOVForSemanticSegmentation, UOVProcessor
from uov_hf.evaluation.label_figures import draw_confusion
from uov_hf.evaluation.predictions import Segmenter
from uov_hf.evaluation.reports import evaluation_tables, update_card, without_nan, write_results
from uov_hf.evaluation.scans import LabelledScans, check_classes
from uov_hf.evaluation.scores import Scores
from uov_hf.evaluation.submissions import TAXONOMIES, Submission
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.processing_uov import DEFAULT_AFI
from uov_hf.training import arguments
from uov_hf.training.broken_frames import ReportBrokenFrames, only_readable
from uov_hf.training.launch import sharing, start, wait_for_all
from uov_hf.training.samples import load_split


logger = get_logger("uov_hf.evaluate")

VALIDATION_SPLITS = {"v1.0-trainval": "val", "v1.0-mini": "mini_val"}
# Arguments that change the numbers, and are named beside them where they are not the defaults.
SETTINGS = ("min_range", "test_time_augmentation", "refine", "predict_void")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="out/tmp", help="A checkpoint with its classes baked in.")
    arguments.add_data_arguments(parser)
    parser.add_argument(
        "--label_set", help="What a teacher said about these scenes, to score it and the points it saw."
    )
    parser.add_argument("--min_range", type=float, default=0.0, help="Metres around the sensor that are not scored.")
    add_answer_arguments(parser)
    parser.add_argument(
        "--export",
        choices=list(TAXONOMIES),
        help="Write the predictions in a benchmark's layout, into submission/ of the output; no annotation is needed.",
    )
    parser.add_argument(
        "--update_card",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Put the results into the README.md of the checkpoint, where that is a folder here.",
    )
    arguments.add_run_arguments(parser, output_dir="out/eval")
    args = parser.parse_args()
    args.settings = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) != parser.get_default(name)}
    if args.dataset is None:
        arguments.use_street_of_checkpoint(args, parser)
        args.split = args.split or "test"
    if args.split is None:
        args.split = validation_split(args, parser)
    return args


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it answers")
    group.add_argument("--refine", choices=("afi",), help="Clean the answers by approximate flat interaction.")
    group.add_argument(
        "--test_time_augmentation",
        type=int,
        default=1,
        metavar="VIEWS",
        help="Average the probabilities over so many views of a scan, turned and mirrored. Default: the scan alone.",
    )
    group.add_argument(
        "--predict_void",
        action="store_true",
        help="Let a converted head answer with its void, which misses every class, as the official evaluation does.",
    )


def validation_split(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The official one, of SemanticKITTI or of the nuScenes version at hand."""
    if Path(args.dataset).stem == "semantic_kitti":
        return "val"
    versions = [args.dataset_config] if args.dataset_config else list(VALIDATION_SPLITS)
    for version in versions:
        if args.data_dir is not None and (Path(args.data_dir) / version).is_dir() and version in VALIDATION_SPLITS:
            return VALIDATION_SPLITS[version]
    parser.error("--split is needed: there is no default for this dataset.")


def main() -> None:
    args = parse_args()
    accelerator = start(args.output_dir, args.seed, args.mixed_precision)

    # Model
    model = UOVForSemanticSegmentation.from_pretrained(args.model_name_or_path).to(accelerator.device).eval()
    if args.predict_void and not model.config.has_void:
        raise ValueError("--predict_void needs a converted official head; this checkpoint has no void to predict.")
    processor = UOVProcessor.from_pretrained(args.model_name_or_path)
    segmenter = Segmenter(model, processor, args.refine, args.predict_void)
    if args.refine and processor.afi != DEFAULT_AFI:
        args.settings["afi"] = json.dumps(processor.afi)

    # Data
    frames = load_split(args, args.split)
    check_classes(model.config.id2label, frames.class_names)
    submission = None
    if args.export:
        submission = Submission(Path(args.output_dir) / "submission", args.export, args.split, frames.class_names)
    point_labels = read_point_labels(accelerator, args, frames) if args.label_set else None
    scans = LabelledScans(
        frames,
        processor.feature_extractor,
        point_labels,
        args.min_range,
        num_views=args.test_time_augmentation,
        needs_truth=args.export is None,
    )

    # Evaluation
    scores, broken = Scores(scans, frames.taxonomy), []
    for scan in only_readable(make_loader(accelerator, args, scans), broken):
        with accelerator.autocast():
            answer = segmenter(scan)
        scores.update(answer, scan)
        if submission:
            submission.write_scan(scan.frame_id, scan.points, answer.labels)
    wait_for_all(accelerator)
    scores.reduce(accelerator)
    broken = gather_object(broken)
    if accelerator.is_main_process:
        report(args, scores, frames, broken)
        if submission:
            submission.write_description()
    accelerator.end_training()


def read_point_labels(accelerator: Accelerator, args, frames) -> PointLabels:
    """What the teacher said about the points; made first where it is missing, each process its share."""
    label_set = LabelSet.open(args.label_set)
    if label_set.class_names != frames.class_names:
        raise ValueError(
            f"{args.label_set}: the teacher names the classes {label_set.class_names}, the ground truth has "
            f"{frames.class_names}: it cannot be scored."
        )
    label_points(label_set, frames, on_error=args.on_error, **sharing(accelerator))
    wait_for_all(accelerator)
    return PointLabels(label_set.folder)


def make_loader(accelerator: Accelerator, args, scans: Dataset):
    """This process's share of the scans, one at a time."""
    share = range(accelerator.process_index, len(scans), accelerator.num_processes)
    loader = DataLoader(
        ReportBrokenFrames(scans) if args.on_error == "skip" else scans,
        sampler=share,
        batch_size=None,
        num_workers=args.dataloader_num_workers,
    )
    return tqdm(loader, total=len(share), unit="scan", disable=not accelerator.is_main_process)


def report(args: argparse.Namespace, scores: Scores, frames, broken: list[str]) -> None:
    """metrics.json, table.md, confusion_matrix.png, and the model card."""
    results, output_dir = without_nan(scores.compute()), Path(args.output_dir)
    write_results(
        output_dir / "metrics.json",
        {
            **results,
            "class_names": frames.class_names,
            "model_name_or_path": args.model_name_or_path,
            "dataset": args.dataset,
            "split": args.split,
            "num_frames": len(frames) - len(broken),
            "broken_frames": broken,
            "settings": args.settings,
        },
    )
    tables = evaluation_tables(results, frames.class_names)
    (output_dir / "table.md").write_text(tables + "\n")
    figure = draw_confusion(scores.regions["all_points"].counts, frames.class_names)
    figure.axes[0].set_xlabel("prediction")
    figure.savefig(output_dir / "confusion_matrix.png", dpi=120)
    print(tables)
    for message in broken:
        logger.warning(f"Not scored: {message}")
    card = Path(args.model_name_or_path) / "README.md"
    if args.update_card and card.is_file() and results["all_points"]["num_points"]:
        update_card(card.parent, results, tables, describe_dataset(args), args.settings)


def describe_dataset(args: argparse.Namespace) -> dict[str, str]:
    """What the card calls it: an id or short name as it is; of a path the last part, the rest is nobody's business."""
    is_street = args.data_dir is not None and (Path(args.data_dir) / "synthetic").is_dir()
    name = Path(args.dataset).stem if Path(args.dataset).exists() else args.dataset
    return {
        "name": "the synthetic street of uov-hf" if is_street else name,
        "type": "uov-hf-synthetic-street" if is_street else name,
        "config": args.dataset_config,
        "split": args.split,
    }


if __name__ == "__main__":
    main()
