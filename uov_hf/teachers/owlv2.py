"""OWLv2's boxes with SAM 2's masks, embedded in OWLv2's own space of words."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Owlv2ForObjectDetection

from uov_hf.teachers.boxes import BoxConfig, BoxTeacher, Detections, corners
from uov_hf.teachers.config import share, templates
from uov_hf.teachers.images import in_batches
from uov_hf.teachers.prompts import TEMPLATES, embed_prompts


@dataclass(frozen=True, kw_only=True)
class Owlv2Config(BoxConfig):
    """Settings of `Owlv2Teacher`; see `BoxConfig` for the others.

    Args:
        templates (`str`, *optional*, defaults to `"photo"`):
            A key of `TEMPLATES`: the sentences around a prompt, whose embeddings are averaged.
    """

    min_score: float = share(0.1)  # the default of `transformers`
    templates: str = templates("photo")


class Owlv2Teacher(BoxTeacher):
    """OWLv2 predicts a box and its embedding for every patch (Minderer et al., "Scaling Open-Vocabulary Object
    Detection", NeurIPS 2023).

    A box's label is its best-scored prompt. The box's embedding is the segment's, so no second model is needed, and
    `encode_prompts` is OWLv2's text tower.
    """

    name = "owlv2"
    example = "google/owlv2-large-patch14-ensemble"
    config_class = Owlv2Config
    config: Owlv2Config

    def load(self) -> None:
        super().load()
        checkpoint = self.checkpoint()
        self.model: Any = checkpoint.load(Owlv2ForObjectDetection)
        self.tokenizer = checkpoint.load_tokenizer()
        self.transform = checkpoint.load_transform()
        self.prompt_embeds = self._embed_prompts(self.prompts)  # (num_prompts, embed_dim)

    @property
    def embed_dim(self) -> int:
        return self.model.config.text_config.hidden_size

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self._embed_prompts(prompts).cpu().numpy()

    def _embed_prompts(self, prompts: list[str]) -> Tensor:
        return embed_prompts(self.model.owlv2, self.tokenizer, prompts, TEMPLATES[self.config.templates])

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`: padded at the right or the bottom to a square, then resized."""
        side = max(image.size)
        square = Image.new("RGB", (side, side))
        square.paste(image)
        return self.transform(square, (self.model.config.vision_config.image_size,) * 2)

    def detect(self, images: list[Image.Image]) -> list[Detections]:
        found = in_batches(self._detect, [self.pixels(image) for image in images], self.config.mask_batch_size)
        detections = [
            Detections(unpad(boxes, image.size), scores, labels, embeds)
            for (boxes, scores, labels, embeds), image in zip(found, images, strict=True)
        ]
        return [one.take(one.scores > self.config.min_score) for one in detections]

    def _detect(self, pixel_values: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Boxes (centre, width, height as fractions of the square), scores, labels and embeddings for each image."""
        feature_map, _ = self.model.image_embedder(pixel_values.to(self.device, self.dtype))
        patches = feature_map.flatten(1, 2)  # (batch, N, hidden_size)
        queries = self.prompt_embeds.to(self.dtype).expand(len(patches), -1, -1)
        logits, embeds = self.model.class_predictor(patches, queries)  # (batch, N, num_prompts), (batch, N, embed_dim)
        best = logits.float().max(dim=-1)
        boxes = self.model.box_predictor(patches, feature_map).float()
        return list(zip(boxes, best.values.sigmoid(), best.indices, normalize(embeds.float(), dim=-1), strict=True))


def unpad(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Convert boxes given as fractions of the padded square to corners as fractions of the image.

    The image fills the square's upper-left corner.

    Args:
        boxes (`torch.Tensor` of shape `(N, 4)`): Centre, width, height.
        image_size (`tuple[int, int]`): Width and height, PIL's order.
    """
    width, height = image_size
    scale = boxes.new_tensor([max(image_size) / width, max(image_size) / height])
    return corners(boxes * scale.repeat(2))
