"""The micro-batches of an optimiser step, and their weights over all processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

import torch
from accelerate import Accelerator

from uov_hf.training.collation import BatchT


@dataclass(frozen=True)
class StepBatch(Generic[BatchT]):
    """This rank's micro-batches of one optimiser step, and the size of the whole step over all ranks."""

    micro_batches: list[BatchT]  # on the CPU
    # Share of each in the step: their means, so weighted, add up to the mean of the step over all ranks.
    weights: list[float]
    count: float  # number of things that this mean is over
    num_points: int
    num_broken: int  # frames that could not be read


def load_step(
    accelerator: Accelerator, batches: Iterator[BatchT], accumulation: int, count: Callable[[BatchT], float]
) -> StepBatch[BatchT]:
    """Load this rank's part of the next optimiser step; all ranks call this together.

    Args:
        accelerator (`Accelerator`): Of this process.
        batches (`Iterator[Batch]`): This rank's micro-batches.
        accumulation (`int`): Micro-batches of a step.
        count (`Callable`): As in `Objective`.

    Raises:
        Exception: Whatever loading raised here. Where it failed on another rank only, a `RuntimeError`, so that every
            rank stops at the same step and none waits for the others.
    """
    error, micro_batches = None, []
    try:
        micro_batches = [next(batches) for _ in range(accumulation)]
    except Exception as caught:  # raised below, after the other ranks have counted it
        error = caught
    counts = [count(batch) for batch in micro_batches]
    points = [int(batch["num_points"].sum()) for batch in micro_batches]
    broken = sum(len(batch["broken_frames"]) for batch in micro_batches if "broken_frames" in batch)
    # A single process has nothing to sum: its numbers stay on the CPU, and nothing waits for the device.
    device = accelerator.device if accelerator.num_processes > 1 else "cpu"
    own = torch.tensor([sum(counts), sum(points), broken, int(error is not None)], dtype=torch.float64, device=device)
    total, num_points, num_broken, num_failed = accelerator.reduce(own, "sum").tolist()
    if error is not None:
        raise error
    if num_failed:
        raise RuntimeError("Loading data failed on another process; its message names the frame.")
    weights = [own / total if total else 0.0 for own in counts]
    return StepBatch(micro_batches, weights, total, int(num_points), int(num_broken))
