"""However a model came about, what is trainable gets a gradient, and what gets none is frozen: DDP waits for all."""

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig

from uov_hf import UOVConfig, UOVForPreTraining, UOVForSemanticSegmentation, UOVModel


SIZES = {"hidden_sizes": [8] * 8, "stem_channels": 8, "projection_dim": 12, "sparse_backend": "torch"}
TEXT_TOWER = CLIPTextConfig(
    vocab_size=60,
    projection_dim=12,
    hidden_size=16,
    intermediate_size=16,
    num_attention_heads=2,
    num_hidden_layers=1,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
)


def network() -> UOVModel:
    return with_classes(UOVModel(UOVConfig.from_preset("tiny", **SIZES, text_config=TEXT_TOWER)))


def with_classes(uov: UOVModel) -> UOVModel:
    uov.set_classes(["car", "road"], F.normalize(torch.eye(2, 12), dim=1), torch.arange(2))
    return uov


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


def supervision(model) -> dict[str, torch.Tensor]:
    """Of eight voxels: a class for each, or two superpoints."""
    if isinstance(model, UOVForSemanticSegmentation):
        return {"labels": torch.arange(8) % 2}
    return {
        "point_to_voxel": torch.arange(8),
        "pair_to_point": torch.arange(8),
        "superpoint_ids": torch.arange(8) % 2,
        "segment_embeds": F.normalize(torch.rand(2, 12), dim=1),
        "segment_labels": torch.arange(2),
        "prompt_embeds": torch.eye(2, 12),
        "prompt_groups": torch.arange(2),
        "scene_ids": torch.zeros(2, dtype=torch.long),
    }


def check_what_is_trained(model) -> None:
    coords = torch.cat([torch.zeros(8, 1), torch.randint(9, (8, 3))], dim=1).int()
    coords[:, 1] = torch.arange(8)  # no two in one voxel
    model.train()(voxel_coords=coords, voxel_features=torch.rand(8, 1), **supervision(model)).loss.backward()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trainable == reached and any("backbone" in name for name in reached)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_trainable_takes_part_in_the_loss_and_the_rest_is_frozen(name, tmp_path):
    torch.manual_seed(0)
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    check_what_is_trained(model)
    untrained = type(model)(model.config)
    with_classes(untrained.uov)  # a configuration has no embeddings of its prompts
    check_what_is_trained(untrained)
    check_what_is_trained(type(model).from_pretrained(tmp_path))


def test_a_new_text_head_trains_the_projection_that_a_linear_one_froze(tmp_path):
    segmenter("linear").save_pretrained(tmp_path)
    check_what_is_trained(UOVForSemanticSegmentation.from_backbone(UOVModel.from_pretrained(tmp_path), "text"))
    linear = UOVForSemanticSegmentation.from_pretrained(tmp_path)
    check_what_is_trained(UOVForSemanticSegmentation.from_backbone(linear.uov, "text"))
