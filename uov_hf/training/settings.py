"""The settings of a run, which its checkpoints carry: what a resumed run must keep, and what it may change."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from torch.utils.data import Dataset

from uov_hf.training.order import TrainingOrder


logger = get_logger(__name__)

# Everything else decides what a run ends in.
MAY_CHANGE = {
    # Where things lie. What they are is compared: the ids of the frames, the point labels, the model's configuration.
    *("dataset", "data_dir", "label_set", "model_name_or_path", "output_dir", "on_street"),
    # Who does the work: the frames of a step are compared.
    *("num_processes", "gradient_accumulation_steps", "dataloader_num_workers", "model.sparse_backend"),
    "gradient_checkpointing",
    # What is saved and reported, and when.
    *("checkpointing_steps", "checkpoints_total_limit", "eval_steps", "validation_split", "report_to"),
    *("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision"),
    # The way on from a broken frame.
    "on_error",
    # The steps that they come to are compared.
    *("num_train_epochs", "max_train_steps"),
    # Notes of transformers.
    *("model.transformers_version", "model.text_config", "model.dtype", "model.architectures", "model._name_or_path"),
}
LONGEST_VALUE = 80  # characters


def order_settings(order: TrainingOrder) -> dict[str, Any]:
    """Which frames a step holds, and who trains on them, under the names of the arguments where there are any."""
    return {
        "seed": order.seed,
        "num_frames": order.num_frames,
        "per_device_train_batch_size": order.batch_size,
        "frames_per_step": order.frames_per_step,
        "streaming": order.local,
        "num_processes": order.num_processes,
        "gradient_accumulation_steps": order.accumulation,
    }


def sample_settings(samples: Dataset) -> dict[str, Any]:
    """What decides the samples of `uov_hf.training.samples`: frames, augmentation, voxels, and the point labels."""
    augmentation, point_labels = samples.augmentation, getattr(samples, "point_labels", None)
    voxels = samples.feature_extractor.to_dict()
    return {
        "frame_ids": hashlib.sha256("\n".join(samples.frames.frame_ids).encode()).hexdigest(),
        "augmentation": None if augmentation is None else asdict(augmentation),
        "point_labels": None if point_labels is None else read_json(point_labels.folder / "point_labels.json"),
        **{f"feature_extractor.{name}": value for name, value in voxels.items()},
    }


def run_settings(
    args: Any, order: TrainingOrder, num_steps: int, mixed_precision: str, samples: Dataset, model_config: Any
) -> dict[str, Any]:
    """All settings of a run, as JSON gives them back.

    Args:
        args (`argparse.Namespace`): The script's.
        order (`TrainingOrder`): What its batch size, processes and accumulation came to.
        num_steps (`int`): What its epochs or steps came to.
        mixed_precision (`str`): The launch's, or the script's where it has one.
        samples (`Dataset`): Of `uov_hf.training.samples`.
        model_config (`UOVConfig`): Of the model that is trained.
    """
    settings = {
        **{name: value for name, value in vars(args).items() if name != "resume_from_checkpoint"},
        **order_settings(order),
        "num_steps": num_steps,
        "mixed_precision": mixed_precision,
        **sample_settings(samples),
        **{f"model.{name}": value for name, value in model_config.to_dict().items()},
    }
    return json.loads(json.dumps(settings, default=str))


def check_settings(saved: dict[str, Any], ours: dict[str, Any], checkpoint: Path) -> None:
    """Compare a run with the one that is to be resumed; a setting that only one of them has is younger than the other.

    Raises:
        ValueError: a setting differs that decides what the run ends in; the message has all of them, with both values.
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


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
