"""Mask2Former's masks without its classes."""

from PIL import Image
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.queries import QueryTeacher


class Mask2FormerTeacher(QueryTeacher):
    """Any Mask2Former of the Hub; `QueryConfig` has the settings."""

    name = "mask2former"
    example = "facebook/mask2former-swin-large-coco-panoptic"
    model_class = Mask2FormerForUniversalSegmentation

    def load_processor(self, checkpoint: Checkpoint) -> None:
        self.image_processor = Mask2FormerImageProcessorPil.from_pretrained(
            checkpoint.name_or_path, revision=checkpoint.branch
        )

    def pixels(self, image: Image.Image) -> Tensor:
        """Resized by its processor's rule; one image at a time, so that nothing is padded."""
        return self.image_processor(image, pad_size=None, return_tensors="pt")["pixel_values"][0]
