"""Weights of teachers: frozen, of the commit that is recorded, and never drawn at random."""

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_groupvit, save_tiny_tipsv2
from transformers import CLIPModel, Tipsv2Model

from uov_hf.teachers.checkpoints import Checkpoint


def without(folder: str, name: str) -> str:
    path = f"{folder}/model.safetensors"
    weights = load_file(path)
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no complete CLIPModel: it lacks .* weights, e.g. "):
        Checkpoint(save_tiny_groupvit(tmp_path)).load(CLIPModel)


def test_a_missing_weight_is_named(tmp_path):
    folder = without(save_tiny_tipsv2(tmp_path), "vision_encoder.norm.bias")  # the name in the published file
    with pytest.raises(ValueError, match="it lacks 1 weights, e.g. vision_model.layernorm.bias"):
        Checkpoint(folder).load(Tipsv2Model)


def test_what_published_checkpoints_leave_out_is_no_loss(tmp_path):
    """The published TIPSv2 keep their temperature in the configuration."""
    model = Checkpoint(without(save_tiny_tipsv2(tmp_path), "temperature")).load(Tipsv2Model)
    assert model.temperature.item() == pytest.approx(model.config.temperature_init_value)
