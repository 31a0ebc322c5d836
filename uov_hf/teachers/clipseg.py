"""CLIPSeg as a teacher: a heat map per prompt, and embeddings of segments from a second model."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import CLIPSegForImageSegmentation

from uov_hf.teachers.config import at_least, batch_size, check_sides, share
from uov_hf.teachers.images import ScaledImage, WindowOutputs, average_windows, run_on_windows
from uov_hf.teachers.pooling import means_of_segments, pool_segments, segments_of_labels
from uov_hf.teachers.prompts import TEMPLATES, embed_sentences, mean_over_templates
from uov_hf.teachers.protocol import ImageSegments, TeacherFrame, open_images
from uov_hf.teachers.second_space import SecondSpaceConfig, SecondSpaceTeacher


@dataclass(frozen=True, kw_only=True)
class CLIPSegConfig(SecondSpaceConfig):
    """Settings of `CLIPSegTeacher`; see `SecondSpaceConfig` for the others. `templates` apply to both models.

    Args:
        short_side (`int`, *optional*, defaults to 352):
            The shorter side of a resized image, in pixels; the published models were trained at 352.
        window (`int`, *optional*):
            Side of the square windows that go through the model, in pixels, at most `short_side`; neighbours share
            half, and their maps are averaged where they overlap. None: `short_side`. The decoder takes squares only.
        min_score (`float`, *optional*, defaults to 0.0):
            Pixels whose highest heat is lower, 0…1, have no segment. At 0 every pixel has a segment.
        prompts_at_once (`int`, *optional*, defaults to 16):
            Prompts that go through the decoder together; memory holds as many maps of the image's full size.

    Raises:
        ValueError: `window` is larger than `short_side`, or a value is out of range.
    """

    short_side: int = at_least(1, 352)
    window: int | None = None
    min_score: float = share(0.0)
    prompts_at_once: int = batch_size(16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window > self.short_side:
            raise ValueError(
                f"`window` must be at most `short_side` = {self.short_side}, got {self.window}: the decoder takes "
                "squares only."
            )


class CLIPSegTeacher(SecondSpaceTeacher):
    """Any CLIPSeg of the Hub (Lüddecke and Ecker, "Image Segmentation Using Text and Image Prompts", CVPR 2022).

    Each pixel gets the prompt with the highest heat, and the pixels of a prompt form one segment. Its score is the
    mean heat of its pixels. The vision tower processes an image once; the light decoder runs for every prompt. Heat
    maps have no embeddings in the space of words: the second model provides those of segments and prompts.
    """

    name = "clipseg"
    example = "CIDAS/clipseg-rd64-refined"
    config_class = CLIPSegConfig
    config: CLIPSegConfig

    def load(self) -> None:
        super().load()
        checkpoint = self.checkpoint()
        self.model = checkpoint.load(CLIPSegForImageSegmentation)
        self.transform = checkpoint.load_transform()
        self.patch_size: int = self.model.clip.vision_model.config.patch_size
        check_sides(self.patch_size, short_side=self.config.short_side, window=self.config.window)
        self.window = self.config.window or self.config.short_side
        embed = partial(embed_sentences, self.model.clip, checkpoint.load_tokenizer())
        with torch.inference_mode():
            means = mean_over_templates(self.prompts, TEMPLATES[self.config.templates], embed)
        self.conditions = means.to(self.dtype)  # (num_prompts, projection_dim), inputs of the decoder

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"window": self.window}

    @torch.inference_mode()
    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        images = open_images(frame)
        pixel_values = [self.transform.in_patches(image, self.config.short_side, self.patch_size) for image in images]
        # Scaled images may be smaller than a window.
        window = min([self.window, *(min(pixels.shape[1:]) for pixels in pixel_values)])
        outputs = run_on_windows(self._activations, pixel_values, self.patch_size, window, self.config.batch_size)
        features = self.space.dense_features(images)
        return [self._segments(*of_image) for of_image in zip(images, outputs, features, strict=True)]

    def _activations(self, pixel_values: Tensor) -> Tensor:
        """The vision tower's hidden states that the decoder reads, `(batch, num_layers, 1 + h * w, hidden_size)`."""
        layers = [index + 1 for index in self.model.extract_layers]  # 0 is the embedding
        hidden = self.model.clip.vision_model(
            pixel_values.to(self.device, self.dtype), output_hidden_states=True, interpolate_pos_encoding=True
        ).hidden_states
        return torch.stack([hidden[layer] for layer in layers], dim=1)

    def _segments(self, image: ScaledImage, outputs: WindowOutputs[Tensor], features: Tensor) -> ImageSegments:
        heat, prompts = self._highest_heat(outputs, image.size)
        segmentation, labels = segments_of_labels(prompts, keep=heat >= self.config.min_score)
        scores = means_of_segments(heat, segmentation, len(labels))
        return ImageSegments.from_tensors(
            segmentation, labels, scores, pool_segments(features, segmentation, len(labels))
        )

    def _highest_heat(self, outputs: WindowOutputs[Tensor], image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Highest heat of each pixel, 0…1, and its prompt, both `(height, width)`."""
        best_logits = torch.full(image_size, -torch.inf, device=self.device)
        best_prompts = torch.zeros(image_size, dtype=torch.int64, device=self.device)
        at_once = self.config.prompts_at_once
        for start in range(0, len(self.prompts), at_once):
            maps = self._maps(outputs, self.conditions[start : start + at_once])
            logits, prompts = interpolate(maps[None], size=image_size, mode="bilinear")[0].max(dim=0)
            best_prompts = torch.where(logits > best_logits, prompts + start, best_prompts)
            best_logits = torch.maximum(best_logits, logits)
        return best_logits.sigmoid(), best_prompts

    def _maps(self, outputs: WindowOutputs[Tensor], conditions: Tensor) -> Tensor:
        """Logits of the heat maps, `(num_conditions, rows, columns)`, one per pixel of the model's input."""
        maps = []
        for activations in outputs.outputs:
            layers = tuple(layer.expand(len(conditions), -1, -1) for layer in activations)
            maps.append(self.model.decoder(layers, conditions).logits.float())
        return average_windows(WindowOutputs(outputs.grid, outputs.windows, maps), factor=self.patch_size)
