"""Grounding DINO's boxes with SAM 2's masks, embedded by the second model."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, GroundingDinoForObjectDetection
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

from uov_hf.teachers.boxes import BoxTeacher, Detections, corners
from uov_hf.teachers.images import in_batches
from uov_hf.teachers.mask_teacher import PooledMaskTeacher
from uov_hf.teachers.weights import commit_of, load_frozen, require_model


class GroundingDinoTeacher(BoxTeacher, PooledMaskTeacher):
    """
    Grounding DINO reads one text, "car. person. …", and says of each of its boxes how much it is of each token (Liu et
    al., "Grounding DINO", ECCV 2024). A box scores for a prompt what it scores for its tokens in the mean, as in the
    authors' evaluation on COCO. Prompts that do not fit into one text are read in several passes.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        min_score (`float`, *optional*, defaults to 0.25):
            Boxes with a lower score are left out; the default is that of `transformers`.
        others:
            See `BoxTeacher` and `PooledMaskTeacher`.
    """

    name = "grounding_dino"

    def __init__(self, prompts: list[str], *, min_score: float = 0.25, **shared: Any):
        super().__init__(prompts, min_score=min_score, **shared)
        source = require_model(
            self.name, "model_name_or_path", self.model_name_or_path, "IDEA-Research/grounding-dino-base"
        )
        self.revision = commit_of(source, self.revision)
        self.model = load_frozen(GroundingDinoForObjectDetection, source, self.revision, self.device, self.dtype)
        self.image_processor = GroundingDinoImageProcessorPil.from_pretrained(source, revision=self.revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=self.revision)
        # "." and "?" part the phrases of a text, so that none may have one inside.
        phrases = [prompt.lower().replace(".", " ").replace("?", " ") for prompt in self.prompts]
        tokens = [tokenizer(phrase, add_special_tokens=False)["input_ids"] for phrase in phrases]
        start, dot, end = tokenizer.cls_token_id, tokenizer.convert_tokens_to_ids("."), tokenizer.sep_token_id
        self.texts = join_phrases(tokens, start, dot, end, self.model.config.max_text_len)

    def detect(self, images: list[Image.Image]) -> list[Detections]:
        return in_batches(self._detect, [self._pixels(image) for image in images], self.mask_batch_size)

    def _pixels(self, image: Image.Image) -> Tensor:
        """`(3, height, width)`: resized by the rule of its processor; alone, so that nothing is padded"""
        return self.image_processor(image, pad_size=None, return_tensors="pt")["pixel_values"][0]

    def _detect(self, pixel_values: Tensor) -> list[Detections]:
        pixel_values = pixel_values.to(self.device, self.dtype)
        passes = [self._detect_text(pixel_values, ids, phrase_of) for ids, phrase_of in self.texts]
        return [
            Detections(*(torch.cat(part) for part in zip(*of_one, strict=True)))
            for of_one in zip(*passes, strict=True)
        ]

    def _detect_text(
        self, pixel_values: Tensor, ids: Tensor, phrase_of: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each image corners, scores and labels of its boxes, of the prompts of one text"""
        input_ids = ids.to(self.device).expand(len(pixel_values), -1)
        outputs = self.model(pixel_values, input_ids, attention_mask=torch.ones_like(input_ids))
        found = []
        for logits, boxes in zip(outputs.logits.float(), outputs.pred_boxes.float(), strict=True):
            scores, labels = best_phrases(logits[:, : len(ids)].sigmoid(), phrase_of.to(self.device))
            found.append((corners(boxes), scores, labels))
        return found


def join_phrases(
    phrases: list[list[int]], start: int, dot: int, end: int, max_length: int
) -> list[tuple[Tensor, Tensor]]:
    """
    Texts "start phrase . phrase . … end" of as many phrases as fit.

    Args:
        phrases (`list[list[int]]`):
            Token ids of each.
        start, dot, end (`int`):
            Token ids of what stands before the first, behind each, behind the last.
        max_length (`int`):
            Tokens of a text at most; what is longer alone is cut.

    Returns:
        Of each text the token ids `(length,)`, and which phrase each token is of, −1 = of none.
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
    """Score and row of the phrase whose tokens score best in the mean, of each of `(N, length)` token scores."""
    present = phrase_of[phrase_of >= 0].unique()  # (P,)
    belongs = (phrase_of == present[:, None]).float()  # (P, length)
    best = (token_scores @ (belongs / belongs.sum(dim=1, keepdim=True)).T).max(dim=1)
    return best.values, present[best.indices]
