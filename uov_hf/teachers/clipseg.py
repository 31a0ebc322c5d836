"""CLIPSeg as a teacher: a heat map per prompt, and the embeddings of segments from a second model."""

from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import AutoTokenizer, CLIPSegForImageSegmentation

from uov_hf.teachers.clip_space import SecondSpaceTeacher
from uov_hf.teachers.images import (
    PixelTransform,
    Views,
    average_windows,
    look_through_windows,
    whole_patches,
)
from uov_hf.teachers.pooling import segments_of_labels
from uov_hf.teachers.prompts import embed_sentences, mean_over_templates
from uov_hf.teachers.protocol import ImageSegments, open_images
from uov_hf.teachers.settings import check_counts, check_shares, check_sides
from uov_hf.teachers.weights import commit_of, load_frozen, require_model


class CLIPSegTeacher(SecondSpaceTeacher):
    """
    Any CLIPSeg of the Hub (Lüddecke and Ecker, "Image Segmentation Using Text and Image Prompts", CVPR 2022): each
    pixel goes to the prompt with the hottest map, and the pixels of a prompt are one segment. Its score is the mean
    heat of its pixels.

    The vision tower sees an image once; the light decoder runs for every prompt. The maps have no embedding in the
    space of words: segments and prompts take theirs from the second model.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        short_side (`int`, *optional*, defaults to 352):
            Images are resized so that their shorter side is about this long, in pixels; 352 is what the published
            models were trained on.
        window (`int`, *optional*):
            Side in pixels of the square windows that go through the model, each neighbour sharing half with the next;
            the mean is taken where they overlap. None: as long as the short side. The decoder takes squares only.
        min_score (`float`, *optional*, defaults to 0.0):
            Pixels whose hottest map is cooler, 0…1, have no segment. At 0 every pixel has one.
        prompts_at_once (`int`, *optional*, defaults to 16):
            Prompts that go through the decoder together; so many maps of the image's full size are in memory.
        embed_model_name_or_path, embed_revision, embed_short_side, embed_window, templates, batch_size:
            See `SecondSpaceTeacher`; `templates` are around the prompts of both models.
    """

    name = "clipseg"

    def __init__(
        self,
        prompts: list[str],
        *,
        short_side: int = 352,
        window: int | None = None,
        min_score: float = 0.0,
        prompts_at_once: int = 16,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        check_shares(min_score=min_score)
        check_counts(prompts_at_once=prompts_at_once)
        source = require_model(self.name, "model_name_or_path", self.model_name_or_path, "CIDAS/clipseg-rd64-refined")
        self.revision = commit_of(source, self.revision)
        self.model = load_frozen(CLIPSegForImageSegmentation, source, self.revision, self.device, self.dtype)
        self.transform = PixelTransform.from_pretrained(source, self.revision)
        self.patch_size = self.model.config.vision_config.patch_size
        check_sides(self.patch_size, short_side=short_side, window=window)
        if window is not None and window > short_side:
            raise ValueError(f"`window` must be at most `short_side` = {short_side}: the decoder takes squares only.")
        self.short_side, self.window = short_side, window or short_side
        self.min_score, self.prompts_at_once = min_score, prompts_at_once
        self.conditions = self._conditions(AutoTokenizer.from_pretrained(source, revision=self.revision))

    @property
    def settings(self) -> dict[str, Any]:
        own = {"short_side": self.short_side, "window": self.window, "min_score": self.min_score}
        return own | super().settings

    @torch.inference_mode()
    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        images = open_images(frame)
        pixel_values = [
            self.transform(image, whole_patches(image, self.short_side, self.patch_size)) for image in images
        ]
        window = min(self.window, *(min(pixels.shape[1:]) for pixels in pixel_values))  # scaled images may be smaller
        views = look_through_windows(self._activations, pixel_values, self.patch_size, window, self.space.batch_size)
        hottest = [
            self._hottest(views_of_one, (image.height, image.width))
            for views_of_one, image in zip(views, images, strict=True)
        ]
        return self._segments(images, hottest)

    @torch.inference_mode()
    def _conditions(self, tokenizer: Any) -> Tensor:
        """`(num_prompts, projection_dim)`: what the decoder is told to look for"""
        embed = partial(embed_sentences, self.model.clip, tokenizer)
        return mean_over_templates(self.prompts, self.space.templates, embed).to(self.dtype)

    def _activations(self, pixel_values: Tensor) -> Tensor:
        """`(batch, num_layers, 1 + h * w, hidden_size)`: what the decoder reads of the vision tower"""
        layers = [index + 1 for index in self.model.extract_layers]  # 0 is the embedding
        hidden = self.model.clip.vision_model(
            pixel_values.to(self.device, self.dtype), output_hidden_states=True, interpolate_pos_encoding=True
        ).hidden_states
        return torch.stack([hidden[layer] for layer in layers], dim=1)

    def _hottest(self, views: Views[Tensor], image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Heat, 0…1, and prompt of each pixel's hottest map, both `(height, width)`."""
        best_logits = torch.full(image_size, -torch.inf, device=self.device)
        best_prompts = torch.zeros(image_size, dtype=torch.int64, device=self.device)
        for start in range(0, len(self.prompts), self.prompts_at_once):
            maps = self._maps(views, self.conditions[start : start + self.prompts_at_once])
            logits, prompts = interpolate(maps[None], size=image_size, mode="bilinear")[0].max(dim=0)
            best_prompts = torch.where(logits > best_logits, prompts + start, best_prompts)
            best_logits = torch.maximum(best_logits, logits)
        return best_logits.sigmoid(), best_prompts

    def _maps(self, views: Views[Tensor], conditions: Tensor) -> Tensor:
        """`(num_conditions, rows, columns)`: logits of the heat maps, one per pixel that the model saw"""
        answers = []
        for activations in views.answers:
            layers = tuple(layer.expand(len(conditions), -1, -1) for layer in activations)
            answers.append(self.model.decoder(layers, conditions).logits.float())
        return average_windows(Views(views.grid, views.windows, answers), factor=self.patch_size)

    def _segments(self, images: list[Image.Image], hottest: list[tuple[Tensor, Tensor]]) -> list[ImageSegments]:
        found = [segments_of_labels(prompts, keep=heat >= self.min_score) for heat, prompts in hottest]
        embeds = self.embed_segments(images, *zip(*((ids, len(labels)) for ids, labels in found), strict=True))
        return [
            ImageSegments(
                segmentation=ids.cpu().numpy(),
                labels=labels.cpu().numpy(),
                scores=means_of_segments(heat, ids, len(labels)).cpu().numpy(),
                embeds=embeds_of_one.cpu().numpy(),
            )
            for (heat, _), (ids, labels), embeds_of_one in zip(hottest, found, embeds, strict=True)
        ]


def means_of_segments(values: Tensor, segmentation: Tensor, num_segments: int) -> Tensor:
    """`(num_segments,)`: means of `values` (height, width) over the segments 1…num_segments"""
    sums = values.new_zeros(num_segments + 1).index_add_(0, segmentation.flatten(), values.flatten())
    return (sums / segmentation.flatten().bincount(minlength=num_segments + 1))[1:]
