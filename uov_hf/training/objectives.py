"""What a training trains for: how samples become batches, what the loss is a mean over, and its terms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import torch
from accelerate import Accelerator

from uov_hf.configuration_uov import IGNORED
from uov_hf.modeling_uov_segmentation import first_of_each_voxel
from uov_hf.training.collation import BatchT, ScanBatch, TMPBatch, collate_scans, collate_tmp


@dataclass(frozen=True)
class Objective(Generic[BatchT]):
    """What one training differs in from another; the loss itself is the model's."""

    collate: Callable[[list[BatchT]], BatchT]  # samples to the batch that the model's `forward` takes
    # The number of things that a batch's loss is a mean over. Micro-batches are weighted by it, so that the loss of a
    # step is the mean over the whole step, however it is cut into micro-batches and ranks.
    count: Callable[[BatchT], float]
    counted: str  # name of that number in the log
    terms: dict[str, str]  # the model's outputs that are logged beside its loss, and their names in the model card
    # A micro-batch to the one that is trained on instead, before it is counted.
    complete_batch: Callable[[BatchT], BatchT] | None = None
    # Called with this rank's micro-batches of a step, to add to each what it needs of the others.
    complete_step: Callable[[Accelerator, list[BatchT]], None] | None = None
    # Called when the optimiser has taken a step; not when it skipped one.
    after_step: Callable[[], None] | None = None


def count_labelled_voxels(batch: ScanBatch) -> float:
    """Voxels with a label, weighted by `confidence` if the batch has it: what the loss is a mean over."""
    labels, confidence = first_of_each_voxel(
        batch["labels"], batch.get("confidence"), batch["point_to_voxel"], len(batch["voxel_coords"])
    )
    labelled = labels != IGNORED
    return float(labelled.sum() if confidence is None else confidence[labelled].double().sum())


SEGMENTATION: Objective[ScanBatch] = Objective(
    collate_scans,
    count_labelled_voxels,
    "num_labelled_voxels",
    {"cross_entropy": "cross-entropy", "lovasz_loss": "Lovász-softmax"},
)


def tri_modal_objective(negatives: str) -> Objective[TMPBatch]:
    """The objective of tri-modal pre-training; `negatives` is that of `UOVConfig`."""
    return Objective(
        collate_tmp,
        count_superpoints,
        "num_superpoints",
        {"image_loss": "superpixel-superpoint", "text_loss": "text-superpoint"},
        complete_step=add_negatives if negatives == "global" else None,
    )


def count_superpoints(batch: TMPBatch) -> int:
    """Superpoints with at least one point in a voxel: those that are in the loss."""
    voxel = batch["point_to_voxel"][batch["pair_to_point"]]
    return int(batch["superpoint_ids"][voxel >= 0].unique().numel())


def add_negatives(accelerator: Accelerator, micro_batches: list[TMPBatch]) -> None:
    """Give each micro-batch of this rank `negative_embeds`: the segments of the rest of the step, from every rank."""
    own = torch.cat([batch["segment_embeds"] for batch in micro_batches]).to(accelerator.device)  # (of this rank, D)
    sizes = accelerator.gather(torch.tensor([len(own)], device=own.device)).tolist()
    padded = own.new_zeros(max(sizes), own.shape[1])
    padded[: len(own)] = own
    ranks = accelerator.gather(padded).split(max(sizes)) if max(sizes) else [own] * len(sizes)
    everything = torch.cat([rows[:size] for rows, size in zip(ranks, sizes, strict=True)])  # (of the step, D)
    start = sum(sizes[: accelerator.process_index])
    for batch in micro_batches:
        end = start + len(batch["segment_embeds"])
        batch["negative_embeds"] = torch.cat([everything[:start], everything[end:]])
        start = end
