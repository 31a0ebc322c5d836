"""The teacher protocol: the checks of its segments, and loading by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from broken_images import png_with_a_hole
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from uov_hf.teachers import TEACHERS, ImageSegments, load_teacher
from uov_hf.teachers.checkpoints import freeze
from uov_hf.teachers.protocol import Augmentation, open_images


def segments(**changes) -> ImageSegments:
    arrays = {
        "segmentation": np.array([[0, 1], [2, 2]]),
        "labels": np.array([7, 3]),
        "scores": np.array([0.5, 1.0]),
        "embeds": np.eye(2, 4, dtype=np.float32),
    }
    return ImageSegments(**arrays | changes)


def test_an_image_may_have_no_segment():
    assert segments().labels.tolist() == [7, 3]
    empty = np.empty(0, int)
    assert segments(segmentation=np.zeros((2, 2), int), labels=empty, scores=empty, embeds=np.empty((0, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": np.array([[0, 3]])}, "holds ids 0…3, but 2 segments are described"),
        ({"segmentation": np.array([[-1, 1]])}, "holds ids -1…1"),
        ({"segmentation": np.array([[0.0, 1.0]])}, "must be a .height, width. array of integer ids"),
        ({"scores": np.array([0.5])}, "one entry per segment"),
        ({"embeds": np.eye(3, 4)}, r"must be of shape \(2, embed_dim\)"),
        ({"embeds": 2 * np.eye(2, 4)}, "unit length, got lengths 2…2"),
    ],
)
def test_invalid_segments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        segments(**changes)


@pytest.mark.parametrize(
    ("name", "prompts", "settings", "message"),
    [
        ("sam", ["car"], {}, f"no teacher 'sam'; there are: {', '.join(TEACHERS)}"),
        ("clip", ["car"], {"shortside": 3}, "no setting shortside; it has: short_side, .*min_score"),
        ("clip", [], {}, "at least one phrase"),
    ],
)
def test_what_no_teacher_has_is_refused_with_what_there_is(name, prompts, settings, message):
    with pytest.raises(ValueError, match=message):
        load_teacher(name, prompts=prompts, **settings)


def test_a_frozen_model_stays_frozen():
    model = freeze(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))
    assert model.eval() is model and not model[1].training


def one_camera(path: Path) -> dict:
    return {"frame_id": "7", "camera_names": ["CAM"], "images": [{"bytes": None, "path": str(path)}]}


def test_a_missing_or_broken_image_is_named(tmp_path):
    (tmp_path / "hole.png").write_bytes(png_with_a_hole())
    for name in ("no.jpg", "hole.png"):
        with pytest.raises(ValueError, match=f"Frame 7, camera CAM: .*{name}: expected a whole image file"):
            open_images(one_camera(tmp_path / name))


def test_images_have_the_augmentation_of_the_frame(tmp_path):
    frame = one_camera(tmp_path / "image.png")
    text = PngInfo()
    text.add_text("scale", "0.5")  # must not be taken for the scale of the augmentation
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 6)).save(tmp_path / "image.png", pnginfo=text)
    plain, none, flipped, half = (
        open_images(frame | extra)[0]
        for extra in ({}, {"augmentation": None}, {"augmentation": "flip"}, {"augmentation": "scale=0.5"})
    )
    assert np.array_equal(plain.pixels, none.pixels)
    assert np.array_equal(np.asarray(plain.pixels)[:, ::-1], flipped.pixels)
    assert plain.pixels.mode == "RGB" and half.size == (1, 3)
    assert [image.scale for image in (plain, flipped, half)] == [1, 1, 0.5]


@pytest.mark.parametrize("name", ["flip", "scale=2", "scale=1.5"])
def test_segments_are_mapped_back_to_the_plain_image(name):
    ids, augmentation = np.array([[1, 1, 2, 2], [0, 3, 3, 2]]), Augmentation.parse(name)
    augmented = augmentation.apply_to_ids(ids)
    assert augmented.shape == augmentation.augmented_size(ids.shape)
    assert np.array_equal(augmentation.restore(augmented, ids.shape), ids)


@pytest.mark.parametrize("name", ["rotate", "scale", "scale=", "scale=big", "scale=0", "flip=1", "scale=nan"])
def test_an_unknown_augmentation_is_refused(name):
    with pytest.raises(ValueError, match=f"An augmentation is `flip` or .*got '{name}'"):
        Augmentation.parse(name)
