"""Overlapping masks: logits to full size, boxes, suppression, and one segmentation without overlap."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from uov_hf.teachers.pooling import upsampling_matrix
from uov_hf.teachers.protocol import Rows


MASKS_AT_ONCE = 16  # of full size: 90 MiB of float32 logits at 900×1600


@dataclass(frozen=True)
class Proposals(Rows):
    """Masks that a model proposes for one image; they may overlap."""

    masks: Tensor  # (N, h, w): bool, or float32 logits, above 0 inside, on a grid that covers the image edge to edge
    scores: Tensor  # (N,), float32, 0…1: quality of the mask, or confidence in its label where it has one
    labels: Tensor | None = None  # (N,), int64: row of the prompt, from models with text input
    embeds: Tensor | None = None  # (N, D), float32, unit length: from models that embed masks in their space of words

    @staticmethod
    def cat(several: list["Proposals"]) -> "Proposals":
        """Concatenate proposals with masks of one size."""
        return Proposals(
            torch.cat([one.masks for one in several]),
            torch.cat([one.scores for one in several]),
            _cat([one.labels for one in several]),
            _cat([one.embeds for one in several]),
        )


def _cat(columns: list[Tensor | None]) -> Tensor | None:
    present = [column for column in columns if column is not None]
    return torch.cat(present) if present else None


def upsampled(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Upsample logits `(N, h, w)` bilinearly to `size` (height, width), a few masks at a time."""
    for chunk in logits.split(MASKS_AT_ONCE):
        yield interpolate(chunk[:, None], size=size, mode="bilinear")[:, 0]


def full_size_masks(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool masks `(N, height, width)`; logits are upsampled instead of masks, so that borders are smooth."""
    return torch.cat([chunk > 0 for chunk in upsampled(logits, size)])


def stability_scores(logits: Tensor, offset: float) -> Tensor:
    """Intersection over union `(N,)` of each mask at thresholds `offset` and `-offset`; 0 for an empty mask.

    Kirillov et al., "Segment Anything", ICCV 2023, appendix B.
    """
    return areas(logits > offset) / areas(logits > -offset).clamp(min=1)


def areas(masks: Tensor) -> Tensor:
    """Number of pixels `(N,)` of each mask."""
    # One mask at a time: `count_nonzero` is fast on whole tensors only.
    nothing = torch.zeros(0, dtype=torch.int64, device=masks.device)
    return torch.cat([nothing, *(mask.count_nonzero()[None] for mask in masks)])


def mask_boxes(masks: Tensor) -> Tensor:
    """First column, first row, last column, last row of each mask, `(N, 4)` float32; zeros for an empty mask."""
    sides = []
    for dim in (1, 2):
        occupied = masks.view(torch.uint8).amax(dim=dim)  # columns, then rows; `any` of bool is ten times slower
        first = occupied.argmax(dim=1)
        last = occupied.shape[1] - 1 - occupied.flip(1).argmax(dim=1)
        sides.append((first, last))
    (left, right), (top, bottom) = sides
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    return boxes * occupied.amax(dim=1)[:, None]


def box_overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union `(N, M)` of boxes (left, top, right, bottom); 0 for two empty boxes."""
    top_left = torch.maximum(boxes[:, None, :2], others[:, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    union = _area(boxes)[:, None] + _area(others) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def suppress_overlapping(boxes: Tensor, scores: Tensor, max_overlap: float) -> Tensor:
    """Non-maximum suppression.

    Returns:
        Rows of the kept boxes, best first. No two kept boxes overlap by more than `max_overlap` (intersection over
        union).
    """
    order = scores.sort(descending=True, stable=True).indices
    too_close = (box_overlaps(boxes[order], boxes[order]) > max_overlap).cpu()
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for row in range(len(boxes)):
        if keep[row]:
            keep[row + 1 :] &= ~too_close[row, row + 1 :]
    return order[keep.to(order.device)]


def paint(masks: Tensor, scores: Tensor, min_area: int = 0, min_visible: float = 0.5) -> tuple[Tensor, Tensor]:
    """Combine overlapping masks to one segmentation: a pixel belongs to its best-scored mask.

    A mask left with too little visible area is dropped; its pixels go to the next mask (Kirillov et al., "Panoptic
    Segmentation", CVPR 2019, section 7).

    Args:
        masks (`torch.Tensor` of shape `(N, height, width)`, bool): At full size.
        scores (`torch.Tensor` of shape `(N,)`): The higher score wins; of equal scores the first.
        min_area (`int`, *optional*, defaults to 0): A mask with fewer visible pixels is dropped.
        min_visible (`float`, *optional*, defaults to 0.5):
            A mask with a smaller visible share of its area is dropped, so that two masks of one object become one
            segment without slivers.

    Returns:
        `(segmentation, kept)`: ids 1…S of shape `(height, width)`, int32, 0 = no mask; and the row of each id's mask.
    """
    segmentation = torch.zeros(masks.shape[1:], dtype=torch.int32, device=masks.device)
    free = torch.ones_like(segmentation, dtype=torch.bool)
    kept = []
    for row in scores.sort(descending=True, stable=True).indices.tolist():
        visible = masks[row] & free
        area = int(visible.count_nonzero())
        if area >= max(min_area, 1) and area >= min_visible * int(masks[row].count_nonzero()):
            kept.append(row)
            segmentation.add_(visible, alpha=len(kept))  # onto zeros; several times faster than indexed writing
            free &= ~visible
    return segmentation, torch.tensor(kept, dtype=torch.int64, device=masks.device)


def pool_masks(features: Tensor, masks: Tensor) -> Tensor:
    """Unit-length sums `(N, D)` of patch features `(D, h, w)` over masks `(N, height, width)` that may overlap.

    They equal sums of features upsampled to the image; without overlap, `pooling.pool_segments` is faster.
    """
    (height, width), (h, w) = masks.shape[1:], features.shape[1:]
    rows, columns = upsampling_matrix(height, h, masks.device), upsampling_matrix(width, w, masks.device)
    sums = []
    for chunk in masks.split(MASKS_AT_ONCE):
        weights = rows.T @ (chunk.float() @ columns)  # (n, h, w): share of each patch in each mask
        sums.append(weights.flatten(1) @ features.flatten(1).T)
    return normalize(torch.cat(sums), dim=-1)
