"""SAM 2, or SAM 3's tracker, at a grid of points: masks without words, labelled by the second model."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import Sam2Model, Sam3TrackerModel

from uov_hf.teachers.config import at_least, share
from uov_hf.teachers.mask_teacher import PooledMaskConfig, PooledMaskTeacher
from uov_hf.teachers.masks import Proposals, mask_boxes, stability_scores, suppress_overlapping, upsampled
from uov_hf.teachers.sam import PROMPTS_AT_ONCE, SegmentAnything


STABILITY_OFFSET = 1.0  # in logits, of SAM's generator


@dataclass(frozen=True, kw_only=True)
class Sam2Config(PooledMaskConfig):
    """Settings of SAM 2's automatic mask generator, with its defaults; see `PooledMaskConfig` for the others.

    Args:
        points_per_side (`int`, *optional*, defaults to 32): Rows and columns of the grid of points.
        min_quality (`float`, *optional*, defaults to 0.8):
            Least predicted intersection over union of a mask with its object.
        min_stability (`float`, *optional*, defaults to 0.95):
            Least intersection over union of a mask at logits 1 and −1.
        max_overlap (`float`, *optional*, defaults to 0.7):
            If the boxes of two masks overlap more, the better mask stays.
    """

    points_per_side: int = at_least(1, 32)
    min_quality: float = share(0.8)
    min_stability: float = share(0.95)
    max_overlap: float = share(0.7)


class Sam2Teacher(PooledMaskTeacher):
    """Masks of SAM 2's automatic mask generator: three at each point of a grid.

    A mask stays if its predicted quality and its stability are high and no better mask has nearly the same box.
    `Sam2Config` has the settings.
    """

    name = "sam2"
    example = "facebook/sam2.1-hiera-large"
    model_class: ClassVar[type[Sam2Model] | type[Sam3TrackerModel]] = Sam2Model
    config_class = Sam2Config
    config: Sam2Config

    def load(self) -> None:
        super().load()
        self.sam = SegmentAnything(self.model_class, self.checkpoint())
        self.points = grid_points(self.config.points_per_side)

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        encoded = self.sam.encode(images, self.config.mask_batch_size)
        return [self._propose(one, (image.height, image.width)) for one, image in zip(encoded, images, strict=True)]

    def _propose(self, encoded: list[Tensor], size: tuple[int, int]) -> Proposals:
        proposals = Proposals.cat([self._good_masks(encoded, points) for points in self.points.split(PROMPTS_AT_ONCE)])
        stability, boxes = measure(proposals.masks, size)
        stable = stability > self.config.min_stability
        kept = suppress_overlapping(boxes[stable], proposals.scores[stable], self.config.max_overlap)
        return proposals.take(stable).take(kept)

    def _good_masks(self, encoded: list[Tensor], points: Tensor) -> Proposals:
        logits, qualities = self.sam.masks_at_points(encoded, points)
        return Proposals(logits, qualities).take(qualities > self.config.min_quality)


class Sam3PointsTeacher(Sam2Teacher):
    """Masks of SAM 3's tracker, prompted like SAM 2.

    There is no published generator for it, so SAM 2's rules and defaults apply (`Sam2Config`).
    """

    name = "sam3_points"
    example = "facebook/sam3"
    model_class = Sam3TrackerModel


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
