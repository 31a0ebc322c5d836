"""Which frame is trained on when, and by whom: a function of the seed and of nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler


FrameKey = tuple[int, int]  # epoch, index of the frame

# The local order shuffles within 16 blocks of 64 frames at a time: 1024, as a stream of `datasets` does within 1000.
BLOCK_SIZE = 64
MIXED_BLOCKS = 16


@dataclass(frozen=True)
class TrainingOrder:
    """Shuffled epochs, laid end to end and cut into optimiser steps, those into micro-batches.

    Every frame comes exactly once an epoch: nothing is dropped and nothing padded, because a step may reach over the
    end of an epoch. Micro-batch `j` of a step goes to rank `j mod num_processes`, so that two processes without
    accumulation train on the micro-batches of one process that accumulates two.

    The `local` order is for frames that lie together in files which are slow to open. It cuts the index into blocks of
    64 neighbours and lays these out in random order. Each place in a step has a stretch of this layout to itself, and
    goes through it shuffled, a few blocks at a time: a step still holds frames of as many places as it has frames, but
    a rank opens few files, and each of them once.

    Args:
        num_frames (`int`): Frames of an epoch.
        batch_size (`int`): Frames of a micro-batch.
        num_processes (`int`): Ranks that train.
        accumulation (`int`): Micro-batches of each rank in an optimiser step.
        seed (`int`): What the shuffles depend on, beside the epoch; those of the local order also depend on the number
            of frames in a step.
        local (`bool`): Whether frames that are neighbours in the index come soon after each other, on the same rank.
    """

    num_frames: int
    batch_size: int = 1
    num_processes: int = 1
    accumulation: int = 1
    seed: int = 0
    local: bool = False

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

    def has_whole_epoch(self, start: int, end: int) -> bool:
        """Whether the optimiser steps from `start` up to, without, `end` contain every frame of some epoch."""
        first, last = start * self.frames_per_step, end * self.frames_per_step
        return last // self.num_frames > -(-first // self.num_frames)

    def step_keys(self, step: int) -> list[FrameKey]:
        """The frames of an optimiser step, in order, each with the epoch it is drawn in."""
        places = range(step * self.frames_per_step, (step + 1) * self.frames_per_step)
        return [self._key(place) for place in places]

    def surplus_keys(self, num_epochs: int) -> list[FrameKey]:
        """What the last of `num_steps(num_epochs)` steps holds of the epoch after: fewer frames than a step has."""
        return [key for key in self.step_keys(self.num_steps(num_epochs) - 1) if key[0] >= num_epochs]

    def micro_batches(self, step: int, rank: int) -> list[list[FrameKey]]:
        """The micro-batches of one rank in an optimiser step."""
        first, last = step * self.frames_per_step, (step + 1) * self.frames_per_step
        starts = range(first + rank * self.batch_size, last, self.num_processes * self.batch_size)
        return [[self._key(place) for place in range(start, start + self.batch_size)] for start in starts]

    def _key(self, place: int) -> FrameKey:
        epoch, row = divmod(place, self.num_frames)
        return epoch, int(_shuffled(self.num_frames, self.seed, epoch, self.frames_per_step if self.local else 0)[row])


@lru_cache(maxsize=4)
def _shuffled(num_frames: int, seed: int, epoch: int, num_lanes: int) -> np.ndarray:
    """The frames of an epoch in the order of training; `num_lanes` are the places of a step, 0 without locality."""
    generator = np.random.default_rng([seed, epoch])
    if not num_lanes:
        return generator.permutation(num_frames)
    starts = generator.permutation(np.arange(0, num_frames, BLOCK_SIZE))
    blocks = [np.arange(start, min(start + BLOCK_SIZE, num_frames)) for start in starts]
    num_mixed = -(-MIXED_BLOCKS // num_lanes)  # the lanes of a step are mixed with each other anyway
    groups = [np.concatenate(blocks[first : first + num_mixed]) for first in range(0, len(blocks), num_mixed)]
    layout = np.concatenate([generator.permutation(group) for group in groups])
    lanes = (epoch * num_frames + np.arange(num_frames)) % num_lanes  # an epoch may begin within a step
    order = np.empty_like(layout)
    order[np.argsort(lanes, kind="stable")] = layout
    return order


class MicroBatchSampler(Sampler[list[FrameKey]]):
    """One rank's micro-batches from step `start` to step `end`: the `batch_sampler` of its `DataLoader`."""

    def __init__(self, order: TrainingOrder, rank: int, start: int, end: int):
        self.order, self.rank, self.steps = order, rank, range(start, end)

    def __iter__(self) -> Iterator[list[FrameKey]]:
        for step in self.steps:
            yield from self.order.micro_batches(step, self.rank)

    def __len__(self) -> int:
        return len(self.steps) * self.order.accumulation
