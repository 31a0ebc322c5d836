"""Weights of teachers: frozen, of the commit that is recorded, never drawn at random, and without code."""

import json

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_groupvit, save_tiny_tipsv2
from transformers import CLIPModel, Tipsv2Model

from uov_hf import UOVFeatureExtractor, UOVProcessor
from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.second_space import load_clip_space
from uov_hf.teachers.segmenter import load_image_processor
from uov_hf.teachers.semantic import SemanticTeacher
from uov_hf.vocabulary import load_vocabulary


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


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: SemanticTeacher.fit_vocabulary(load_vocabulary("nuscenes"), folder),
        lambda folder: load_clip_space(Checkpoint(folder)),
        lambda folder: load_image_processor(Checkpoint(folder), "own"),
        lambda folder: Checkpoint(folder).load_tokenizer(),
        lambda folder: UOVProcessor.from_teacher(UOVFeatureExtractor(), folder),
    ],
    ids=["labels", "second model", "image processor", "tokenizer", "processor"],
)
def test_code_in_the_repository_of_a_model_is_refused_without_a_prompt(tmp_path, monkeypatch, read):
    """By default transformers prompts for leave to run it, also in the middle of a batch job."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    auto_map = {"AutoConfig": "own.Own", "AutoImageProcessor": "own.Own", "AutoTokenizer": ["own.Own", None]}
    for name in ("config", "preprocessor_config", "tokenizer_config"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"model_type": "own", "auto_map": auto_map}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match="contains custom code"):
        read(str(tmp_path))
    assert not (tmp_path / "ran").exists()
