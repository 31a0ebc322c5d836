"""CLIP as a teacher: dense features by the value path of its last layer, segments by the best prompt of a pixel."""

from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils.hub import resolve_revision

from uov_hf.teachers.pooling import pool_segments, upsampled_argmax
from uov_hf.teachers.protocol import ImageSegments, Teacher, freeze, open_images


# "vild" are the 14 of ViLD (Gu et al., 2022), which SAN and FC-CLIP take, too.
TEMPLATES = {
    "none": ["{}"],
    "photo": ["a photo of a {}."],
    "vild": [
        "a photo of a {}.",
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
        "a photo of a small {}.",
        "a photo of a medium {}.",
        "a photo of a large {}.",
        "This is a photo of a small {}.",
        "This is a photo of a medium {}.",
        "This is a photo of a large {}.",
        "There is a small {} in the scene.",
        "There is a medium {} in the scene.",
        "There is a large {} in the scene.",
    ],
}


class CLIPTeacher(Teacher):
    """
    Any CLIP of the Hub, without training: each patch is its own little image (Zhou et al., "Extract Free Dense Labels
    from CLIP", ECCV 2022), each pixel goes to the prompt it fits best, and the pixels of a prompt are one segment, as
    SAN and CAT-Seg give them. Every pixel gets a label.

    A segment's embedding is the mean of its patches' features, its score the softmax probability of its own prompt.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`; the model is that of any `CLIPModel`, by id or folder.
        short_side (`int`, *optional*, defaults to 448):
            Images are resized so that their shorter side is about this long, in pixels; whole patches are kept.
        templates (`str`, *optional*, defaults to `"vild"`):
            A key of `TEMPLATES`: the sentences around a prompt, whose embeddings are averaged.
    """

    name = "clip"

    def __init__(self, prompts: list[str], *, short_side: int = 448, templates: str = "vild", **shared: Any):
        super().__init__(prompts, **shared)
        if self.model_name_or_path is None:
            raise ValueError(
                "The teacher `clip` needs `model_name_or_path`, the id or folder of a CLIP, "
                "e.g. openai/clip-vit-base-patch16."
            )
        if templates not in TEMPLATES:
            raise ValueError(f"`templates` must be one of {', '.join(TEMPLATES)}, got {templates!r}.")
        self.revision = _commit(self.model_name_or_path, self.revision)
        source = {"pretrained_model_name_or_path": self.model_name_or_path, "revision": self.revision}
        self.model = freeze(CLIPModel.from_pretrained(**source, dtype=self.dtype).to(self.device))
        self.tokenizer = AutoTokenizer.from_pretrained(**source)
        image_processor = CLIPImageProcessorPil.from_pretrained(**source)
        self.image_mean = np.array(image_processor.image_mean, np.float32)
        self.image_std = np.array(image_processor.image_std, np.float32)
        self.patch_size = self.model.config.vision_config.patch_size
        if short_side < self.patch_size:
            raise ValueError(f"`short_side` must hold a patch of {self.patch_size} pixels, got {short_side}.")
        self.short_side = short_side
        self.templates = templates
        self.prompt_embeds = torch.from_numpy(self.encode_prompts(self.prompts)).to(self.device)

    @property
    def embed_dim(self) -> int:
        return self.model.config.projection_dim

    @property
    def settings(self) -> dict[str, Any]:
        dtype = str(self.dtype).removeprefix("torch.")
        return {"short_side": self.short_side, "templates": TEMPLATES[self.templates], "dtype": dtype}

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Each prompt's embedding: the mean over templates of unit-length sentence embeddings, made unit length."""
        templates = TEMPLATES[self.templates]
        sentences = [template.format(prompt) for prompt in prompts for template in templates]
        embeds = torch.cat([self._encode_text(sentences[i : i + 256]) for i in range(0, len(sentences), 256)])
        means = embeds.view(len(prompts), len(templates), -1).mean(dim=1)  # (num_prompts, embed_dim)
        return normalize(means, dim=-1).cpu().numpy()

    @torch.inference_mode()
    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        images = open_images(frame)
        features = self._dense_features([self._pixels(image) for image in images])
        return [
            self._segments(features_of_one, (image.height, image.width))
            for features_of_one, image in zip(features, images, strict=True)
        ]

    def _encode_text(self, sentences: list[str]) -> Tensor:
        """`(num_sentences, embed_dim)` float32, unit length"""
        tokens = self.tokenizer(
            sentences,
            padding=True,
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        return normalize(self.model.get_text_features(**tokens).pooler_output.float(), dim=-1)

    def _pixels(self, image: Image.Image) -> Tensor:
        """`(3, height, width)`: resized to whole patches, nearly in proportion, normalised as this CLIP wants it"""
        scale = self.short_side / min(image.size) / self.patch_size
        size = tuple(max(1, round(side * scale)) * self.patch_size for side in image.size)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32) / 255
        return torch.from_numpy((pixels - self.image_mean) / self.image_std).permute(2, 0, 1)

    def _dense_features(self, pixel_values: list[Tensor]) -> list[Tensor]:
        """Each image's `(embed_dim, h, w)` unit-length patch features; images of one size go through together."""
        features = []
        for _, same_size in groupby(pixel_values, key=lambda pixels: pixels.shape):
            features += self._dense_features_of_batch(torch.stack(list(same_size)))
        return features

    def _dense_features_of_batch(self, pixel_values: Tensor) -> Tensor:
        """visual_projection(LN(out_proj(v_proj(LN(x))))), x the last layer's input: no patch looks at another there"""
        vision, last = self.model.vision_model, self.model.vision_model.encoder.layers[-1]
        hidden = vision.embeddings(pixel_values.to(self.device, self.dtype), interpolate_pos_encoding=True)
        hidden = vision.pre_layrnorm(hidden)
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(hidden)))
        embeds = self.model.visual_projection(vision.post_layernorm(values[:, 1:]))  # without the class token
        h, w = (side // self.patch_size for side in pixel_values.shape[2:])
        return normalize(embeds.float(), dim=-1).mT.unflatten(2, (h, w))  # (batch, embed_dim, h, w)

    def _segments(self, features: Tensor, image_size: tuple[int, int]) -> ImageSegments:
        logits = torch.einsum("pd,dhw->phw", self.prompt_embeds, features)
        best = upsampled_argmax(logits, image_size)  # (height, width)
        present = torch.bincount(best.flatten(), minlength=len(self.prompts)) > 0
        segmentation = present.cumsum(0)[best]
        labels = present.nonzero()[:, 0]  # (num_segments,)
        embeds = pool_segments(features, segmentation, len(labels))
        probabilities = (self.model.logit_scale.float().exp() * embeds @ self.prompt_embeds.T).softmax(dim=-1)
        return ImageSegments(
            segmentation=segmentation.cpu().numpy(),
            labels=labels.cpu().numpy(),
            scores=probabilities.gather(1, labels[:, None])[:, 0].cpu().numpy(),
            embeds=embeds.cpu().numpy(),
        )


def _commit(model_name_or_path: str, revision: str | None) -> str | None:
    """The commit that a branch or tag on the Hub stands for today; of a folder, what was asked for."""
    resolved = resolve_revision(model_name_or_path, revision)
    return getattr(resolved, "resolved", resolved)
