"""Carry a label set over to the points of its frames, once, so that training opens no image.

    accelerate launch examples/label_points.py --label_set labels/ --dataset nuscenes --data_dir data/nuscenes \\
        --preset paper

A run that was stopped continues where it was. Without --dataset it takes the synthetic street that
generate_label_set.py rendered beside the label set.
"""

import argparse
from pathlib import Path

from accelerate.utils import gather_object

from uov_hf.data import load_frames
from uov_hf.labels import PRESETS, LabelSet, WriteReport, label_points
from uov_hf.training import arguments
from uov_hf.training.launch import sharing, start


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label_set", required=True, help="The folder that generate_label_set.py wrote.")
    parser.add_argument("--preset", choices=list(PRESETS), default="paper", help="How several cameras agree.")
    arguments.add_data_arguments(parser)
    parser.add_argument("--on_error", choices=("raise", "skip"), default="raise", help="What a broken frame does.")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    label_set = LabelSet(args.label_set)
    accelerator = start(args.label_set, seed=0)
    if args.dataset is None:
        accelerator.print("No --dataset: labelling the synthetic street beside the label set.")
        args.dataset, args.data_dir = "nuscenes", str(Path(args.label_set).with_name("street"))
        args.split = args.split or "all"

    frames = load_frames(args.dataset, args.split, data_dir=args.data_dir, dataset_config=args.dataset_config)
    report = label_points(label_set, frames, args.preset, on_error=args.on_error, **sharing(accelerator))
    report = sum(gather_object([report]), WriteReport())
    accelerator.print(f"Point labels ({args.preset}) in {args.label_set}: {report}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
