"""The settings of a run, saved in its checkpoints: what a resumed run must keep, and what it may change."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger

from uov_hf.configuration_uov import UOVConfig
from uov_hf.training.order import TrainingOrder
from uov_hf.training.several_datasets import JoinedSamples


logger = get_logger(__name__)

Settings = dict[str, Any]  # name to value, as JSON

# All other settings decide the result of a run.
MAY_CHANGE = {
    # Paths. Their content is compared: the frame ids, the point labels, the class of each label, the configuration.
    *("dataset", "data_dir", "label_set", "map", "model_name_or_path", "output_dir"),
    # Division of the work: the frames of a step are compared.
    *("num_processes", "gradient_accumulation_steps", "dataloader_num_workers", "model.sparse_backend"),
    "gradient_checkpointing",
    # What is saved and reported, and when.
    *("checkpointing_steps", "checkpoints_total_limit", "eval_steps", "validation_split", "report_to"),
    *("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision", "resume_from_checkpoint"),
    # A run that a broken frame stopped continues with `skip`.
    "on_error",
    # The number of steps that follows from them is compared.
    *("num_train_epochs", "max_train_steps"),
    # Notes of transformers.
    *("model.transformers_version", "model.text_config", "model.dtype", "model.architectures", "model._name_or_path"),
}
LONGEST_VALUE = 80  # characters


def run_settings(
    arguments: Mapping[str, object],
    order: TrainingOrder,
    num_steps: int,
    mixed_precision: str,
    samples: JoinedSamples[Any],
    model_config: UOVConfig,
) -> Settings:
    """All settings of a run, as JSON returns them: its arguments, what they resulted in, its samples, its model."""
    first = samples.parts[0]
    label_folders = [part.point_labels.folder for part in samples.parts if part.point_labels is not None]
    settings = {
        **{name: value for name, value in arguments.items() if name != "resume_from_checkpoint"},
        # The frames of a step and their division, under the names of the arguments where there are any.
        "seed": order.seed,
        "num_frames": order.num_frames,
        "per_device_train_batch_size": order.batch_size,
        "frames_per_step": order.frames_per_step,
        "streaming": order.local,
        "num_processes": order.num_processes,
        "gradient_accumulation_steps": order.accumulation,
        "num_steps": num_steps,
        "mixed_precision": mixed_precision,
        # Of every dataset, in their order.
        "frame_ids": [hashlib.sha256("\n".join(part.frames.frame_ids).encode()).hexdigest() for part in samples.parts],
        "point_labels": [
            json.loads((folder / "point_labels.json").read_text(encoding="utf-8")) for folder in label_folders
        ],
        "label_maps": [None if part.label_map is None else part.label_map.tolist() for part in samples.parts],
        "augmentation": first.augmentation and asdict(first.augmentation),
        **{f"feature_extractor.{name}": value for name, value in first.feature_extractor.to_dict().items()},
        **{f"model.{name}": value for name, value in model_config.to_dict().items()},
    }
    return json.loads(json.dumps(settings, default=str))


def check_settings(saved: Settings, ours: Settings, checkpoint: Path) -> None:
    """Compare a run with the checkpoint that it resumes; settings that only one of them has are not compared.

    Raises:
        ValueError: A setting differs that decides the result; the message has all of them, with both values.
    """
    changed = [name for name in ours if name in saved and saved[name] != ours[name]]
    refused = [name for name in changed if name not in MAY_CHANGE]
    if refused:
        listed = "; ".join(f"{name} = {_short(saved[name])}, now {_short(ours[name])}" for name in refused)
        raise ValueError(
            f"{checkpoint} belongs to a run with other settings: {listed}. The resumed run would match "
            "neither. Resume with the settings of that run, or start a new one in another --output_dir."
        )
    for name in changed:
        logger.info(f"Changed since {checkpoint.name}: {name} = {_short(ours[name])}, was {_short(saved[name])}.")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
