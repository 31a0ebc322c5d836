"""The `clip` teacher: segments, embeddings and scores against the dense computation, on a tiny random CLIP."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from uov_hf.teachers import load_teacher
from uov_hf.teachers.pooling import patch_weights, pool_segments, upsampled_max, upsampling_matrix


SCRIPT = Path(__file__).parents[2] / "examples" / "make_tiny_clip.py"
PROMPTS = ["car", "a person on a bicycle", "road", "sky", "tree", "rolling hills (< 20 cm tall)"]
EVEN_AND_ODD = [((5, 7), (37, 61)), ((3, 4), (48, 64)), ((6, 6), (4, 5)), ((1, 1), (3, 8))]


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny_clip")
    runpy.run_path(str(SCRIPT))["save_tiny_clip"](str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def teacher(tiny_clip):
    return load_teacher("clip", tiny_clip, prompts=PROMPTS, short_side=64, templates="photo")


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> dict:
    """Three pictures of coloured stripes and noise, two of one size."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    images = []
    for name, (height, width) in {"A": (90, 160), "B": (90, 160), "C": (70, 80)}.items():
        pixels = generator.integers(0, 256, (height, width, 3)) // 8
        pixels[:, : width // 3, 0] += 200
        pixels[height // 2 :, :, 1] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
        images.append({"bytes": None, "path": str(folder / f"{name}.png")})
    return {"frame_id": "7", "camera_names": ["A", "B", "C"], "images": images}


@pytest.mark.parametrize(("grid_size", "image_size"), EVEN_AND_ODD)
def test_upsampling_is_that_of_torch(grid_size, image_size):
    features = torch.randn(3, *grid_size)
    rows, columns = (upsampling_matrix(pixels, patches) for pixels, patches in zip(image_size, grid_size, strict=True))
    torch.testing.assert_close(rows @ features @ columns.T, upsampled(features, image_size))


@pytest.mark.parametrize(("grid_size", "image_size"), EVEN_AND_ODD)
def test_the_best_label_is_that_of_upsampled_logits(grid_size, image_size):
    logits = torch.randn(9, *grid_size, generator=torch.manual_seed(0))
    values, labels = upsampled_max(logits, image_size, softmax=True)
    dense = upsampled(logits, image_size)
    assert torch.equal(labels, dense.argmax(0))
    torch.testing.assert_close(values, dense.softmax(0).amax(0))


@pytest.mark.parametrize(("grid_size", "image_size"), EVEN_AND_ODD)
def test_pooling_is_that_of_a_full_size_feature_map(grid_size, image_size):
    generator = torch.manual_seed(0)
    features = torch.randn(16, *grid_size, generator=generator)
    segmentation = torch.randint(0, 4, image_size, generator=generator)  # 0 = none
    dense = upsampled(features, image_size)
    naive = torch.stack([dense[:, segmentation == segment].sum(dim=1) for segment in (1, 2, 3)])
    torch.testing.assert_close(pool_segments(features, segmentation, 3), normalize(naive, dim=-1), atol=1e-5, rtol=0)


def test_patches_give_away_as_much_as_a_segment_has_pixels():
    segmentation = torch.tensor([[1, 1, 1, 0], [1, 2, 2, 2]])
    assert patch_weights(segmentation, 2, (1, 2)).sum(dim=(1, 2)).tolist() == [4.0, 3.0]


def test_dense_features_take_the_value_path_of_the_last_layer(teacher):
    """On the model's own size, against transformers' hidden states."""
    pixels = torch.randn(2, 3, 64, 64)
    vision = teacher.space.model.vision_model
    with torch.no_grad():
        states = vision(pixels, output_hidden_states=True).hidden_states[-2]
        layer = vision.encoder.layers[-1]
        values = layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(states)))
        wanted = teacher.space.model.visual_projection(vision.post_layernorm(values))[:, 1:]
        got = torch.stack(teacher.space._feature_maps(pixels).unbind())
    torch.testing.assert_close(got.flatten(2).mT, normalize(wanted, dim=-1))


def test_images_keep_their_aspect_ratio_in_whole_patches(teacher):
    assert teacher.space.pixels(Image.new("RGB", (1600, 900))).shape == (3, 64, 112)
    assert teacher.space.pixels(Image.new("RGB", (900, 1600))).shape == (3, 112, 64)


def test_pixels_are_those_of_the_image_processor(teacher, tiny_clip):
    """At the model's own size, where nothing is cropped."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    wanted = CLIPImageProcessorPil.from_pretrained(tiny_clip)(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(teacher.space.pixels(picture), wanted, atol=1e-5, rtol=0)


def test_a_prompt_is_the_mean_of_its_templates(tiny_clip):
    teacher = load_teacher("clip", tiny_clip, prompts=PROMPTS, short_side=64, templates="vild")
    embeds = []
    for template in teacher.settings["templates"]:
        tokens = teacher.space.tokenizer(template.format(PROMPTS[1]), return_tensors="pt")
        embeds.append(normalize(teacher.space.model.get_text_features(**tokens).pooler_output, dim=-1))
    wanted = normalize(torch.cat(embeds).mean(dim=0), dim=0)
    assert len(embeds) == 14
    np.testing.assert_allclose(teacher.encode_prompts(PROMPTS)[1], wanted.numpy(), atol=1e-6)


def test_every_pixel_goes_to_its_best_prompt(teacher, frame):
    """Labels, scores and embeddings of all three images, against full-size logit and feature maps."""
    answers = teacher.segment(frame)
    for answer, encoded in zip(answers, frame["images"], strict=True):
        picture = Image.open(encoded["path"])
        features = teacher.space.dense_features([picture])[0]
        dense = upsampled(features, picture.size[::-1])
        best = torch.einsum("pd,dyx->pyx", teacher.prompt_embeds, dense).argmax(dim=0).numpy()
        assert np.array_equal(answer.labels[answer.segmentation - 1], best)
        assert answer.labels.tolist() == np.unique(best).tolist()
        pooled = torch.stack([normalize(dense[:, best == label].sum(dim=1), dim=0) for label in answer.labels])
        np.testing.assert_allclose(answer.embeds, pooled.numpy(), atol=1e-5)
        chances = (teacher.space.logit_scale * pooled @ teacher.prompt_embeds.T).softmax(dim=-1).numpy()
        np.testing.assert_allclose(answer.scores, chances[range(len(answer.labels)), answer.labels], atol=1e-5)
    assert max(len(answer.labels) for answer in answers) > 1


def test_images_of_one_size_go_through_together_and_change_nothing(teacher, frame):
    together = teacher.segment(frame)
    alone = [
        teacher.segment(frame | {"camera_names": [name], "images": [image]})[0]
        for name, image in zip(frame["camera_names"], frame["images"], strict=True)
    ]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.segmentation, other.segmentation)
        np.testing.assert_allclose(one.embeds, other.embeds, atol=1e-6)


def test_half_precision_gives_nearly_the_same(tiny_clip, teacher, frame):
    half = load_teacher("clip", tiny_clip, prompts=PROMPTS, short_side=64, templates="photo", dtype=torch.bfloat16)
    for one, other in zip(teacher.segment(frame), half.segment(frame), strict=True):
        same = one.labels[one.segmentation - 1] == other.labels[other.segmentation - 1]
        assert same.mean() > 0.8
    assert half.encode_prompts(["car"]).dtype == np.float32


def test_the_model_is_frozen(teacher):
    assert not any(parameter.requires_grad for parameter in teacher.space.model.parameters())
    with pytest.raises(RuntimeError, match="no train mode"):
        teacher.space.model.train()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"templates": "imagenet"}, "must be one of none, photo, vild, got 'imagenet'"),
        ({"short_side": 5}, "must hold a patch of 16 pixels, got 5"),
        ({"model_name_or_path": None}, "needs `model_name_or_path`"),
    ],
)
def test_wrong_settings_are_refused(tiny_clip, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_teacher("clip", **{"model_name_or_path": tiny_clip, "prompts": PROMPTS} | wrong)


def upsampled(values: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    return interpolate(values[None], size=image_size, mode="bilinear")[0]
