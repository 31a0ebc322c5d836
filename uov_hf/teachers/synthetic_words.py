"""The embedding space of the synthetic teacher: synonyms lie near each other, classes of one kind less near."""

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.vocabulary import Vocabulary


EMBED_DIM = 64

# Classes of one kind share a direction of the space; a class, a group of prompts and a prompt add directions.
KINDS = (
    ("bus", "car", "construction_vehicle", "trailer", "truck"),
    ("bicycle", "motorcycle", "pedestrian"),
    ("barrier", "traffic_cone"),
    ("driveable_surface", "other_flat", "sidewalk", "terrain"),
    ("manmade", "vegetation"),
)
KIND_SHARE, CLASS_SHARE, GROUP_SHARE, PROMPT_SHARE = 0.25, 0.4, 0.15, 0.2  # of the squared length


def embed_vocabulary(vocabulary: Vocabulary) -> np.ndarray:
    """Unit-length float32 embeddings `(num_prompts, 64)` of all prompts.

    A prompt's embedding is √0.25 · kind + √0.4 · class + √0.15 · group + √0.2 · prompt. Kinds and classes are
    orthonormal, groups and prompts random: the expected cosine is 0.8 within a group, 0.65 within a class, 0.25 within
    a kind, else 0.
    For background prompts, the group takes the place of the class.
    """
    rng = np.random.default_rng(64)
    directions = np.linalg.qr(rng.standard_normal((EMBED_DIM, EMBED_DIM)))[0]
    background = len(vocabulary.class_names)
    kind_of_class = {vocabulary.class_names.index(name): kind for kind, names in enumerate(KINDS) for name in names}
    kinds = np.array([kind_of_class.get(int(label), len(KINDS)) for label in vocabulary.prompt_to_class])
    first_group = np.unique(vocabulary.prompt_groups[vocabulary.prompt_to_class == IGNORED], return_inverse=True)
    classes = np.minimum(vocabulary.prompt_to_class, background)
    classes[vocabulary.prompt_to_class == IGNORED] += first_group[1]
    groups = unit_length(rng.standard_normal((int(vocabulary.prompt_groups.max()) + 1, EMBED_DIM)))
    own = unit_length(rng.standard_normal((len(vocabulary.prompts), EMBED_DIM)))
    embeds = (
        np.sqrt(KIND_SHARE) * directions[kinds]
        + np.sqrt(CLASS_SHARE) * directions[len(KINDS) + 1 + classes]
        + np.sqrt(GROUP_SHARE) * groups[vocabulary.prompt_groups]
        + np.sqrt(PROMPT_SHARE) * own
    )
    return unit_length(embeds).astype(np.float32)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors `(..., D)` by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
