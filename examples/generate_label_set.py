"""Ask a 2D open-vocabulary teacher about the images of a dataset, and keep what it says as a label set.

    accelerate launch examples/generate_label_set.py --dataset nuscenes --data_dir data/nuscenes \\
        --teacher clip --teacher_model_name_or_path openai/clip-vit-large-patch14-336 --output_dir labels/

Sequences are shared among the processes and written one by one: a run that was stopped continues where it was. After
the first frames it says how long it will take and what it will write, and stops if there is no room for that.
Without --dataset it renders a small synthetic street beside the label set, whose teacher is `synthetic`.
"""

import argparse
import shutil
from pathlib import Path

import torch
from accelerate.utils import gather_object

from uov_hf.labels import LabelSet, WriteReport
from uov_hf.synthetic import generate_street
from uov_hf.teachers import TEACHERS, load_teacher
from uov_hf.training import arguments
from uov_hf.training.launch import sharing, start, wait_for_all
from uov_hf.training.samples import load_split
from uov_hf.vocabulary import load_vocabulary
from uov_hf_cli.label_images import add_teacher_arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", choices=list(TEACHERS), default="synthetic")
    add_teacher_arguments(parser)
    parser.add_argument(
        "--cameras", type=lambda names: names.split(","), help="Only these, e.g. CAM_FRONT,CAM_BACK. Default: all."
    )
    parser.add_argument(
        "--augmentations",
        nargs="*",
        default=[],
        metavar="NAME",
        help="Show the teacher each image augmented, too, for the vote of label_points.py: flip scale=0.75 …",
    )
    arguments.add_data_arguments(parser)
    parser.add_argument("--vocabulary", help="What to look for. Default: the vocabulary of the dataset's classes.")
    parser.add_argument("--output_dir", default="labels")
    parser.add_argument("--on_error", choices=("raise", "skip"), default="raise", help="What a broken frame does.")
    return parser.parse_args()


def use_embedded_street(args: argparse.Namespace) -> None:
    """Render a street beside the label set, unless an earlier run did."""
    street = Path(args.output_dir).with_name("street")
    if not street.exists():
        partial = street.with_name("street.partial")
        shutil.rmtree(partial, ignore_errors=True)
        generate_street(partial).rename(street)
    args.dataset, args.data_dir, args.split = "nuscenes", str(street), args.split or "all"


def main() -> None:
    args = parse_args()
    accelerator = start(args.output_dir, seed=0)
    if args.dataset is None:
        accelerator.print("No --dataset: labelling a synthetic street. For real data give --dataset and --data_dir.")
        with accelerator.main_process_first():
            use_embedded_street(args)

    # Data
    frames = load_split(args, args.split)
    vocabulary = load_vocabulary(args.vocabulary or frames.taxonomy)

    # Teacher
    teacher = load_teacher(
        args.teacher,
        args.teacher_model_name_or_path,
        prompts=vocabulary.prompts,
        revision=args.teacher_revision,
        data_dir=args.data_dir,
        device=accelerator.device,
        dtype=getattr(torch, args.dtype),
        **dict(args.teacher_settings),
    )

    # Label set
    with accelerator.main_process_first():
        settings = {"cameras": args.cameras, "augmentations": args.augmentations}
        label_set = LabelSet.create(args.output_dir, teacher, vocabulary, settings)
    report = label_set.write(frames, teacher, args.cameras, on_error=args.on_error, **sharing(accelerator))
    wait_for_all(accelerator)
    report = sum(gather_object([report]), WriteReport())
    accelerator.print(f"Label set {args.output_dir}: {report}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
