"""PandaSet's spinning lidar and one of its cameras.

PandaSet comes as pickles of pandas, which run code when they are loaded. This reader takes their content as plain
files; docs/how_to/pandaset.md has the layout. Parquet is written by
`python dataset_scripts/pandaset.py --data_dir data/pandaset --output_dir data/pandaset-parquet`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uov_hf.data.frames import EncodedImage, FrameBuilder
from uov_hf.data.raw_folders import RawFrame, RawFrames, encoded_image, splits_in
from uov_hf.foreign_paths import inside
from uov_hf.geometry.rotation import is_rigid
from uov_hf.leftovers import data_files
from uov_hf.setting_files import read_json
from uov_hf.vocabulary import Vocabulary, load_vocabulary


TAXONOMY = "pandaset"
TIMES = ("lidar_timestamp", "camera_timestamp")
MOTIONS = ("lidar2world", "lidar2cam")


class PandaSet(FrameBuilder):
    """`PandaSet(data_dir=root).as_frames()`; the root is the folder that contains `001`, `002`, …

    PandaSet has no official splits: `train` (the Hub's name for a single split) is all of it, and so is `all`.
    """

    pretty_name = "PandaSet"
    licence = "CC BY 4.0 with PandaSet's terms of use (https://pandaset.org)."
    settings_patterns = ("*/calib.json",)

    def open(self) -> RawFrames:
        root = Path(self.config.data_dir)
        files = data_files(root, "*/lidar/*.bin")
        if not files:
            raise ValueError(
                f"{root}: expected scans (001/lidar/00.bin, …), got none; `data_dir` is the folder that contains "
                "`001`. PandaSet's own pickles must be converted first (docs/how_to/pandaset.md)."
            )
        calibrations = {folder: _read_calibration(folder) for folder in {file.parents[1] for file in files}}
        vocabulary = load_vocabulary(TAXONOMY)
        return RawFrames([Scan(file, calibrations[file.parents[1]], vocabulary) for file in files], TAXONOMY)

    def default_splits(self) -> tuple[str, ...]:
        return ("train",)

    def split_members(self) -> dict[str, list[str]]:
        return splits_in(self.source, {"train": self.source.sequence_ids})


class Moment(NamedTuple):
    """What `calib.json` has for a scan: times in microseconds, motions (4, 4) in metres."""

    timestamp: int
    camera_timestamp: int
    lidar2global: NDArray[np.float64]
    lidar2cam: NDArray[np.float64]


class Calibration(NamedTuple):
    """The `calib.json` of a sequence: its camera, and the entry of every scan by file stem."""

    path: Path
    camera: str
    image_size: tuple[int, int]  # height, width
    intrinsics: NDArray[np.float64]  # (3, 3)
    frames: dict[str, Any]

    def moment(self, stem: str) -> Moment:
        """The moment of a scan.

        Raises:
            ValueError: The file has no entry of this scan, or one without these numbers.
        """
        if stem not in self.frames:
            raise ValueError(f"{self.path}: expected scan {stem} under `frames`, got none.")
        entry = Entry(self.frames[stem], (*TIMES, *MOTIONS), f"{self.path}, scan {stem}")
        seconds = [float(entry.numbers(name, ())) for name in TIMES]
        if max(map(abs, seconds)) >= 2**63 / 1e6:
            raise ValueError(f"{entry.place}: expected times in seconds, got {seconds[0]:g} and {seconds[1]:g}.")
        time, camera_time = (round(1e6 * one) for one in seconds)
        motions = [entry.numbers(name, (4, 4)) for name in MOTIONS]
        for name, motion in zip(MOTIONS, motions, strict=True):
            if not is_rigid(motion):
                raise ValueError(
                    f"{entry.place}: expected a rotation and a translation as `{name}`, with 6 digits or more, got "
                    f"{motion.tolist()}."
                )
        return Moment(time, camera_time, *motions)


class Entry:
    """An object of `calib.json` that has these keys; errors begin with `place`."""

    def __init__(self, content: Any, keys: Sequence[str], place: str):
        if not isinstance(content, dict):
            raise ValueError(f"{place}: expected an object, got {content!r:.80}.")
        if absent := [key for key in keys if key not in content]:
            raise ValueError(
                f"{place}: expected the keys {', '.join(keys)} (docs/how_to/pandaset.md), got none of the name "
                f"{', '.join(absent)}."
            )
        self.content, self.place = content, place

    def numbers(self, key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        try:
            values = np.array(self.content[key], np.float64)
        except (ValueError, TypeError, OverflowError):
            values = np.full(shape, np.nan)
        if values.shape != shape or not np.isfinite(values).all():
            expected = f"{' x '.join(map(str, shape))} finite numbers" if shape else "a finite number"
            raise ValueError(f"{self.place}: expected {expected} as `{key}`, got {self.content[key]!r:.80}.")
        return values

    def size(self, key: str) -> int:
        value = self.content[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**31 or value % 1:
            raise ValueError(f"{self.place}: expected a number of pixels as `{key}`, got {value!r:.80}.")
        return int(value)


class Scan(RawFrame):
    """A scan with the image, the labels and the moment of the same number; some sequences have no labels."""

    intensity_max = 255.0

    def __init__(self, file: Path, calibration: Calibration, vocabulary: Vocabulary):
        self.scan_file, self._folder = file, file.parents[1]
        self.label_file, self.vocabulary = self._folder / "labels" / f"{file.stem}.label", vocabulary
        self._calibration = calibration
        self.sequence_id = self._folder.name
        self.frame_id = f"{self.sequence_id}/{file.stem}"
        self.camera_names, self.image_ids = [calibration.camera], [self.frame_id]
        self.intrinsics = calibration.intrinsics[None]
        self.image_sizes = np.array([calibration.image_size], np.int32)

    @property
    def timestamp(self) -> int:
        return self._moment.timestamp

    @property
    def camera_timestamps(self) -> NDArray[np.int64]:
        return np.array([self._moment.camera_timestamp], np.int64)

    @property
    def lidar2cam(self) -> NDArray[np.float64]:
        return self._moment.lidar2cam[None]  # between both exposures, with the motion

    @property
    def lidar2global(self) -> NDArray[np.float64]:
        return self._moment.lidar2global

    @property
    def images(self) -> list[EncodedImage]:
        folder = inside(self._folder / "camera", self._calibration.camera, self._calibration.path)
        path = folder / f"{self.scan_file.stem}.jpg"
        return [encoded_image(path, f"the image of scan {self.frame_id}")]

    @property
    def _moment(self) -> Moment:
        return self._calibration.moment(self.scan_file.stem)


def _read_calibration(folder: Path) -> Calibration:
    path = folder / "calib.json"
    entry = Entry(read_json(path), ("camera", "width", "height", "cam_intrinsic", "frames"), str(path))
    camera, frames = entry.content["camera"], entry.content["frames"]
    if not isinstance(camera, str) or not isinstance(frames, dict):
        raise ValueError(
            f"{path}: expected the name of a camera as `camera` and an object as `frames`, got {camera!r:.80} and "
            f"{frames!r:.80}."
        )
    size = entry.size("height"), entry.size("width")
    return Calibration(path, camera, size, entry.numbers("cam_intrinsic", (3, 3)), frames)
