"""A configuration is the paper's by default, survives JSON, and refuses invalid fields."""

import dataclasses
import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, CLIPTextConfig

from uov_hf import UOVConfig


CLIP_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}


def test_the_defaults_are_the_papers():
    config = UOVConfig()
    assert config.hidden_sizes == [32, 64, 128, 256, 256, 128, 96, 96]
    assert config.depths == [2, 3, 4, 6, 2, 2, 2, 2]
    assert (config.in_channels, config.stem_channels, config.projection_dim) == (1, 32, 768)
    assert (config.temperature, config.image_loss_weight, config.text_loss_weight) == (0.07, 0.5, 0.5)
    assert config.hard_text_weight == 0.2 and config.negatives == "scene"
    assert config.to_dict() == UOVConfig.from_preset("minkunet34").to_dict()


def test_a_configuration_equals_the_one_read_back(tmp_path):
    config = UOVConfig.from_preset(
        "tiny",
        text_config=CLIPTextConfig(projection_dim=64, **CLIP_TEXT),
        text_tower_source="some/clip",
        teacher="some/clip",
        prompts=("car", "road"),
        id2label={0: "car", 1: "flat"},
        negatives="global",
    )
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert set(written) <= {field.name for field in dataclasses.fields(UOVConfig)} | {"model_type"}
    assert type(AutoConfig.from_pretrained(tmp_path)) is UOVConfig
    read = UOVConfig.from_pretrained(tmp_path)
    assert read.to_dict() == config.to_dict()
    assert read.id2label == {0: "car", 1: "flat"} and read.label2id == {"car": 0, "flat": 1}
    assert isinstance(read.text_config, CLIPTextConfig)


def test_a_model_has_no_classes_until_some_are_set():
    assert UOVConfig().id2label == {} and UOVConfig(num_labels=3).num_labels == 3


def test_a_misspelt_field_or_preset_is_refused_with_the_right_ones():
    with pytest.raises(ValueError, match="no field `negative`. Did you mean `negatives`"):
        UOVConfig.from_preset("tiny", negative="batch")
    with pytest.raises(ValueError, match=r"\['minkunet34', 'tiny'\], got 'small'"):
        UOVConfig.from_preset("small")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_sizes": [16, 32]}, "`hidden_sizes` must be 8 positive numbers"),
        ({"depths": [1, 1, 1, 1, 1, 1, 1, 0]}, "`depths` must be 8 positive numbers"),
        ({"depths": [2**31, *[1] * 7]}, "`depths` must be at most 100"),
        (
            {"text_config": CLIP_TEXT | {"projection_dim": 768, "num_hidden_layers": 101}},
            "layers` must be at most 100",
        ),
        ({"in_channels": 0}, "`in_channels` must be positive, got 0"),
        ({"stem_kernel_size": 4}, "`stem_kernel_size` must be 3 or 5"),
        ({"batch_norm_momentum": 1.5}, "`batch_norm_momentum` must lie between 0 and 1"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"text_loss_weight": -1.0}, "`text_loss_weight` must not be negative"),
        ({"hard_text_weight": 2}, "`hard_text_weight` must lie between 0 and 1"),
        ({"negatives": "node"}, "'scene', 'batch', 'global'"),
        ({"sparse_backend": "minkowski"}, "'auto', 'spconv', 'spconv_triton', 'torch'"),
        ({"text_config": {"projection_dim": 512, **CLIP_TEXT}}, "words and points must share one space"),
        ({"id2label": {0: "car", 2: "road"}}, "from 0 without a gap"),
        ({"id2label": {0: "car", 1: "road"}, "ignored_index": 1}, "`ignored_index` 1 must not be one of the 2 class"),
        ({"format_version": 2}, "Install a newer uov_hf"),
    ],
)
def test_an_invalid_field_is_refused_with_its_name(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        UOVConfig(**fields)


def test_a_configuration_made_invalid_is_not_saved(tmp_path):
    config = UOVConfig.from_preset("tiny")
    config.temperature = -1.0
    with pytest.raises(StrictDataclassError, match="`temperature` must be positive"):
        config.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("tower", "teacher", "usable"), [("a/clip", "a/clip", True), ("a/clip", "b/clip", False), ("a/clip", None, False)]
)
def test_a_text_tower_is_used_only_where_it_is_the_teachers(tower, teacher, usable):
    text_config = CLIPTextConfig(projection_dim=64, **CLIP_TEXT)
    config = UOVConfig.from_preset("tiny", text_config=text_config, text_tower_source=tower, teacher=teacher)
    assert config.has_teachers_text_tower is usable
    assert not UOVConfig.from_preset("tiny", text_tower_source=tower, teacher=teacher).has_teachers_text_tower


def test_classes_come_back_in_the_order_of_their_ids(tmp_path):
    names = [f"class {index}" for index in range(12)]
    UOVConfig(id2label=dict(enumerate(names))).save_pretrained(tmp_path)
    assert list(UOVConfig.from_pretrained(tmp_path).id2label.values()) == names
