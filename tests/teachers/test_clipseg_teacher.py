"""The `clipseg` teacher: transformers' heat maps, and embeddings pooled from a second model."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import PROMPTS, frame_of, labels_of_pixels, upsampled
from transformers import AutoTokenizer

from uov_hf.teachers.images import ScaledImage


@pytest.fixture(scope="module")
def teacher(load):
    return load("clipseg")


def heat_maps(teacher, pixels) -> torch.Tensor:
    """`(num_prompts, 64, 64)`, of transformers' forward"""
    sentences = [f"a photo of a {prompt}." for prompt in PROMPTS]
    tokens = AutoTokenizer.from_pretrained(teacher.model_name_or_path)(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        return teacher.model(**tokens, pixel_values=pixels.expand(len(PROMPTS), -1, -1, -1)).logits


def test_each_pixel_goes_to_the_hottest_map_of_transformers(teacher, pictures):
    picture = pictures[0].resize((64, 64), Image.Resampling.BICUBIC)
    [segments] = teacher.segment(frame_of(picture))
    logits = heat_maps(teacher, teacher.transform(picture, (64, 64)))
    best, heat = logits.argmax(dim=0), logits.sigmoid().amax(dim=0)
    assert np.array_equal(labels_of_pixels(segments), best.numpy())
    wanted = [heat[best == label].mean().item() for label in segments.labels.tolist()]
    np.testing.assert_allclose(segments.scores, wanted, atol=1e-6)
    assert len(segments.labels) > 1


def test_the_maps_of_square_windows_are_averaged_in_a_wide_image(teacher, frame, pictures):
    pixels = teacher.transform.in_patches(ScaledImage(pictures[0]), 64, 16)
    total, count = torch.zeros(len(PROMPTS), 64, 112), torch.zeros(112)
    for start in (0, 32, 48):  # pixels: patches 0, 2 (1.5) and 3
        total[..., start : start + 64] += heat_maps(teacher, pixels[..., start : start + 64])
        count[start : start + 64] += 1
    logits = upsampled(total / count, (90, 160))
    assert (labels_of_pixels(teacher.segment(frame)[0]) == logits.argmax(dim=0).numpy()).mean() > 0.999


def test_pixels_that_are_too_cool_have_no_segment(load, teacher, frame):
    plain = teacher.segment(frame)
    threshold = float(np.median(np.concatenate([segments.scores for segments in plain])))
    for segments, full in zip(load("clipseg", min_score=threshold).segment(frame), plain, strict=True):
        kept = segments.segmentation > 0
        assert 0 < kept.mean() < 1 and full.segmentation.all()
        assert (segments.scores >= threshold).all()
        assert np.array_equal(labels_of_pixels(segments)[kept], labels_of_pixels(full)[kept])
