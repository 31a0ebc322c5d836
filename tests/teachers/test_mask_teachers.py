"""Teachers that propose masks: windows, labels by pooled embeddings."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import PROMPTS, draw_images, frame_of, upsampled
from torch.nn.functional import normalize

from uov_hf.teachers.images import Window
from uov_hf.teachers.mask_teacher import PooledMaskConfig, PooledMaskTeacher, gather_windows, is_cut_off, windows_of
from uov_hf.teachers.masks import Proposals
from uov_hf.teachers.protocol import open_images


SIZE = (60, 100)


class HandDrawn(PooledMaskTeacher):
    """Proposes three rectangles in every image, on a coarse grid: left half, right half, a spot in the middle."""

    name = "hand_drawn"
    scores = (0.9, 0.8, 0.7)

    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        logits = torch.full((3, 6, 10), -1.0)
        logits[0, :, :4] = logits[1, :, 6:] = logits[2, 2:4, 4:6] = 1.0
        return [Proposals(logits, torch.tensor(self.scores)) for _ in images]


@pytest.fixture
def hand_drawn(tiny_clip):
    return HandDrawn(
        PROMPTS, PooledMaskConfig(embed_model_name_or_path=tiny_clip, embed_short_side=64, templates="photo")
    )


@pytest.fixture(scope="module")
def frame():
    return frame_of(*draw_images(SIZE, SIZE, (70, 80)))


def test_the_label_of_a_mask_is_the_prompt_nearest_to_its_pooled_embedding(hand_drawn, frame):
    """Labels, scores and embeddings against a full-size feature map; pixels without a mask are 0."""
    image = open_images(frame)[0]
    [features] = hand_drawn.space.dense_features([image])
    dense = upsampled(features, SIZE)
    segments = hand_drawn.segment(frame)[0]
    seen = set()
    columns = zip(segments.labels, segments.scores, segments.embeds, strict=True)
    for segment, (label, score, embed) in enumerate(columns, 1):
        inside = torch.from_numpy(segments.segmentation == segment)
        quality = hand_drawn.scores[[inside[30, 10], inside[30, 90], inside[30, 50]].index(True)]
        pooled = normalize(dense[:, inside].sum(dim=1), dim=0)
        chances = (hand_drawn.space.logit_scale * hand_drawn.prompt_embeds @ pooled).softmax(dim=0)
        np.testing.assert_allclose(embed, pooled.numpy(), atol=1e-5)
        assert label == chances.argmax()
        np.testing.assert_allclose(score, chances[label] * quality, rtol=1e-4)
        seen.add(quality)
    assert seen == set(hand_drawn.scores)
    assert segments.segmentation[0, 50] == 0 and segments.segmentation.shape == SIZE


def test_an_image_without_masks_has_no_segments(hand_drawn, frame, monkeypatch):
    nothing = Proposals(torch.full((2, 6, 10), -1.0), torch.ones(2))
    monkeypatch.setattr(hand_drawn, "propose", lambda images: [nothing] * len(images))
    for segments in hand_drawn.segment(frame):
        assert not segments.segmentation.any()
        assert segments.embeds.shape == (0, hand_drawn.embed_dim)


def test_large_images_have_windows_besides_the_whole():
    assert windows_of((90, 160), None) == windows_of((90, 160), 160) == [Window(0, 0, 90, 160)]
    windows = windows_of((90, 160), 100)
    assert windows[0] == Window(0, 0, 90, 160)
    assert [(window.left, window.right) for window in windows[1:]] == [(0, 100), (30, 130), (60, 160)]


def test_masks_of_windows_lie_where_the_windows_are():
    """Of the second window's masks one lies within, the other goes on to the left of it."""
    whole, right = Window(0, 0, 90, 160), Window(0, 60, 90, 160)
    logits = torch.full((2, 9, 10), -1.0)
    logits[0, 3:6, 5:8] = logits[1, 3:6, :3] = 1.0
    in_whole = Proposals(torch.ones(1, 3, 4), torch.tensor([0.1]))
    gathered = gather_windows((90, 160), [(whole, in_whole), (right, Proposals(logits, torch.tensor([0.2, 0.3])))])
    np.testing.assert_allclose(gathered.scores, [0.1, 0.2])
    rows, columns = gathered.masks[1].nonzero(as_tuple=True)
    assert gathered.masks[0].all() and gathered.masks.dtype == torch.bool
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 59, 60 + 50, 60 + 79)


def test_only_what_goes_on_beyond_its_window_is_cut_off():
    boxes = torch.tensor([[40.0, 40, 60, 60], [5, 40, 60, 60], [40, 5, 60, 60], [40, 40, 95, 60], [40, 40, 60, 95]])
    for window, wanted in {
        Window(0, 0, 100, 100): [False] * 5,
        Window(100, 0, 200, 100): [False, False, True, False, False],
        Window(50, 50, 150, 150): [False, True, True, True, True],
    }.items():
        size = (100, 100) if window.bottom == 100 else (200, 200) if window.top == 50 else (200, 100)
        assert is_cut_off(boxes, window, size).tolist() == wanted
