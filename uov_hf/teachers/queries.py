"""Mask2Former and EoMT, which predict a mask and a class for each of their queries; the classes are ignored."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import EomtForUniversalSegmentation, Mask2FormerForUniversalSegmentation, PreTrainedModel
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.config import share
from uov_hf.teachers.images import in_batches
from uov_hf.teachers.mask_teacher import PooledMaskConfig, PooledMaskTeacher
from uov_hf.teachers.masks import Proposals, areas


@dataclass(frozen=True, kw_only=True)
class QueryConfig(PooledMaskConfig):
    """Settings of `QueryTeacher`; see `PooledMaskConfig` for the others.

    Args:
        min_objectness (`float`, *optional*, defaults to 0.5):
            Queries with a lower probability of being any object are dropped.
    """

    min_objectness: float = share(0.5)


class QueryTeacher(PooledMaskTeacher):
    """Masks of a model that was trained on a closed list of classes, whatever their class.

    A mask's quality is the probability that its query is not "no object", times the mean probability inside the mask,
    as in these models' post-processing of instances.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    config_class = QueryConfig
    config: QueryConfig

    def load(self) -> None:
        super().load()
        checkpoint = self.checkpoint()
        self.model: Any = checkpoint.load(self.model_class)
        self.load_processor(checkpoint)

    @abstractmethod
    def load_processor(self, checkpoint: Checkpoint) -> None:
        """Load what `pixels` needs."""

    @abstractmethod
    def pixels(self, image: Image.Image) -> Tensor:
        """The model's input `(3, height, width)`."""

    def unpad(self, logits: Tensor, image: Image.Image) -> Tensor:
        """Remove from mask logits `(Q, h, w)` what `pixels` added around the image."""
        return logits

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        outputs = in_batches(self._logits, [self.pixels(image) for image in images], self.config.mask_batch_size)
        proposals = []
        for (mask_logits, class_logits), image in zip(outputs, images, strict=True):
            objectness = 1 - class_logits.softmax(dim=-1)[:, -1]  # the last class is "no object"
            kept = objectness >= self.config.min_objectness
            proposals.append(query_proposals(self.unpad(mask_logits[kept], image), objectness[kept]))
        return proposals

    def _logits(self, pixel_values: Tensor) -> list[tuple[Tensor, Tensor]]:
        outputs = self.model(pixel_values.to(self.device, self.dtype))
        return list(zip(outputs.masks_queries_logits.float(), outputs.class_queries_logits.float(), strict=True))


def query_proposals(logits: Tensor, objectness: Tensor) -> Proposals:
    """Score masks of logits `(N, h, w)`: objectness `(N,)` times the mean probability inside."""
    inside = logits > 0
    certainty = (logits.sigmoid() * inside).sum(dim=(1, 2)) / areas(inside).clamp(min=1)
    return Proposals(logits, objectness * certainty)


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


class EomtTeacher(QueryTeacher):
    """Any EoMT of the Hub (Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", CVPR 2025).

    An image is fitted into the square of the model's training and padded with black, as for panoptic segmentation.
    `QueryConfig` has the settings.
    """

    name = "eomt"
    example = "tue-mps/coco_panoptic_eomt_large_640"
    model_class = EomtForUniversalSegmentation

    def load_processor(self, checkpoint: Checkpoint) -> None:
        self.transform = checkpoint.load_transform()
        self.side: int = self.model.config.image_size

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`, the image in the upper-left corner."""
        height, width = self._fitted(image)
        square = Image.new("RGB", (self.side, self.side))
        square.paste(image.resize((width, height), self.transform.resample))
        return self.transform(square, (self.side, self.side))

    def unpad(self, logits: Tensor, image: Image.Image) -> Tensor:
        """At the size of the model's input, where the image ends at a whole pixel."""
        height, width = self._fitted(image)
        return interpolate(logits[:, None], size=(self.side, self.side), mode="bilinear")[:, 0, :height, :width]

    def _fitted(self, image: Image.Image) -> tuple[int, int]:
        """Height and width of the image in the square."""
        height, width = get_size_with_aspect_ratio((image.height, image.width), self.side, self.side)
        return max(1, height), max(1, width)  # of a thin image it leaves no pixel
