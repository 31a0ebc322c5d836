"""What a model reads of a picture: the pixels of its own image processor, windows that cover it, batches."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from uov_hf.teachers.images import (
    PixelTransform,
    ScaledImage,
    Window,
    WindowOutputs,
    average_windows,
    cut_into_windows,
    in_batches,
    run_on_windows,
)
from uov_hf.teachers.protocol import Augmentation


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessorPil(size={"shortest_edge": 64}, do_center_crop=False),
        ViTImageProcessorPil(size={"height": 48, "width": 64}, resample=2, image_mean=[0.1] * 3, image_std=[0.3] * 3),
        ViTImageProcessorPil(size={"height": 64, "width": 64}, do_normalize=False),
        ViTImageProcessorPil(size={"height": 64, "width": 64}, do_rescale=False, rescale_factor=0.5),
    ],
    ids=["clip", "another mean and size", "not normalised", "not rescaled"],
)
def test_pixels_are_those_of_the_image_processor(processor, picture, tmp_path):
    processor.save_pretrained(tmp_path)
    transform = PixelTransform.from_pretrained(str(tmp_path))
    wanted = processor(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(transform(picture, tuple(wanted.shape[1:])), wanted, atol=1e-5, rtol=0)


def test_pixels_are_nearly_those_of_the_torchvision_processor(picture, tmp_path):
    """It resizes with float weights where PIL has integer ones: one grey level apart."""
    pytest.importorskip("torchvision")
    from transformers.models.tipsv2.image_processing_tipsv2 import Tipsv2ImageProcessor

    processor = Tipsv2ImageProcessor()
    processor.save_pretrained(tmp_path)
    transform = PixelTransform.from_pretrained(str(tmp_path))
    wanted = processor(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(transform(picture, tuple(wanted.shape[1:])), wanted, atol=1.01 / 255, rtol=0)


def test_images_keep_their_aspect_ratio_and_their_scale_in_whole_patches():
    for size, short_side, patch_size, wanted in [
        ((1600, 900), 64, 16, (64, 112)),
        ((900, 1600), 64, 16, (112, 64)),
        ((100, 3), 7, 14, (14, 238)),
    ]:
        image = ScaledImage(Image.new("RGB", size))
        assert PixelTransform().in_patches(image, short_side, patch_size).shape == (3, *wanted)
    image = Augmentation.parse("scale=0.5").apply(Image.new("RGB", (1600, 900)))
    assert PixelTransform().in_patches(image, short_side=128, patch_size=16).shape == (3, 64, 112)


@pytest.mark.parametrize(("size", "side"), [((3, 5), None), ((4, 7), 2), ((4, 7), 3), ((9, 20), 9), ((3, 5), 8)])
def test_windows_cover_the_image_and_neighbours_share_half(size, side):
    windows = cut_into_windows(size, side)
    count = np.zeros(size, int)
    for window in windows:
        count[window.of[1:]] += 1
        assert window.size == tuple(min(side or length, length) for length in size)
    assert (count > 0).all()
    for low, high in (("top", "bottom"), ("left", "right")):
        spans = sorted({(getattr(window, low), getattr(window, high)) for window in windows})
        shared = [end - start for (_, end), (start, _) in zip(spans, spans[1:], strict=False)]
        assert all(side and length > side / 2 - 1 for length in shared)  # starts are whole numbers


def test_the_mean_is_taken_where_windows_overlap():
    views = WindowOutputs(
        (1, 3), [Window(0, 0, 1, 2), Window(0, 1, 1, 3)], [torch.ones(1, 1, 2), 3 * torch.ones(1, 1, 2)]
    )
    assert average_windows(views).tolist() == [[[1, 2, 3]]]
    doubled = WindowOutputs(views.grid, views.windows, [torch.ones(1, 2, 4), 3 * torch.ones(1, 2, 4)])
    assert average_windows(doubled, factor=2).tolist() == [[[1, 1, 2, 2, 3, 3]] * 2]


def test_only_images_of_one_size_share_a_batch_and_none_is_too_large():
    shapes = []

    def model(pixel_values):
        shapes.append(tuple(pixel_values.shape))
        return pixel_values[:, 0, 0, 0]

    images = [torch.full((3, 2, width), float(index)) for index, width in enumerate([4, 4, 4, 6, 4])]
    assert in_batches(model, images, batch_size=2) == [0, 1, 2, 3, 4]
    assert shapes == [(2, 3, 2, 4), (1, 3, 2, 4), (1, 3, 2, 6), (1, 3, 2, 4)]


def test_windows_begin_and_end_between_patches():
    image = torch.arange(8.0).expand(3, 4, 8)  # two rows of four patches of 2 × 2 pixels
    [views] = run_on_windows(lambda pixels: pixels[:, 0, 0], [image], patch_size=2, window=5, batch_size=9)
    assert views.grid == (2, 4)
    assert [answer.tolist() for answer in views.outputs] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
