"""Arguments of the training scripts, read from flags or from a file. Defaults are the paper's (method.md 4.4)."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from huggingface_hub import whoami
from transformers.hf_argparser import DataClassType

from uov_hf.counts import check_counts
from uov_hf.data.frames import SYNTHETIC_LICENCE
from uov_hf.data.publishing import licence_of
from uov_hf.hub.checkpoint import check_checkpoint
from uov_hf.labels.consolidation import VOTES, Consolidation, parse_rule
from uov_hf.training.argument_files import ONE_VALUE, read_settings
from uov_hf.training.argument_parser import ScriptParser
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.optimization import OptimizerName, ScheduleName


Arguments = TypeVar("Arguments", bound="ReadingArguments")
Value = TypeVar("Value")
# The paper's schedule is for 28,000 frames; the street is small.
STREET_DEFAULTS: dict[str, object] = {
    "split": ["train"],
    "validation_split": ["test"],
    "num_train_epochs": 5,
    "per_device_train_batch_size": 2,
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "head_learning_rate": 3e-3,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 10,
    "dataloader_num_workers": 0,
}


def option(default: Value, help: str) -> Value:
    """A field of arguments with its text in `--help`."""
    return field(default=default, metadata={"help": help})


@dataclass(kw_only=True)
class ReadingArguments:
    """How a script reads the frames of its datasets."""

    frame_stride: int = option(1, "n reads every n-th frame of each sequence, of all splits.")
    streaming: bool = option(
        False,
        "Read a dataset on the Hub without downloading it first. Training then reads neighbouring frames "
        "soon after each other.",
    )
    on_error: Literal["raise", "skip"] = option(
        "raise", "For a broken frame: stop after the state is saved, or skip the frame and report it."
    )

    def __post_init__(self) -> None:
        """End of the chain of `super().__post_init__()` in derived classes, where they validate."""
        check_counts(self, 1, "frame_stride")


@dataclass(kw_only=True)
class DataArguments(ReadingArguments):
    """The one dataset that a script reads."""

    dataset: str | None = option(
        None,
        "A script such as dataset_scripts/nuscenes.py, a short name (nuscenes), a Parquet folder or a Hub "
        "id. Without it the script uses the synthetic street.",
    )
    data_dir: str | None = option(None, "Root folder of the raw dataset.")
    dataset_config: str | None = option(None, "Such as v1.0-mini; needed where --data_dir contains several.")
    split: str | None = option(None, "Without it, the split that fits the configuration.")

    def use_street_of(self, checkpoint: str) -> None:
        """Read the street that pretrain.py rendered beside a checkpoint."""
        self.dataset, self.data_dir = "nuscenes", find_street(checkpoint)

    @property
    def is_street(self) -> bool:
        """Whether the dataset is a synthetic street of this package."""
        if self.dataset is None or self.data_dir is None:
            return False
        return licence_of(self.dataset, self.data_dir, self.dataset_config) == SYNTHETIC_LICENCE


def find_street(checkpoint: str) -> str:
    """The folder of the street that pretrain.py rendered beside a checkpoint.

    Raises:
        ValueError: There is none.
    """
    street = Path(checkpoint) / "street"
    if not street.is_dir():
        raise ValueError(
            f"--dataset is needed: there is no synthetic street in {street}. Run examples/pretrain.py without "
            "--dataset first, or give --dataset nuscenes --data_dir <nuScenes root>."
        )
    return str(street)


@dataclass(kw_only=True)
class TrainingDataArguments(ReadingArguments):
    """The datasets of a training. Every other list has one value for all of them, or one for each; "" is no value."""

    dataset: list[str] | None = option(
        None,
        "One or more: a script such as dataset_scripts/nuscenes.py, a short name (nuscenes), a Parquet folder or a "
        "Hub id. Without it the script uses the synthetic street.",
    )
    data_dir: list[str] | None = option(
        None, 'Root folder of the raw dataset: one for all datasets, or one for each, "" for none. So, too, below.'
    )
    dataset_config: list[str] | None = option(None, "Such as v1.0-mini; needed where --data_dir contains several.")
    split: list[str] | None = option(None, "Without it, the split that fits the configuration.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("data_dir", "dataset_config", "split"):
            self.of_each_dataset(name)  # refuses numbers that do not fit before anything is read

    @property
    def datasets(self) -> list[DataArguments]:
        """Every dataset, with its split to train on."""
        folders, configs = self.of_each_dataset("data_dir"), self.of_each_dataset("dataset_config")
        return [
            DataArguments(
                dataset=name,
                data_dir=data_dir,
                dataset_config=config,
                split=split or self.default_split(data_dir, config),
                frame_stride=self.frame_stride,
                streaming=self.streaming,
                on_error=self.on_error,
            )
            for name, data_dir, config, split in zip(
                self.dataset or [], folders, configs, self.of_each_dataset("split"), strict=True
            )
        ]

    def use_street_of(self, checkpoint: str) -> None:
        """Read the street that pretrain.py rendered beside a checkpoint."""
        self.dataset, self.data_dir = ["nuscenes"], [find_street(checkpoint)]

    def default_split(self, data_dir: str | None, dataset_config: str | None) -> str | None:
        """The split of a dataset for which none is given; `None` is the dataset's own default."""
        return None

    def of_each_dataset(self, name: str) -> list[str | None]:
        """The value of an argument for every dataset, `None` where it has none.

        Raises:
            ValueError: The number of values is neither one nor that of the datasets.
        """
        datasets, values = self.dataset or [], getattr(self, name) or [""]
        if len(values) not in (1, len(datasets)):
            raise ValueError(
                f"--{name} has {len(values)} values ({', '.join(values)}), --dataset has {len(datasets)} "
                f"({', '.join(datasets)}). Give --{name} one value for all datasets, or one for each in their order; "
                f'"" is none. Two folders are two datasets, of one name perhaps: --dataset nuscenes nuscenes.'
            )
        return [value or None for value in (values if len(values) > 1 else values * len(datasets))]


@dataclass(kw_only=True)
class LabelSetArguments(TrainingDataArguments):
    """The label sets that supervise a training, one for each dataset."""

    label_set: list[str] | None = option(
        None, "Folder written by generate_label_set.py, or id on the Hub; one for each dataset."
    )
    point_labels_preset: Literal["paper", "consolidated"] | None = option(
        None,
        "Rule of the point labels, as --preset of label_points.py. Without it and --point_labels_rules, paper. "
        "Missing point labels are made first.",
    )
    point_labels_rules: str | None = option(
        None,
        f"The votes that count, as --rules of label_points.py, with commas between them: some of {', '.join(VOTES)}.",
    )
    point_labels_min_confidence: float = option(0.0, "As --min_confidence of label_points.py.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset is not None:
            self._check_label_sets(self.dataset)
        self.make_point_labels_rule()  # refuses wrong names before the label set is read

    def _check_label_sets(self, datasets: list[str]) -> None:
        if self.label_set is None:
            raise ValueError("--dataset needs --label_set: make one with examples/generate_label_set.py.")
        if len(self.label_set) != len(datasets) or "" in self.label_set:
            raise ValueError(
                f"Every dataset needs its own label set: got --dataset {' '.join(datasets)} and --label_set "
                f"{' '.join(self.label_set)}. Make those that are missing with examples/generate_label_set.py. If one "
                "label set has the frames of several datasets, name it once for each."
            )

    def make_point_labels_rule(self) -> str | Consolidation:
        """The rule of the point labels that supervise the training."""
        return parse_rule(self.point_labels_preset, self.point_labels_rules, self.point_labels_min_confidence)

    def use_street_of(self, checkpoint: str) -> None:
        """Read the street beside a checkpoint, and its label set if no other is given."""
        super().use_street_of(checkpoint)
        self.label_set = self.label_set or [str(Path(checkpoint) / "labels")]


@dataclass(kw_only=True)
class RunArguments:
    """How a script runs on this machine."""

    output_dir: str = option("out", "Folder of the results.")
    seed: int = option(0, "Of initialisation, order and augmentation.")
    dataloader_num_workers: int = option(2, "Processes that load frames; 0 uses none.")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(None, "Without it, the precision of the launch.")


@dataclass(kw_only=True)
class TrainingArguments(TrainingDataArguments, RunArguments):
    """Arguments of a training: optimisation, checkpoints, reports and the Hub.

    A script derives from it, sets its own defaults and adds its own arguments.
    """

    stage: ClassVar[Literal["pretrain", "distill", "finetune"]]  # its name in the model card and for trackers
    frames_per_step: ClassVar[int]  # the paper's, for a run without `per_device_train_batch_size`

    data_fraction: float = option(
        1.0, "1 / s trains on every s-th scene of each dataset, as in the paper; validation keeps all."
    )
    per_device_train_batch_size: int | None = option(
        None, "Frames per process and micro-batch. Without it, an optimiser step has the paper's frames."
    )
    gradient_accumulation_steps: int = option(1, "Micro-batches per process and step.")
    num_train_epochs: int = option(1, "Passes over the frames.")
    max_train_steps: int | None = option(None, "Optimiser steps; overrides --num_train_epochs.")
    optimizer: OptimizerName = option("sgd", "SGD is the paper's.")
    learning_rate: float = option(0.02, "Of the network.")
    weight_decay: float = option(1e-4, "Of all weights.")
    lr_scheduler_type: ScheduleName = option(
        "cosine_per_epoch", "cosine_per_epoch is the paper's; take cosine for runs of few epochs."
    )
    warmup_steps: int = option(0, "Steps over which the learning rate rises.")
    freeze_batch_norm: bool = option(False, "Keep the running statistics as they are.")
    gradient_checkpointing: bool = option(False, "Less memory, more time.")

    checkpointing_steps: int | None = option(None, "Optimiser steps between checkpoints. Without it, an epoch.")
    checkpoints_total_limit: int = option(2, "Checkpoints that stay on disk.")
    resume_from_checkpoint: str | None = option(None, "`latest`, or a folder checkpoint-<step>.")
    validation_split: list[str] | None = option(None, "Scenes for the validation loss, with labels of the same kind.")
    eval_steps: int | None = option(None, "Optimiser steps between validations. Without it, an epoch.")
    report_to: Literal["none", "tensorboard", "trackio"] = option("none", "Tracker.")
    push_to_hub: bool = option(False, "Upload the finished checkpoint with its card.")
    hub_model_id: str | None = option(None, "Without it, the name of --output_dir.")
    hub_private_repo: bool = option(False, "The repository must be private.")
    hub_revision: str | None = option(None, "Branch, created where it is missing. Without it, main.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, 0, "dataloader_num_workers", "warmup_steps")
        check_counts(self, 1, "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs")
        check_counts(self, 1, "max_train_steps", "checkpointing_steps", "checkpoints_total_limit", "eval_steps")
        self.of_each_dataset("validation_split")
        if self.push_to_hub:
            whoami()  # raises without a token, before the training instead of after it

    def batch_size(self, num_processes: int) -> int:
        """Frames of a micro-batch of each process. If it is not given, a step has the paper's frames."""
        share = self.frames_per_step // (num_processes * self.gradient_accumulation_steps)
        return self.per_device_train_batch_size or max(1, share)

    @property
    def validation_datasets(self) -> list[DataArguments | None]:
        """Every dataset, with its split for validation; `None` for a dataset that has none."""
        splits = self.of_each_dataset("validation_split")
        return [replace(one, split=name) if name else None for one, name in zip(self.datasets, splits, strict=True)]


@dataclass(kw_only=True)
class NetworkArguments:
    """Size and voxels of an untrained network."""

    preset: Literal["minkunet34", "tiny"] | None = option(None, "Size of an untrained network.")
    coordinate_system: Literal["cylindrical", "cartesian"] | None = option(
        None, "Of the voxels. Without it, the paper's: cylindrical."
    )
    voxel_size: list[float] | None = option(
        None, "rho, phi, z in metres, radians, metres, or x, y, z in metres. Without it, the paper's."
    )
    intensity_scaling: Literal["raw", "unit", "unit_plus_one"] | None = option(
        None, "Of the input feature. Without it, the paper's for nuScenes: raw."
    )

    def voxel_settings(self) -> dict[str, Any]:
        """The settings of `UOVFeatureExtractor` that were given."""
        names = ("coordinate_system", "voxel_size", "intensity_scaling")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(kw_only=True)
class AugmentationArguments:
    """Augmentation of frames that a teacher labelled, beyond the paper's."""

    mix_sectors: bool = option(
        False,
        "Fill azimuths that no camera sees with labelled sectors of other frames. For one or a few cameras; the paper "
        "has six.",
    )
    random_scale: float = option(0.0, "Scale each frame by a random factor of 1 ± this share; for few frames.")
    random_slope: float = option(0.0, "Tilt each frame by random slopes of up to this number; for few frames.")

    def augmentation(self, **settings: Any) -> AugmentationConfig:
        """These settings and others."""
        own = {field.name: getattr(self, field.name) for field in fields(AugmentationArguments)}
        return AugmentationConfig(**own, **settings)


@dataclass(kw_only=True)
class SegmenterArguments(TrainingArguments):
    """Arguments of a training that starts from a checkpoint and ends with a segmenter."""

    model_name_or_path: str | None = option(
        None,
        "Checkpoint written by pretrain.py, distill.py or finetune.py. Without it and without --preset, out/tmp.",
    )
    preset: Literal["minkunet34", "tiny"] | None = option(None, "Size of an untrained network.")
    head_learning_rate: float | None = option(
        None, "Of a linear head. Without it, the paper's: 2.0, in a linear probe 0.05."
    )

    def __post_init__(self) -> None:
        if self.preset is not None and self.model_name_or_path is not None and self.dataset is not None:
            raise ValueError(
                f"--preset {self.preset} is an untrained network, and --model_name_or_path {self.model_name_or_path} "
                "a checkpoint: give one of them."
            )
        start = self.model_name_or_path or "out/tmp"
        if self.dataset is None:
            self.use_street_of(start)  # also for an untrained network
        self.model_name_or_path = start if self.preset is None else None
        if self.head_learning_rate is None:
            self.head_learning_rate = 2.0
        super().__post_init__()


def parse_arguments(
    arguments: type[Arguments], description: str | None, street_defaults: Mapping[str, object] | None = None
) -> Arguments:
    """The arguments of a script, from its command line or from a YAML or JSON file that stands first on it.

    Flags after the file override it. Wrong arguments end the program with status 2.

    Args:
        arguments (`type`): The script's dataclass, derived from [`ReadingArguments`].
        description (`str`, *optional*): Text of `--help`.
        street_defaults (`Mapping[str, object]`, *optional*):
            Defaults that hold instead of the dataclass's where no dataset is given.
    """
    usage = "%(prog)s [settings.yaml] [--name value ...]"
    parser = ScriptParser(DataClassType(arguments), usage=usage, description=description)
    flags = sys.argv[1:]
    path = flags.pop(0) if flags and flags[0].endswith((".yaml", ".yml", ".json")) else None
    given, surplus = parser.parse_known_args(flags)
    if surplus:
        way_out = "" if surplus[0].startswith("-") else f". {ONE_VALUE}"
        parser.error(f"unrecognized arguments: {' '.join(surplus)}{way_out}")
    try:
        settings = read_settings(path, arguments) if path is not None else {}
        if given.dataset is None and settings.get("dataset") is None:
            parser.set_defaults(**(street_defaults or {}))
        parser.set_defaults(**settings)
        return arguments(**vars(parser.parse_args(flags)))
    except (OSError, ValueError) as error:
        parser.error(str(error))


def require_checkpoint(model_name_or_path: str | None) -> None:
    """End the program with one line on standard error if the checkpoint to start from does not exist.

    Args:
        model_name_or_path (`str`, *optional*): Folder or Hub id. Nothing is checked for `None`, an untrained network.
    """
    if model_name_or_path is not None:
        try:
            check_checkpoint(model_name_or_path)
        except OSError as error:
            sys.exit(f"--model_name_or_path {error}")
