"""Teachers whose model says of each of its queries what mask it is and what class: the class is not asked."""

from abc import abstractmethod
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from uov_hf.teachers.images import in_batches
from uov_hf.teachers.mask_teacher import PooledMaskTeacher
from uov_hf.teachers.masks import Proposals, areas
from uov_hf.teachers.settings import check_shares
from uov_hf.teachers.weights import commit_of, load_frozen, require_model


class QueryTeacher(PooledMaskTeacher):
    """
    Masks of a model that was trained on a closed list of classes, whatever its class: only whether there is any at all
    counts. A mask's quality is the probability that its query is not "no object" times the mean probability of the
    mask inside it, as these models' post-processing of instances scores masks.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        min_objectness (`float`, *optional*, defaults to 0.5):
            Queries that are less probably any object than this are left out.
        others:
            See `PooledMaskTeacher`.
    """

    example: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]

    def __init__(self, prompts: list[str], *, min_objectness: float = 0.5, **shared: Any):
        super().__init__(prompts, **shared)
        check_shares(min_objectness=min_objectness)
        self.min_objectness = min_objectness
        self.mask_settings |= {"min_objectness": min_objectness}
        source = require_model(self.name, "model_name_or_path", self.model_name_or_path, self.example)
        self.revision = commit_of(source, self.revision)
        self.model = load_frozen(self.model_class, source, self.revision, self.device, self.dtype)

    @abstractmethod
    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, height, width)` as the model wants it."""

    def unpad(self, logits: Tensor, image: Image.Image) -> Tensor:
        """Mask logits `(Q, h, w)` without what `pixels` added around the image."""
        return logits

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        answers = in_batches(self._logits, [self.pixels(image) for image in images], self.mask_batch_size)
        proposals = []
        for (mask_logits, class_logits), image in zip(answers, images, strict=True):
            objectness = 1 - class_logits.softmax(dim=-1)[:, -1]  # the last class is "no object"
            kept = objectness >= self.min_objectness
            proposals.append(query_proposals(self.unpad(mask_logits[kept], image), objectness[kept]))
        return proposals

    def _logits(self, pixel_values: Tensor) -> list[tuple[Tensor, Tensor]]:
        outputs = self.model(pixel_values.to(self.device, self.dtype))
        return list(zip(outputs.masks_queries_logits.float(), outputs.class_queries_logits.float(), strict=True))


def query_proposals(logits: Tensor, objectness: Tensor) -> Proposals:
    """Masks of logits `(N, h, w)`; their quality is the objectness `(N,)` times the mean probability inside."""
    inside = logits > 0
    certainty = (logits.sigmoid() * inside).sum(dim=(1, 2)) / areas(inside).clamp(min=1)
    return Proposals(logits, objectness * certainty)
