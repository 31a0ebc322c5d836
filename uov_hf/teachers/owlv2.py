"""OWLv2's boxes with SAM 2's masks, embedded in OWLv2's own space of words."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, Owlv2ForObjectDetection

from uov_hf.teachers.boxes import BoxTeacher, Detections, corners
from uov_hf.teachers.images import PixelTransform, in_batches
from uov_hf.teachers.prompts import embed_prompts, templates_called
from uov_hf.teachers.weights import commit_of, load_frozen, require_model


class Owlv2Teacher(BoxTeacher):
    """
    OWLv2 embeds every patch of an image as the box that it would be of (Minderer et al., "Scaling Open-Vocabulary
    Object Detection", NeurIPS 2023); a box is called the prompt that scores best for it. The box's embedding is the
    segment's: no second model is needed for that, and `encode_prompts` is OWLv2's text tower.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        templates (`str`, *optional*, defaults to `"photo"`):
            A key of `TEMPLATES`: the sentences around a prompt, whose embeddings are averaged.
        min_score (`float`, *optional*, defaults to 0.1):
            Boxes with a lower score are left out; the default is that of `transformers`.
        others:
            See `BoxTeacher`.
    """

    name = "owlv2"

    def __init__(self, prompts: list[str], *, templates: str = "photo", min_score: float = 0.1, **shared: Any):
        super().__init__(prompts, min_score=min_score, **shared)
        self.templates = templates_called(templates)
        self.mask_settings |= {"templates": self.templates}
        source = require_model(
            self.name, "model_name_or_path", self.model_name_or_path, "google/owlv2-large-patch14-ensemble"
        )
        self.revision = commit_of(source, self.revision)
        self.model = load_frozen(Owlv2ForObjectDetection, source, self.revision, self.device, self.dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(source, revision=self.revision)
        self.transform = PixelTransform.from_pretrained(source, self.revision)
        self.prompt_embeds = self._encode_prompts(self.prompts)  # (num_prompts, embed_dim)

    @property
    def embed_dim(self) -> int:
        return self.model.config.text_config.hidden_size

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self._encode_prompts(prompts).cpu().numpy()

    @torch.inference_mode()
    def _encode_prompts(self, prompts: list[str]) -> Tensor:
        return embed_prompts(self.model.owlv2, self.tokenizer, prompts, self.templates)

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`: padded at the right or the bottom to a square, then resized"""
        side = max(image.size)
        square = Image.new("RGB", (side, side))
        square.paste(image)
        return self.transform(square, (self.model.config.vision_config.image_size,) * 2)

    def detect(self, images: list[Image.Image]) -> list[Detections]:
        found = in_batches(self._detect, [self.pixels(image) for image in images], self.mask_batch_size)
        return [
            Detections(unpad(boxes, image.size), scores, labels, embeds)
            for (boxes, scores, labels, embeds), image in zip(found, images, strict=True)
        ]

    def _detect(self, pixel_values: Tensor) -> list[tuple[Tensor, ...]]:
        """For each image centre, width and height of its boxes in parts of the square, scores, labels, embeddings"""
        feature_map, _ = self.model.image_embedder(pixel_values.to(self.device, self.dtype))
        patches = feature_map.flatten(1, 2)  # (batch, N, hidden_size)
        queries = self.prompt_embeds.to(self.dtype).expand(len(patches), -1, -1)
        logits, embeds = self.model.class_predictor(patches, queries)  # (batch, N, num_prompts), (batch, N, embed_dim)
        best = logits.float().max(dim=-1)
        boxes = self.model.box_predictor(patches, feature_map).float()
        return list(zip(boxes, best.values.sigmoid(), best.indices, normalize(embeds.float(), dim=-1), strict=True))


def unpad(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """
    Corners in parts of the image of boxes `(N, 4)` (centre, width, height) in parts of the square that it is the upper
    left of.

    Args:
        image_size (`tuple[int, int]`):
            Width and height, as PIL has it.
    """
    width, height = image_size
    scale = boxes.new_tensor([max(image_size) / width, max(image_size) / height])
    return corners(boxes * scale.repeat(2))
