"""Masks drawn by hand: upsampling, stability, boxes, suppression, painting and pooling against plain loops."""

import math

import numpy as np
import pytest
import torch
from tiny_models import overlap_of, upsampled
from torch.nn.functional import normalize

from uov_hf.teachers.masks import (
    Proposals,
    box_overlaps,
    full_size_masks,
    mask_boxes,
    paint,
    pool_masks,
    stability_scores,
    suppress_overlapping,
)


def rectangles(size: tuple[int, int], *corners: tuple[int, int, int, int]) -> torch.Tensor:
    """Masks of rectangles: first column, first row, last column, last row."""
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, corners, strict=True):
        mask[top : bottom + 1, left : right + 1] = True
    return masks


@pytest.mark.parametrize("size", [(7, 9), (5, 3), (4, 4)])
def test_logits_are_upsampled_to_the_picture_and_then_cut(size):
    """Bilinear with half-pixel centres, in float64 loops."""
    logits = torch.randn(40, 4, 4, generator=torch.manual_seed(0))
    wanted = np.zeros((40, *size))
    for row, column in np.ndindex(size):
        y = min(max((row + 0.5) * 4 / size[0] - 0.5, 0), 3)
        x = min(max((column + 0.5) * 4 / size[1] - 0.5, 0), 3)
        top, left = math.floor(y), math.floor(x)
        for i, weight_y in ((top, 1 - (y - top)), (min(top + 1, 3), y - top)):
            for j, weight_x in ((left, 1 - (x - left)), (min(left + 1, 3), x - left)):
                wanted[:, row, column] += weight_y * weight_x * logits[:, i, j].double().numpy()
    certain = np.abs(wanted) > 1e-5
    np.testing.assert_array_equal(full_size_masks(logits, size).numpy()[certain], (wanted > 0)[certain])


def test_no_masks_stay_no_masks():
    assert full_size_masks(torch.zeros(0, 4, 4), (7, 9)).shape == (0, 7, 9)
    assert suppress_overlapping(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)
    segmentation, kept = paint(torch.zeros(0, 2, 3, dtype=torch.bool), torch.zeros(0))
    assert segmentation.tolist() == [[0] * 3] * 2 and kept.tolist() == []


def test_stability_counts_pixels_above_and_below():
    logits = torch.tensor([[[2.0, 2.0, 0.5, -0.5]], [[-2.0, -3.0, -2.0, -9.0]], [[5.0, 5.0, 5.0, 5.0]]])
    assert stability_scores(logits, 1.0).tolist() == [0.5, 0.0, 1.0]


def test_a_box_goes_from_the_first_to_the_last_pixel():
    masks = torch.cat([rectangles((6, 8), (2, 1, 5, 3), (0, 0, 7, 5), (4, 4, 4, 4)), torch.zeros(1, 6, 8).bool()])
    masks[0, 2, 3:5] = False  # a hole
    assert mask_boxes(masks).tolist() == [[2, 1, 5, 3], [0, 0, 7, 5], [4, 4, 4, 4], [0, 0, 0, 0]]


def test_overlap_is_intersection_over_union():
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    other = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 1.0], [5.0, 5.0, 6.0, 6.0]])
    torch.testing.assert_close(box_overlaps(one, other), torch.tensor([[1 / 7, 0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_suppression_is_the_greedy_loop():
    generator = torch.manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 5
    boxes = torch.cat([corners, corners + torch.rand(60, 2, generator=generator) * 5], dim=1)
    scores = torch.rand(60, generator=generator)
    kept = []
    for row in sorted(range(60), key=lambda row: -scores[row]):
        if all(overlap_of(boxes[row].tolist(), boxes[better].tolist()) <= 0.3 for better in kept):
            kept.append(row)
    assert suppress_overlapping(boxes, scores, 0.3).tolist() == kept
    assert 5 < len(kept) < 55


def test_the_better_mask_wins_a_pixel_and_a_small_rest_is_dropped():
    masks = rectangles((1, 6), (0, 0, 3, 0), (2, 0, 4, 0))
    segmentation, kept = paint(masks, torch.tensor([0.9, 0.5]), min_visible=0.3)
    assert segmentation.tolist() == [[1, 1, 1, 1, 2, 0]] and kept.tolist() == [0, 1]
    segmentation, kept = paint(masks, torch.tensor([0.5, 0.9]), min_visible=0.3)
    assert segmentation.tolist() == [[2, 2, 1, 1, 1, 0]] and kept.tolist() == [1, 0]
    segmentation, kept = paint(masks, torch.tensor([0.9, 0.5]), min_visible=0.3, min_area=2)
    assert segmentation.tolist() == [[1, 1, 1, 1, 0, 0]] and kept.tolist() == [0]


def test_a_hidden_mask_is_given_up_and_leaves_its_pixels_to_the_next():
    """The second is the first again, shifted by a pixel; the third is the ground under both."""
    masks = rectangles((1, 8), (1, 0, 4, 0), (2, 0, 5, 0), (0, 0, 7, 0))
    segmentation, kept = paint(masks, torch.tensor([0.9, 0.8, 0.3]), min_visible=0.5)
    assert segmentation.tolist() == [[2, 1, 1, 1, 1, 2, 2, 2]] and kept.tolist() == [0, 2]


@pytest.mark.parametrize(("grid_size", "size"), [((5, 7), (37, 61)), ((6, 6), (4, 5)), ((1, 1), (3, 8))])
def test_pooling_overlapping_masks_is_that_of_a_full_size_feature_map(grid_size, size):
    generator = torch.manual_seed(0)
    features = torch.randn(16, *grid_size, generator=generator, dtype=torch.float64)
    masks = torch.rand(20, *size, generator=generator) < 0.4
    dense = upsampled(features, size)
    wanted = torch.stack([dense[:, mask].sum(dim=1) for mask in masks])
    pooled = pool_masks(features.float(), masks)
    torch.testing.assert_close(pooled, normalize(wanted, dim=-1).float(), atol=1e-5, rtol=0)


def test_proposals_are_taken_and_joined_in_all_their_parts():
    proposals = Proposals(torch.eye(3)[:, None], torch.tensor([0.1, 0.2, 0.3]), embeds=torch.eye(3))
    taken = Proposals.cat([proposals.take(torch.tensor([2])), proposals.take(torch.tensor([True, False, True]))])
    assert taken.labels is None
    torch.testing.assert_close(taken.scores, torch.tensor([0.3, 0.1, 0.3]))
    assert torch.equal(taken.embeds, torch.eye(3)[[2, 0, 2]]) and torch.equal(taken.masks[:, 0], taken.embeds)
