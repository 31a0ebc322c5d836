"""Untrained networks in the text space of a label set, with its words."""

from typing import Any

import torch
from accelerate.logging import get_logger
from transformers import CLIPModel, CLIPTextModelWithProjection

from uov_hf.configuration_uov import UOVConfig
from uov_hf.feature_extraction_uov import UOVFeatureExtractor
from uov_hf.labels import LabelSet
from uov_hf.modeling_uov import UOVModel
from uov_hf.processing_uov import UOVProcessor
from uov_hf.teachers.checkpoints import Checkpoint


logger = get_logger(__name__)


def make_config(preset: str, label_set: LabelSet, **fields: Any) -> UOVConfig:
    """The configuration of a preset in the space of the label set's teacher, with further `fields`.

    Raises:
        ValueError: the label set has no embeddings.
    """
    label_set.check_has_embeds()
    return UOVConfig.from_preset(preset, projection_dim=label_set.embed_dim, teacher=label_set.teacher_id, **fields)


def give_words(uov: UOVModel, label_set: LabelSet, feature_extractor: UOVFeatureExtractor) -> UOVProcessor:
    """Give a network the label set's words, with text tower and tokenizer if their space is a CLIP's.

    Returns:
        The processor of the network.
    """
    prompt_embeds, prompt_to_class = map(torch.from_numpy, (label_set.prompt_embeds, label_set.prompt_to_class))
    uov.set_classes(label_set.class_names, prompt_embeds, prompt_to_class, label_set.prompts)
    source, revision = label_set.text_model
    try:
        if source is not None and Checkpoint(source, revision).load_config().model_type == "clip":
            processor = UOVProcessor.from_teacher(feature_extractor, source, revision)
            uov.set_text_tower(load_text_tower(source, revision), source=label_set.teacher_id)
            return processor
    except OSError as error:
        logger.warning(f"Cannot load the teacher {source}; the model will accept only the label set's words. {error}")
    return UOVProcessor.from_teacher(feature_extractor)


def load_text_tower(model_name_or_path: str, revision: str | None) -> CLIPTextModelWithProjection:
    """The text tower of a CLIP, with its projection."""
    clip = CLIPModel.from_pretrained(model_name_or_path, revision=revision or "main")
    config = clip.text_model.config
    config.projection_dim = clip.config.projection_dim  # the text config's own is not always kept up
    tower = CLIPTextModelWithProjection(config)
    tower.text_model, tower.text_projection = clip.text_model, clip.text_projection
    return tower
