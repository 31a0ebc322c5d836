"""`--on_error skip`: a frame that cannot be read costs itself, not the run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from uov_hf.data.broken import BROKEN, MAX_BROKEN_IN_A_ROW
from uov_hf.training.order import FrameKey


class SkipBrokenFrames(Dataset):
    """A dataset in which the next readable frame stands in for one that is broken.

    Samples carry `broken_frames`, a list of messages. Which frame stands in depends on the key alone, so that every
    rank still has its micro-batch at every step and a resumed run meets the same frames.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: FrameKey) -> dict:
        epoch, index = key
        broken = []
        for offset in range(min(MAX_BROKEN_IN_A_ROW, len(self))):
            try:
                sample = self.dataset[epoch, (index + offset) % len(self)]
            except BROKEN as error:
                broken.append(f"{type(error).__name__}: {error}")
            else:
                return {**sample, "broken_frames": broken}
        raise RuntimeError(f"{len(broken)} frames in a row are broken; the last: {broken[-1]}")


@dataclass(frozen=True)
class BrokenFrame:
    """Stands where a frame should have been."""

    message: str


class ReportBrokenFrames(Dataset):
    """A dataset to evaluate on: nothing stands in for a broken frame, which is a `BrokenFrame` instead."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except BROKEN as error:
            return BrokenFrame(f"{type(error).__name__}: {error}")


def only_readable(items: Iterable[Any], broken: list[str]) -> Iterator[Any]:
    """The items that are not broken; the messages of the others are added to `broken`."""
    for item in items:
        if isinstance(item, BrokenFrame):
            broken.append(item.message)
        else:
            yield item
