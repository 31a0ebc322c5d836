"""Grounding DINO's boxes with SAM 2's masks, embedded by the second model."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoForObjectDetection
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

from uov_hf.teachers.boxes import BoxConfig, BoxTeacher, Detections, corners
from uov_hf.teachers.config import share
from uov_hf.teachers.images import in_batches
from uov_hf.teachers.mask_teacher import PooledMaskConfig, PooledMaskTeacher


@dataclass(frozen=True, kw_only=True)
class GroundingDinoConfig(BoxConfig, PooledMaskConfig):
    """Settings of `GroundingDinoTeacher`: see `BoxConfig` and `PooledMaskConfig`."""

    min_score: float = share(0.25)  # the default of `transformers`


class GroundingDinoTeacher(BoxTeacher, PooledMaskTeacher):
    """Grounding DINO reads one text, "car. person. …", and scores each box for each token (Liu et al., "Grounding
    DINO", ECCV 2024).

    A box stays if its best token, of any prompt, scores more than `min_score`, as in `transformers` and the authors'
    demo. Its score for a prompt is its mean score for the prompt's tokens, as in the authors' evaluation on COCO.
    Prompts that do not fit into one text go through the model in several passes.
    """

    name = "grounding_dino"
    example = "IDEA-Research/grounding-dino-base"
    config_class = GroundingDinoConfig
    config: GroundingDinoConfig

    def load(self) -> None:
        super().load()
        checkpoint = self.checkpoint()
        self.model = checkpoint.load(GroundingDinoForObjectDetection)
        self.image_processor = GroundingDinoImageProcessorPil.from_pretrained(
            checkpoint.name_or_path, revision=checkpoint.branch
        )
        tokenizer: Any = checkpoint.load_tokenizer()  # annotated as if one token could have several ids
        # "." and "?" separate the phrases of a text, so no phrase may contain one.
        phrases = [prompt.lower().replace(".", " ").replace("?", " ") for prompt in self.prompts]
        tokens = [tokenizer(phrase, add_special_tokens=False)["input_ids"] for phrase in phrases]
        start, dot, end = tokenizer.cls_token_id, tokenizer.convert_tokens_to_ids("."), tokenizer.sep_token_id
        self.texts = join_phrases(tokens, start, dot, end, self.model.config.max_text_len)

    def detect(self, images: list[Image.Image]) -> list[Detections]:
        return in_batches(self._detect, [self._pixels(image) for image in images], self.config.mask_batch_size)

    def _pixels(self, image: Image.Image) -> Tensor:
        """`(3, height, width)`, resized by its processor's rule; one image at a time, so that nothing is padded."""
        return self.image_processor(image, pad_size=None, return_tensors="pt")["pixel_values"][0]

    def _detect(self, pixel_values: Tensor) -> list[Detections]:
        pixel_values = pixel_values.to(self.device, self.dtype)
        passes = [self._detect_text(pixel_values, ids, phrase_of) for ids, phrase_of in self.texts]
        return [Detections(*map(torch.cat, zip(*of_image, strict=True))) for of_image in zip(*passes, strict=True)]

    def _detect_text(
        self, pixel_values: Tensor, ids: Tensor, phrase_of: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Corners, scores and labels of each image's boxes, for the prompts of one text."""
        input_ids = ids.to(self.device).expand(len(pixel_values), -1)
        outputs = self.model(pixel_values, input_ids, attention_mask=torch.ones_like(input_ids))
        found = []
        for logits, boxes in zip(outputs.logits.float(), outputs.pred_boxes.float(), strict=True):
            token_scores = logits[:, : len(ids)].sigmoid()
            kept = token_scores.amax(dim=1) > self.config.min_score
            scores, labels = best_phrases(token_scores[kept], phrase_of.to(self.device))
            found.append((corners(boxes[kept]), scores, labels))
        return found


def join_phrases(
    phrases: list[list[int]], start: int, dot: int, end: int, max_length: int
) -> list[tuple[Tensor, Tensor]]:
    """Join phrases to texts "start phrase . phrase . … end", as many in one text as fit.

    Args:
        phrases (`list[list[int]]`): Token ids of each phrase.
        start, dot, end (`int`): Token ids before the first phrase, behind each, behind the last.
        max_length (`int`): Most tokens of a text; a longer phrase is cut.

    Returns:
        For each text the token ids `(length,)`, and the phrase of each token, −1 = none.
    """
    texts: list[tuple[list[int], list[int]]] = []
    for row, phrase in enumerate(phrases):
        phrase = phrase[: max_length - 3]
        if not texts or len(texts[-1][0]) + len(phrase) + 2 > max_length:
            texts.append(([start], [-1]))
        ids, phrase_of = texts[-1]
        ids += [*phrase, dot]
        phrase_of += [row] * len(phrase) + [-1]
    return [(torch.tensor([*ids, end]), torch.tensor([*phrase_of, -1])) for ids, phrase_of in texts]


def best_phrases(token_scores: Tensor, phrase_of: Tensor) -> tuple[Tensor, Tensor]:
    """Score and row of the phrase with the best mean token score, for each of `(N, length)` token scores."""
    present = phrase_of[phrase_of >= 0].unique()  # (P,)
    belongs = (phrase_of == present[:, None]).float()  # (P, length)
    best = (token_scores @ (belongs / belongs.sum(dim=1, keepdim=True)).T).max(dim=1)
    return best.values, present[best.indices]
