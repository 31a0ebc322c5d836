"""The parts of an optimiser step that are spread over micro-batches and processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn


@dataclass(frozen=True)
class StepBatch:
    """This rank's micro-batches of one optimiser step, and what the whole step holds.

    Args:
        micro_batches (`list[dict]`): Batches of this rank, on the CPU.
        weights (`list[float]`): The share of each in the step: their means, so weighted, add up to the mean of the
            step over all ranks.
        count (`float`): What that mean is over, in number, over all micro-batches of all ranks.
        num_points, num_broken (`int`): Points of the step, and frames that could not be read, likewise.
    """

    micro_batches: list[dict]
    weights: list[float]
    count: float
    num_points: int
    num_broken: int


def count_superpoints(batch: dict) -> int:
    """Superpoints with at least one point in a voxel: those that are in the loss."""
    voxel = batch["point_to_voxel"][batch["pair_to_point"]]
    return int(batch["superpoint_ids"][voxel >= 0].unique().numel())


def load_step(
    accelerator: Accelerator, batches: Iterator[dict], accumulation: int, count: Callable[[dict], float]
) -> StepBatch:
    """Load this rank's part of the next optimiser step; all ranks call this together.

    Args:
        accelerator (`Accelerator`): Of this process.
        batches (`Iterator[dict]`): This rank's micro-batches.
        accumulation (`int`): How many of them a step has.
        count (`Callable`): A batch to what its loss is a mean over, in number.

    Raises:
        Exception: what loading raised here. Where it failed on another rank only, a `RuntimeError`, so that every rank
            stops at the same step and none waits for the others.
    """
    error, micro_batches = None, []
    try:
        micro_batches = [next(batches) for _ in range(accumulation)]
    except Exception as caught:  # handed to the caller below, once the other ranks know
        error = caught
    counts = [count(batch) for batch in micro_batches]
    points = [int(batch["num_points"].sum()) for batch in micro_batches]
    num_broken = sum(len(batch.get("broken_frames", ())) for batch in micro_batches)
    # A process alone has nothing to ask of the device.
    device = accelerator.device if accelerator.num_processes > 1 else "cpu"
    totals = [sum(counts), sum(points), num_broken, int(error is not None)]
    totals = accelerator.reduce(torch.tensor(totals, dtype=torch.float64, device=device), "sum")
    total, num_points, num_broken, num_failed = totals.tolist()
    if error is not None:
        raise error
    if num_failed:
        raise RuntimeError("Loading data failed on another process; its message names the frame.")
    weights = [own / total if total else 0.0 for own in counts]
    return StepBatch(micro_batches, weights, total, int(num_points), int(num_broken))


def add_negatives(accelerator: Accelerator, micro_batches: list[dict]) -> None:
    """Give each micro-batch `negative_embeds`: the segments of the rest of the optimiser step."""
    for batch, negative_embeds in zip(micro_batches, gather_negatives(accelerator, micro_batches), strict=True):
        batch["negative_embeds"] = negative_embeds


def gather_negatives(accelerator: Accelerator, micro_batches: list[dict]) -> list[torch.Tensor]:
    """For each micro-batch of this rank, the segment embeddings of the rest of the optimiser step, from every rank."""
    own = torch.cat([batch["segment_embeds"] for batch in micro_batches]).to(accelerator.device)  # (of this rank, D)
    sizes = accelerator.gather(torch.tensor([len(own)], device=own.device)).tolist()
    padded = own.new_zeros(max(sizes), own.shape[1])
    padded[: len(own)] = own
    ranks = accelerator.gather(padded).split(max(sizes)) if max(sizes) else [own] * len(sizes)
    everything = torch.cat([rows[:size] for rows, size in zip(ranks, sizes, strict=True)])  # (of the step, D)
    start = sum(sizes[: accelerator.process_index])
    negatives = []
    for batch in micro_batches:
        end = start + len(batch["segment_embeds"])
        negatives.append(torch.cat([everything[:start], everything[end:]]))
        start = end
    return negatives


def freeze_batch_norm(model: nn.Module) -> None:
    """Let every BatchNorm use its running statistics, and leave them alone; call it after `model.train()`."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
