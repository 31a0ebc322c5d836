"""SAM 3 with words: each image is encoded once and decoded for each prompt."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Sam3Model
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from uov_hf.teachers.config import batch_size, share
from uov_hf.teachers.images import in_batches
from uov_hf.teachers.mask_teacher import PooledMaskConfig, PooledMaskTeacher
from uov_hf.teachers.masks import Proposals


MAX_TOKENS = 32  # of a phrase; SAM 3's processor pads to this length


@dataclass(frozen=True, kw_only=True)
class Sam3Config(PooledMaskConfig):
    """Settings of `Sam3Teacher`; see `PooledMaskConfig` for the others.

    Args:
        min_score (`float`, *optional*, defaults to 0.3):
            Masks with a lower score are dropped; the default is that of `transformers`.
        phrases_at_once (`int`, *optional*, defaults to 8):
            Prompts in one batch of the decoder; predictions do not depend on it.
    """

    min_score: float = share(0.3)
    phrases_at_once: int = batch_size(8)


@dataclass(frozen=True)
class Phrases:
    """Some consecutive prompts as text features."""

    start: int  # row of the first prompt
    features: Tensor  # (P, tokens, dim): outputs of the text tower
    mask: Tensor  # (P, tokens): attention mask


class Sam3Teacher(PooledMaskTeacher):
    """Every instance of every prompt that SAM 3 finds (Carion et al., "SAM 3: Segment Anything with Concepts", 2025).

    A mask's label is the prompt that found it. Its score is the probability that the prompt is in the image, times the
    probability that the query shows it. SAM 3's queries depend on the phrase, so embeddings come from the second
    model. `Sam3Config` has the settings.
    """

    name = "sam3"
    example = "facebook/sam3"
    config_class = Sam3Config
    config: Sam3Config

    def load(self) -> None:
        super().load()
        checkpoint = self.checkpoint()
        self.model: Any = checkpoint.load(Sam3Model)
        self.transform = checkpoint.load_transform()
        tokenizer, at_once = checkpoint.load_tokenizer(), self.config.phrases_at_once
        self.phrases = [self._read(tokenizer, start) for start in range(0, len(self.prompts), at_once)]

    @torch.inference_mode()
    def _read(self, tokenizer: PreTrainedTokenizerBase, start: int) -> Phrases:
        tokens = tokenizer(
            self.prompts[start : start + self.config.phrases_at_once],
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        features = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
        return Phrases(start, features, tokens["attention_mask"])

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`, proportions not kept, as in training."""
        return self.transform(image, (self.model.config.image_size,) * 2)

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        return in_batches(self._propose, [self.pixels(image) for image in images], self.config.mask_batch_size)

    def _propose(self, pixel_values: Tensor) -> list[Proposals]:
        encoded = self.model.get_vision_features(pixel_values.to(self.device, self.dtype))
        return [
            Proposals.cat([self._find(one_image(encoded, row, len(some.mask)), some) for some in self.phrases])
            for row in range(len(pixel_values))
        ]

    def _find(self, encoded: Sam3VisionEncoderOutput, phrases: Phrases) -> Proposals:
        """The instances of some prompts."""
        # transformers 5.23 reads `.pooler_output` of its `text_embeds`: a tensor would fail.
        outputs = self.model(
            vision_embeds=encoded,
            text_embeds=BaseModelOutputWithPooling(pooler_output=phrases.features),
            attention_mask=phrases.mask,
        )
        scores = outputs.pred_logits.float().sigmoid() * outputs.presence_logits.float().sigmoid()  # (P, Q)
        rows, queries = (scores > self.config.min_score).nonzero(as_tuple=True)
        # SAM 3's processor upsamples probabilities, not logits, and cuts them at one half.
        masks = outputs.pred_masks[rows, queries].float().sigmoid() - 0.5
        return Proposals(masks, scores[rows, queries], rows + phrases.start)


def one_image(encoded: Sam3VisionEncoderOutput, row: int, times: int) -> Sam3VisionEncoderOutput:
    """One image of an encoded batch, repeated for each phrase without copying."""
    maps: dict[str, Any] = {
        name: tuple(level[row : row + 1].expand(times, -1, -1, -1) for level in getattr(encoded, name))
        for name in ("fpn_hidden_states", "fpn_position_encoding")
    }
    return Sam3VisionEncoderOutput(**maps)
