"""The `clipseg` teacher: transformers' heat maps, and embeddings that come from pixels of a second model."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_tiny_clipseg
from torch.nn.functional import interpolate, normalize

from uov_hf.teachers import load_teacher


PROMPTS = ["car", "a person on a bicycle", "road", "sky", "tree"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_clipseg(tmp_path_factory.mktemp("tiny_clipseg"))


@pytest.fixture(scope="module")
def load(folder, tiny_clip):
    fast = {"prompts": PROMPTS, "short_side": 64, "templates": "photo", "embed_short_side": 64}
    return lambda **settings: load_teacher(
        "clipseg", folder, **{**fast, "embed_model_name_or_path": tiny_clip} | settings
    )


@pytest.fixture(scope="module")
def square(pictures, tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("square") / "square.png"
    pictures[0].resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return {"frame_id": "7", "camera_names": ["A"], "images": [{"bytes": None, "path": str(path)}]}


def heat_maps(teacher, folder, pixels) -> torch.Tensor:
    """`(num_prompts, 64, 64)`, of transformers' forward"""
    from transformers import AutoTokenizer

    sentences = [f"a photo of a {prompt}." for prompt in PROMPTS]
    tokens = AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        return teacher.model(**tokens, pixel_values=pixels.expand(len(PROMPTS), -1, -1, -1)).logits


def test_each_pixel_goes_to_the_hottest_map_of_transformers(load, folder, square):
    teacher = load()
    [answer] = teacher.segment(square)
    picture = Image.open(square["images"][0]["path"])
    logits = heat_maps(teacher, folder, teacher.transform(picture, (64, 64)))
    best = logits.argmax(dim=0)
    assert np.array_equal(answer.labels[answer.segmentation - 1], best.numpy())
    heat = logits.sigmoid().amax(dim=0)
    wanted = [heat[best == label].mean().item() for label in answer.labels.tolist()]
    np.testing.assert_allclose(answer.scores, wanted, atol=1e-6)
    assert len(answer.labels) > 1


def test_embeddings_are_what_the_second_model_sees_there(load, frame, pictures):
    teacher = load()
    for answer, picture in zip(teacher.segment(frame), pictures, strict=True):
        [features] = teacher.space.dense_features([picture])
        dense = interpolate(features[None], size=(picture.height, picture.width), mode="bilinear")[0]
        segments = range(1, len(answer.labels) + 1)
        pooled = [normalize(dense[:, answer.segmentation == segment].sum(dim=1), dim=0) for segment in segments]
        np.testing.assert_allclose(answer.embeds, torch.stack(pooled).numpy(), atol=1e-5)
    np.testing.assert_array_equal(teacher.encode_prompts(PROMPTS), teacher.space.encode_prompts(PROMPTS).numpy())


def test_a_wide_image_is_seen_in_squares_whose_mean_is_taken(load, folder, frame, pictures):
    teacher = load()
    pixels = teacher.transform(pictures[0], (64, 112))
    total, count = torch.zeros(len(PROMPTS), 64, 112), torch.zeros(112)
    for start in (0, 32, 48):  # pixels: patches 0, 2 (1.5) and 3
        total[..., start : start + 64] += heat_maps(teacher, folder, pixels[..., start : start + 64])
        count[start : start + 64] += 1
    logits = interpolate((total / count)[None], size=(90, 160), mode="bilinear")[0]
    answer = teacher.segment(frame)[0]
    assert (answer.labels[answer.segmentation - 1] == logits.argmax(dim=0).numpy()).mean() > 0.999


def test_pixels_that_are_too_cool_have_no_segment(load, frame):
    plain = load().segment(frame)
    threshold = float(np.median(np.concatenate([answer.scores for answer in plain])))
    for answer, full in zip(load(min_score=threshold).segment(frame), plain, strict=True):
        assert 0 < (answer.segmentation == 0).mean() < 1 and full.segmentation.all()
        assert (answer.scores >= threshold).all()
        kept = answer.segmentation > 0
        assert np.array_equal(answer.labels[answer.segmentation[kept] - 1], full.labels[full.segmentation[kept] - 1])


def test_neither_batches_nor_half_precision_change_much(load, frame):
    plain, alone = load().segment(frame), load(batch_size=1, prompts_at_once=2).segment(frame)
    half = load(dtype=torch.bfloat16).segment(frame)
    for one, other, rounded in zip(plain, alone, half, strict=True):
        assert (one.segmentation == other.segmentation).mean() > 0.999
        np.testing.assert_allclose(one.embeds, other.embeds, atol=1e-3)
        assert (one.labels[one.segmentation - 1] == rounded.labels[rounded.segmentation - 1]).mean() > 0.7


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 80}, "`window` must be at most `short_side` = 64"),
        ({"window": 8}, "`window` must hold a patch of 16 pixels, got 8"),
        ({"min_score": 2}, "`min_score` must be between 0 and 1, got 2"),
        ({"prompts_at_once": 0}, "`prompts_at_once` must be at least 1, got 0"),
        ({"embed_model_name_or_path": None}, "`clipseg` needs `embed_model_name_or_path`"),
    ],
)
def test_wrong_clipseg_settings_are_refused(load, wrong, message):
    with pytest.raises(ValueError, match=message):
        load(**wrong)


@pytest.mark.parametrize("scale", [0.5, 2])
def test_a_scaled_image_is_looked_at_in_squares_that_fit_it(load, frame, scale):
    teacher = load()
    plain, scaled = (teacher.segment(frame | {"augmentation": name}) for name in (None, f"scale={scale}"))
    assert [len(answer.segmentation) / scale for answer in scaled] == [len(answer.segmentation) for answer in plain]
