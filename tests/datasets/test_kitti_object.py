"""KITTI's object benchmark comes back as frames: points to the bit, the camera, no labels, no poses."""

import re

import numpy as np
import pytest
from PIL import Image
from tiny_kitti import IMAGE_SIZE, PROJECTIONS, TR, text_of

from uov_hf.data import FRAME_FEATURES, decode_image, load_frames
from uov_hf.geometry.projection import Camera, project_points


@pytest.fixture
def root(tmp_path):
    """Two training scans of one hundred, one of another, one testing scan."""
    rng = np.random.default_rng(0)
    turned = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # R0_rect undoes it
    matrices = {"P2": PROJECTIONS["P2"], "R0_rect": turned.T, "Tr_velo_to_cam": turned @ TR}
    for frame_id in ("training/000007", "training/000099", "training/000100", "testing/000000"):
        split, stem = frame_id.split("/")
        for folder in ("velodyne", "calib", "image_2"):
            (tmp_path / split / folder).mkdir(parents=True, exist_ok=True)
        points = np.column_stack([rng.normal(0, 20, (50, 3)), rng.random(50)]).astype(np.float32)
        points.tofile(tmp_path / split / "velodyne" / f"{stem}.bin")
        lines = [f"{name}: {text_of(matrix)}" for name, matrix in matrices.items()]
        (tmp_path / split / "calib" / f"{stem}.txt").write_text("\n".join([*lines, "", ""]))
        pixels = rng.integers(0, 256, (*IMAGE_SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / split / "image_2" / f"{stem}.png")
    return tmp_path


def load(root, split=None):
    return load_frames("kitti_object", split, data_dir=root)


def test_a_frame_has_points_and_a_camera_and_nothing_that_is_not_known(root):
    frame = load(root)[0]
    assert list(frame) == list(FRAME_FEATURES)
    assert frame["points"].tobytes() == (root / "training/velodyne/000007.bin").read_bytes()
    assert frame["labels"] is frame["instances"] is frame["lidar2global"] is None
    assert (frame["timestamp"], frame["intensity_max"]) == (0, 1.0)
    for column in ("lidar2cam", "intrinsics", "image_sizes"):
        assert frame[column].dtype == FRAME_FEATURES[column].dtype and len(frame[column]) == 1
    assert decode_image(frame["images"][0]).size == IMAGE_SIZE[::-1]


def test_splits_are_the_folders_and_a_hundred_scans_are_a_sequence(root):
    assert load(root).frame_ids == ["training/000007", "training/000099", "training/000100"]
    assert load(root, "testing").frame_ids == ["testing/000000"] and len(load(root, "all")) == 4
    assert load(root).sequence_ids == ["training/000000", "training/000000", "training/000100"]
    assert load_frames("kitti_object", data_dir=root, data_fraction=0.5).frame_ids == [
        "training/000007",
        "training/000100",
    ]


def test_the_camera_sits_where_the_calibration_puts_it(root):
    """The colour camera is 0.25 m ahead of the lidar, 0.75 m to its right, 0.5 m below; then 0.125 m back."""
    frame = load(root)[0]
    where = np.linalg.inv(frame["lidar2cam"][0])[:3, 3]
    np.testing.assert_allclose(where, [0.125, -0.75, -0.5], atol=1e-9)
    camera = Camera(frame["lidar2cam"][0], frame["intrinsics"][0], frame["image_sizes"][0])
    pixel_coords, _ = project_points((where + [10, -1, 0])[None], camera)  # ten metres ahead, one to the right
    np.testing.assert_allclose(pixel_coords, [[8 + 20 / 10, 6]], atol=1e-9)


@pytest.mark.parametrize(
    ("file", "content", "column", "message"),
    [
        ("velodyne/000007.bin", b"\0" * 20, "points", "expected a whole number of points of 4 float32, got 20 bytes"),
        ("calib/000007.txt", b"P2: 1 2\n", "lidar2cam", "000007.txt: expected lines of a name and 9 or 12 numbers"),
        ("calib/000007.txt", None, "intrinsics", "calib/000007.txt: expected the file of scan 000007, got none"),
        ("image_2/000007.png", None, "images", "image_2/000007.png: expected the file of scan 000007, got none"),
        ("image_2/000007.png", b"", "image_sizes", "000007.png: expected an image file, got: cannot identify"),
    ],
)
def test_a_broken_file_is_named_when_it_is_asked_for(root, file, content, column, message):
    path = root / "training" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(root).select_columns([column])[0]
    assert load(root).select_columns(["frame_id"])[0] == {"frame_id": "training/000007"}


def test_a_folder_without_scans_is_told_what_was_expected(root):
    with pytest.raises(ValueError, match=re.escape(f"{root / 'training'}: expected scans (training/velodyne/000000")):
        load(root / "training")


def test_the_odometry_layout_puts_the_genuine_camera_in_the_same_place(shared_data, tmp_path):
    """SemanticKITTI's reader on this benchmark's genuine frame, laid out as odometry is: `Tr` is both matrices."""
    source, folder = shared_data / "kitti_object/training", tmp_path / "sequences/00"
    expected = load(shared_data / "kitti_object")[0]
    for name, extension in (("velodyne", "bin"), ("image_2", "png")):
        (folder / name).mkdir(parents=True)
        (folder / name / f"000000.{extension}").symlink_to(source / name / f"000002.{extension}")
    lines = dict(line.split(": ") for line in (source / "calib/000002.txt").read_text().splitlines() if line)
    matrices = {name: np.array(lines[name].split(), float).reshape(3, -1) for name in ("R0_rect", "Tr_velo_to_cam")}
    together = matrices["R0_rect"] @ matrices["Tr_velo_to_cam"]
    (folder / "calib.txt").write_text(
        "".join(f"{name}: {lines[name]}\n" for name in ("P0", "P2")) + f"Tr: {text_of(together)}\n"
    )
    frames = load_frames("semantic_kitti", "all", data_dir=tmp_path)
    frame = frames.select_columns(["points", "lidar2cam", "intrinsics", "image_sizes", "images"])[0]
    np.testing.assert_allclose(frame["lidar2cam"], expected["lidar2cam"], atol=1e-11)
    np.testing.assert_array_equal(frame["intrinsics"], expected["intrinsics"])
    assert frame["points"].tobytes() == expected["points"].tobytes()
    assert decode_image(frame["images"][0]).size == tuple(expected["image_sizes"][0][::-1])
