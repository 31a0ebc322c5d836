"""PandaSet's spinning lidar and one of its cameras.

PandaSet comes as pickles of pandas, which run code when they are loaded. This reader takes their content as plain
files; docs/how_to/pandaset.md has the layout. Parquet is written by
`python dataset_scripts/pandaset.py --data_dir data/pandaset --output_dir data/pandaset-parquet`.
"""

import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from uov_hf.data.frames import EncodedImage, FrameBuilder
from uov_hf.data.raw_folders import RawFrame, RawFrames, encoded_image, splits_in
from uov_hf.foreign_paths import inside
from uov_hf.leftovers import data_files
from uov_hf.vocabulary import Vocabulary, load_vocabulary


TAXONOMY = "pandaset"


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


class Moment(TypedDict):
    """What `calib.json` has for every scan: times in seconds, motions (4, 4) in metres."""

    lidar_timestamp: float
    camera_timestamp: float
    lidar2world: list[list[float]]
    lidar2cam: list[list[float]]


class Calibration(TypedDict):
    """The `calib.json` of a sequence: its camera, and the moment of every scan by file stem."""

    camera: str
    width: int
    height: int
    cam_intrinsic: list[list[float]]
    frames: dict[str, Moment]


class Scan(RawFrame):
    """A scan with the image, the labels and the moment of the same number; some sequences have no labels."""

    intensity_max = 255.0

    def __init__(self, file: Path, calibration: Calibration, vocabulary: Vocabulary):
        self.scan_file, self._folder = file, file.parents[1]
        self.label_file, self.vocabulary = self._folder / "labels" / f"{file.stem}.label", vocabulary
        self._calibration = calibration
        self.sequence_id = self._folder.name
        self.frame_id = f"{self.sequence_id}/{file.stem}"
        self.camera_names, self.image_ids = [calibration["camera"]], [self.frame_id]
        self.intrinsics = np.array([calibration["cam_intrinsic"]], np.float64)
        self.image_sizes = np.array([[calibration["height"], calibration["width"]]], np.int32)

    @property
    def timestamp(self) -> int:
        return round(1e6 * self._moment["lidar_timestamp"])

    @property
    def camera_timestamps(self) -> NDArray[np.int64]:
        return np.array([round(1e6 * self._moment["camera_timestamp"])], np.int64)

    @property
    def lidar2cam(self) -> NDArray[np.float64]:
        return np.array([self._moment["lidar2cam"]], np.float64)  # between both exposures, with the motion

    @property
    def lidar2global(self) -> NDArray[np.float64]:
        return np.array(self._moment["lidar2world"], np.float64)

    @property
    def images(self) -> list[EncodedImage]:
        folder = inside(self._folder / "camera", self._calibration["camera"], self._folder / "calib.json")
        path = folder / f"{self.scan_file.stem}.jpg"
        return [encoded_image(path, f"the image of scan {self.frame_id}")]

    @property
    def _moment(self) -> Moment:
        path, stem = self._folder / "calib.json", self.scan_file.stem
        if stem not in self._calibration["frames"]:
            raise ValueError(f"{path}: expected scan {stem} under `frames`, got none.")
        moment = self._calibration["frames"][stem]
        _check_keys(moment, Moment, f"{path}, scan {stem}")
        return moment


def _read_calibration(folder: Path) -> Calibration:
    path = folder / "calib.json"
    try:
        calibration = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected the calibration of the sequence, got: {error}") from error
    _check_keys(calibration, Calibration, str(path))
    return calibration


def _check_keys(content: Any, form: type, place: str) -> None:
    if absent := [key for key in form.__annotations__ if key not in content]:
        raise ValueError(
            f"{place}: expected the keys {', '.join(form.__annotations__)} (docs/how_to/pandaset.md), got none of the "
            f"name {', '.join(absent)}."
        )
