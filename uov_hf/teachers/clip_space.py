"""Models that embed image patches and words in one space, and the teacher that labels pixels with them.

checkpoint = Checkpoint("openai/clip-vit-base-patch16", device="cuda", dtype=torch.float16)
space = load_clip_space(checkpoint, SpaceConfig(short_side=448))
prompt_embeds = space.encode_prompts(["car", "road"])        # (2, embed_dim), float32, unit length
[features] = space.dense_features([ScaledImage(image)])      # (embed_dim, h, w), float32, unit length, any h and w
embeds = pool_segments(features, segmentation, num_segments) # (num_segments, embed_dim), never a full-size map
labels, scores = space.classify(embeds, prompt_embeds)       # best prompt and its probability, (num_segments,)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from uov_hf.teachers.checkpoints import Checkpoint, dtype_name
from uov_hf.teachers.config import TeacherConfig, at_least, batch_size, check_sides, share, templates
from uov_hf.teachers.images import Output, ScaledImage, WindowOutputs, average_windows, run_on_windows
from uov_hf.teachers.pooling import pool_segments, segments_of_labels, upsampled_max
from uov_hf.teachers.prompts import TEMPLATES, embed_prompts
from uov_hf.teachers.protocol import ImageSegments, Teacher, TeacherFrame, open_images


@dataclass(frozen=True, kw_only=True)
class SpaceConfig(TeacherConfig):
    """How a model with one space for patches and words reads images and prompts.

    Args:
        short_side (`int`, *optional*, defaults to 448):
            The shorter side of a resized image, in pixels, up to whole patches.
        window (`int`, *optional*):
            Side of the square windows that go through the model, in pixels; neighbours share half, and their outputs
            are averaged where they overlap. None: the image in one piece, with interpolated position embeddings.
        templates (`str`, *optional*, defaults to `"vild"`):
            A key of `TEMPLATES`: the sentences around a prompt, whose embeddings are averaged.
        batch_size (`int`, *optional*, defaults to 8): Images or windows in one batch.
    """

    short_side: int = at_least(1, 448)
    window: int | None = None
    templates: str = templates("vild")
    batch_size: int = batch_size(8)


class TextSpace:
    """A frozen model that embeds images and sentences in one space, as CLIP. It returns float32 in any precision.

    Args:
        checkpoint (`Checkpoint`): The weights.
        config (`SpaceConfig`, *optional*): Image size, windows, templates.
    """

    model: Any  # of `model_class`: these models share no interface of their own
    model_class: ClassVar[type]

    def __init__(self, checkpoint: Checkpoint, config: SpaceConfig | None = None):
        self.config = config or SpaceConfig()
        self.commit = checkpoint.revision
        self.model = checkpoint.load(self.model_class)
        self.tokenizer = checkpoint.load_tokenizer()
        self.transform = checkpoint.load_transform()
        self.patch_size: int = self.model.config.vision_config.patch_size
        check_sides(self.patch_size, short_side=self.config.short_side, window=self.config.window)

    @property
    def embed_dim(self) -> int:
        """Dimension of the space."""
        return self.model.config.projection_dim

    @property
    def logit_scale(self) -> float:
        """Factor for cosines before the softmax over prompts."""
        return self.model.logit_scale.float().exp().item()

    @property
    def settings(self) -> dict[str, Any]:
        """Everything beside the weights that changes predictions, as JSON."""
        return self.config.record() | {"dtype": dtype_name(self.model.dtype)}

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """`(num_prompts, embed_dim)`: the mean over templates of unit-length embeddings, made unit length."""
        return embed_prompts(self.model, self.tokenizer, prompts, TEMPLATES[self.config.templates])

    def pixels(self, image: ScaledImage) -> Tensor:
        """`(3, height, width)`: resized to whole patches, nearly in proportion, and normalised."""
        return self.transform.in_patches(image, self.config.short_side, self.patch_size)

    def run(
        self, model: Callable[[Tensor], Iterable[Output]], images: list[ScaledImage]
    ) -> list[WindowOutputs[Output]]:
        """Run a part of the model on each window of each image; see `run_on_windows`."""
        pixel_values = [self.pixels(image) for image in images]
        return run_on_windows(model, pixel_values, self.patch_size, self.config.window, self.config.batch_size)

    @torch.inference_mode()
    def classify(self, embeds: Tensor, prompt_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Best prompt of each of `(num_segments, embed_dim)`, and its softmax probability among all prompts."""
        scores, labels = self.probabilities(embeds, prompt_embeds).max(dim=-1)
        return labels, scores

    def probabilities(self, embeds: Tensor, prompt_embeds: Tensor) -> Tensor:
        """Softmax over prompts, `(num_segments, num_prompts)`."""
        return (self.logit_scale * embeds @ prompt_embeds.T).softmax(dim=-1)


class ClipSpace(TextSpace, ABC):
    """A `TextSpace` that has embeddings of image patches, too."""

    any_size: ClassVar[dict[str, bool]] = {}  # makes `get_image_features` take images of any size

    @abstractmethod
    def patch_embeds(self, pixel_values: Tensor) -> Tensor:
        """Embeddings of any length, `(batch, h * w, embed_dim)` row by row, of `(batch, 3, height, width)`."""

    def picture_embeds(self, pixel_values: Tensor) -> Tensor:
        """Embeddings of whole images, of any length, `(batch, embed_dim)` float32, of `(batch, 3, height, width)`."""
        pixel_values = pixel_values.to(self.model.device, self.model.dtype)
        return self.model.get_image_features(pixel_values, **self.any_size).pooler_output.float()

    @torch.inference_mode()
    def dense_features(self, images: list[ScaledImage]) -> list[Tensor]:
        """Patch features `(embed_dim, h, w)` of each image, unit length, float32, on the model's device."""
        return [normalize(average_windows(of_image), dim=0) for of_image in self.run(self._feature_maps, images)]

    def _feature_maps(self, pixel_values: Tensor) -> Tensor:
        h, w = (side // self.patch_size for side in pixel_values.shape[2:])
        embeds = self.patch_embeds(pixel_values.to(self.model.device, self.model.dtype)).float()
        return normalize(embeds, dim=-1).mT.unflatten(2, (h, w))  # (batch, embed_dim, h, w)


@dataclass(frozen=True, kw_only=True)
class DenseConfig(SpaceConfig):
    """Settings of a teacher that labels pixels by their best prompt; see `SpaceConfig` for the others.

    Args:
        min_score (`float`, *optional*, defaults to 0.0):
            Pixels whose best prompt has a lower softmax probability have no segment. Prompts share the probability:
            more synonyms lower it. At 0 every pixel has a segment.
    """

    min_score: float = share(0.0)


class SpaceTeacher(Teacher):
    """A teacher whose embeddings are those of a `TextSpace`."""

    space: TextSpace

    @property
    def embed_dim(self) -> int:
        return self.space.embed_dim

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self.space.encode_prompts(prompts).cpu().numpy()


class OwnSpaceTeacher(SpaceTeacher):
    """A teacher whose own model is the space. `DenseConfig` has the settings."""

    space_class: ClassVar[type[TextSpace]]
    config_class = DenseConfig
    config: DenseConfig

    def load(self) -> None:
        self.space = self.load_space()
        self.prompt_embeds = self.space.encode_prompts(self.prompts)  # (num_prompts, embed_dim)

    def load_space(self) -> TextSpace:
        """The teacher's own model."""
        return self.space_class(self.checkpoint(), self.config)

    @property
    def settings(self) -> dict[str, Any]:
        return self.space.settings


class DenseTeacher(OwnSpaceTeacher):
    """Each pixel gets its best prompt, and the pixels of a prompt form one segment, as in SAN and CAT-Seg.

    A segment's embedding is the mean of its patch features; its score is the softmax probability of its prompt.
    """

    space: ClipSpace

    @torch.inference_mode()
    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        images = open_images(frame)
        features = self.space.dense_features(images)
        return [self._segments(of_image, image.size) for of_image, image in zip(features, images, strict=True)]

    def _segments(self, features: Tensor, image_size: tuple[int, int]) -> ImageSegments:
        logits = self.space.logit_scale * torch.einsum("pd,dhw->phw", self.prompt_embeds, features)
        min_score = self.config.min_score
        scores, best = upsampled_max(logits, image_size, softmax=min_score > 0)  # (height, width)
        segmentation, labels = segments_of_labels(best, keep=scores >= min_score if min_score > 0 else None)
        embeds = pool_segments(features, segmentation, len(labels))
        probabilities = self.space.probabilities(embeds, self.prompt_embeds)
        return ImageSegments.from_tensors(segmentation, labels, probabilities.gather(1, labels[:, None])[:, 0], embeds)
