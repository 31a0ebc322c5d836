"""Prompts as sentences: the templates around a phrase, and the mean of their embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


def templates_called(name: str) -> list[str]:
    """The sentences around a prompt.

    Raises:
        ValueError: there are no templates of this name.
    """
    if name not in TEMPLATES:
        raise ValueError(f"`templates` must be one of {', '.join(TEMPLATES)}, got {name!r}.")
    return TEMPLATES[name]


def mean_over_templates(
    prompts: list[str], templates: list[str], encode: Callable[[list[str]], Tensor], batch_size: int = 256
) -> Tensor:
    """
    `(num_prompts, dim)`: each prompt's mean over the templates of what `encode` gives for its sentences.

    Args:
        encode (`Callable`):
            From sentences to `(num_sentences, dim)`.
        batch_size (`int`, *optional*, defaults to 256):
            Sentences that are encoded at once.
    """
    sentences = [template.format(prompt) for prompt in prompts for template in templates]
    embeds = torch.cat([encode(sentences[i : i + batch_size]) for i in range(0, len(sentences), batch_size)])
    return embeds.view(len(prompts), len(templates), -1).mean(dim=1)


def embed_sentences(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: list[str]) -> Tensor:
    """`(num_sentences, dim)` float32: `get_text_features` of a model with a CLIP-like text tower, as it gives them."""
    tokens = tokenizer(
        sentences,
        padding=True,
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    ).to(model.device)
    return model.get_text_features(**tokens).pooler_output.float()


def embed_prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], templates: list[str]
) -> Tensor:
    """`(num_prompts, dim)`: the mean over templates of unit-length sentence embeddings, made unit length."""
    means = mean_over_templates(
        prompts, templates, lambda sentences: normalize(embed_sentences(model, tokenizer, sentences), dim=-1)
    )
    return normalize(means, dim=-1)
