"""Arguments that the scripts share, under Hugging Face's names; defaults are the paper's (method.md 4.4)."""

import argparse

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


def add_training_arguments(parser: argparse.ArgumentParser, learning_rate: float, num_train_epochs: int) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--data_fraction", type=float, default=1.0, help="1 / s keeps every s-th scene, as the paper.")
    group.add_argument(
        "--per_device_train_batch_size",
        type=int,
        help="Frames per process and micro-batch. Default: such that a step holds 4 frames, as in the paper.",
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
    group.add_argument("--eval_steps", type=int, help="Optimiser steps between validations. Default: an epoch.")
    group.add_argument("--report_to", choices=("none", "tensorboard", "trackio"), default="none")
    group.add_argument("--push_to_hub", action="store_true")
    group.add_argument("--hub_model_id", help="Default: the name of --output_dir.")
