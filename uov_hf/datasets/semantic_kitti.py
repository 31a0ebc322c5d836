"""SemanticKITTI, from the folders of KITTI odometry with its labels; sensor data is read where it lies.

`python dataset_scripts/semantic_kitti.py --data_dir data/kitti --output_dir data/kitti-parquet` writes Parquet.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.data.frames import SYNTHETIC_LICENCE, FrameBuilder, Frames
from uov_hf.data.label_words import instances_of, read_label_words, to_classes
from uov_hf.datasets.kitti_files import is_synthetic, read_calibration, read_image_size, read_table, split_projection
from uov_hf.point_files import check_finite, read_points
from uov_hf.vocabulary import Vocabulary, load_vocabulary


# Folder of images, and the matrix of its camera: the left colour camera or, without colour images, the grey one by it.
CAMERAS = {"image_2": "P2", "image_0": "P0"}
SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(f"{number:02d}" for number in range(11, 22)),
}


class SemanticKitti(FrameBuilder):
    """
    `SemanticKitti(data_dir=root).as_frames("train")`; the root is the folder that holds `sequences`.

    Splits: the official `train`, `val` and `test`, as far as their sequences are here, and `all`.
    """

    licence = (
        "KITTI's data is CC BY-NC-SA 3.0 (https://www.cvlibs.net/datasets/kitti), SemanticKITTI's labels are "
        "CC BY-NC-SA 4.0 (https://semantic-kitti.org)."
    )
    may_be_published = False

    def __init__(self, *args, data_dir: str | Path, **kwargs):
        super().__init__(*args, data_dir=str(data_dir), **kwargs)
        if is_synthetic(Path(data_dir)):
            self.licence = SYNTHETIC_LICENCE
            self.may_be_published = True

    def open(self) -> "Scans":
        return Scans(Path(self.config.data_dir))

    def default_splits(self) -> tuple[str, ...]:
        here = self.split_sequences()
        return tuple(split for split in SPLITS if split in here) or ("all",)

    def split_sequences(self) -> dict[str, list[str]]:
        sequences = list(dict.fromkeys(self.source.sequence_ids))
        splits = {split: [name for name in sequences if name in members] for split, members in SPLITS.items()}
        return {split: members for split, members in splits.items() if members} | {"all": sequences}


class Scans:
    """
    The scans of a root, as a `FrameSource`: sequence by sequence, in the order of time.

    Raises:
        ValueError: where a file is missing, cut short, or does not fit its scan; it names the file.
    """

    taxonomy = "semantic_kitti"
    fraction_of = "frames"  # of scans, not of sequences: the paper's 1 % is every hundredth (docs/method.md, 1.3)

    def __init__(self, root: Path):
        files = sorted(root.glob("sequences/*/velodyne/*.bin"))
        if not files:
            raise ValueError(
                f"{root}: expected scans (sequences/00/velodyne/000000.bin, …), got none; `data_dir` is the folder "
                "that holds `sequences`."
            )
        folders = {file.parents[1]: Drive(file.parents[1]) for file in files}
        vocabulary = load_vocabulary(self.taxonomy)
        self._scans = [Scan(file.stem, folders[file.parents[1]], vocabulary) for file in files]
        self.frame_ids = [scan.frame_id for scan in self._scans]
        self.sequence_ids = [scan.sequence_id for scan in self._scans]

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        return {column: getattr(self._scans[index], column) for column in columns}


class Drive:
    """The folder of a sequence: its calibration, and when and where each scan was taken."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.has_labels = (folder / "labels").is_dir()
        self.has_poses = (folder / "poses.txt").is_file()
        self.camera = next((name for name in CAMERAS if (folder / name).is_dir()), None)

    @cached_property
    def calibration(self) -> dict[str, np.ndarray]:
        return read_calibration(self.folder / "calib.txt", ("P0", "P2", "Tr"))

    @cached_property
    def lidar2grey(self) -> np.ndarray:
        """From the lidar to the left grey camera, whose frame everything else is given in."""
        return np.vstack([self.calibration["Tr"], [0, 0, 0, 1]])

    def camera_geometry(self) -> tuple[np.ndarray, np.ndarray]:
        """`lidar2cam` (4, 4) and `intrinsics` (3, 3) of the camera."""
        return split_projection(self.calibration[CAMERAS[self.camera]], self.lidar2grey)

    @cached_property
    def times(self) -> np.ndarray:
        return read_table(self.folder / "times.txt", 1)[:, 0]

    @cached_property
    def poses(self) -> np.ndarray:
        return read_table(self.folder / "poses.txt", 12).reshape(-1, 3, 4)

    def of_scan(self, stem: str, name: str) -> np.ndarray:
        """The line of `times` or `poses` that belongs to a scan."""
        lines = getattr(self, name)
        if int(stem) >= len(lines):
            raise ValueError(
                f"{self.folder / name}.txt: expected a line for every scan, got {len(lines)} lines and scan {stem}."
            )
        return lines[int(stem)]


class Scan:
    """One scan. Each column of its frame is a property: what is not asked for is not read."""

    intensity_max = 1.0

    def __init__(self, stem: str, drive: Drive, vocabulary: Vocabulary):
        self._stem, self._drive, self._vocabulary = stem, drive, vocabulary
        self.sequence_id = drive.folder.name
        self.frame_id = f"{self.sequence_id}/{stem}"
        self.camera_names = [drive.camera] if drive.camera else []
        self.image_ids = [self.frame_id for _ in self.camera_names]

    @property
    def timestamp(self) -> int:
        return round(1e6 * float(self._drive.of_scan(self._stem, "times")))

    @property
    def points(self) -> np.ndarray:
        path = self._file("velodyne", "bin")
        points = read_points(path, num_columns=4)
        check_finite(points, path)
        return points

    @property
    def labels(self) -> np.ndarray | None:
        words = self._read_label_words()
        return None if words is None else to_classes(words & 0xFFFF, self._vocabulary, self._label_file)

    @property
    def instances(self) -> np.ndarray | None:
        words = self._read_label_words()
        return None if words is None else instances_of(words)

    @property
    def images(self) -> list[dict[str, Any]]:
        return [{"bytes": None, "path": str(self._file(name, "png"))} for name in self.camera_names]

    @property
    def camera_timestamps(self) -> np.ndarray:
        """The camera fires as the lidar looks ahead, and one time stands for both."""
        return np.array([self.timestamp for _ in self.camera_names], np.int64)

    @property
    def lidar2cam(self) -> np.ndarray:
        return np.array([self._drive.camera_geometry()[0] for _ in self.camera_names]).reshape(-1, 4, 4)

    @property
    def intrinsics(self) -> np.ndarray:
        return np.array([self._drive.camera_geometry()[1] for _ in self.camera_names]).reshape(-1, 3, 3)

    @property
    def image_sizes(self) -> np.ndarray:
        return np.array([read_image_size(image["path"]) for image in self.images], np.int32).reshape(-1, 2)

    @property
    def lidar2global(self) -> np.ndarray | None:
        """Poses are the grey camera's: lidar → camera → first camera → first lidar. None without `poses.txt`."""
        if not self._drive.has_poses:
            return None
        pose = np.vstack([self._drive.of_scan(self._stem, "poses"), [0, 0, 0, 1]])
        return np.linalg.inv(self._drive.lidar2grey) @ pose @ self._drive.lidar2grey

    def _read_label_words(self) -> np.ndarray | None:
        if not self._drive.has_labels:
            return None
        return read_label_words(self._label_file, self._file("velodyne", "bin"))

    @property
    def _label_file(self) -> Path:
        return self._drive.folder / "labels" / f"{self._stem}.label"

    def _file(self, folder: str, extension: str) -> Path:
        path = self._drive.folder / folder / f"{self._stem}.{extension}"
        if not path.is_file():
            raise ValueError(f"{path}: expected the file of scan {self.frame_id}, got none.")
        return path


def merge_scans(frames: Frames, index: int, num_before: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """
    A scan together with those before it, as in SemanticKITTI's benchmark for many scans.

    Args:
        frames (`Frames`): Any frames with poses.
        index (`int`): The scan in whose lidar frame the points are given.
        num_before (`int`, *optional*, defaults to 4): Frames before it; there are fewer where its sequence begins.

    Returns:
        `points` of shape `(num_points, 4)`, float32, its own first, to the bit; and `scans_back` of shape
        `(num_points,)`, int64, how many frames before it each was seen.

    Raises:
        ValueError: where the frames have no poses.
    """
    frames = frames.select_columns(["frame_id", "sequence_id", "points", "lidar2global"])
    here = frames[index]
    if here["lidar2global"] is None:
        raise ValueError(
            f"Frame {here['frame_id']} has no pose (`lidar2global`), without which scans cannot be merged."
        )
    clouds = [here["points"]]
    for before in range(index - 1, max(index - 1 - num_before, -1), -1):
        then = frames[before]
        if then["sequence_id"] != here["sequence_id"]:
            break
        motion = np.linalg.inv(here["lidar2global"]) @ then["lidar2global"]
        xyz = then["points"][:, :3] @ motion[:3, :3].T + motion[:3, 3]
        clouds.append(np.column_stack([xyz.astype(np.float32), then["points"][:, 3]]))
    return np.concatenate(clouds), np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])
