"""However a model came about, what is trainable gets a gradient, and what gets none is frozen: DDP waits for all."""

import pytest
import torch
from small_models import CLASSES, PROMPT_TO_CLASS, PROMPTS, small_batch, small_network, unit
from transformers import CLIPTextConfig

from uov_hf import UOVForPreTraining, UOVForSemanticSegmentation, UOVModel


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
TOKENS = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def network() -> UOVModel:
    return small_network(text_config=CLIPTextConfig(projection_dim=12, **SIZES, **TOKENS))


def pre_training() -> UOVForPreTraining:
    model = UOVForPreTraining(network().config)
    model.uov = network()
    return model


def segmenter(head: str) -> UOVForSemanticSegmentation:
    return UOVForSemanticSegmentation.from_backbone(network(), head)


MODELS = {
    "pre-training": pre_training,
    "linear head": lambda: segmenter("linear"),
    "text head": lambda: segmenter("text"),
}
LABELS = {"labels": torch.arange(70) % 3}
SUPERPOINTS = {
    "pair_to_point": torch.arange(70),
    "superpoint_ids": torch.arange(70) % 2,
    "segment_embeds": torch.eye(2, 12),
    "segment_labels": torch.arange(2),
    "prompt_embeds": torch.eye(5, 12),
    "prompt_groups": torch.arange(5),
    "scene_ids": torch.zeros(2, dtype=torch.long),
}


def check_what_is_trained(model) -> None:
    supervision = LABELS if isinstance(model, UOVForSemanticSegmentation) else SUPERPOINTS
    model.train()(**small_batch(), **supervision).loss.backward()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trainable == reached and any("backbone" in name for name in reached)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_trainable_takes_part_in_the_loss_and_the_rest_is_frozen(name, tmp_path):
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    check_what_is_trained(model)
    untrained = type(model)(model.config)
    # A configuration has no embeddings of its prompts.
    untrained.uov.set_classes(CLASSES, unit(5, 12), PROMPT_TO_CLASS, PROMPTS)
    check_what_is_trained(untrained)
    check_what_is_trained(type(model).from_pretrained(tmp_path))


def test_a_new_text_head_trains_the_projection_that_a_linear_one_froze(tmp_path):
    segmenter("linear").save_pretrained(tmp_path)
    check_what_is_trained(UOVForSemanticSegmentation.from_backbone(UOVModel.from_pretrained(tmp_path), "text"))
    linear = UOVForSemanticSegmentation.from_pretrained(tmp_path)
    check_what_is_trained(UOVForSemanticSegmentation.from_backbone(linear.uov, "text"))
