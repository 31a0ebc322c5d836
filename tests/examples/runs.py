"""What a training script leaves behind, read back."""

from pathlib import Path

import torch

from uov_hf.training.tracking import LOG_FILE, read_log


def losses(folder: Path, *names: str) -> torch.Tensor:
    """The curve of a run `(num_steps, names)`, float64; by default of its loss."""
    records = read_log(folder / LOG_FILE)
    return torch.tensor([[record[name] for name in names or ("loss",)] for record in records], dtype=torch.float64)


def without_times(folder: Path) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in read_log(folder / LOG_FILE)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def validation_losses(folder: Path) -> list[float]:
    return [record["validation_loss"] for record in read_log(folder / LOG_FILE) if "validation_loss" in record]
