"""Teachers whose patches lie in the space of words: each pixel goes to the prompt it fits best."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from uov_hf.teachers.clip_space import ClipSpace
from uov_hf.teachers.pooling import pool_segments, segments_of_labels, upsampled_max
from uov_hf.teachers.protocol import ImageSegments, Teacher, open_images
from uov_hf.teachers.settings import check_shares
from uov_hf.teachers.weights import require_model


class DenseTeacher(Teacher):
    """
    Each pixel goes to the prompt it fits best, and the pixels of a prompt are one segment, as SAN and CAT-Seg give
    them. A segment's embedding is the mean of its patches' features, its score the softmax probability of its own
    prompt.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        short_side, window, templates, batch_size:
            See `ClipSpace`.
        min_score (`float`, *optional*, defaults to 0.0):
            Pixels whose best prompt has a lower softmax probability have no segment. Prompts share the probability:
            the more synonyms there are, the lower it is. At 0 every pixel has one.
    """

    space_class: ClassVar[type[ClipSpace]]
    example: ClassVar[str]

    def __init__(
        self,
        prompts: list[str],
        *,
        short_side: int = 448,
        window: int | None = None,
        templates: str = "vild",
        min_score: float = 0.0,
        batch_size: int = 8,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        check_shares(min_score=min_score)
        self.space = self.space_class(
            require_model(self.name, "model_name_or_path", self.model_name_or_path, self.example),
            self.revision,
            self.device,
            self.dtype,
            short_side=short_side,
            window=window,
            templates=templates,
            batch_size=batch_size,
        )
        self.revision = self.space.commit
        self.min_score = min_score
        self.prompt_embeds = self.space.encode_prompts(self.prompts)  # (num_prompts, embed_dim)

    @property
    def embed_dim(self) -> int:
        return self.space.embed_dim

    @property
    def settings(self) -> dict[str, Any]:
        return self.space.settings | {"min_score": self.min_score}

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self.space.encode_prompts(prompts).cpu().numpy()

    @torch.inference_mode()
    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        images = open_images(frame)
        features = self.space.dense_features(images)
        return [
            self._segments(features_of_one, (image.height, image.width))
            for features_of_one, image in zip(features, images, strict=True)
        ]

    def _segments(self, features: Tensor, image_size: tuple[int, int]) -> ImageSegments:
        logits = self.space.logit_scale * torch.einsum("pd,dhw->phw", self.prompt_embeds, features)
        scores, best = upsampled_max(logits, image_size, softmax=self.min_score > 0)  # (height, width)
        segmentation, labels = segments_of_labels(best, keep=scores >= self.min_score if self.min_score > 0 else None)
        embeds = pool_segments(features, segmentation, len(labels))
        probabilities = (self.space.logit_scale * embeds @ self.prompt_embeds.T).softmax(dim=-1)
        return ImageSegments(
            segmentation=segmentation.cpu().numpy(),
            labels=labels.cpu().numpy(),
            scores=probabilities.gather(1, labels[:, None])[:, 0].cpu().numpy(),
            embeds=embeds.cpu().numpy(),
        )
