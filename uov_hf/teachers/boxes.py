"""Boxes of an open-vocabulary detector, and SAM 2's mask in each of them."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Sam2Model

from uov_hf.teachers.mask_teacher import MaskTeacher
from uov_hf.teachers.masks import Proposals, suppress_overlapping
from uov_hf.teachers.sam import PROMPTS_AT_ONCE, SegmentAnything
from uov_hf.teachers.settings import check_shares
from uov_hf.teachers.weights import require_model


@dataclass(frozen=True)
class Detections:
    """
    What a detector finds in one picture.

    Args:
        boxes (`torch.Tensor` of shape `(N, 4)`, float32):
            Left, top, right, bottom in parts of the picture, 0…1.
        scores (`torch.Tensor` of shape `(N,)`, float32):
            0…1.
        labels (`torch.Tensor` of shape `(N,)`, int64):
            Row of each box's prompt.
        embeds (`torch.Tensor` of shape `(N, D)`, float32, *optional*):
            Unit length, where the detector embeds boxes in its space of words.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    embeds: Tensor | None = None

    def take(self, rows: Tensor) -> "Detections":
        """Those of some rows: indices, or a bool for each."""
        embeds = None if self.embeds is None else self.embeds[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], embeds)


class BoxTeacher(MaskTeacher):
    """
    A detector that reads prompts, and SAM 2, which makes a mask of each box. A mask's score is the detector's times
    the quality that SAM 2 predicts. Only what has a box gets a segment: roads and buildings rarely do.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`; the model is the detector.
        sam_model_name_or_path (`str`):
            Hub id or folder of the SAM 2.
        sam_revision (`str`, *optional*):
            Its branch, tag or commit.
        min_score (`float`):
            Boxes with a lower score are left out; each detector has a default of its own.
        max_overlap (`float`, *optional*, defaults to 0.7):
            Of two boxes that overlap more (intersection over union), whatever their labels, the better stays.
        others:
            See `MaskTeacher`.
    """

    def __init__(
        self,
        prompts: list[str],
        *,
        sam_model_name_or_path: str | None = None,
        sam_revision: str | None = None,
        min_score: float,
        max_overlap: float = 0.7,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        check_shares(min_score=min_score, max_overlap=max_overlap)
        source = require_model(
            self.name, "sam_model_name_or_path", sam_model_name_or_path, "facebook/sam2.1-hiera-large"
        )
        self.sam = SegmentAnything(Sam2Model, source, sam_revision, self.device, self.dtype)
        self.min_score, self.max_overlap = min_score, max_overlap
        self.mask_settings |= {
            "sam_model_name_or_path": source,
            "sam_revision": self.sam.commit,
            "min_score": min_score,
            "max_overlap": max_overlap,
        }

    @abstractmethod
    def detect(self, images: list[Image.Image]) -> list[Detections]:
        """The boxes of each of some RGB images, good and bad."""

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        encoded = self.sam.encode(images, self.mask_batch_size)
        return [
            self._masks(best_boxes(found, self.min_score, self.max_overlap), of_one)
            for found, of_one in zip(self.detect(images), encoded, strict=True)
        ]

    def _masks(self, found: Detections, encoded: list[Tensor]) -> Proposals:
        if len(found.boxes) == 0:
            return Proposals(found.boxes.new_zeros(0, 1, 1), found.scores, found.labels, found.embeds)
        chunks = [self.sam.masks_in_boxes(encoded, boxes) for boxes in found.boxes.split(PROMPTS_AT_ONCE)]
        logits, qualities = (torch.cat(part) for part in zip(*chunks, strict=True))
        return Proposals(logits, found.scores * qualities, found.labels, found.embeds)


def best_boxes(found: Detections, min_score: float, max_overlap: float) -> Detections:
    """Those that are good enough and not a better one again."""
    found = found.take(found.scores > min_score)
    return found.take(suppress_overlapping(found.boxes, found.scores, max_overlap))


def corners(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom, inside the picture, of boxes `(N, 4)`: column and row of the centre, width, height."""
    centres, halves = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centres - halves, centres + halves], dim=1).clamp(0, 1)
