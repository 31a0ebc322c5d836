"""Which frame is trained on when, and by whom: a function of the seed and of nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler


FrameKey = tuple[int, int]  # epoch, index of the frame


@dataclass(frozen=True)
class TrainingOrder:
    """Shuffled epochs, laid end to end and cut into optimiser steps, those into micro-batches.

    Every frame comes exactly once an epoch: nothing is dropped and nothing padded, because a step may reach over the
    end of an epoch. Micro-batch `j` of a step goes to rank `j mod num_processes`, so that two processes without
    accumulation train on the micro-batches of one process that accumulates two.

    Args:
        num_frames (`int`): Frames of an epoch.
        batch_size (`int`): Frames of a micro-batch.
        num_processes (`int`): Ranks that train.
        accumulation (`int`): Micro-batches of each rank in an optimiser step.
        seed (`int`): What the shuffles depend on, beside the epoch.
    """

    num_frames: int
    batch_size: int = 1
    num_processes: int = 1
    accumulation: int = 1
    seed: int = 0

    def __post_init__(self):
        for name in ("num_frames", "batch_size", "num_processes", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1 to train on anything, got {getattr(self, name)}.")

    @property
    def frames_per_step(self) -> int:
        return self.batch_size * self.num_processes * self.accumulation

    def num_steps(self, num_epochs: int) -> int:
        """Optimiser steps until every frame has been seen `num_epochs` times."""
        return -(-num_epochs * self.num_frames // self.frames_per_step)

    def epoch(self, step: int) -> int:
        """The epoch in which an optimiser step begins; steps count from 0."""
        return step * self.frames_per_step // self.num_frames

    def is_due(self, step: int, every: int | None = None) -> bool:
        """Whether `step` steps are a multiple of `every`; by default, whether an epoch ended with the last of them."""
        return step % every == 0 if every else self.epoch(step) > self.epoch(step - 1)

    def step_keys(self, step: int) -> list[FrameKey]:
        """The frames of an optimiser step, in order, each with the epoch it is drawn in."""
        places = range(step * self.frames_per_step, (step + 1) * self.frames_per_step)
        return [self._key(place) for place in places]

    def micro_batches(self, step: int, rank: int) -> list[list[FrameKey]]:
        """The micro-batches of one rank in an optimiser step."""
        keys = self.step_keys(step)
        starts = range(rank * self.batch_size, self.frames_per_step, self.num_processes * self.batch_size)
        return [keys[start : start + self.batch_size] for start in starts]

    def _key(self, place: int) -> FrameKey:
        epoch, row = divmod(place, self.num_frames)
        return epoch, int(_shuffled(self.num_frames, self.seed, epoch)[row])


@lru_cache(maxsize=4)
def _shuffled(num_frames: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_frames)


class MicroBatchSampler(Sampler[list[FrameKey]]):
    """One rank's micro-batches from step `start` to step `end`: the `batch_sampler` of its `DataLoader`."""

    def __init__(self, order: TrainingOrder, rank: int, start: int, end: int):
        self.order, self.rank, self.steps = order, rank, range(start, end)

    def __iter__(self) -> Iterator[list[FrameKey]]:
        for step in self.steps:
            yield from self.order.micro_batches(step, self.rank)

    def __len__(self) -> int:
        return len(self.steps) * self.order.accumulation
