"""Boxes of an open-vocabulary detector, and SAM 2's mask in each box."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Sam2Model

from uov_hf.teachers.config import share
from uov_hf.teachers.mask_teacher import MaskConfig, MaskTeacher
from uov_hf.teachers.masks import Proposals, suppress_overlapping
from uov_hf.teachers.protocol import Rows
from uov_hf.teachers.sam import PROMPTS_AT_ONCE, SegmentAnything


@dataclass(frozen=True)
class Detections(Rows):
    """Boxes that a detector finds in one image."""

    boxes: Tensor  # (N, 4), float32: left, top, right, bottom as fractions of the image, 0…1
    scores: Tensor  # (N,), float32, 0…1
    labels: Tensor  # (N,), int64: row of the prompt
    embeds: Tensor | None = None  # (N, D), float32, unit length: where the detector embeds boxes in its space of words


@dataclass(frozen=True, kw_only=True)
class BoxConfig(MaskConfig):
    """Settings of `BoxTeacher`; see `MaskConfig` for the others.

    Args:
        sam_model_name_or_path (`str`): Hub id or folder of the SAM 2.
        sam_revision (`str`, *optional*): Its branch, tag or commit.
        min_score (`float`):
            A box must score more than this; each detector has its own score and default, those of `transformers`.
        max_overlap (`float`, *optional*, defaults to 0.7):
            If two boxes overlap more (intersection over union), whatever their labels, the better box stays.
    """

    sam_model_name_or_path: str | None = None
    sam_revision: str | None = None
    min_score: float = share()
    max_overlap: float = share(0.7)


class BoxTeacher(MaskTeacher):
    """A detector with text input, and SAM 2, which makes a mask of each box.

    A mask's score is the score of its box times the quality that SAM 2 predicts. Pixels without a box have no segment:
    roads and buildings rarely have one.
    """

    config: BoxConfig

    def load(self) -> None:
        super().load()
        source, revision = self.config.sam_model_name_or_path, self.config.sam_revision
        self.sam = SegmentAnything(
            Sam2Model,
            self.require_checkpoint("sam_model_name_or_path", source, revision, "facebook/sam2.1-hiera-large"),
        )

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"sam_revision": self.sam.commit}

    @abstractmethod
    def detect(self, images: list[Image.Image]) -> list[Detections]:
        """The boxes of each RGB image that `min_score` lets through."""

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        encoded = self.sam.encode(images, self.config.mask_batch_size)
        return [
            self._masks(best_boxes(found, self.config.max_overlap), of_image)
            for found, of_image in zip(self.detect(images), encoded, strict=True)
        ]

    def _masks(self, found: Detections, encoded: list[Tensor]) -> Proposals:
        if len(found.boxes) == 0:  # SAM 2 takes at least one
            return Proposals(found.boxes.new_zeros(0, 1, 1), found.scores, found.labels, found.embeds)
        chunks = [self.sam.masks_in_boxes(encoded, boxes) for boxes in found.boxes.split(PROMPTS_AT_ONCE)]
        logits, qualities = (torch.cat(part) for part in zip(*chunks, strict=True))
        return Proposals(logits, found.scores * qualities, found.labels, found.embeds)


def best_boxes(found: Detections, max_overlap: float) -> Detections:
    """Select boxes that overlap no better box."""
    return found.take(suppress_overlapping(found.boxes, found.scores, max_overlap))


def corners(boxes: Tensor) -> Tensor:
    """Convert boxes `(N, 4)` from centre, width, height to left, top, right, bottom, clipped to the image."""
    centres, halves = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centres - halves, centres + halves], dim=1).clamp(0, 1)
