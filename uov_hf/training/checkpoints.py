"""Checkpoints of a run: written whole or not at all, the last few kept, and found again."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import TypedDict

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import SAFE_WEIGHTS_NAME
from safetensors import safe_open

from uov_hf.configuration_uov import UOVConfig
from uov_hf.training.settings import Settings, check_settings


logger = get_logger(__name__)

STATE_FILE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-\d+")


class RunState(TypedDict):
    """What a checkpoint contains beside weights, optimiser and schedule; see `Run`."""

    step: int
    trained_points: int
    num_broken: int
    skipped_in_a_row: int
    empty_in_a_row: int
    epoch: int
    settings: Settings


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted((path for path in output_dir.glob("checkpoint-*") if _NAME.fullmatch(path.name)), key=_step)


def find_checkpoint(output_dir: Path, resume_from: str | None) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` names: none, a folder, or `"latest"` of `output_dir` if any.

    Raises:
        FileNotFoundError: The folder is no checkpoint.
        FileExistsError: Nothing is resumed, but `output_dir` contains checkpoints, of another run.
    """
    checkpoints = list_checkpoints(output_dir)
    if resume_from is None:
        if checkpoints:
            raise FileExistsError(
                f"{output_dir} contains the checkpoints of an earlier run ({checkpoints[-1].name}). Continue it with "
                "--resume_from_checkpoint latest, give another --output_dir, or delete them."
            )
        return None
    if resume_from == "latest":
        if not checkpoints:
            logger.warning(f"No checkpoint in {output_dir}: starting from the beginning.")
        return checkpoints[-1] if checkpoints else None
    if not (Path(resume_from) / STATE_FILE).is_file():
        raise FileNotFoundError(
            f"--resume_from_checkpoint {resume_from}: there is no {STATE_FILE} in it. "
            "Give a folder `checkpoint-<step>` of a run, or `latest`."
        )
    return Path(resume_from)


def drop_later(output_dir: Path, step: int) -> None:
    """Remove the checkpoints after `step`: a run that continues from it will write its own."""
    for path in list_checkpoints(output_dir):
        if _step(path) > step:
            logger.warning(f"Removing {path}: the run continues from step {step}.")
            shutil.rmtree(path)


def save_checkpoint(
    accelerator: Accelerator, output_dir: Path, state: RunState, config: UOVConfig, keep: int | None = None
) -> Path:
    """Save everything a run needs to continue; all ranks call this.

    The folder gets its name only when it is complete, so that a run killed while saving leaves the last one untouched.

    `config` is saved beside the weights: an intermediate checkpoint loads with `from_pretrained` too. The last `keep`
    checkpoints stay on disk, or all.
    """
    final = output_dir / f"checkpoint-{state['step']}"
    partial = output_dir / f".{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        config.save_pretrained(partial)
        (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n")
        _publish(partial, final)
        for old in list_checkpoints(output_dir)[:-keep] if keep else []:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(
    accelerator: Accelerator, model: torch.nn.Module, checkpoint: Path, settings: Settings
) -> RunState:
    """Restore weights, optimiser and schedule, and return the state that was saved with them.

    Raises:
        ValueError: The checkpoint belongs to a run with other settings (`check_settings`) or of another network.
    """
    state: RunState = json.loads((checkpoint / STATE_FILE).read_text())
    check_settings(state["settings"], settings, checkpoint)
    _check_same_network(accelerator.unwrap_model(model), checkpoint)
    # Not strict: a network without words has several empty buffers, and accelerate saves only the first of these.
    accelerator.load_state(str(checkpoint), strict=False)
    return state


def _check_same_network(model: torch.nn.Module, checkpoint: Path) -> None:
    """Raise if the checkpoint lacks weights of the model, or has others."""
    with safe_open(checkpoint / SAFE_WEIGHTS_NAME, "pt") as file:
        saved = {name: file.get_slice(name).get_shape() for name in file.keys()}
    expected = {name: list(value.shape) for name, value in model.state_dict().items()}
    odd = sorted(
        name
        for name, shape in (saved | expected).items()
        if saved.get(name) != expected.get(name) and not (name not in saved and 0 in shape)
    )
    if odd:
        raise ValueError(
            f"{checkpoint} belongs to another network: {', '.join(odd[:3])} ({len(odd)} tensors in all) are missing "
            "or have other shapes. Resume with the settings of that run, or start a new one in another --output_dir."
        )


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _publish(partial: Path, final: Path) -> None:
    for path in partial.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(partial)
    if final.exists():  # a run resumed from an earlier checkpoint saves this step again
        shutil.rmtree(final)
    os.replace(partial, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
