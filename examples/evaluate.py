"""Evaluation: a label for every point of unseen scenes -> mean IoU, a table, metrics.json.

    accelerate launch examples/evaluate.py --model_name_or_path out/tmp --dataset nuscenes --data_dir data/nuscenes

A pre-trained checkpoint answers zero-shot, by its class prompts; a distilled one by its head. With --label_set it also
tells points that a camera saw from those that none did, and scores the teacher beside the model. Without --dataset it
evaluates on the test towns of the street that examples/pretrain.py rendered.
"""

import argparse
from pathlib import Path

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from uov_hf import UOVConfig, UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.evaluation.reports import results_table, to_results, write_results
from uov_hf.evaluation.segmentation import (
    LabelledScans,
    check_classes,
    evaluate_segmentation,
    new_matrices,
    reduce_matrices,
)
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.training import arguments
from uov_hf.training.broken_frames import ReportBrokenFrames, only_readable
from uov_hf.training.launch import sharing, start


logger = get_logger("uov_hf.evaluate")

VALIDATION_SPLITS = {"v1.0-trainval": "val", "v1.0-mini": "mini_val"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="out/tmp", help="A checkpoint with its classes baked in.")
    arguments.add_data_arguments(parser)
    parser.add_argument(
        "--label_set", help="What a teacher said about these scenes, to score it and the points it saw."
    )
    parser.add_argument("--min_range", type=float, default=0.0, help="Metres around the sensor that are not scored.")
    arguments.add_run_arguments(parser, output_dir="out/eval")
    args = parser.parse_args()
    if args.dataset is None:
        arguments.use_street_of_checkpoint(args, parser)
        args.split = args.split or "test"
    if args.split is None:
        args.split = validation_split(args, parser)
    return args


def validation_split(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The official one of the nuScenes version at hand."""
    versions = [args.dataset_config] if args.dataset_config else list(VALIDATION_SPLITS)
    for version in versions:
        if args.data_dir is not None and (Path(args.data_dir) / version).is_dir() and version in VALIDATION_SPLITS:
            return VALIDATION_SPLITS[version]
    parser.error("--split is needed: there is no default for this dataset.")


def main() -> None:
    args = parse_args()
    accelerator = start(args.output_dir, args.seed, args.mixed_precision)

    # Model
    model = load_model(args.model_name_or_path).to(accelerator.device).eval()
    feature_extractor = UOVProcessor.from_pretrained(args.model_name_or_path).feature_extractor

    # Data
    frames = load_frames(args.dataset, args.split, data_dir=args.data_dir, dataset_config=args.dataset_config)
    check_classes(model.config.id2label, frames.class_names)
    point_labels = read_point_labels(accelerator, args, frames) if args.label_set else None
    scans = LabelledScans(frames, feature_extractor, point_labels, args.min_range)

    # Evaluation
    broken = []
    loader = only_readable(make_loader(accelerator, args, scans), broken)
    with accelerator.autocast():
        matrices = evaluate_segmentation(model, loader, new_matrices(scans, len(frames.class_names)))
    reduce_matrices(accelerator, matrices)
    broken = gather_object(broken)
    if accelerator.is_main_process:
        report(args, to_results(matrices), frames, broken)
    accelerator.end_training()


def load_model(model_name_or_path: str) -> UOVModel | UOVForSemanticSegmentation:
    """The model that the checkpoint was saved from: a segmenter with its head, or the network with its words."""
    architectures = UOVConfig.from_pretrained(model_name_or_path).architectures or []
    is_segmenter = UOVForSemanticSegmentation.__name__ in architectures
    return (UOVForSemanticSegmentation if is_segmenter else UOVModel).from_pretrained(model_name_or_path)


def read_point_labels(accelerator: Accelerator, args, frames) -> PointLabels:
    """What the teacher said about the points; made first where it is missing, each process its share."""
    label_points(LabelSet(args.label_set), frames, on_error=args.on_error, **sharing(accelerator))
    accelerator.wait_for_everyone()
    return PointLabels(args.label_set)


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


def report(args: argparse.Namespace, results: dict, frames, broken: list[str]) -> None:
    table = results_table(results, frames.class_names)
    write_results(
        Path(args.output_dir) / "metrics.json",
        {
            **results,
            "class_names": frames.class_names,
            "model_name_or_path": args.model_name_or_path,
            "dataset": args.dataset,
            "split": args.split,
            "num_frames": len(frames) - len(broken),
            "broken_frames": broken,
            "min_range": args.min_range,
        },
    )
    (Path(args.output_dir) / "table.md").write_text(table + "\n")
    print(table)
    for message in broken:
        logger.warning(f"Not scored: {message}")


if __name__ == "__main__":
    main()
