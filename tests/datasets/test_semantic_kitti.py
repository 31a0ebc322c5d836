"""A SemanticKITTI root becomes frames: labels, instances, cameras, poses, splits."""

import numpy as np
import pytest
from tiny_roots import NUM_POINTS
from tiny_roots import write_semantic_kitti as write_root

from uov_hf.data import load_frames
from uov_hf.data.writing import write_parquet
from uov_hf.datasets.semantic_kitti import SemanticKitti, merge_scans
from uov_hf.evaluation.panoptic import PanopticQuality
from uov_hf.geometry.projection import Camera, project_points
from uov_hf.vocabulary import load_vocabulary


@pytest.fixture
def root(tmp_path):
    return write_root(tmp_path / "kitti", {"08": 1, "00": 3, "11": 1})


def load(root, split="all", **kwargs):
    return load_frames("semantic_kitti", split, data_dir=root, **kwargs)


def test_frames_come_sequence_by_sequence_in_the_order_of_time(root):
    frames = load(root)
    assert frames.frame_ids == ["00/000000", "00/000001", "00/000002", "08/000000", "11/000000"]
    assert frames.sequence_ids == ["00", "00", "00", "08", "11"]
    assert [frame["timestamp"] for frame in frames] == [0, 100_000, 200_000, 0, 0]
    assert frames.source.fraction_of == "frames"  # of scans, not of sequences


def test_splits_are_the_official_ones_as_far_as_they_are_here(root, tmp_path):
    assert SemanticKitti(data_dir=root).default_splits() == ("train", "val", "test")
    assert load(root, None).sequence_ids == load(root, "train").sequence_ids == ["00"] * 3
    assert load(root, "val").sequence_ids == ["08"] and load(root, "test").sequence_ids == ["11"]
    own = write_root(tmp_path / "own", {"30": 1})
    assert SemanticKitti(data_dir=own).split_members() == {"all": ["30"]} and len(load(own, None)) == 1
    with pytest.raises(ValueError, match="expected one of the splits all, or .*, got 'train'"):
        load(own, "train")


def write_words(root, words):
    """The words, and vegetation without an instance for the other points, as labels of the first scan."""
    words = np.array([*words, *[70] * (NUM_POINTS - len(words))], np.uint32)
    words.tofile(root / "sequences/00/labels/000000.label")


def test_the_lower_half_of_a_label_is_the_class_and_the_whole_of_it_the_instance(root):
    words = [0, 252 + (7 << 16), 10 + (65535 << 16)]
    write_words(root, words)
    frame, names = load(root)[0], load_vocabulary("semantic_kitti").class_names
    assert frame["labels"][:4].tolist() == [255, names.index("car"), names.index("car"), names.index("vegetation")]
    assert frame["instances"].view(np.uint32)[:4].tolist() == [0, *words[1:], 0]


@pytest.mark.parametrize("number", [7, 65535])  # the second one makes the int32 of the column negative
def test_two_raw_classes_of_one_class_may_use_a_number_each(root, tmp_path, number):
    """A parked car and a moving one, both of this number, are two cars; read in place and from Parquet."""
    write_words(root, [10 + (number << 16)] * 4 + [252 + (number << 16)] * 3)
    is_thing = load_vocabulary("semantic_kitti").is_thing
    write_parquet(SemanticKitti(data_dir=root), tmp_path / "parquet")
    for frame in (load(root)[0], load_frames(str(tmp_path / "parquet"), "train")[0]):
        quality = PanopticQuality(is_thing, min_points=1)
        quality.update(frame["labels"], frame["instances"], frame["labels"], frame["instances"])
        hits = dict(zip(load_vocabulary("semantic_kitti").class_names, quality.counts[0], strict=True))
        assert hits["car"] == 2 and hits["vegetation"] == 1


@pytest.mark.parametrize(
    ("folder", "center", "focal_length"), [("image_2", (0.125, -0.75, -0.5), 20), ("image_0", (0.25, 0, -0.5), 10)]
)
def test_the_camera_sits_where_the_calibration_puts_it(tmp_path, folder, center, focal_length):
    """The colour camera is 0.75 m to the right of the grey one and 0.125 m behind it."""
    frame = load(write_root(tmp_path, {"00": 1}, camera=folder))[0]
    assert frame["camera_names"] == [folder] and frame["image_ids"] == ["00/000000"]
    where = np.linalg.inv(frame["lidar2cam"][0])[:3, 3]
    np.testing.assert_allclose(where, center, atol=1e-9)
    camera = Camera(frame["lidar2cam"][0], frame["intrinsics"][0], frame["image_sizes"][0])
    straight_ahead = where + [10, 0, 0]
    pixel_coords, _ = project_points(straight_ahead[None], camera)
    np.testing.assert_allclose(pixel_coords, [[8, 6]], atol=1e-9)
    pixel_coords, _ = project_points((straight_ahead + [0, -1, 0])[None], camera)  # a metre to the right
    np.testing.assert_allclose(pixel_coords, [[8 + focal_length / 10, 6]], atol=1e-9)


def test_a_root_without_images_or_labels_has_no_camera_and_no_labels(tmp_path):
    frame = load(write_root(tmp_path, {"00": 1}, camera=None, labels=False))[0]
    assert frame["labels"] is None and frame["instances"] is None
    assert frame["camera_names"] == frame["images"] == []
    assert frame["lidar2cam"].shape == (0, 4, 4) and frame["image_sizes"].shape == (0, 2)


def test_poses_lead_from_the_lidar_to_the_first_lidar(root):
    """The grey camera moves along its z; the lidar's x looks there."""
    motions = [frame["lidar2global"] for frame in load(root, "train")]
    for index, motion in enumerate(motions):
        expected = np.eye(4)
        expected[0, 3] = index
        np.testing.assert_allclose(motion, expected, atol=1e-12)


def test_scans_are_merged_where_things_stood(root):
    """The pole is seen three times, while the car comes nearer to it by a metre a scan."""
    for index in range(3):
        scan = np.array([[10 - index, 2, 0, 0.5], [5, 5, index, 1]], np.float32)
        scan.tofile(root / f"sequences/00/velodyne/00000{index}.bin")
    points, scans_back = merge_scans(load(root), 2)
    assert scans_back.tolist() == [0, 0, 1, 1, 2, 2] and points.dtype == np.float32
    np.testing.assert_array_equal(points[:2], scan)
    np.testing.assert_allclose(points[::2], [[8, 2, 0, 0.5]] * 3, atol=1e-6)
    assert merge_scans(load(root), 2, num_before=1)[1].tolist() == [0, 0, 1, 1]
    assert set(merge_scans(load(root), 3)[1]) == {0}  # the first of its sequence


def test_without_poses_there_is_no_place_in_the_world(root):
    (root / "sequences/00/poses.txt").unlink()
    frames = load(root)
    assert frames[0]["lidar2global"] is None
    with pytest.raises(ValueError, match="Frame 00/000001: merging scans needs a pose"):
        merge_scans(frames, 1)


def test_labels_of_the_real_scan_are_those_counted_in_its_file(shared_data):
    """The genuine SemanticKITTI scan: classes by the ids of its label file, without this package's reader or map."""
    raw_ids_of = {"bicycle": 11, "parking": 44, "sidewalk": 48, "building": 50, "fence": 51, "vegetation": 70}
    raw_ids_of |= {"trunk": 71, "terrain": 72, "pole": 80, "traffic-sign": 81}
    raw_ids_of |= {"car": (10, 252), "person": (30, 254), "road": (40, 60)}  # semantic-kitti-api: learning_map
    root = shared_data / "semantickitti/dataset"
    words = np.fromfile(root / "sequences/08/labels/000000.label", np.uint32)
    frame = load_frames("semantic_kitti", "val", data_dir=root)[0]
    found = np.bincount(frame["labels"], minlength=256)
    for class_id, name in enumerate(load_vocabulary("semantic_kitti").class_names):
        assert found[class_id] == np.isin(words & 0xFFFF, raw_ids_of.get(name, ())).sum(), name
    assert found[255] == np.isin(words & 0xFFFF, (0, 1, 52, 99)).sum() == 6924
    assert (frame["labels"] != 255).sum() == 116465 and found[:19].max() == 30925  # terrain
    np.testing.assert_array_equal(frame["instances"].view(np.uint32), words * (words >> 16 > 0))
    assert frame["points"].tobytes() == (root / "sequences/08/velodyne/000000.bin").read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"Tr: 1 0 0 0 1 0 0 0 1", "12 numbers"),
        (b"Tr: " + b"0 " * 12, "with an inverse"),
        (b"Tr: " + b"nan " * 12, "finite numbers"),
        (b"Tr: \xa0", "a text file of KITTI"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_named(root, line, message):
    path = root / "sequences" / "08" / "calib.txt"
    kept = [own for own in path.read_bytes().splitlines() if not own.startswith(b"Tr")]
    path.write_bytes(b"\n".join([*kept, line]))
    with pytest.raises(ValueError, match=f"calib.txt: expected .*{message}"):
        load(root, "val")[0]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("times.txt", "1e101", "expected seconds, got 1e\\+101"),
        (
            "poses.txt",
            "0 " * 12,
            r"expected a rotation and a translation for scan 000001, with 6 digits or more, got \[\[0.0",
        ),
        ("poses.txt", "2 0 0 0 0 2 0 0 0 0 2 0", "expected a rotation and a translation for scan 000001"),
        ("poses.txt", "1e308 " * 12, "expected a rotation and a translation for scan 000001"),
    ],
)
def test_times_and_poses_that_cannot_be_used_are_named(root, name, line, message):
    path = root / "sequences" / "00" / name
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        load(root, "train")[1]
    if name == "poses.txt":
        assert load(root, "train")[0]["frame_id"] == "00/000000"
        with pytest.raises(ValueError, match=message):
            merge_scans(load(root), 2)
