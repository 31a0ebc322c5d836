"""What a training trains for: how samples become batches, what the loss is a mean over, and its terms."""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    if_none: str  # likely causes, and the way out, where that number is 0 in a whole epoch
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


OUTSIDE = "the points lie outside the `point_cloud_range` in processor_config.json"
# Of annotated data without any ground truth; an evaluation reports the same as a training.
NO_TRUTH = (
    "Likely causes: the split is not annotated; the label files have the ids of another taxonomy, or another type or "
    "byte order, so that every id means `ignored`. `uov-hf view <scan> --ground_truth <file> --vocabulary <name>` "
    "shows what a label file contains. Give an annotated --split."
)

SEGMENTATION: Objective[ScanBatch] = Objective(
    collate_scans,
    count_labelled_voxels,
    "num_labelled_voxels",
    f"Expected ground truth of a class at some points; every point is ignored, or {OUTSIDE}. {NO_TRUTH}",
    {"cross_entropy": "cross-entropy", "lovasz_loss": "Lovász-softmax"},
)
DISTILLATION = replace(
    SEGMENTATION,
    if_none="Expected a label of the teacher at some points; no point has one, or their confidence is 0. Likely "
    "causes: the teacher predicted no segment, or background alone, because the prompts or its weights do not fit "
    "these images; the images or their calibration belong to another dataset, so that no point falls on a segment; "
    f"{OUTSIDE}. `python -m uov_hf.evaluation.label_card <label set>` shows the share of labelled points. Generate "
    "the label set again.",
)


def tri_modal_objective(negatives: str) -> Objective[TMPBatch]:
    """The objective of tri-modal pre-training; `negatives` is that of `UOVConfig`."""
    return Objective(
        collate_tmp,
        count_superpoints,
        "num_superpoints",
        "Expected segments of the teacher that points fall on; there are none. Likely causes: the teacher predicted "
        "no segment; the images or their calibration belong to another dataset, so that no point falls on a segment; "
        f"{OUTSIDE}. `python -m uov_hf.evaluation.label_card <label set>` shows how many segments have points. "
        "Generate the label set again.",
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
