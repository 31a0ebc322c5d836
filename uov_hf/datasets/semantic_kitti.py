"""SemanticKITTI, from the folders of KITTI odometry with its labels; sensor data stays in its files."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uov_hf.data.frames import SYNTHETIC_LICENCE, EncodedImage, Frame, FrameBuilder, Frames
from uov_hf.data.raw_folders import RawFrame, RawFrames, encoded_image, instances_of, splits_in
from uov_hf.datasets.kitti_files import read_calibration, read_table, split_projection
from uov_hf.geometry.rotation import is_rigid, rigid_motion
from uov_hf.image_files import read_image_size
from uov_hf.leftovers import data_files
from uov_hf.setting_files import read_json
from uov_hf.vocabulary import Vocabulary, load_vocabulary


TAXONOMY = "semantic_kitti"
# Folder of images, and the matrix of its camera: the left colour camera or, without colour images, the grey one by it.
CAMERAS = {"image_2": "P2", "image_0": "P0"}
SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(f"{number:02d}" for number in range(11, 22)),
}


class SemanticKitti(FrameBuilder):
    """`SemanticKitti(data_dir=root).as_frames("train")`; the root is the folder that contains `sequences`.

    Splits: the official `train`, `val` and `test`, if any of their sequences is present, and `all`.
    """

    pretty_name = "SemanticKITTI"
    licence = (
        "KITTI's data is CC BY-NC-SA 3.0 (https://www.cvlibs.net/datasets/kitti), SemanticKITTI's labels are "
        "CC BY-NC-SA 4.0 (https://semantic-kitti.org)."
    )
    may_be_published = False
    settings_patterns = tuple(f"sequences/*/{name}.txt" for name in ("calib", "times", "poses"))

    def __init__(self, *args: object, data_dir: str | Path, **kwargs: object):
        super().__init__(*args, data_dir=str(data_dir), **kwargs)
        sequences = [folder.parent for folder in data_files(Path(data_dir), "sequences/*/velodyne")]
        if sequences and all(map(_is_street, sequences)):
            self.pretty_name = "Synthetic street (SemanticKITTI format)"
            self.licence = SYNTHETIC_LICENCE
            self.may_be_published = True

    def open(self) -> RawFrames:
        root = Path(self.config.data_dir)
        files = data_files(root, "sequences/*/velodyne/*.bin")
        if not files:
            raise ValueError(
                f"{root}: expected scans (sequences/00/velodyne/000000.bin, …), got none; `data_dir` is the folder "
                "that contains `sequences`."
            )
        drives = {file.parents[1]: Drive(file.parents[1]) for file in files}
        vocabulary = load_vocabulary(TAXONOMY)
        scans = [Scan(file.stem, drives[file.parents[1]], vocabulary) for file in files]
        # Of scans, not of sequences: the paper's 1 % is every hundredth scan (docs/explanation/method.md, 1.3).
        return RawFrames(scans, TAXONOMY, fraction_of="frames")

    def default_splits(self) -> tuple[str, ...]:
        here = self.split_members()
        return tuple(split for split in SPLITS if split in here) or ("all",)

    def split_members(self) -> dict[str, list[str]]:
        return splits_in(self.source, SPLITS)


def _is_street(folder: Path) -> bool:
    """Whether the generator of the synthetic street wrote every scan of a sequence, by their numbers of points."""
    path = folder / "street.json"
    if not path.is_file():
        return False
    try:
        num_points = dict(read_json(path)["num_points"])
        if not all(type(count) is int for count in num_points.values()):
            raise ValueError("other counts than whole numbers")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: expected {{"num_points": {{"000000": count, …}}}}, got: {error!r}') from error
    num_bytes = {scan.stem: scan.stat().st_size for scan in data_files(folder / "velodyne", "*.bin")}
    return all(size == 16 * num_points.get(stem, -1) for stem, size in num_bytes.items())


class Drive:
    """The folder of a sequence: its calibration, and the times and poses of its scans."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.has_poses = (folder / "poses.txt").is_file()
        self.cameras = [name for name in CAMERAS if (folder / name).is_dir()][:1]

    @cached_property
    def calibration(self) -> dict[str, NDArray[np.float64]]:
        return read_calibration(self.folder / "calib.txt", ("P0", "P2", "Tr"))

    @cached_property
    def lidar2grey(self) -> NDArray[np.float64]:
        """From the lidar to the left grey camera, whose frame the poses and projections are in."""
        return rigid_motion(self.calibration["Tr"][:, :3], self.calibration["Tr"][:, 3])

    @cached_property
    def times(self) -> NDArray[np.float64]:
        path = self.folder / "times.txt"
        times = read_table(path, 1)
        if np.abs(times).max(initial=0) >= 2**63 / 1e6:
            raise ValueError(f"{path}: expected seconds, got {np.abs(times).max():g}.")
        return times

    @cached_property
    def poses(self) -> NDArray[np.float64]:
        return read_table(self.folder / "poses.txt", 12)

    def line_of(self, stem: str, name: str) -> NDArray[np.float64]:
        """The numbers that `times` or `poses` has for a scan."""
        lines = getattr(self, name)
        if int(stem) >= len(lines):
            raise ValueError(
                f"{self.folder / name}.txt: expected a line for every scan, got {len(lines)} lines and scan {stem}."
            )
        return lines[int(stem)]


class Scan(RawFrame):
    """A scan with the image and the labels of the same number."""

    intensity_max = 1.0

    def __init__(self, stem: str, drive: Drive, vocabulary: Vocabulary):
        self._stem, self._drive, self.vocabulary = stem, drive, vocabulary
        self.scan_file, self.label_file = self._file("velodyne", "bin"), self._file("labels", "label")
        self.sequence_id = drive.folder.name
        self.frame_id = f"{self.sequence_id}/{stem}"
        self.camera_names = drive.cameras
        self.image_ids = [self.frame_id for _ in drive.cameras]

    @property
    def timestamp(self) -> int:
        return round(1e6 * float(self._drive.line_of(self._stem, "times")[0]))

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        """The class is in the lower 16 bits of a label, the instance number in the upper."""
        words = self.raw_labels
        return None if words is None else self.classes_of(words & 0xFFFF)

    @property
    def instances(self) -> NDArray[np.int32] | None:
        words = self.raw_labels
        return None if words is None else instances_of(words)

    @property
    def images(self) -> list[EncodedImage]:
        paths = [self._file(name, "png") for name in self.camera_names]
        return [encoded_image(path, f"the image of scan {self.frame_id}") for path in paths]

    @property
    def camera_timestamps(self) -> NDArray[np.int64]:
        """The lidar triggers the camera when it faces forward, and KITTI gives one time for both."""
        return np.array([self.timestamp for _ in self.camera_names], np.int64)

    @property
    def lidar2cam(self) -> NDArray[np.float64]:
        return np.array([self._geometry(name)[0] for name in self.camera_names]).reshape(-1, 4, 4)

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        return np.array([self._geometry(name)[1] for name in self.camera_names]).reshape(-1, 3, 3)

    @property
    def image_sizes(self) -> NDArray[np.int32]:
        sizes = [read_image_size(self._file(name, "png")) for name in self.camera_names]
        return np.array(sizes, np.int32).reshape(-1, 2)

    @property
    def lidar2global(self) -> NDArray[np.float64] | None:
        """Lidar → grey camera → first grey camera → first lidar, as poses are the camera's. None without poses."""
        if not self._drive.has_poses:
            return None
        pose = self._drive.line_of(self._stem, "poses").reshape(3, 4)
        grey2first = rigid_motion(pose[:, :3], pose[:, 3])
        if not is_rigid(grey2first):
            path = self._drive.folder / "poses.txt"
            raise ValueError(
                f"{path}: expected a rotation and a translation for scan {self._stem}, with 6 digits or more, got "
                f"{pose.tolist()}."
            )
        return np.linalg.inv(self._drive.lidar2grey) @ grey2first @ self._drive.lidar2grey

    def _geometry(self, camera: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return split_projection(self._drive.calibration[CAMERAS[camera]], self._drive.lidar2grey)

    def _file(self, folder: str, extension: str) -> Path:
        return self._drive.folder / folder / f"{self._stem}.{extension}"


def merge_scans(frames: Frames, index: int, num_before: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A scan together with those before it, as in SemanticKITTI's benchmark for multiple scans.

    Args:
        frames (`Frames`): Any frames with poses.
        index (`int`): The scan whose lidar frame the points are in.
        num_before (`int`, *optional*, defaults to 4): Number of frames before it; fewer at the start of its sequence.

    Returns:
        `points` of shape `(num_points, 4)`, float32, its own first and unchanged; and `scans_back` of shape
        `(num_points,)`, int64: how many frames before it each point was measured.

    Raises:
        ValueError: A frame has no pose.
    """
    frames = frames.select_columns(["frame_id", "sequence_id", "points", "lidar2global"])
    here = frames[index]
    global2here, clouds = np.linalg.inv(_pose(here)), [here["points"]]
    for before in range(index - 1, max(index - 1 - num_before, -1), -1):
        then = frames[before]
        if then["sequence_id"] != here["sequence_id"]:
            break
        motion = global2here @ _pose(then)
        xyz = then["points"][:, :3] @ motion[:3, :3].T + motion[:3, 3]
        clouds.append(np.column_stack([xyz.astype(np.float32), then["points"][:, 3]]))
    return np.concatenate(clouds), np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])


def _pose(frame: Frame) -> NDArray[np.float64]:
    if frame["lidar2global"] is None:
        raise ValueError(f"Frame {frame['frame_id']}: merging scans needs a pose (`lidar2global`), got None.")
    return frame["lidar2global"]
