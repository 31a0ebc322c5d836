"""Teachers whose model predicts a mask and a class for each of its queries; the classes are ignored."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

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
