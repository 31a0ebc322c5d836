"""SAM 2 at a grid of points: everything in an image gets a mask, and the second model says what it is."""

from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, Sam2Model

from uov_hf.teachers.mask_teacher import PooledMaskTeacher
from uov_hf.teachers.masks import Proposals, mask_boxes, stability_scores, suppress_overlapping, upsampled
from uov_hf.teachers.sam import PROMPTS_AT_ONCE, SegmentAnything
from uov_hf.teachers.settings import check_counts, check_shares
from uov_hf.teachers.weights import require_model


STABILITY_OFFSET = 1.0  # in logits, of SAM's generator


class Sam2Teacher(PooledMaskTeacher):
    """
    Masks of SAM 2's automatic mask generator, its defaults: three masks at each point of a grid, of which those stay
    that the model finds good, that are stable, and that are not the box of a better one again.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        points_per_side (`int`, *optional*, defaults to 32):
            The grid has this many rows and columns.
        min_quality (`float`, *optional*, defaults to 0.8):
            Least intersection over union that the model predicts of a mask with the thing it is of.
        min_stability (`float`, *optional*, defaults to 0.95):
            Least intersection over union of a mask cut at logits 1 and −1.
        max_overlap (`float`, *optional*, defaults to 0.7):
            Of two masks whose boxes overlap more, the better stays.
        others:
            See `PooledMaskTeacher`.
    """

    name = "sam2"
    example: ClassVar[str] = "facebook/sam2.1-hiera-large"
    model_class: ClassVar[type[PreTrainedModel]] = Sam2Model

    def __init__(
        self,
        prompts: list[str],
        *,
        points_per_side: int = 32,
        min_quality: float = 0.8,
        min_stability: float = 0.95,
        max_overlap: float = 0.7,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        check_shares(min_quality=min_quality, min_stability=min_stability, max_overlap=max_overlap)
        check_counts(points_per_side=points_per_side)
        source = require_model(self.name, "model_name_or_path", self.model_name_or_path, self.example)
        self.sam = SegmentAnything(self.model_class, source, self.revision, self.device, self.dtype)
        self.revision = self.sam.commit
        self.points = grid_points(points_per_side)
        self.min_quality, self.min_stability, self.max_overlap = min_quality, min_stability, max_overlap
        self.mask_settings |= {
            "points_per_side": points_per_side,
            "min_quality": min_quality,
            "min_stability": min_stability,
            "max_overlap": max_overlap,
        }

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        encoded = self.sam.encode(images, self.mask_batch_size)
        return [self._propose(one, (image.height, image.width)) for one, image in zip(encoded, images, strict=True)]

    def _propose(self, encoded: list[Tensor], size: tuple[int, int]) -> Proposals:
        chunks = [self._good_masks(encoded, points) for points in self.points.split(PROMPTS_AT_ONCE)]
        proposals = Proposals.cat(chunks)
        stability, boxes = measure(proposals.masks, size)
        stable = stability > self.min_stability
        kept = suppress_overlapping(boxes[stable], proposals.scores[stable], self.max_overlap)
        return proposals.take(stable).take(kept)

    def _good_masks(self, encoded: list[Tensor], points: Tensor) -> Proposals:
        logits, qualities = self.sam.masks_at_points(encoded, points)
        return Proposals(logits, qualities).take(qualities > self.min_quality)


def grid_points(points_per_side: int) -> Tensor:
    """Centres `(points_per_side ** 2, 2)` of the cells of a grid over the unit square: column, row."""
    centres = (torch.arange(points_per_side) + 0.5) / points_per_side
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([columns, rows], dim=2).view(-1, 2)


def measure(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Stability `(N,)` and boxes `(N, 4)` of masks, at full size (height, width)."""
    measured = [
        (stability_scores(chunk, STABILITY_OFFSET), mask_boxes(chunk > 0)) for chunk in upsampled(logits, size)
    ]
    stability, boxes = (torch.cat(part) for part in zip(*measured, strict=True))
    return stability, boxes
