"""Checkpoints of a run: written whole or not at all, the last few kept, and found again."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import SAFE_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open

from uov_hf.configuration_uov import UOVConfig
from uov_hf.data.writer_lock import writer_lock
from uov_hf.digests import DIGESTS_FILE, file_digest, read_digests, write_digests
from uov_hf.training.settings import Settings, check_settings
from uov_hf.written_together import remove_leftovers


logger = get_logger(__name__)

STATE_FILE = "trainer_state.json"
# What a killed run leaves in its folder beside the temporary folders of `written_together`: checkpoints and logs
# without their names.
UNFINISHED = (".checkpoint-*.partial", ".*.jsonl.partial")
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


@contextmanager
def only_run_in(output_dir: Path, is_main_process: bool) -> Iterator[None]:
    """Hold the lock of a run's folder on the main process, and remove there what killed runs left unfinished.

    Raises:
        RuntimeError: Another run works in the folder; the message names its process.
    """
    if not is_main_process:
        yield
        return
    with writer_lock(output_dir, removes_temporary=False):
        for path in [path for pattern in UNFINISHED for path in output_dir.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        remove_leftovers(output_dir)  # an export may work in the folder; its files stay
        yield


def drop_later(output_dir: Path, step: int, resumed: Path) -> None:
    """Remove the checkpoints of a step and after it: the run that continues from `resumed` will write its own."""
    later = [path for path in list_checkpoints(output_dir) if _step(path) >= step]
    later = [path for path in later if path.resolve() != resumed.resolve()]
    for path in later:
        logger.warning(f"Removing {path}: the run continues from step {step}.")
    _remove(reversed(later))  # a run killed in between finds no gap


def check_finite(accelerator: Accelerator, model: torch.nn.Module, step: int) -> None:
    """Check the weights and the running statistics of a network before they are saved; all ranks call this.

    Raises:
        RuntimeError: Some are NaN or infinite.
    """
    values = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    is_finite = torch.stack([value.isfinite().all() for value in values.values()]).tolist()
    wrong = [name for name, one in zip(values, is_finite, strict=True) if not one]
    if accelerator.reduce(torch.tensor(len(wrong), device=accelerator.device), "sum"):  # so that all ranks stop
        raise RuntimeError(
            f"Not finite after step {step}: {', '.join(wrong[:3]) or 'tensors of another process'} ({len(wrong)} of "
            f"{len(values)} tensors). Training has diverged, and this step was not saved. Start again with a lower "
            "--learning_rate or with --warmup_steps, in another --output_dir."
        )


def save_checkpoint(
    accelerator: Accelerator, output_dir: Path, state: RunState, config: UOVConfig, keep: int | None = None
) -> Path:
    """Save everything a run needs to continue; all ranks call this.

    The folder gets its name only when it is complete, so that a run killed while saving leaves the last one untouched.
    `SHA256SUMS` has the digests of its files.

    `config` is saved beside the weights: an intermediate checkpoint loads with `from_pretrained` too. The last `keep`
    checkpoints stay on disk, or all.

    Raises:
        OSError: A file cannot be written, as on a full disk. The message names the last checkpoint, which stays.
    """
    final = output_dir / f"checkpoint-{state['step']}"
    partial = _unfinished(final)
    try:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            config.save_pretrained(partial)
            (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n")
            # The state last: a list that was cut short lacks it.
            files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != STATE_FILE)
            write_digests(partial, [*files, partial / STATE_FILE])
            _publish(partial, final)
    # What torch and safetensors raise for an error of the disk is no `OSError`.
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        last = next(reversed(list_checkpoints(output_dir)), None)
        raise OSError(
            f"{final} could not be saved: {error}. "
            + (f"The last checkpoint is {last.name}. " if last else "There is no earlier checkpoint. ")
            + "Free some space or fix the cause, then run the same command again with --resume_from_checkpoint latest."
        ) from error
    if accelerator.is_main_process:
        _remove(list_checkpoints(output_dir)[:-keep] if keep else [])
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(
    accelerator: Accelerator, model: torch.nn.Module, checkpoint: Path, settings: Settings
) -> RunState:
    """Restore weights, optimiser and schedule, and return the state that was saved with them.

    Raises:
        OSError: A file of the checkpoint is missing or was changed. The message names the last whole checkpoint.
        ValueError: The checkpoint belongs to a run with other settings (`check_settings`) or of another network, or
            has the name of another step.
    """
    check_whole(checkpoint)
    state: RunState = json.loads((checkpoint / STATE_FILE).read_text())
    if _NAME.fullmatch(checkpoint.name) and _step(checkpoint) != state["step"]:
        raise ValueError(
            f"{checkpoint} is the checkpoint of step {state['step']} ({STATE_FILE}), not of the step in its name. "
            f"Rename it to checkpoint-{state['step']}."
        )
    check_settings(state["settings"], settings, checkpoint)
    _check_same_network(accelerator.unwrap_model(model), checkpoint)
    # Not strict: a network without words has several empty buffers, and accelerate saves only the first of these.
    accelerator.load_state(str(checkpoint), strict=False)
    return state


def check_whole(checkpoint: Path) -> None:
    """Compare the files of a checkpoint with their digests.

    Raises:
        OSError: One is missing or was changed. The message names it, and the last whole checkpoint beside it.
    """
    if damage := _find_damage(checkpoint):
        others = [path for path in reversed(list_checkpoints(checkpoint.parent)) if path != checkpoint]
        whole = next((path for path in others if _find_damage(path) is None), None)
        raise OSError(
            f"{damage}: the checkpoint is damaged. "
            + (f"The last whole one is {whole}: continue with --resume_from_checkpoint {whole}" if whole else "")
            + ("" if whole else "There is no whole one beside it: start again in another --output_dir")
            + f", or delete {checkpoint}."
        )


def _find_damage(checkpoint: Path) -> str | None:
    """The first file of a checkpoint that is not as it was saved, and what is wrong with it; None if all are."""
    digests = checkpoint / DIGESTS_FILE
    try:
        expected = read_digests(checkpoint)
    except (OSError, ValueError) as error:
        return f"{digests} cannot be read ({error})"
    if STATE_FILE not in expected:
        return f"{digests} lacks the line of {STATE_FILE}"
    for name, digest in expected.items():
        if not (checkpoint / name).is_file():
            return f"{checkpoint / name} is missing"
        if file_digest(checkpoint / name) != digest:
            return f"{checkpoint / name} was changed after it was saved (SHA-256)"
    return None


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


def _unfinished(checkpoint: Path) -> Path:
    """The folder of a checkpoint that is being written or removed."""
    return checkpoint.with_name(f".{checkpoint.name}.partial")


def _publish(partial: Path, final: Path) -> None:
    for path in partial.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(partial)
    os.replace(partial, final)
    _sync(final.parent)


def _remove(checkpoints: Iterable[Path]) -> None:
    """Remove checkpoints. Each loses its name at once: a run killed meanwhile leaves no part that looks whole."""
    hidden = []
    for path in checkpoints:
        hidden.append(_unfinished(path))
        shutil.rmtree(hidden[-1], ignore_errors=True)
        os.replace(path, hidden[-1])
        _sync(path.parent)
    for path in hidden:
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
