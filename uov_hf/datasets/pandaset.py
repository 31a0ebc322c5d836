"""PandaSet's spinning lidar and one of its cameras, from plain files; sensor data is read where it lies.

PandaSet comes as pickles of pandas, which run code as they are read. This script reads what they hold as plain files;
docs/datasets.md has the layout. `python dataset_scripts/pandaset.py --data_dir data/pandaset --output_dir
data/pandaset-parquet` writes Parquet.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.data.frames import FrameBuilder
from uov_hf.data.label_words import read_label_words, to_classes
from uov_hf.point_files import check_finite, read_points
from uov_hf.vocabulary import load_vocabulary


MOMENT = ("lidar_timestamp", "camera_timestamp", "lidar2world", "lidar2cam")  # of every scan in `calib.json`


class PandaSet(FrameBuilder):
    """
    `PandaSet(data_dir=root).as_frames()`; the root is the folder that holds `001`, `002`, …

    PandaSet has no official splits: `train`, as the Hub calls the only one, is all of it, and so is `all`.
    """

    licence = "CC BY 4.0 with PandaSet's terms of use (https://pandaset.org)."

    def open(self) -> "Scans":
        return Scans(Path(self.config.data_dir))

    def default_splits(self) -> tuple[str, ...]:
        return ("train",)

    def split_sequences(self) -> dict[str, list[str]]:
        return dict.fromkeys(("train", "all"), list(dict.fromkeys(self.source.sequence_ids)))


class Scans:
    """
    The scans of a root, as a `FrameSource`: sequence by sequence, in the order of time.

    Raises:
        ValueError: where a file is missing, cut short, or does not fit its scan; it names the file.
    """

    taxonomy = "pandaset"

    def __init__(self, root: Path):
        self.vocabulary = load_vocabulary(self.taxonomy)
        self._files = sorted(root.glob("*/lidar/*.bin"))
        if not self._files:
            raise ValueError(
                f"{root}: expected scans (001/lidar/00.bin, …), got none; `data_dir` is the folder that holds `001`, "
                "and PandaSet's own pickles are to be converted first (docs/datasets.md)."
            )
        self.sequence_ids = [file.parents[1].name for file in self._files]
        self.frame_ids = [f"{file.parents[1].name}/{file.stem}" for file in self._files]
        self._calibrations = {
            folder: _read_calibration(folder) for folder in {file.parents[1] for file in self._files}
        }

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        file = self._files[index]
        calibration = self._calibrations[file.parents[1]]
        if file.stem not in calibration["frames"]:
            raise ValueError(f"{file.parents[1] / 'calib.json'}: expected scan {file.stem} under `frames`, got none.")
        moment = calibration["frames"][file.stem]
        if absent := [key for key in MOMENT if key not in moment]:
            raise ValueError(
                f"{file.parents[1] / 'calib.json'}: expected {', '.join(MOMENT)} of scan {file.stem}, got none of the "
                f"name {absent[0]}."
            )
        frame: dict[str, Any] = {
            "frame_id": self.frame_ids[index],
            "sequence_id": self.sequence_ids[index],
            "timestamp": round(1e6 * moment["lidar_timestamp"]),
            "intensity_max": 255.0,
            "instances": None,
            "camera_names": [calibration["camera"]],
            "image_ids": [self.frame_ids[index]],
            "camera_timestamps": np.array([round(1e6 * moment["camera_timestamp"])], np.int64),
            "lidar2cam": np.array([moment["lidar2cam"]], np.float64),  # at the times of both, the motion included
            "intrinsics": np.array([calibration["cam_intrinsic"]], np.float64),
            "image_sizes": np.array([[calibration["height"], calibration["width"]]], np.int32),
            "lidar2global": np.array(moment["lidar2world"], np.float64),
        }
        if "points" in columns:
            frame["points"] = read_points(file, num_columns=4)
            check_finite(frame["points"], file)
        if "labels" in columns:
            frame["labels"] = self._read_labels(file)
        if "images" in columns:
            image = file.parents[1] / "camera" / calibration["camera"] / f"{file.stem}.jpg"
            if not image.is_file():
                raise ValueError(f"{image}: expected the image of scan {self.frame_ids[index]}, got none.")
            frame["images"] = [{"bytes": None, "path": str(image)}]
        return {column: frame[column] for column in columns}

    def _read_labels(self, file: Path) -> np.ndarray | None:
        """PandaSet labels some sequences only."""
        path = file.parents[1] / "labels" / f"{file.stem}.label"
        if not path.parent.is_dir():
            return None
        return to_classes(read_label_words(path, file), self.vocabulary, path)


def _read_calibration(folder: Path) -> dict[str, Any]:
    path = folder / "calib.json"
    try:
        calibration = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected the calibration of the sequence, got: {error}") from error
    if absent := [key for key in ("camera", "width", "height", "cam_intrinsic", "frames") if key not in calibration]:
        raise ValueError(f"{path}: expected the keys of docs/datasets.md, got a file without {', '.join(absent)}.")
    return calibration
