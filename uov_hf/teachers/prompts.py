"""Prompts as sentences: templates around a phrase, and the mean of their embeddings."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase


# "vild" has the 14 templates of ViLD (Gu et al., 2022), as SAN and FC-CLIP do.
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


BATCH_SIZE = 256  # sentences


def mean_over_templates(prompts: list[str], templates: list[str], encode: Callable[[list[str]], Tensor]) -> Tensor:
    """Mean over the templates of each prompt's sentence embeddings, `(num_prompts, dim)`.

    Args:
        prompts (`list[str]`): Phrases.
        templates (`list[str]`): Sentences with `{}` in place of the phrase.
        encode (`Callable`): From sentences to `(num_sentences, dim)`.
    """
    sentences = [template.format(prompt) for prompt in prompts for template in templates]
    embeds = torch.cat([encode(sentences[i : i + BATCH_SIZE]) for i in range(0, len(sentences), BATCH_SIZE)])
    return embeds.view(len(prompts), len(templates), -1).mean(dim=1)


def embed_sentences(model: Any, tokenizer: PreTrainedTokenizerBase, sentences: list[str]) -> Tensor:
    """Embeddings `(num_sentences, dim)` float32 of any length, by any model with a CLIP-like text tower."""
    tokens = tokenizer(
        sentences,
        padding=True,
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    ).to(model.device)
    return model.get_text_features(**tokens).pooler_output.float()


@torch.inference_mode()
def embed_prompts(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[str], templates: list[str]) -> Tensor:
    """`(num_prompts, dim)`: the mean over templates of unit-length sentence embeddings, made unit length."""
    means = mean_over_templates(
        prompts, templates, lambda sentences: normalize(embed_sentences(model, tokenizer, sentences), dim=-1)
    )
    return normalize(means, dim=-1)
