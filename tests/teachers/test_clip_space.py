"""A CLIP-space model by its type, and teachers that take the embeddings of their segments from it."""

import numpy as np
import pytest
from tiny_models import save_tiny_groupvit, save_tiny_tipsv2, saved

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.second_space import load_clip_space


def test_the_type_of_the_model_decides(tiny_clip, models):
    assert type(load_clip_space(Checkpoint(tiny_clip))).__name__ == "CLIPSpace"
    tipsv2 = load_clip_space(Checkpoint(saved(save_tiny_tipsv2, models)))
    assert type(tipsv2).__name__ == "TIPSv2Space" and tipsv2.embed_dim == 32


def test_a_model_of_another_type_is_refused(models):
    with pytest.raises(ValueError, match="of type 'groupvit', whose patches and words do not share a space.*clip"):
        load_clip_space(Checkpoint(saved(save_tiny_groupvit, models)))


def test_the_second_model_is_in_the_settings(load, tiny_clip):
    teacher = load("clipseg", embed_window=32, templates="none")
    assert teacher.settings == {
        "short_side": 64,
        "window": 64,
        "min_score": 0.0,
        "embed_model_name_or_path": tiny_clip,
        "embed_revision": None,
        "embed_settings": {
            "short_side": 64,
            "window": 32,
            "templates": ["{}"],
            "dtype": "float32",
            "value_path": "maskclip",
        },
    }
    assert teacher.embed_dim == 32
    np.testing.assert_array_equal(teacher.encode_prompts(["car"]), teacher.space.encode_prompts(["car"]).numpy())
