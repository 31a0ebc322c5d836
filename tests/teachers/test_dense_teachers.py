"""`clip` and `tipsv2`: segments, embeddings and scores against the dense computation, on tiny random models."""

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_tipsv2
from torch.nn.functional import interpolate, normalize

from uov_hf.teachers import load_teacher


PROMPTS = ["car", "a person on a bicycle", "road", "sky", "tree", "rolling hills (< 20 cm tall)"]


@pytest.fixture(scope="module")
def folders(tiny_clip, tmp_path_factory) -> dict[str, str]:
    return {"clip": tiny_clip, "tipsv2": save_tiny_tipsv2(tmp_path_factory.mktemp("tiny_tipsv2"))}


def load(folders, name="clip", **settings):
    return load_teacher(name, folders[name], **{"prompts": PROMPTS, "short_side": 64, "templates": "photo"} | settings)


@pytest.fixture(scope="module", params=["clip", "tipsv2"])
def teacher(request, folders):
    return load(folders, request.param)


def upsampled(values: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    return interpolate(values[None], size=image_size, mode="bilinear")[0]


def labels_of_pixels(answer) -> np.ndarray:
    return np.append(answer.labels, -1)[answer.segmentation - 1]


def test_clip_features_take_the_value_path_of_the_last_layer(folders):
    """On the model's own size, against transformers' hidden states."""
    space, pixels = load(folders).space, torch.randn(2, 3, 64, 64)
    vision = space.model.vision_model
    with torch.no_grad():
        states = vision(pixels, output_hidden_states=True).hidden_states[-2]
        layer = vision.encoder.layers[-1]
        values = layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(states)))
        wanted = space.model.visual_projection(vision.post_layernorm(values))[:, 1:]
        torch.testing.assert_close(space.patch_embeds(pixels), wanted)


def test_tipsv2_features_are_the_patch_tokens_without_class_and_register_tokens(folders):
    space, pixels = load(folders, "tipsv2").space, torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        tokens = space.model.get_image_features(pixels).last_hidden_state
        torch.testing.assert_close(space.patch_embeds(pixels), tokens[:, -16:])
    assert tokens.shape[1] == 1 + 1 + 16


def test_tipsv2_reads_prompts_as_its_processor_pads_them(folders):
    teacher = load(folders, "tipsv2", templates="none")
    tokens = teacher.space.tokenizer(PROMPTS[0], padding="max_length", max_length=64, return_tensors="pt")
    with torch.no_grad():
        wanted = normalize(teacher.space.model.get_text_features(**tokens).pooler_output, dim=-1)
    np.testing.assert_allclose(teacher.encode_prompts(PROMPTS)[:1], wanted.numpy(), atol=1e-5)


def test_a_prompt_is_the_mean_of_its_templates(folders):
    teacher = load(folders, templates="vild")
    embeds = []
    for template in teacher.settings["templates"]:
        tokens = teacher.space.tokenizer(template.format(PROMPTS[1]), return_tensors="pt")
        embeds.append(normalize(teacher.space.model.get_text_features(**tokens).pooler_output, dim=-1))
    wanted = normalize(torch.cat(embeds).mean(dim=0), dim=0)
    assert len(embeds) == 14
    np.testing.assert_allclose(teacher.encode_prompts(PROMPTS)[1], wanted.numpy(), atol=1e-6)


def test_every_pixel_goes_to_its_best_prompt(teacher, frame, pictures):
    """Labels, scores and embeddings of all three images, against full-size logit and feature maps."""
    for answer, picture in zip(teacher.segment(frame), pictures, strict=True):
        [features] = teacher.space.dense_features([picture])
        dense = upsampled(features, picture.size[::-1])
        best = torch.einsum("pd,dyx->pyx", teacher.prompt_embeds, dense).argmax(dim=0).numpy()
        assert np.array_equal(labels_of_pixels(answer), best)
        assert answer.labels.tolist() == np.unique(best).tolist()
        pooled = torch.stack([normalize(dense[:, best == label].sum(dim=1), dim=0) for label in answer.labels])
        np.testing.assert_allclose(answer.embeds, pooled.numpy(), atol=1e-5)
        chances = (teacher.space.logit_scale * pooled @ teacher.prompt_embeds.T).softmax(dim=-1).numpy()
        np.testing.assert_allclose(answer.scores, chances[range(len(answer.labels)), answer.labels], atol=1e-4)


def test_pixels_below_the_threshold_have_no_segment(folders, frame, pictures):
    everything = load(folders).segment(frame)
    teacher = load(folders, min_score=0.2)
    dropped = 0
    for answer, plain, picture in zip(teacher.segment(frame), everything, pictures, strict=True):
        [features] = teacher.space.dense_features([picture])
        logits = teacher.space.logit_scale * torch.einsum("pd,dhw->phw", teacher.prompt_embeds, features)
        below = (upsampled(logits, picture.size[::-1]).softmax(dim=0).amax(dim=0) < 0.2).numpy()
        assert np.array_equal(answer.segmentation == 0, below)
        assert np.array_equal(labels_of_pixels(answer)[~below], labels_of_pixels(plain)[~below])
        dropped += below.mean()
    assert 0.1 < dropped < 2.9
    assert all(len(answer.labels) == 0 for answer in load(folders, min_score=1).segment(frame))


def test_batches_change_nothing(teacher, folders, frame):
    one_by_one = load(folders, teacher.name, batch_size=1)
    for one, other in zip(teacher.segment(frame), one_by_one.segment(frame), strict=True):
        assert np.array_equal(one.segmentation, other.segmentation)
        np.testing.assert_allclose(one.embeds, other.embeds, atol=1e-5)


def test_windows_are_seen_one_by_one_and_averaged(folders, pictures):
    whole, windowed = load(folders).space, load(folders, window=64).space
    pixels = whole.pixels(pictures[0])
    assert pixels.shape == (3, 64, 112)  # windows begin at patches 0, 2 (1.5) and 3
    maps = whole._feature_maps(torch.stack([pixels[..., start : start + 64] for start in (0, 32, 48)]))
    total = torch.zeros(whole.embed_dim, 4, 7)
    for start, features in zip((0, 2, 3), maps, strict=True):
        total[..., start : start + 4] += features
    [features] = windowed.dense_features([pictures[0]])
    torch.testing.assert_close(features, normalize(total, dim=0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(teacher, folders, frame, dtype):
    half = load(folders, teacher.name, dtype=dtype)
    for one, other in zip(teacher.segment(frame), half.segment(frame), strict=True):
        assert (labels_of_pixels(one) == labels_of_pixels(other)).mean() > 0.8
    assert half.encode_prompts(["car"]).dtype == np.float32


def test_the_model_is_frozen(teacher):
    assert not any(parameter.requires_grad for parameter in teacher.space.model.parameters())
    with pytest.raises(RuntimeError, match="no train mode"):
        teacher.space.model.train()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"templates": "imagenet"}, "must be one of none, photo, vild, got 'imagenet'"),
        ({"short_side": 5}, "`short_side` must hold a patch of 16 pixels, got 5"),
        ({"window": 5}, "`window` must hold a patch of 16 pixels, got 5"),
        ({"min_score": 30}, "`min_score` must be between 0 and 1, got 30"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"model_name_or_path": None}, "needs `model_name_or_path`, .* e.g. openai/clip-vit-base-patch16"),
    ],
)
def test_wrong_settings_are_refused(tiny_clip, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_teacher("clip", **{"model_name_or_path": tiny_clip, "prompts": PROMPTS} | wrong)
