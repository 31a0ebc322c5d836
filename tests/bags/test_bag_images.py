"""Images of ROS: every encoding gives its colours, a depth image is no picture, errors name the image."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image

from uov_hf.bags import images
from uov_hf.bags.content import optics_of
from uov_hf.bags.images import encoded_image_of, is_colour_image, pixels_of
from uov_hf.image_files import decode_image, encode_pixels
from uov_hf.own_car.calibration import Optics


COLOURS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
GREY = COLOURS[..., 0]
ALPHA = np.dstack([COLOURS, GREY])
PINHOLE = Optics(np.array([[4.0, 0, 2], [0, 4, 2], [0, 0, 1]]), (4, 5), None).mount(np.eye(4))


def raw(pixels, encoding, padding=0, **changes):
    rows = np.pad(pixels.reshape(4, -1), ((0, 0), (0, padding)))
    header = SimpleNamespace(frame_id="camera", stamp=SimpleNamespace(sec=0, nanosec=0))
    content = {"header": header, "height": 4, "width": 5, "encoding": encoding, "step": rows.shape[1]}
    return SimpleNamespace(**(content | {"data": rows.reshape(-1)} | changes))


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "stored", "expected"),
    [
        ("rgb8", COLOURS, COLOURS),
        ("bgr8", COLOURS[..., ::-1], COLOURS),
        ("rgba8", ALPHA, COLOURS),
        ("bgra8", ALPHA[..., [2, 1, 0, 3]], COLOURS),
        ("mono8", GREY, np.dstack([GREY] * 3)),
    ],
)
def test_a_raw_image_keeps_its_colours(encoding, stored, expected, padding):
    message = raw(np.ascontiguousarray(stored), encoding, padding)
    np.testing.assert_array_equal(pixels_of(message, "bag"), expected)
    np.testing.assert_array_equal(decode_image(encoded_image_of(message, PINHOLE, "bag")), expected)


def test_a_depth_image_is_no_picture():
    assert not is_colour_image(raw(GREY, "16UC1")) and is_colour_image(raw(GREY, "mono8"))
    assert not is_colour_image(SimpleNamespace(format="16UC1; compressedDepth png"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (raw(GREY, "bayer_rggb8"), "bag/front: expected an image in one of rgb8.*'bayer_rggb8'.*debayer"),
        (raw(COLOURS, "rgb8", data=COLOURS.reshape(-1)[:-1]), "bag/front: expected 4 rows of 5 pixels in 15 bytes"),
        (raw(COLOURS, "rgb8", height=3), "bag/front.png: calibrated for .* the image has .3, 5.*rosbag.yaml"),
        (SimpleNamespace(format="jpeg", data=np.zeros(9, np.uint8)), "bag/front.jpg: expected a whole image file"),
    ],
)
def test_a_broken_image_is_named(message, expected):
    with pytest.raises(ValueError, match=expected):
        encoded_image_of(message, PINHOLE, "bag/front")


def test_a_compressed_image_of_another_size_is_not_decoded(monkeypatch):
    """A file of a few kilobytes may have gigabytes of pixels."""
    monkeypatch.setattr(images, "decode_image", lambda image: pytest.fail("it was decoded"))
    content = np.frombuffer(encode_pixels(np.zeros((900, 800, 3), np.uint8), "PNG"), np.uint8)
    with pytest.raises(ValueError, match=r"bag/front.png: calibrated for .* \(4, 5\), the image has \(900, 800\)"):
        encoded_image_of(SimpleNamespace(format="png", data=content), PINHOLE, "bag/front")


def test_a_compressed_image_may_be_stored_turned():
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    encoded = encoded_image_of(SimpleNamespace(format="jpeg", data=content), PINHOLE, "bag/front")
    assert encoded == {"bytes": buffer.getvalue(), "path": "bag/front.jpg"}


def info(model="plumb_bob", d=(), ros1=False, size=(48, 64), focal_length=40.0):
    k = np.array([[focal_length, 0, 32], [0, focal_length, 24], [0, 0, 1]])
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    p = np.array([[30.0, 0, 31, -60], [0, 30, 23, 0], [0, 0, 1, 0]])
    matrices = {"d": np.array(d), "k": k.ravel(), "r": turn.ravel(), "p": p.ravel()}
    named = {name.upper() if ros1 else name: values for name, values in matrices.items()}
    return SimpleNamespace(height=size[0], width=size[1], distortion_model=model, **named)


@pytest.mark.parametrize("ros1", [False, True])
@pytest.mark.parametrize(
    ("model", "d", "name"),
    [
        ("plumb_bob", [-0.1, 0.01, 0, 0, 0], "opencv"),
        ("rational_polynomial", [0.1, 0.02, 0, 0, 0, 0.05, 0.01, 0.001], "opencv"),
        ("equidistant", [-0.02, 0.01, 0.002, -0.001], "opencv_fisheye"),
    ],
)
def test_a_lens_is_that_of_its_camera_info(model, d, name, ros1):
    optics = optics_of(info(model, d, ros1), rectified=False, source="bag")
    assert optics.lens.model == name and optics.lens.coefficients.tolist() == d and optics.image_size == (48, 64)
    assert optics.intrinsics[0].tolist() == [40, 0, 32]


def test_rectified_images_have_the_projection_of_camera_info():
    optics = optics_of(info(d=[0.1] * 5), rectified=True, source="bag")
    assert optics.lens is None and optics.intrinsics[0].tolist() == [30, 0, 31]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (info("omnidirectional", [0.1]), "bag: expected one of the lens models plumb_bob.*'omnidirectional'"),
        (info("equidistant", [0.1] * 5), "bag: opencv_fisheye has 4 coefficients, got 5"),
        (info(focal_length=0.0), "bag: expected the calibration of a camera, got a focal length of 0.*rosbag.yaml"),
    ],
)
def test_a_camera_info_without_a_calibration_is_named(message, expected):
    with pytest.raises(ValueError, match=expected):
        optics_of(message, rectified=False, source="bag")
