"""A folder of your own clouds becomes frames, and files that contradict each other are named."""

import json
import shutil

import numpy as np
import pytest
import small_car
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

from uov_hf.data import decode_image, load_frames
from uov_hf.data.writing import write_parquet
from uov_hf.datasets.point_cloud_folder import PointCloudFolder
from uov_hf.teachers.protocol import open_images


@pytest.fixture
def drive(tmp_path):
    return small_car.write_car(tmp_path / "car")


def frames_of(drive):
    return load_frames("point_cloud_folder", data_dir=drive.parent)


def edit(path, **changes):
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))


def test_everything_in_the_folder_becomes_a_column(drive):
    frames = frames_of(drive)
    assert frames.frame_ids == ["drive/0", "drive/1", "drive/2"] and frames.taxonomy == "semantic_kitti"
    frame = frames[1]
    np.testing.assert_array_equal(frame["points"], small_car.points_of(1))
    assert frames.class_names[frame["labels"][0]] == "road" and set(frame["instances"]) == {(1 << 16) + 40}
    assert (frame["timestamp"], frame["camera_timestamps"].tolist()) == (100_000, [120_000, 120_000])
    assert frame["camera_names"] == ["left", "right"] and frame["image_ids"] == ["drive/left/1", "drive/right/1"]
    assert frame["image_sizes"].tolist() == [[48, 64]] * 2 and frame["intensity_max"] == 200
    np.testing.assert_array_equal(decode_image(frame["images"][0]), small_car.picture(1))
    np.testing.assert_allclose(frame["lidar2global"][:3, 3], [0, -1, 0])


def test_an_image_that_lies_on_its_side_is_upright_for_every_reader(drive, tmp_path):
    """The calibration is for the upright image. The folder, its Parquet and a teacher have the same pixels."""
    exif = Image.Exif()
    exif[0x0112] = 8
    side = small_car.picture(1).transpose(Image.Transpose.ROTATE_270)
    side.save(drive / "images" / "left" / "1.png", exif=exif)
    write_parquet(PointCloudFolder(data_dir=str(drive.parent)), tmp_path / "parquet")
    for frames in (frames_of(drive), load_frames(str(tmp_path / "parquet"))):
        assert frames[1]["image_sizes"].tolist() == [[48, 64]] * 2
        for picture in (decode_image(frames[1]["images"][0]), open_images(frames[1])[0].pixels):
            np.testing.assert_array_equal(picture, small_car.picture(1))


def test_the_motion_between_the_exposures_is_part_of_lidar2cam(drive):
    """20 ms after the scan the car is 0.2 m further to the right, so the wall is 0.2 m further to the left."""
    expected = small_car.LIDAR2CAM["left"].copy()
    expected[0, 3] -= 0.2
    for frame in frames_of(drive):
        np.testing.assert_allclose(frame["lidar2cam"][0], expected, atol=1e-12)


def test_between_poses_the_car_turns_steadily(drive):
    """TUM poses, 1 s apart: a quarter turn about z while it drives 4 m. 20 ms are a fiftieth of it."""
    quarter = Rotation.from_euler("z", 90, degrees=True).as_quat()
    lines = [f"{time} {4 * time} 0 0 {' '.join(map(str, q))}" for time, q in [(0, [0, 0, 0, 1]), (1, quarter)]]
    (drive / "poses.txt").write_text("# time x y z qx qy qz qw\n" + "\n".join(lines))
    frame = frames_of(drive)[0]
    then = np.eye(4)
    then[:3, :3] = Rotation.from_euler("z", 90 / 50, degrees=True).as_matrix()
    then[0, 3] = 4 / 50
    np.testing.assert_allclose(frame["lidar2cam"][0], small_car.LIDAR2CAM["left"] @ np.linalg.inv(then), atol=1e-9)


def test_poses_may_be_those_of_another_part_of_the_car(drive):
    """The body's frame has x to the right and y ahead, as some IMUs do; it lies 2 m below the lidar."""
    lidar2body = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
    edit(drive.parent / "calibration.yaml", lidar2body=lidar2body)
    frame = frames_of(drive)[2]
    np.testing.assert_allclose(frame["lidar2global"], [[0, -1, 0, 0], [1, 0, 0, -2], [0, 0, 1, 2], [0, 0, 0, 1]])


def test_a_late_clock_is_corrected_by_time_offset(drive):
    """A camera whose clock is 20 ms ahead: its images are of the time of the scan, and nothing has moved."""
    cameras = small_car.calibration()["cameras"]
    cameras["left"]["time_offset"] = -20_000
    edit(drive.parent / "calibration.yaml", cameras=cameras)
    frame = frames_of(drive)[1]
    assert frame["camera_timestamps"].tolist() == [100_000, 120_000]
    np.testing.assert_allclose(frame["lidar2cam"][0], small_car.LIDAR2CAM["left"], atol=1e-12)
    (drive / "timestamps.csv").unlink()
    with pytest.raises(ValueError, match="camera 'left' has `time_offset: -20000`, but there is no .*timestamps.csv"):
        frames_of(drive)


def test_what_is_optional_may_be_missing(drive):
    """Only clouds, and the one line that must be known of the lidar."""
    for folder, file in (("labels", "poses.txt"), ("images", "timestamps.csv")):
        shutil.rmtree(drive / folder)
        (drive / file).unlink()
    (drive.parent / "calibration.yaml").unlink()
    (drive.parent / "calibration.json").write_text('{"intensity_max": 255}')
    frame = frames_of(drive)[0]
    for column in ("labels", "instances", "timestamp", "camera_timestamps", "lidar2global"):
        assert frame[column] is None
    assert frame["lidar2cam"].shape == (0, 4, 4) and frame["image_sizes"].shape == (0, 2)
    assert frame["camera_names"] == frame["images"] == []


def test_without_times_frames_come_in_the_order_of_their_numbers(drive):
    (drive / "timestamps.csv").unlink()
    (drive / "poses.txt").unlink()
    for folder in ("points", "labels", "images/left", "images/right"):
        for path in (drive / folder).iterdir():
            path.rename(path.with_stem({"0": "9", "1": "10", "2": "100"}[path.stem]))
    assert frames_of(drive).frame_ids == ["drive/9", "drive/10", "drive/100"]


def test_a_frame_may_lack_an_image_and_labels(drive):
    (drive / "images" / "left" / "1.png").unlink()
    (drive / "labels" / "1.label").unlink()
    text = (drive / "timestamps.csv").read_text()
    (drive / "timestamps.csv").write_text(text.replace("1,100000,120000,", "1,100000,,"))
    frames = frames_of(drive)
    assert frames[1]["camera_names"] == ["right"] and len(frames[1]["lidar2cam"]) == 1
    assert frames[1]["labels"] is None and frames[0]["labels"] is not None


def test_clouds_without_intensity_get_0(drive):
    for frame in range(3):
        (drive / "points" / f"{frame}.bin").unlink()
        np.save(drive / "points" / f"{frame}.npy", small_car.points_of(frame)[:, :3])
    points = frames_of(drive)[0]["points"]
    assert points.shape == (50, 4) and (points[:, 3] == 0).all()


def test_cam2lidar_is_the_inverse_of_lidar2cam(drive):
    content = small_car.calibration()
    expected = frames_of(drive)[0]["lidar2cam"]
    for camera in content["cameras"].values():
        camera["cam2lidar"] = np.linalg.inv(camera.pop("lidar2cam")).tolist()
    small_car.write_calibration(drive.parent, content)
    np.testing.assert_allclose(frames_of(drive)[0]["lidar2cam"], expected, atol=1e-12)


def test_a_folder_with_points_is_itself_the_only_sequence(drive):
    shutil.move(drive.parent / "calibration.yaml", drive / "calibration.yaml")
    assert load_frames("point_cloud_folder", data_dir=drive).sequence_ids == ["drive"] * 3


def test_splits_json_names_splits(drive):
    small_car.write_car(drive.parent, sequence="yard")
    assert len(frames_of(drive)) == 6
    (drive.parent / "splits.json").write_text(json.dumps({"train": ["yard"], "val": ["drive"]}))
    assert set(frames_of(drive).sequence_ids) == {"yard"}
    assert len(load_frames("point_cloud_folder", "all", data_dir=drive.parent)) == 6
    (drive.parent / "splits.json").write_text(json.dumps({"train": ["garage"]}))
    with pytest.raises(ValueError, match="splits.json: expected sequences or frames that .* has, got garage"):
        frames_of(drive)


def test_splits_that_share_a_sequence_are_not_both_written_by_default(drive):
    small_car.write_car(drive.parent, sequence="yard")
    splits = {"train": ["yard"], "both": ["yard", "drive"], "val": ["drive"], "none": []}
    (drive.parent / "splits.json").write_text(json.dumps(splits))
    builder = PointCloudFolder(data_dir=str(drive.parent), cache_dir=str(drive.parent / "cache"))
    assert builder.default_splits() == ("train", "val")
    (drive.parent / "splits.json").unlink()
    assert builder.default_splits() == ("all",)


def test_splits_have_single_frames_beside_sequences(drive, tmp_path):
    small_car.write_car(drive.parent, sequence="yard")
    splits = {"train": ["yard", "drive/2", "drive/0"], "val": ["drive/1"], "both": ["drive/0", "drive/1"]}
    (drive.parent / "splits.json").write_text(json.dumps(splits))
    builder = PointCloudFolder(data_dir=str(drive.parent), cache_dir=str(drive.parent / "cache"))
    assert builder.default_splits() == ("train", "val")
    write_parquet(builder, tmp_path / "parquet")
    for arguments in ({"dataset": "point_cloud_folder", "data_dir": drive.parent}, {"dataset": tmp_path / "parquet"}):
        arguments["dataset"] = str(arguments["dataset"])
        train = ["drive/0", "drive/2", "yard/0", "yard/1", "yard/2"]  # in the order of the folder
        assert load_frames(**arguments).frame_ids == load_frames(split="train", **arguments).frame_ids == train
        assert load_frames(split="val", **arguments).frame_ids == ["drive/1"]
        assert sorted(load_frames(split="all", **arguments).frame_ids) == sorted([*train, "drive/1"])


@pytest.mark.parametrize(
    "splits, message",
    [
        (
            {"train": ["drive/0", "drive/7"]},
            "has, got drive/7. Frames are named by their ids, such as drive/0",
        ),
        (
            {"train": ["drive"], "val": ["drive/1"]},
            "frame drive/1 is in train and in val, in one of them with",
        ),
        ({"train": ["drive/1"], "val": ["drive"]}, "frame drive/1 is in train and in val"),
    ],
)
def test_a_frame_that_does_not_exist_or_is_in_two_default_splits_is_named(drive, splits, message):
    (drive.parent / "splits.json").write_text(json.dumps(splits))
    for split in (None, "train", "all"):
        with pytest.raises(ValueError, match=message):
            load_frames("point_cloud_folder", split, data_dir=drive.parent)


def test_columns_that_are_not_asked_for_open_no_file(drive):
    frames = frames_of(drive)
    for folder in ("points", "labels"):
        shutil.rmtree(drive / folder)
    frames.select_columns(["frame_id", "images", "lidar2cam", "lidar2global"])[0]
    shutil.rmtree(drive / "images")
    assert frames.select_columns(["lidar2cam"])[0]["lidar2cam"].shape == (2, 4, 4)


@pytest.mark.parametrize("num_bytes", [0, 40, 150])
def test_a_label_array_that_is_cut_short_is_named(drive, num_bytes):
    (drive / "labels/0.label").unlink()
    path = drive / "labels/0.npy"
    np.save(path, np.full(50, 40))
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match="0.npy: expected "):
        frames_of(drive)[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_and_settings_may_come_from_a_spreadsheet_or_windows(drive, encoding):
    """With byte order marks, other separators, decimal commas, CRLF and rows of empty cells."""
    (drive.parent / "splits.json").write_text('{"train": ["drive"]}')
    expected = frames_of(drive)[1]
    changes = {"timestamps.csv": (",", ";"), "poses.txt": (".", ",")}
    for path in (*map(drive.joinpath, changes), drive.parent / "calibration.yaml", drive.parent / "splits.json"):
        text = path.read_text().replace(*changes.get(path.name, ("", "")))
        text += ";;;\n" if path.name == "timestamps.csv" else ""
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    frame = frames_of(drive)[1]
    assert frame["camera_timestamps"].tolist() == expected["camera_timestamps"].tolist()
    np.testing.assert_array_equal(frame["lidar2global"], expected["lidar2global"])


def test_leftovers_of_other_programs_are_no_clouds_images_or_sequences(drive):
    expected = frames_of(drive)
    for name in ("points/._0.bin", "points/9.tmp.npy", "images/left/._0.png", "labels/~0.npy"):
        (drive / name).write_bytes(b"leftover")
    (drive / "points" / "7.bin").mkdir()
    for name in ("images/.thumbnails", "../__MACOSX/points", "../.cache/points"):
        (drive / name).mkdir(parents=True)
    assert frames_of(drive).frame_ids == expected.frame_ids and frames_of(drive)[0]["camera_names"] == [
        "left",
        "right",
    ]


def test_the_columns_of_bin_files_are_in_the_calibration(drive):
    for path in (drive / "points").iterdir():
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        np.column_stack([points, points[:, :2]]).tofile(path)
    edit(drive.parent / "calibration.yaml", num_columns=6)
    np.testing.assert_array_equal(frames_of(drive)[1]["points"], small_car.points_of(1))


def test_a_linked_sequence_has_the_name_of_the_link(drive):
    (drive.parent / "again").symlink_to(drive, target_is_directory=True)
    assert sorted(set(frames_of(drive).sequence_ids)) == ["again", "drive"]


def test_clouds_that_other_libraries_cannot_read_are_named(drive):
    shutil.rmtree(drive / "points")
    (drive / "points").mkdir()
    for frame, suffix in enumerate((".pcd", ".ply", ".npy")):
        (drive / "points" / f"{frame}{suffix}").write_bytes(b"no cloud")
    for index, suffix in enumerate((".pcd", ".ply", ".npy")):
        pytest.importorskip({".pcd": "pypcd4", ".ply": "plyfile"}.get(suffix, "numpy"))
        with pytest.raises(ValueError, match=f"{index}{suffix}: expected "):
            frames_of(drive)[index]


def test_files_that_contradict_each_other_are_named_when_the_folder_is_opened(drive):
    def replace(name, old, new):
        (drive / name).write_text((drive / name).read_text().replace(old, new))

    cases = [
        (lambda: shutil.rmtree(drive / "points"), "expected a folder for every sequence"),
        (lambda: [path.unlink() for path in (drive / "points").iterdir()], r"points: expected clouds \(.bin"),
        (lambda: (drive.parent / "calibration.yaml").unlink(), "expected a calibration.yaml .*intensity_max: 255"),
        (lambda: (drive / "images/left").rename(drive / "images/rear"), "rear: expected one of the cameras.*left"),
        (lambda: (drive / "images/left/0.png").rename(drive / "images/left/00.png"), r"such as 0\), got 00.png"),
        (lambda: shutil.copy(drive / "points/0.bin", drive / "points/0.pcd.bin"), "one file for frame '0'"),
        (lambda: edit(drive.parent / "calibration.yaml", taxonomy="klingon"), "line 2: .*vocabulary 'klingon'"),
        (lambda: replace("timestamps.csv", "right", "rear"), "expected the columns .*, got none named 'right'"),
        (lambda: replace("timestamps.csv", "2,200000", "3,300000"), "a time of lidar for frame '2'"),
        (lambda: replace("timestamps.csv", "200000", "0.2"), "line 4: expected whole microseconds.*'0.2'"),
        (lambda: replace("timestamps.csv", "2,200000", "1,200000"), "line 4: frame '1' occurs twice"),
        (lambda: replace("timestamps.csv", "2,200000", "2,100000"), "line 4: .*lidar time than that of frame '1'"),
        (lambda: (drive.parent / "splits.json").write_text('{"a":'), "splits.json: expected .*got: Expecting value"),
        (lambda: (drive.parent / "splits.json").write_text("[]"), "splits.json: expected .*got: a list"),
        (lambda: edit(drive.parent / "calibration.yaml", num_columns=2), "line .*`num_columns` to be 3 or.*got 2"),
        (lambda: replace("poses.txt", "1.0 0.0 0.0", "2.0 0.0 0.0"), "poses.txt: .*rotate and translate only.*pose 1"),
        (lambda: (drive / "poses.txt").write_text("1 0 0 0 0 0 0 0"), "poses.txt: expected quaternions"),
        (lambda: (drive / "poses.txt").write_text("1 2 3"), "poses.txt: expected lines of 12 numbers"),
        (lambda: replace("poses.txt", "\n", "\n\n1 0 0 0 0 1 0 0 0 0 1 0\n"), "expected 3 lines"),
        (lambda: (drive / "poses.txt").write_text("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1"), "times that rise"),
    ]
    for harm, message in cases:
        harm()
        with pytest.raises(ValueError, match=message):
            frames_of(drive)
        shutil.rmtree(drive.parent)
        small_car.write_car(drive.parent)


def test_poses_of_another_clock_are_refused(drive):
    (drive / "poses.txt").write_text("9000 0 0 0 0 0 0 1\n9001 0 0 0 0 0 0 1")
    with pytest.raises(ValueError, match="poses.txt: expected poses around 100000 µs, got 2 from 9000000000"):
        frames_of(drive)[1]["lidar2cam"]
    (drive / "timestamps.csv").unlink()
    with pytest.raises(ValueError, match="poses with times need .*timestamps.csv"):
        frames_of(drive)


def test_sequences_of_different_taxonomies_are_refused(drive):
    other = small_car.write_car(drive.parent, sequence="yard")
    small_car.write_calibration(other, small_car.calibration() | {"taxonomy": "nuscenes"})
    with pytest.raises(ValueError, match="same `taxonomy`.*calibration.yaml: nuscenes"):
        frames_of(drive)


def test_an_own_vocabulary_lies_beside_the_calibration(drive):
    (drive.parent / "yard.yaml").write_text(
        "name: yard\nclasses:\n  - name: ground\n    prompts: [ground]\nraw_classes:\n"
        "  - {name: floor, id: 40, class: ground}\n"
    )
    edit(drive.parent / "calibration.yaml", taxonomy="yard.yaml")
    frames = frames_of(drive)
    assert frames.class_names == ["ground"] and (frames[0]["labels"] == 0).all()
