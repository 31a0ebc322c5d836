"""Straightened images are those of the frame's pinhole camera, or the error gives the reason."""

import io
import pickle
import sys

import numpy as np
import pytest
import small_car
from broken_images import png_with_a_hole
from PIL import Image

from uov_hf.data import decode_image, load_frames


cv2 = pytest.importorskip("cv2")
LENSES = [
    ("opencv", [-0.3, 0.1, 0.001, -0.002]),
    ("opencv", [-0.3, 0.1, 0.001, -0.002, 0.01]),
    ("opencv", [0.1, 0.02, 0, 0, 0, 0.05, 0.01, 0.001]),
    ("opencv_fisheye", [-0.02, 0.01, 0.002, -0.001]),
]


@pytest.fixture
def drive(tmp_path):
    return small_car.write_car(tmp_path / "car", num_frames=2)


def frame_through(drive, model, coefficients):
    """The first frame of a car whose left camera has this lens."""
    content = small_car.calibration()
    content["cameras"]["left"]["distortion"] = {"model": model, "coefficients": coefficients}
    small_car.write_calibration(drive.parent, content)
    return load_frames("point_cloud_folder", data_dir=drive.parent)[0]


def bent_picture(model, coefficients):
    """What the lens makes of a plane, 1 m away, whose colours change steadily: column, row, and none, in the file."""
    height, width = small_car.IMAGE_SIZE
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    undistort = cv2.fisheye.undistortPoints if model == "opencv_fisheye" else cv2.undistortPoints
    plane = undistort(pixels, small_car.INTRINSICS, np.array(coefficients)).reshape(height, width, 2)
    return Image.fromarray(np.dstack([127 + 100 * plane, 0 * plane[..., 0]]).round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("model, coefficients", LENSES)
def test_every_pixel_shows_what_the_pinhole_camera_of_the_frame_sees_there(drive, model, coefficients):
    bent_picture(model, coefficients).save(drive / "images" / "left" / "0.png")
    frame = frame_through(drive, model, coefficients)
    straight = np.asarray(decode_image(frame["images"][0])).astype(np.float64)
    height, width = small_car.IMAGE_SIZE
    (fx, _, cx), (_, fy, cy), _ = frame["intrinsics"][0]
    assert straight.shape == (height, width, 3) and frame["image_sizes"][0].tolist() == [height, width]
    expected_x = 127 + 100 * (np.arange(width) - cx) / fx
    expected_y = 127 + 100 * (np.arange(height) - cy) / fy
    assert np.abs(straight[..., 0] - expected_x).max() < 3 and np.abs(straight[..., 1] - expected_y[:, None]).max() < 3
    np.testing.assert_array_equal(frame["intrinsics"][1], small_car.INTRINSICS)  # the other camera has no such lens


@pytest.mark.parametrize("model, coefficients", LENSES)
def test_no_pixel_is_empty_and_no_more_is_cut_off_than_that_needs(drive, model, coefficients):
    Image.new("RGB", small_car.IMAGE_SIZE[::-1], "white").save(drive / "images" / "left" / "0.png")
    frame = frame_through(drive, model, coefficients)
    assert (np.asarray(decode_image(frame["images"][0])) == 255).all()
    wider = frame["intrinsics"][0] * [[0.98, 0.98, 1], [0.98, 0.98, 1], [1, 1, 1]]
    fisheye = (np.array(coefficients), np.eye(3), wider, small_car.IMAGE_SIZE[::-1], cv2.CV_32FC1)
    module = cv2.fisheye if model == "opencv_fisheye" else cv2
    column, row = module.initUndistortRectifyMap(small_car.INTRINSICS, *fisheye)
    height, width = small_car.IMAGE_SIZE
    assert min(column.min(), row.min()) < 0 or column.max() > width - 1 or row.max() > height - 1


def test_a_jpeg_stays_a_jpeg_and_zero_coefficients_change_nothing(drive):
    (drive / "images" / "left" / "0.png").unlink()
    small_car.picture(0).save(drive / "images" / "left" / "0.jpg")
    image = frame_through(drive, *LENSES[0])["images"][0]
    assert Image.open(io.BytesIO(image["bytes"])).format == "JPEG"
    image = frame_through(drive, "opencv", [0, 0, 0, 0])["images"][0]
    assert image["bytes"] is None  # the file itself


def test_an_image_on_its_side_is_straightened_upright(drive):
    path = drive / "images" / "left" / "0.png"
    bent_picture(*LENSES[0]).save(path)
    upright, exif = frame_through(drive, *LENSES[0])["images"][0], Image.Exif()
    exif[0x0112] = 6
    bent_picture(*LENSES[0]).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    turned = frame_through(drive, *LENSES[0])["images"][0]
    np.testing.assert_array_equal(decode_image(turned), decode_image(upright))


def test_lenses_go_to_worker_processes(drive):
    frame_through(drive, *LENSES[1])
    frames = load_frames("point_cloud_folder", data_dir=drive.parent)
    image = frames[0]["images"][0]
    assert pickle.loads(pickle.dumps(frames))[0]["images"][0] == image


def test_what_cannot_be_straightened_is_refused_with_its_line(drive, monkeypatch):
    for model, coefficients, message in [
        ("opencv", [0.1, 0.2, 0.3], "opencv has 4 or 5 or 8 or 12 or 14 coefficients, got 3"),
        ("opencv_fisheye", [0.1] * 5, "opencv_fisheye has 4 coefficients, got 5"),
        ("plumb_bob", [0.1] * 5, "the lens models are opencv, opencv_fisheye; got 'plumb_bob'"),
        ("opencv", [-90.0, 0, 0, 0], "no image can be straightened by the coefficients.*OpenCV's order"),
        ("opencv", [0.1, "many", 0, 0], "expected `coefficients` to be any number of finite numbers"),
    ]:
        with pytest.raises(ValueError, match=f"calibration.yaml, line \\d+: .*{message}"):
            frame_through(drive, model, coefficients)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="calibration.yaml, line .*pip install opencv-python-headless.*yourself"):
        frame_through(drive, *LENSES[0])


def test_a_file_of_another_size_is_refused(drive):
    frame_through(drive, *LENSES[0])
    frames = load_frames("point_cloud_folder", data_dir=drive.parent)
    small_car.picture(0).resize((32, 24)).save(drive / "images" / "left" / "0.png")
    with pytest.raises(ValueError, match=r"left/0.png: calibrated for .* \(48, 64\), the image has \(24, 32\)"):
        frames[0]
    for content in (b"", png_with_a_hole()):
        (drive / "images" / "left" / "0.png").write_bytes(content)
        with pytest.raises(ValueError, match="left/0.png: expected a whole image file"):
            frames[0]
