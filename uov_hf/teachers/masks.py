"""Masks that may overlap: from a decoder's logits to full size, their boxes, and one segmentation of them all."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from uov_hf.teachers.pooling import upsampling_matrix


MASKS_AT_ONCE = 16  # of full size: 90 MiB of float32 logits at 900×1600


@dataclass(frozen=True)
class Proposals:
    """
    What a model proposes for one picture; the masks may overlap.

    Args:
        masks (`torch.Tensor` of shape `(N, h, w)`):
            Logits in float32, above 0 inside, on a grid that covers the picture from edge to edge; or bool.
        scores (`torch.Tensor` of shape `(N,)`, float32):
            0…1: how good a mask is, or, where it has a label, how sure the model is of it.
        labels (`torch.Tensor` of shape `(N,)`, int64, *optional*):
            Row of each mask's prompt, from models that read prompts.
        embeds (`torch.Tensor` of shape `(N, D)`, float32, *optional*):
            Unit length, from models that embed what they find in a space of words of their own.
    """

    masks: Tensor
    scores: Tensor
    labels: Tensor | None = None
    embeds: Tensor | None = None

    def take(self, rows: Tensor) -> "Proposals":
        """Those of some rows: indices, or a bool for each."""
        return Proposals(*(part if part is None else part[rows] for part in self.parts))

    @staticmethod
    def cat(several: list["Proposals"]) -> "Proposals":
        """Those of several, with masks of one size."""
        columns = zip(*(proposals.parts for proposals in several), strict=True)
        return Proposals(*(None if column[0] is None else torch.cat(column) for column in columns))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.masks, self.scores, self.labels, self.embeds


def upsampled(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Logits `(N, h, w)` upsampled bilinearly to `size` (height, width), a few masks at a time."""
    for chunk in logits.split(MASKS_AT_ONCE):
        yield interpolate(chunk[:, None], size=size, mode="bilinear")[:, 0]


def full_size_masks(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks `(N, height, width)`, bool: the logits are upsampled, not the masks, so that borders are smooth."""
    return torch.cat([chunk > 0 for chunk in upsampled(logits, size)])


def stability_scores(logits: Tensor, offset: float) -> Tensor:
    """
    `(N,)`: pixels above `offset` by pixels above `-offset`, the intersection over union of a mask cut high and cut low
    (Kirillov et al., "Segment Anything", ICCV 2023, appendix B). Of an empty mask 0.
    """
    return areas(logits > offset) / areas(logits > -offset).clamp(min=1)


def areas(masks: Tensor) -> Tensor:
    """Pixels `(N,)` of each mask; one at a time, because only whole tensors are counted fast."""
    nothing = torch.zeros(0, dtype=torch.int64, device=masks.device)
    return torch.cat([nothing, *(mask.count_nonzero()[None] for mask in masks)])


def mask_boxes(masks: Tensor) -> Tensor:
    """`(N, 4)` float32: first column, first row, last column, last row of each of `(N, height, width)`; empty: 0."""
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
    """Intersection over union `(N, M)` of boxes (left, top, right, bottom); of two empty ones 0."""
    top_left = torch.maximum(boxes[:, None, :2], others[:, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    union = _area(boxes)[:, None] + _area(others) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def suppress_overlapping(boxes: Tensor, scores: Tensor, max_overlap: float) -> Tensor:
    """
    Non-maximum suppression: rows of the boxes to keep, best first; each overlaps no better one that is kept by more
    than `max_overlap` (intersection over union).
    """
    order = scores.sort(descending=True, stable=True).indices
    too_close = (box_overlaps(boxes[order], boxes[order]) > max_overlap).cpu()
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for row in range(len(boxes)):
        if keep[row]:
            keep[row + 1 :] &= ~too_close[row, row + 1 :]
    return order[keep.to(order.device)]


def paint(masks: Tensor, scores: Tensor, min_area: int = 0, min_visible: float = 0.5) -> tuple[Tensor, Tensor]:
    """
    One segmentation of masks that overlap: a pixel belongs to the best-scored mask there, and a mask that better ones
    leave too little of is given up (Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 7), which leaves what
    is left of it to the next one.

    Args:
        masks (`torch.Tensor` of shape `(N, height, width)`, bool):
            At full size.
        scores (`torch.Tensor` of shape `(N,)`):
            Higher wins; of equal ones the first.
        min_area (`int`, *optional*, defaults to 0):
            Fewer visible pixels are no segment.
        min_visible (`float`, *optional*, defaults to 0.5):
            Nor is less than this share of the mask: two masks of one thing become one segment and no slivers.

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
            segmentation.add_(visible, alpha=len(kept))  # on zeros; several times faster than writing where visible
            free &= ~visible
    return segmentation, torch.tensor(kept, dtype=torch.int64, device=masks.device)


def pool_masks(features: Tensor, masks: Tensor) -> Tensor:
    """
    Unit-length sums `(N, D)` of patch features `(D, h, w)` over masks `(N, height, width)` that may overlap, as if the
    features were upsampled to the image first; `pooling.pool_segments` is faster where nothing overlaps.
    """
    (height, width), (h, w) = masks.shape[1:], features.shape[1:]
    rows, columns = upsampling_matrix(height, h, masks.device), upsampling_matrix(width, w, masks.device)
    sums = []
    for chunk in masks.split(MASKS_AT_ONCE):
        weights = rows.T @ (chunk.float() @ columns)  # (n, h, w): how much of each patch is in each mask
        sums.append(weights.flatten(1) @ features.flatten(1).T)
    return normalize(torch.cat(sums), dim=-1)
