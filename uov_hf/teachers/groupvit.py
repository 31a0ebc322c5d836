"""GroupViT as a teacher: it groups patches into a few segments by itself, and words name them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, GroupViTModel

from uov_hf.teachers.images import PixelTransform, Views, look_through_windows, whole_patches
from uov_hf.teachers.pooling import segments_of_labels, upsampled_max
from uov_hf.teachers.prompts import embed_prompts, templates_called
from uov_hf.teachers.protocol import ImageSegments, Teacher, open_images
from uov_hf.teachers.settings import check_counts, check_shares, check_sides
from uov_hf.teachers.weights import commit_of, load_frozen, require_model


class GroupViTTeacher(Teacher):
    """
    Any GroupViT of the Hub (Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision", CVPR 2022).
    Its groups are the segments, each with an embedding of its own: the projection of its group token, which the model
    was trained to put near the sentence of the image. A segment's label is its best prompt, its score the softmax
    probability of it. There are at most 8 groups in a window.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        short_side (`int`, *optional*, defaults to 448):
            Images are resized so that their shorter side is about this long, in pixels; whole patches are kept.
        window (`int`, *optional*):
            Side in pixels of the square windows that are grouped each by itself, each neighbour sharing half with the
            next; where they overlap, a pixel goes to the group that claims it most. None: the image in one piece.
        templates (`str`, *optional*, defaults to `"vild"`):
            A key of `TEMPLATES`: the sentences around a prompt, whose embeddings are averaged.
        min_score (`float`, *optional*, defaults to 0.0):
            Groups with a lower score are left out: their pixels have no segment.
        batch_size (`int`, *optional*, defaults to 8):
            Images, or windows, that go through the model at once.
    """

    name = "groupvit"

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
        check_counts(batch_size=batch_size)
        source = require_model(self.name, "model_name_or_path", self.model_name_or_path, "nvidia/groupvit-gcc-yfcc")
        self.templates = templates_called(templates)
        self.revision = commit_of(source, self.revision)
        self.model = load_frozen(GroupViTModel, source, self.revision, self.device, self.dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(source, revision=self.revision)
        self.transform = PixelTransform.from_pretrained(source, self.revision)
        self.patch_size = self.model.config.vision_config.patch_size
        check_sides(self.patch_size, short_side=short_side, window=window)
        self.short_side, self.window, self.min_score, self.batch_size = short_side, window, min_score, batch_size
        self.prompt_embeds = self._embed_prompts(self.prompts)  # (num_prompts, embed_dim)

    @property
    def embed_dim(self) -> int:
        return self.model.config.projection_dim

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "short_side": self.short_side,
            "window": self.window,
            "templates": self.templates,
            "min_score": self.min_score,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self._embed_prompts(prompts).cpu().numpy()

    @torch.inference_mode()
    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        images = open_images(frame)
        pixel_values = [
            self.transform(image, whole_patches(image, self.short_side, self.patch_size)) for image in images
        ]
        views = look_through_windows(self._groups, pixel_values, self.patch_size, self.window, self.batch_size)
        return [
            self._segments((image.height, image.width), views_of_one)
            for image, views_of_one in zip(images, views, strict=True)
        ]

    @torch.inference_mode()
    def _embed_prompts(self, prompts: list[str]) -> Tensor:
        return embed_prompts(self.model, self.tokenizer, prompts, self.templates)

    def _groups(self, pixel_values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each image, its groups' embeddings `(G, embed_dim)` and their share of each patch `(G, h, w)`."""
        vision = self.model.vision_model
        h, w = (side // self.patch_size for side in pixel_values.shape[2:])
        hidden = vision.embeddings(pixel_values.to(self.device, self.dtype), interpolate_pos_encoding=True)
        encoded = vision.encoder(hidden, output_attentions=True, return_dict=True)
        tokens = vision.layernorm(encoded.last_hidden_state)  # (batch, G, hidden_size)
        embeds = self.model.visual_projection(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        shares = encoded.attentions[0].float()  # (batch, groups of the first stage, h * w)
        for attention in encoded.attentions[1:]:
            shares = attention.float() @ shares  # (batch, groups of the next stage, h * w)
        return list(zip(normalize(embeds.float(), dim=-1), shares.unflatten(2, (h, w)), strict=True))

    def _segments(self, image_size: tuple[int, int], views: Views[tuple[Tensor, Tensor]]) -> ImageSegments:
        embeds = torch.cat([embeds_of_window for embeds_of_window, _ in views.answers])  # (num_groups, embed_dim)
        shares = embeds.new_zeros(len(views.windows), len(embeds) // len(views.windows), *views.grid)
        for all_shares, window, (_, shares_of_window) in zip(shares, views.windows, views.answers, strict=True):
            all_shares[window.of] = shares_of_window
        _, best = upsampled_max(shares.flatten(0, 1), image_size)  # (height, width)
        logits = self.model.logit_scale.float().exp() * embeds @ self.prompt_embeds.T
        scores, labels = logits.softmax(dim=-1).max(dim=-1)  # (num_groups,)
        segmentation, kept = segments_of_labels(best, keep=(scores >= self.min_score)[best])
        return ImageSegments(
            segmentation=segmentation.cpu().numpy(),
            labels=labels[kept].cpu().numpy(),
            scores=scores[kept].cpu().numpy(),
            embeds=embeds[kept].cpu().numpy(),
        )
