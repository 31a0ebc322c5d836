"""Mask2Former and EoMT as proposals: quality, objectness and geometry against transformers' own processors."""

import math

import numpy as np
import pytest
import torch
from tiny_models import upsampled
from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil

from uov_hf.teachers.masks import full_size_masks
from uov_hf.teachers.queries import query_proposals


@pytest.fixture(scope="module")
def eomt(load):
    return load("eomt")


@pytest.fixture(scope="module")
def mask2former(load):
    return load("mask2former")


def test_quality_is_objectness_times_certainty():
    logits, objectness = torch.randn(4, 5, 6, generator=torch.manual_seed(0)), torch.tensor([0.9, 0.7, 0.5, 1.0])
    logits[3] = -1.0  # an empty mask
    wanted = []
    for mask, chance in zip(logits.tolist(), objectness.tolist(), strict=True):
        inside = [1 / (1 + math.exp(-value)) for row in mask for value in row if value > 0]
        wanted.append(chance * sum(inside) / max(len(inside), 1))
    proposals = query_proposals(logits, objectness)
    assert torch.equal(proposals.masks, logits) and proposals.labels is None
    np.testing.assert_allclose(proposals.scores, wanted, rtol=1e-5)


def test_only_queries_that_are_something_become_masks(load, mask2former, images):
    outputs = mask2former.model(mask2former.pixels(images[0])[None])
    chances = outputs.class_queries_logits[0].softmax(dim=-1)[:, :-1].sum(dim=-1)  # of any class
    limit = chances.sort().values[2:4].mean()
    [proposals] = load("mask2former", min_objectness=float(limit)).propose(images[:1])
    torch.testing.assert_close(proposals.masks, outputs.masks_queries_logits[0][chances > limit])


def test_eomt_sees_an_image_fitted_into_its_square(eomt, images):
    """Against its PIL processor as it pads for panoptic segmentation."""
    processor = EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)
    for image in images:
        wanted = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(eomt.pixels(image), wanted, atol=1e-5, rtol=0)


def test_eomts_masks_lose_the_padding_and_fill_the_image(eomt, images):
    processor = EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)
    for image, proposals in zip(images, eomt.propose(images), strict=True):
        size = (image.height, image.width)
        logits = eomt.model(eomt.pixels(image)[None]).masks_queries_logits
        [wanted] = processor.unpad_image(upsampled(logits[0], (64, 64))[None], [size], processor.size)
        certain = wanted.abs() > 1e-4
        assert torch.equal(full_size_masks(proposals.masks, size)[certain], (wanted > 0)[certain])


def test_mask2formers_masks_are_its_queries(mask2former, images):
    for image, proposals in zip(images, mask2former.propose(images), strict=True):
        pixels = mask2former.image_processor(image, return_tensors="pt")["pixel_values"]
        assert pixels.shape[2] / pixels.shape[3] == pytest.approx(image.height / image.width, rel=0.3)
        outputs = mask2former.model(pixels)
        torch.testing.assert_close(proposals.masks, outputs.masks_queries_logits[0])
        assert len(proposals.scores) == 6 and proposals.scores.std() > 0
