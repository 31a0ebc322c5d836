"""Colours of words: those of the vocabularies where they have the word."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.pictures.scan_colors import distinct_colors
from uov_hf.results.classes import plain
from uov_hf.vocabulary import available_vocabularies, load_vocabulary


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """An RGB colour for each word, `(C, 3)` uint8.

    Words of the built-in vocabularies have the colour of their class, so that cars are orange in every picture. Other
    words, and a second word of one class, get distinct hues.
    """
    colors, others = [], distinct_colors(len(class_names)).tolist()
    for name, other in zip(class_names, others, strict=True):
        color = _vocabulary_colors().get(plain(name))
        colors.append(other if color is None or color in colors else color)
    return np.array(colors, np.uint8).reshape(-1, 3)


@cache
def _vocabulary_colors() -> dict[str, list[int]]:
    """Colours of the classes of all vocabularies, then of their prompts."""
    vocabularies = [load_vocabulary(name) for name in ("nuscenes", *available_vocabularies())]
    named = [pair for words in vocabularies for pair in zip(words.class_names, words.colors.tolist(), strict=True)]
    for words in vocabularies:
        classes = zip(words.prompts, words.prompt_to_class.tolist(), strict=True)
        named += [(prompt, words.colors[row].tolist()) for prompt, row in classes if row != IGNORED]
    return {plain(name): color for name, color in reversed(named)}
