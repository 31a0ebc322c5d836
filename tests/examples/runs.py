"""What a training script leaves behind, read back, and runs that are killed on their way."""

import time
from pathlib import Path

import torch

from uov_hf.training.tracking import LOG_FILE, read_log


def losses(folder: Path, *names: str) -> torch.Tensor:
    """The curve of a run `(num_steps, names)`, float64; by default of its loss."""
    records = read_log(folder / LOG_FILE)
    return torch.tensor([[record[name] for name in names or ("loss",)] for record in records], dtype=torch.float64)


def without_times(folder: Path) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in read_log(folder / LOG_FILE)]


def kill_after(process, folder: Path, num_steps: int) -> None:
    """Let a run come to its step `num_steps` or a little further, and kill it before it ends."""
    while len(read_log(folder / LOG_FILE)) < num_steps and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert not (folder / "model.safetensors").exists()
