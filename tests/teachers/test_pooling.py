"""Pixels from patches and patches from pixels: everything as of full-size maps that are never built."""

import pytest
import torch
from tiny_models import upsampled
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from uov_hf.teachers.pooling import pool_segments, segments_of_labels, upsampled_max


EVEN_AND_ODD = [((5, 7), (37, 61)), ((3, 4), (48, 64)), ((6, 6), (4, 5)), ((1, 1), (3, 8))]


@pytest.mark.parametrize(("grid_size", "image_size"), EVEN_AND_ODD)
def test_the_best_label_is_that_of_upsampled_logits(grid_size, image_size):
    logits = torch.randn(9, *grid_size, generator=torch.manual_seed(0))
    dense = upsampled(logits, image_size)
    values, labels = upsampled_max(logits, image_size)
    torch.testing.assert_close(values, dense.amax(0))
    assert torch.equal(labels, dense.argmax(0))
    probabilities, same = upsampled_max(logits, image_size, softmax=True)
    torch.testing.assert_close(probabilities, dense.softmax(0).amax(0))
    assert torch.equal(same, labels)


@pytest.mark.parametrize(("grid_size", "image_size"), EVEN_AND_ODD)
def test_pooling_is_that_of_a_full_size_feature_map(grid_size, image_size):
    generator = torch.manual_seed(0)
    features = torch.randn(16, *grid_size, generator=generator)
    segmentation = torch.randint(0, 4, image_size, generator=generator)  # 0 = none
    dense = upsampled(features, image_size)
    naive = torch.stack([dense[:, segmentation == segment].sum(dim=1) for segment in (1, 2, 3)])
    torch.testing.assert_close(pool_segments(features, segmentation, 3), normalize(naive, dim=-1), atol=1e-5, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            self.numbers = max(self.numbers, tensor.numel())
        return made


def test_no_tensor_is_a_twentieth_of_a_full_size_feature_map():
    features, segmentation = torch.randn(768, 56, 100), torch.arange(900 * 1600).view(900, 1600) // 16000 + 1
    with LargestTensor() as largest:
        pool_segments(features, segmentation, 90)
    assert 900 * 1600 <= largest.numbers < 768 * 900 * 1600 / 20


@pytest.mark.parametrize(
    ("keep", "wanted_ids", "wanted_labels"),
    [
        (None, [[2, 2, 1], [3, 1, 1]], [2, 5, 7]),
        ([[True, False, True], [False, True, True]], [[2, 0, 1], [0, 1, 1]], [2, 5]),
        ([[False] * 3] * 2, [[0] * 3] * 2, []),
    ],
)
def test_a_label_that_occurs_in_kept_pixels_is_a_segment(keep, wanted_ids, wanted_labels):
    labels = torch.tensor([[5, 5, 2], [7, 2, 2]])
    segmentation, present = segments_of_labels(labels, None if keep is None else torch.tensor(keep))
    assert segmentation.tolist() == wanted_ids and present.tolist() == wanted_labels
