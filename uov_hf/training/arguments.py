"""Arguments that the scripts share, under Hugging Face's names; defaults are the paper's (method.md 4.4)."""

import argparse
from pathlib import Path
from typing import Any

from huggingface_hub import whoami

from uov_hf.labels import PRESETS
from uov_hf.training.optimization import OPTIMIZERS, SCHEDULES


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        help="A script such as dataset_scripts/nuscenes.py, a short name (nuscenes), a Parquet folder or a Hub id. "
        "Default: the embedded synthetic street.",
    )
    group.add_argument("--data_dir", help="Root folder of the raw dataset.")
    group.add_argument("--dataset_config", help="E.g. v1.0-mini. Default: the only one there is in --data_dir.")
    group.add_argument("--split", help="Default: what fits the configuration.")
    group.add_argument(
        "--streaming",
        action="store_true",
        help="Read a dataset on the Hub where it lies, without a download. A training then takes its frames in an "
        "order that stays with neighbours for a while.",
    )


def add_label_set_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what a teacher said")
    group.add_argument("--label_set", help="The folder that generate_label_set.py wrote.")
    group.add_argument(
        "--point_labels_preset",
        choices=list(PRESETS),
        default="paper",
        help="The rule by which it was carried to the points, as in label_points.py; made first where it is missing.",
    )


def add_run_arguments(parser: argparse.ArgumentParser, output_dir: str) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--output_dir", default=output_dir)
    group.add_argument("--seed", type=int, default=0)
    group.add_argument(
        "--on_error",
        choices=("raise", "skip"),
        default="raise",
        help="What a broken frame does: stop the run after its state is saved, or be counted and reported.",
    )
    group.add_argument("--dataloader_num_workers", type=int, default=2)
    group.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="Default: that of the launch.")


def add_training_arguments(
    parser: argparse.ArgumentParser, learning_rate: float, num_train_epochs: int, frames_per_step: int
) -> None:
    group = parser.add_argument_group("training")
    group.add_argument(
        "--data_fraction", type=float, default=1.0, help="1 / s trains on every s-th scene, as the paper."
    )
    group.add_argument(
        "--per_device_train_batch_size",
        type=int,
        help="Frames per process and micro-batch. Default: such that a step holds "
        f"{frames_per_step} frames, as in the paper.",
    )
    group.add_argument("--gradient_accumulation_steps", type=int, default=1)
    group.add_argument("--num_train_epochs", type=int, default=num_train_epochs)
    group.add_argument("--max_train_steps", type=int, help="Optimiser steps; overrides --num_train_epochs.")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    group.add_argument("--learning_rate", type=float, default=learning_rate)
    group.add_argument("--weight_decay", type=float, default=1e-4)
    group.add_argument(
        "--lr_scheduler_type",
        choices=SCHEDULES,
        default="cosine_per_epoch",
        help="cosine_per_epoch is the paper's; take cosine for runs of few epochs.",
    )
    group.add_argument("--warmup_steps", type=int, default=0)
    group.add_argument("--freeze_batch_norm", action="store_true", help="Keep the running statistics as they are.")
    group.add_argument("--gradient_checkpointing", action="store_true", help="Less memory, more time.")


def add_tracking_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("checkpoints and reports")
    group.add_argument(
        "--checkpointing_steps", type=int, help="Optimiser steps between checkpoints. Default: an epoch."
    )
    group.add_argument("--checkpoints_total_limit", type=int, default=2, help="How many checkpoints stay on disk.")
    group.add_argument("--resume_from_checkpoint", help="`latest`, or a folder checkpoint-<step>.")
    group.add_argument(
        "--validation_split", help="Scenes whose loss is reported, by labels of the same kind. Default: none."
    )
    group.add_argument("--eval_steps", type=int, help="Optimiser steps between validations. Default: an epoch.")
    group.add_argument("--report_to", choices=("none", "tensorboard", "trackio"), default="none")
    group.add_argument("--push_to_hub", action="store_true", help="Upload the finished checkpoint, with its card.")
    group.add_argument("--hub_model_id", help="Default: the name of --output_dir.")
    group.add_argument("--hub_private_repo", action="store_true", help="The repository must be private.")
    group.add_argument("--hub_revision", help="The branch; made where it is not there. Default: main.")


def parse_or_street(parser: argparse.ArgumentParser, street_defaults: dict[str, Any]) -> argparse.Namespace:
    """The arguments, and `on_street`: without --dataset it is the embedded street's turn, with defaults of its own."""
    args = parser.parse_args()
    if args.push_to_hub:
        whoami()  # raises: without a token all the training would end in an error
    if args.dataset is not None:
        if getattr(args, "label_set", "") is None:
            parser.error("--dataset needs --label_set: make one with examples/generate_label_set.py.")
        return argparse.Namespace(on_street=False, **vars(args))
    parser.set_defaults(**street_defaults)
    return parser.parse_args(namespace=argparse.Namespace(on_street=True))


def use_street_of_checkpoint(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Where there is no --dataset: the street that pretrain.py rendered beside the checkpoint.

    A script that has a `--label_set` gets that of the street, too, where it was not given one.
    """
    street, labels = (Path(args.model_name_or_path) / name for name in ("street", "labels"))
    if not street.is_dir():
        parser.error(
            f"--dataset is needed: there is no synthetic street in {street}. Run examples/pretrain.py without "
            "--dataset first, or give --dataset nuscenes --data_dir <nuScenes root>."
        )
    args.dataset, args.data_dir = "nuscenes", str(street)
    if "label_set" in args:
        args.label_set = args.label_set or str(labels)
