"""The loaders of a run, and the way of a batch to the device."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset


def make_loader(
    dataset: Dataset, batches: Iterable[list[Any]], collate: Callable, num_workers: int, device: torch.device
) -> DataLoader:
    """A loader whose workers start once, however often it is gone through, and whose batches go to `device` soon.

    Args:
        dataset (`Dataset`): By keys.
        batches (`Iterable[list]`): The keys of each batch.
        collate (`Callable`): A list of samples to a batch.
        num_workers (`int`): Processes that load; 0 loads in this one.
        device (`torch.device`): On CUDA, batches come in pinned memory, and `to_device` does not wait.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
    )


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The tensors of a batch on the device; from pinned memory they are copied in the background."""
    return send_to_device(batch, device, non_blocking=True)
