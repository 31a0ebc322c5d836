"""A CLIP-space model by its name, and teachers that take the embeddings of their segments from one."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_groupvit, save_tiny_tipsv2
from torch.nn.functional import interpolate, normalize

from uov_hf.teachers.clip_space import SecondSpaceTeacher, load_clip_space


class FourQuartersTeacher(SecondSpaceTeacher):
    """Four segments of equal size, all called by the first prompt."""

    name = "quarters"

    def segment(self, frame: dict[str, Any]) -> list:
        raise NotImplementedError


def test_the_type_of_the_model_decides(tiny_clip, tmp_path):
    assert type(load_clip_space(tiny_clip, short_side=64)).__name__ == "CLIPSpace"
    tipsv2 = load_clip_space(save_tiny_tipsv2(tmp_path), short_side=64)
    assert type(tipsv2).__name__ == "TIPSv2Space" and tipsv2.embed_dim == 32


def test_a_model_of_another_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="of type 'groupvit', whose patches and words do not share a space; .*clip"):
        load_clip_space(save_tiny_groupvit(tmp_path))


def test_answers_are_unit_length_and_float32_in_any_precision(tiny_clip, pictures):
    space = load_clip_space(tiny_clip, dtype=torch.bfloat16, short_side=64)
    vectors = [space.encode_prompts(["car", "road"]), *(f.flatten(1).T for f in space.dense_features(pictures))]
    for embeds in vectors:
        assert embeds.dtype == torch.float32 and embeds.shape[1] == space.embed_dim
        torch.testing.assert_close(embeds.norm(dim=1), torch.ones(len(embeds)))
    assert space.settings["dtype"] == "bfloat16"


def test_classify_says_the_best_prompt_and_its_probability(tiny_clip):
    space = load_clip_space(tiny_clip, short_side=64)
    prompt_embeds = torch.eye(3, 64)
    labels, scores = space.classify(prompt_embeds[[2, 0]], prompt_embeds)
    assert labels.tolist() == [2, 0]
    expected = 1 / (1 + 2 * np.exp(-space.logit_scale))
    np.testing.assert_allclose(scores.numpy(), [expected, expected], rtol=1e-5)


def test_segments_are_embedded_by_what_the_second_model_sees_and_never_by_their_label(tiny_clip, pictures):
    teacher = FourQuartersTeacher(
        ["car", "road"], embed_model_name_or_path=tiny_clip, embed_short_side=64, templates="photo"
    )
    height, width = pictures[0].height, pictures[0].width
    rows, columns = torch.meshgrid(
        torch.arange(height) >= height // 2, torch.arange(width) >= width // 2, indexing="ij"
    )
    quarters = 1 + 2 * rows + columns
    [embeds] = teacher.embed_segments(pictures[:1], [quarters], [4])
    [features] = teacher.space.dense_features(pictures[:1])
    dense = interpolate(features[None], size=(height, width), mode="bilinear")[0]
    wanted = torch.stack([normalize(dense[:, quarters == quarter].sum(dim=1), dim=0) for quarter in (1, 2, 3, 4)])
    torch.testing.assert_close(embeds, wanted, atol=1e-5, rtol=0)
    assert teacher.embed_dim == 32 and teacher.encode_prompts(["car"]).shape == (1, 32)


def test_the_second_model_is_in_the_settings(tiny_clip):
    teacher = FourQuartersTeacher(["car"], embed_model_name_or_path=tiny_clip, embed_window=32, templates="none")
    assert teacher.settings == {
        "embed_model_name_or_path": tiny_clip,
        "embed_revision": None,
        "embed_settings": {"short_side": 448, "window": 32, "templates": ["{}"], "dtype": "float32"},
    }


def test_a_second_model_must_be_named():
    with pytest.raises(ValueError, match="`quarters` needs `embed_model_name_or_path`, the id or folder of a model"):
        FourQuartersTeacher(["car"])
