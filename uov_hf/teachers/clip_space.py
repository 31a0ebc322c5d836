"""
Models that put image patches and words into one space, and what teachers do with them.

    space = load_clip_space("openai/clip-vit-base-patch16", device="cuda", dtype=torch.float16, short_side=448)
    prompt_embeds = space.encode_prompts(["car", "road"])        # (2, embed_dim), float32, unit length
    [features] = space.dense_features([image])                   # (embed_dim, h, w), float32, unit length, any h and w
    embeds = pool_segments(features, segmentation, num_segments) # (num_segments, embed_dim), never a full-size map
    labels, scores = space.classify(embeds, prompt_embeds)       # best prompt and its probability, (num_segments,)

A teacher whose own model has no mask embedding in the space of words derives from `SecondSpaceTeacher`, and finds such
a model as `self.space`.
"""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from uov_hf.teachers.images import PixelTransform, average_windows, look_through_windows, whole_patches
from uov_hf.teachers.pooling import pool_segments
from uov_hf.teachers.prompts import embed_prompts, templates_called
from uov_hf.teachers.protocol import Teacher
from uov_hf.teachers.settings import check_counts, check_sides
from uov_hf.teachers.weights import commit_of, load_frozen, require_model


# model type of the Hub -> module and class, imported when asked for
CLIP_SPACES = {
    "clip": ("uov_hf.teachers.clip", "CLIPSpace"),
    "tipsv2": ("uov_hf.teachers.tipsv2", "TIPSv2Space"),
}


class ClipSpace(ABC):
    """
    A frozen model whose image patches and sentences share a space.

    Args:
        model_name_or_path (`str`):
            Hub id or folder.
        revision (`str`, *optional*):
            Branch, tag or commit; `commit` is what it stood for when the model was loaded.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Where it runs.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Its precision. What it returns is float32.
        short_side (`int`, *optional*, defaults to 448):
            Images are resized so that their shorter side is about this long, in pixels; whole patches are kept.
        window (`int`, *optional*):
            Side in pixels of the square windows that go through the model, each neighbour sharing half with the next;
            the mean is taken where they overlap. None: the image in one piece, position embeddings interpolated.
        templates (`str`, *optional*, defaults to `"vild"`):
            A key of `TEMPLATES`: the sentences around a prompt, whose embeddings are averaged.
        batch_size (`int`, *optional*, defaults to 8):
            Images, or windows, that go through the model at once.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    any_size: ClassVar[dict[str, bool]] = {}  # what lets `get_image_features` look at pictures of any size

    def __init__(
        self,
        model_name_or_path: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        short_side: int = 448,
        window: int | None = None,
        templates: str = "vild",
        batch_size: int = 8,
    ):
        check_counts(batch_size=batch_size)
        self.templates = templates_called(templates)
        self.commit = commit_of(model_name_or_path, revision)
        self.model = load_frozen(self.model_class, model_name_or_path, self.commit, device, dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, revision=self.commit)
        self.transform = PixelTransform.from_pretrained(model_name_or_path, self.commit)
        self.patch_size = self.model.config.vision_config.patch_size
        check_sides(self.patch_size, short_side=short_side, window=window)
        self.short_side, self.window, self.batch_size = short_side, window, batch_size

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Dimension of the space."""

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """What cosines are multiplied by before the softmax over prompts."""

    @abstractmethod
    def patch_embeds(self, pixel_values: Tensor) -> Tensor:
        """`(batch, h * w, embed_dim)` of `(batch, 3, height, width)`, row by row, of any length."""

    def picture_embeds(self, pixel_values: Tensor) -> Tensor:
        """`(batch, embed_dim)` float32 of whole pictures `(batch, 3, height, width)`, of any length."""
        pixel_values = pixel_values.to(self.model.device, self.model.dtype)
        return self.model.get_image_features(pixel_values, **self.any_size).pooler_output.float()

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its answers beside the weights; JSON."""
        return {
            "short_side": self.short_side,
            "window": self.window,
            "templates": self.templates,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """`(num_prompts, embed_dim)`: the mean over templates of unit-length embeddings, made unit length."""
        return embed_prompts(self.model, self.tokenizer, prompts, self.templates)

    @torch.inference_mode()
    def dense_features(self, images: list[Image.Image]) -> list[Tensor]:
        """Each RGB image's patch features `(embed_dim, h, w)`, unit length, float32, on the model's device."""
        pixel_values = [self.pixels(image) for image in images]
        views = look_through_windows(self._feature_maps, pixel_values, self.patch_size, self.window, self.batch_size)
        return [normalize(average_windows(views_of_one), dim=0) for views_of_one in views]

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, height, width)`: resized to whole patches, nearly in proportion, normalised as the model wants it."""
        return self.transform(image, whole_patches(image, self.short_side, self.patch_size))

    @torch.inference_mode()
    def classify(self, embeds: Tensor, prompt_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Best prompt, and its softmax probability among all, of each of `(num_segments, embed_dim)`."""
        probabilities = (self.logit_scale * embeds @ prompt_embeds.T).softmax(dim=-1)  # (num_segments, num_prompts)
        scores, labels = probabilities.max(dim=-1)
        return labels, scores

    def _feature_maps(self, pixel_values: Tensor) -> Tensor:
        h, w = (side // self.patch_size for side in pixel_values.shape[2:])
        embeds = self.patch_embeds(pixel_values.to(self.model.device, self.model.dtype)).float()
        return normalize(embeds, dim=-1).mT.unflatten(2, (h, w))  # (batch, embed_dim, h, w)


def load_clip_space(
    model_name_or_path: str,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> ClipSpace:
    """
    The space of a CLIP or a TIPSv2; its model type decides which.

    Args:
        settings:
            `short_side`, `window`, `templates`, `batch_size`, see `ClipSpace`.

    Raises:
        ValueError: a model of another type.
    """
    model_type = AutoConfig.from_pretrained(model_name_or_path, revision=revision).model_type
    if model_type not in CLIP_SPACES:
        raise ValueError(
            f"{model_name_or_path} is a model of type {model_type!r}, whose patches and words do not share a space; "
            f"those of {', '.join(CLIP_SPACES)} do."
        )
    module, class_name = CLIP_SPACES[model_type]
    return getattr(import_module(module), class_name)(model_name_or_path, revision, device, dtype, **settings)


class SecondSpaceTeacher(Teacher):
    """
    A teacher that takes the embeddings of segments and prompts from a second model, a CLIP or a TIPSv2: its own model
    has no mask embedding in the space of words. Segments get the mean of what the second model sees in their pixels,
    never the embedding of their own label.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`; device and dtype are those of both models.
        embed_model_name_or_path (`str`):
            Hub id or folder of the second model.
        embed_revision (`str`, *optional*):
            Its branch, tag or commit.
        embed_short_side, embed_window, templates, batch_size:
            `short_side`, `window`, `templates` and `batch_size` of the second model, see `ClipSpace`.
    """

    def __init__(
        self,
        prompts: list[str],
        *,
        embed_model_name_or_path: str | None = None,
        embed_revision: str | None = None,
        embed_short_side: int = 448,
        embed_window: int | None = None,
        templates: str = "vild",
        batch_size: int = 8,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        self.embed_model_name_or_path = require_model(
            self.name, "embed_model_name_or_path", embed_model_name_or_path, "openai/clip-vit-base-patch16"
        )
        self.space = load_clip_space(
            self.embed_model_name_or_path,
            embed_revision,
            self.device,
            self.dtype,
            short_side=embed_short_side,
            window=embed_window,
            templates=templates,
            batch_size=batch_size,
        )
        self.prompt_embeds = self.space.encode_prompts(self.prompts)  # (num_prompts, embed_dim)

    @property
    def embed_dim(self) -> int:
        return self.space.embed_dim

    @property
    def settings(self) -> dict[str, Any]:
        """What the second model adds; a teacher adds its own to it."""
        return {
            "embed_model_name_or_path": self.embed_model_name_or_path,
            "embed_revision": self.space.commit,
            "embed_settings": self.space.settings,
        }

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self.space.encode_prompts(prompts).cpu().numpy()

    def embed_segments(
        self, images: list[Image.Image], segmentations: list[Tensor], num_segments: list[int]
    ) -> list[Tensor]:
        """Each image's `(num_segments, embed_dim)`, unit length, of its `(height, width)` ids 1…num_segments."""
        features = self.space.dense_features(images)
        arguments = zip(features, segmentations, num_segments, strict=True)
        return [pool_segments(*one) for one in arguments]
