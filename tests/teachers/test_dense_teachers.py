"""`clip` and `tipsv2`: segments, embeddings and scores against the dense computation, on tiny random models."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from tiny_models import PROMPTS, labels_of_pixels, upsampled
from torch.nn.functional import normalize


@pytest.fixture(params=["clip", "tipsv2"])
def teacher(request, load):
    return load(request.param)


@pytest.mark.parametrize("value_path", ["maskclip", "values"])
def test_clip_features_take_the_value_path_of_the_last_block(load, value_path):
    """Against MaskCLIP's formula in float64: v = attention's values, v += x, v = v + MLP(LN(v))."""
    teacher, pixels = load("clip", value_path=value_path), torch.randn(2, 3, 64, 64)
    model = deepcopy(teacher.space.model).double()
    vision, block = model.vision_model, model.vision_model.encoder.layers[-1]
    with torch.no_grad():
        x = vision(pixels.double(), output_hidden_states=True).hidden_states[-2]  # (2, 17, 32)
        v = by(block.self_attn.out_proj, by(block.self_attn.v_proj, standardized(block.layer_norm1, x)))
        if value_path == "maskclip":
            v = v + x
            hidden = by(block.mlp.fc1, standardized(block.layer_norm2, v))
            v = v + by(block.mlp.fc2, hidden * torch.sigmoid(1.702 * hidden))  # CLIP's approximation of GELU
        wanted = by(model.visual_projection, standardized(vision.post_layernorm, v))[:, 1:]
        torch.testing.assert_close(teacher.space.patch_embeds(pixels).double(), wanted, atol=1e-5, rtol=1e-4)
    assert teacher.settings["value_path"] == value_path


def by(linear: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oi,bni->bno", linear.weight, x) + (0 if linear.bias is None else linear.bias)


def standardized(norm: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def test_tipsv2_features_are_the_patch_tokens_without_class_and_register_tokens(load):
    space, pixels = load("tipsv2").space, torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        tokens = space.model.get_image_features(pixels).last_hidden_state
        torch.testing.assert_close(space.patch_embeds(pixels), tokens[:, -16:])
    assert tokens.shape[1] == 1 + 1 + 16


def test_tipsv2_reads_prompts_as_its_processor_pads_them(load):
    teacher = load("tipsv2", templates="none")
    tokens = teacher.space.tokenizer(PROMPTS[0], padding="max_length", max_length=64, return_tensors="pt")
    with torch.no_grad():
        wanted = normalize(teacher.space.model.get_text_features(**tokens).pooler_output, dim=-1)
    np.testing.assert_allclose(teacher.encode_prompts(PROMPTS)[:1], wanted.numpy(), atol=1e-5)


def test_a_prompt_is_the_mean_of_its_templates(load):
    teacher = load("clip", templates="vild")
    embeds = []
    for template in teacher.settings["templates"]:
        tokens = teacher.space.tokenizer(template.format(PROMPTS[1]), return_tensors="pt")
        embeds.append(normalize(teacher.space.model.get_text_features(**tokens).pooler_output, dim=-1))
    wanted = normalize(torch.cat(embeds).mean(dim=0), dim=0)
    assert len(embeds) == 14
    np.testing.assert_allclose(teacher.encode_prompts(PROMPTS)[1], wanted.numpy(), atol=1e-6)


def test_every_pixel_goes_to_its_best_prompt(teacher, frame, scaled):
    """Labels and scores of all three images, against full-size logit and feature maps."""
    for segments, picture in zip(teacher.segment(frame), scaled, strict=True):
        [features] = teacher.space.dense_features([picture])
        dense = upsampled(features, picture.size)
        best = torch.einsum("pd,dyx->pyx", teacher.prompt_embeds, dense).argmax(dim=0).numpy()
        assert np.array_equal(labels_of_pixels(segments), best)
        assert segments.labels.tolist() == np.unique(best).tolist()
        embeds = torch.from_numpy(segments.embeds)
        chances = (teacher.space.logit_scale * embeds @ teacher.prompt_embeds.T).softmax(dim=-1).numpy()
        np.testing.assert_allclose(segments.scores, chances[range(len(segments.labels)), segments.labels], atol=1e-4)


def test_pixels_below_the_threshold_have_no_segment(load, frame, scaled):
    everything = load("clip").segment(frame)
    teacher = load("clip", min_score=0.25)
    dropped = 0
    for segments, plain, picture in zip(teacher.segment(frame), everything, scaled, strict=True):
        [features] = teacher.space.dense_features([picture])
        logits = teacher.space.logit_scale * torch.einsum("pd,dhw->phw", teacher.prompt_embeds, features)
        below = (upsampled(logits, picture.size).softmax(dim=0).amax(dim=0) < 0.25).numpy()
        assert np.array_equal(segments.segmentation == 0, below)
        assert np.array_equal(labels_of_pixels(segments)[~below], labels_of_pixels(plain)[~below])
        dropped += below.mean()
    assert 0.1 < dropped < 2.9
    assert all(len(segments.labels) == 0 for segments in load("clip", min_score=1).segment(frame))


def test_the_features_of_windows_are_averaged(load, scaled):
    whole, windowed = load("clip").space, load("clip", window=64).space
    pixels = whole.pixels(scaled[0])
    assert pixels.shape == (3, 64, 112)  # windows begin at patches 0, 2 (1.5) and 3
    maps = whole._feature_maps(torch.stack([pixels[..., start : start + 64] for start in (0, 32, 48)]))
    total = torch.zeros(whole.embed_dim, 4, 7)
    for start, features in zip((0, 2, 3), maps, strict=True):
        total[..., start : start + 4] += features
    [features] = windowed.dense_features([scaled[0]])
    torch.testing.assert_close(features, normalize(total, dim=0))
