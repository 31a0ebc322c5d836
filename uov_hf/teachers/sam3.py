"""SAM 3 with words: each image is seen once, and each prompt is asked for in it."""

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, Sam3Model
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from uov_hf.teachers.images import PixelTransform, in_batches
from uov_hf.teachers.mask_teacher import PooledMaskTeacher
from uov_hf.teachers.masks import Proposals
from uov_hf.teachers.settings import check_counts, check_shares
from uov_hf.teachers.weights import commit_of, load_frozen, require_model


MAX_TOKENS = 32  # of a phrase, as SAM 3's processor pads it


class Sam3Teacher(PooledMaskTeacher):
    """
    Every instance of every prompt that SAM 3 finds (Carion et al., "SAM 3: Segment Anything with Concepts", 2025): a
    mask is called by the prompt that found it, and scores the probability that the prompt is in the image at all times
    that the query is of it. Its queries are conditioned on the phrase, so that its embeddings are those of the second
    model.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        min_score (`float`, *optional*, defaults to 0.3):
            Masks with a lower score are left out; the default is that of `transformers`.
        phrases_at_once (`int`, *optional*, defaults to 8):
            Prompts that go through the decoder at once. Answers do not depend on it.
        others:
            See `PooledMaskTeacher`.
    """

    name = "sam3"

    def __init__(self, prompts: list[str], *, min_score: float = 0.3, phrases_at_once: int = 8, **shared: Any):
        super().__init__(prompts, **shared)
        check_shares(min_score=min_score)
        check_counts(phrases_at_once=phrases_at_once)
        self.min_score, self.phrases_at_once = min_score, phrases_at_once
        self.mask_settings |= {"min_score": min_score}
        source = require_model(self.name, "model_name_or_path", self.model_name_or_path, "facebook/sam3")
        self.revision = commit_of(source, self.revision)
        self.model = load_frozen(Sam3Model, source, self.revision, self.device, self.dtype)
        self.transform = PixelTransform.from_pretrained(source, self.revision)
        self.phrases = list(self._read(AutoTokenizer.from_pretrained(source, revision=self.revision)))

    @torch.inference_mode()
    def _read(self, tokenizer) -> Iterator[tuple[Tensor, Tensor]]:
        """Text features `(P, tokens, dim)` and attention mask `(P, tokens)` of some prompts after the other"""
        for start in range(0, len(self.prompts), self.phrases_at_once):
            tokens = tokenizer(
                self.prompts[start : start + self.phrases_at_once],
                padding="max_length",
                max_length=MAX_TOKENS,
                truncation=True,
                return_tensors="pt",
            ).to(self.device)
            features = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
            yield features, tokens["attention_mask"]

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`, proportions not kept, as the model was trained"""
        return self.transform(image, (self.model.config.image_size,) * 2)

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        return in_batches(self._propose, [self.pixels(image) for image in images], self.mask_batch_size)

    def _propose(self, pixel_values: Tensor) -> list[Proposals]:
        seen = self.model.get_vision_features(pixel_values.to(self.device, self.dtype))
        return [
            Proposals.cat(
                [
                    self._find(one_image(seen, row, len(features)), features, mask, start)
                    for start, (features, mask) in zip(self._starts, self.phrases, strict=True)
                ]
            )
            for row in range(len(pixel_values))
        ]

    @property
    def _starts(self) -> range:
        return range(0, len(self.prompts), self.phrases_at_once)

    def _find(self, seen: Sam3VisionEncoderOutput, features: Tensor, mask: Tensor, start: int) -> Proposals:
        """The instances of some prompts, the first of which is in row `start`"""
        # transformers 5.23 reads `.pooler_output` of what it calls an embedding: a tensor would fail.
        outputs = self.model(
            vision_embeds=seen, text_embeds=BaseModelOutputWithPooling(pooler_output=features), attention_mask=mask
        )
        scores = outputs.pred_logits.float().sigmoid() * outputs.presence_logits.float().sigmoid()  # (P, Q)
        rows, queries = (scores > self.min_score).nonzero(as_tuple=True)
        # Its processor upsamples probabilities and cuts them at one half.
        masks = outputs.pred_masks[rows, queries].float().sigmoid() - 0.5
        return Proposals(masks, scores[rows, queries], rows + start)


def one_image(seen: Sam3VisionEncoderOutput, row: int, times: int) -> Sam3VisionEncoderOutput:
    """What was seen in one image of a batch, given out as often as there are phrases; nothing is copied."""
    maps = {
        name: tuple(level[row : row + 1].expand(times, -1, -1, -1) for level in getattr(seen, name))
        for name in ("fpn_hidden_states", "fpn_position_encoding")
    }
    return Sam3VisionEncoderOutput(**maps)
