"""Samples of different sizes become one batch by laying them end to end; nothing is padded."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict, TypeVar

import torch
from torch import Tensor

from uov_hf.array_checks import check_ids


class Batch(TypedDict):
    """The voxels of several scans; a sample is the batch of one scan."""

    voxel_coords: Tensor  # (num_voxels, 4) int32: place of the scan in the batch, then the cell
    voxel_features: Tensor  # (num_voxels, in_channels) float32
    point_to_voxel: Tensor  # (num_points,) int64: row in the batch's voxels, −1 = in none
    num_points: Tensor  # (batch,) int64
    broken_frames: NotRequired[list[str]]  # messages of the broken frames that others replace


class ScanBatch(Batch):
    """Scans with a label for each point: what `UOVForSemanticSegmentation.forward` takes."""

    labels: Tensor  # (num_points,) int64: class, 255 = none
    confidence: NotRequired[Tensor]  # (num_points,) float32: weight of the label in the cross-entropy


class TMPBatch(Batch):
    """Scans with the superpoints of a label set's segments: what `UOVForPreTraining.forward` takes."""

    pair_to_point: Tensor  # (num_pairs,) int64: row in the batch's points
    superpoint_ids: Tensor  # (num_pairs,) int64: row in the batch's segments
    scene_ids: Tensor  # (num_superpoints,) int64: place of the scan in the batch
    segment_embeds: Tensor  # (num_superpoints, embed_dim) float32, unit length
    segment_labels: Tensor  # (num_superpoints,) int64: row in the prompts
    prompt_embeds: Tensor  # (num_prompts, embed_dim) float32, unit length
    prompt_groups: Tensor  # (num_prompts,) int64
    negative_embeds: NotRequired[Tensor]  # (num_negatives, embed_dim): segments of the rest of the optimiser step


BatchT = TypeVar("BatchT", bound=Batch)


def collate_voxels(samples: Sequence[Batch]) -> Batch:
    """The voxels of several samples as one batch.

    Raises:
        ValueError: There is no sample, or a point of one is in no voxel that it has.
    """
    if not samples:
        raise ValueError("`samples` must be one or more, got none.")
    for sample in samples:
        num_rows = len(sample["voxel_coords"])
        check_ids("point_to_voxel", sample["point_to_voxel"], int(sample["num_points"].sum()), num_rows, -1)
    num_voxels = [len(sample["voxel_coords"]) for sample in samples]
    coords = torch.cat([sample["voxel_coords"] for sample in samples])
    coords[:, 0] = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(num_voxels))
    batch: Batch = {
        "voxel_coords": coords,
        "voxel_features": torch.cat([sample["voxel_features"] for sample in samples]),
        "point_to_voxel": concatenate_rows([sample["point_to_voxel"] for sample in samples], num_voxels),
        "num_points": torch.cat([sample["num_points"] for sample in samples]),
    }
    if any("broken_frames" in sample for sample in samples):
        batch["broken_frames"] = [message for sample in samples for message in sample.get("broken_frames", [])]
    return batch


def collate_scans(samples: Sequence[ScanBatch]) -> ScanBatch:
    """The scans of a batch with the labels of their points, and the confidence of these if the samples have it."""
    batch: ScanBatch = {**collate_voxels(samples), "labels": torch.cat([sample["labels"] for sample in samples])}
    if "confidence" in samples[0]:
        batch["confidence"] = torch.cat([sample["confidence"] for sample in samples])
    return batch


def collate_tmp(samples: Sequence[TMPBatch]) -> TMPBatch:
    """The scans of a batch with their superpoints; the samples are all of one label set."""
    voxels = collate_voxels(samples)
    num_segments = [len(sample["segment_labels"]) for sample in samples]
    pairs = [sample["pair_to_point"] for sample in samples]
    return {
        **voxels,
        "pair_to_point": concatenate_rows(pairs, voxels["num_points"].tolist()),
        "superpoint_ids": concatenate_rows([sample["superpoint_ids"] for sample in samples], num_segments),
        "scene_ids": torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(num_segments)),
        "segment_embeds": torch.cat([sample["segment_embeds"] for sample in samples]),
        "segment_labels": torch.cat([sample["segment_labels"] for sample in samples]),
        "prompt_embeds": samples[0]["prompt_embeds"],
        "prompt_groups": samples[0]["prompt_groups"],
    }


def concatenate_rows(rows: list[Tensor], num_rows: list[int]) -> Tensor:
    """Row numbers of each sample, moved to where its rows lie in the batch; negative ones stay."""
    starts = torch.tensor([0, *num_rows]).cumsum(0)
    return torch.cat([torch.where(row >= 0, row + start, row) for row, start in zip(rows, starts, strict=False)])
