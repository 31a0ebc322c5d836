"""Mask2Former's masks without its classes."""

from typing import Any

from PIL import Image
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

from uov_hf.teachers.queries import QueryTeacher


class Mask2FormerTeacher(QueryTeacher):
    """Any Mask2Former of the Hub; see `QueryTeacher` for how its masks are scored and for the arguments."""

    name = "mask2former"
    example = "facebook/mask2former-swin-large-coco-panoptic"
    model_class = Mask2FormerForUniversalSegmentation

    def __init__(self, prompts: list[str], **shared: Any):
        super().__init__(prompts, **shared)
        self.image_processor = Mask2FormerImageProcessorPil.from_pretrained(
            self.model_name_or_path, revision=self.revision
        )

    def pixels(self, image: Image.Image) -> Tensor:
        """Resized by the rule of its processor; alone, so that nothing is padded"""
        return self.image_processor(image, pad_size=None, return_tensors="pt")["pixel_values"][0]
