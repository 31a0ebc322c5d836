"""Loaders of a run: worker processes, pinned memory, and what `--on_error skip` does with a broken frame."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from uov_hf.data.frames import BROKEN, MAX_BROKEN_IN_A_ROW
from uov_hf.training.collation import Batch
from uov_hf.training.interruption import end_with_run, sigterm_blocked_in_forks
from uov_hf.training.order import FrameKey
from uov_hf.training.several_datasets import JoinedSamples


Item = TypeVar("Item")


class _Loader(DataLoader[Any]):
    """A loader whose workers block SIGTERM in all of their threads.

    In a forked worker, torch starts threads before `worker_init_fn`. They would take the signal that ends the worker.
    """

    def __iter__(self) -> Any:
        with sigterm_blocked_in_forks():
            return super().__iter__()


def make_loader(
    dataset: Dataset[Any],
    batches: Iterable[list[FrameKey]],
    collate: Callable[[list[Any]], Any],
    num_workers: int,
    device: torch.device,
) -> DataLoader[Any]:
    """A loader whose workers start once, however often it is iterated; 0 workers load in this process."""
    return _Loader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=end_with_run,
        pin_memory=device.type == "cuda",  # copied to the device in the background
    )


class SkipBrokenFrames(Dataset[Batch]):
    """A dataset in which the next readable frame replaces a broken one.

    The replacement depends on the key alone, so that every rank has its micro-batch at every step and a resumed run
    reads the same frames. `broken_frames` of a sample are the messages of the frames that it replaces.
    """

    def __init__(self, dataset: JoinedSamples[Any]):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: FrameKey) -> Batch:
        epoch, index = key
        broken: list[str] = []
        for offset in range(min(MAX_BROKEN_IN_A_ROW, len(self))):
            try:
                sample = self.dataset[epoch, (index + offset) % len(self)]
            except BROKEN as error:
                broken.append(f"{type(error).__name__}: {error}")
            else:
                sample["broken_frames"] = broken
                return sample
        raise RuntimeError(f"{len(broken)} frames in a row are broken; the last: {broken[-1]}")


@dataclass(frozen=True)
class BrokenFrame:
    """Takes the place of a frame that cannot be read."""

    message: str


class ReportBrokenFrames(Dataset[Item | BrokenFrame]):
    """A dataset to evaluate on: a broken frame is a `BrokenFrame`, and no other frame replaces it."""

    def __init__(self, dataset: Dataset[Item]):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Item | BrokenFrame:
        try:
            return self.dataset[index]
        except BROKEN as error:
            return BrokenFrame(f"{type(error).__name__}: {error}")


def only_readable(items: Iterable[Item | BrokenFrame], broken: list[str]) -> Iterator[Item]:
    """The items that are not broken; the messages of the others are appended to `broken`."""
    for item in items:
        if isinstance(item, BrokenFrame):
            broken.append(item.message)
        else:
            yield item
