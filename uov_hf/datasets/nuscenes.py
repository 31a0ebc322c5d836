"""nuScenes with nuScenes-lidarseg, from a root as it is downloaded; sensor data is read where it lies.

`python dataset_scripts/nuscenes.py --data_dir data/nuscenes --output_dir data/nuscenes-parquet` writes Parquet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.data.frames import SYNTHETIC_LICENCE, FrameBuilder, disjoint_splits, read_splits
from uov_hf.datasets.nuscenes_tables import (
    CAMERAS,
    LIDAR,
    Capture,
    Table,
    check_categories,
    find_version,
    inverse,
    read_key_frames,
    read_official_splits,
    read_poses,
    transform,
)
from uov_hf.point_files import check_finite, read_points
from uov_hf.vocabulary import load_vocabulary


POINT_COLUMNS = 5  # float32: x, y, z, intensity 0-255, ring
OFFICIAL_SPLITS = {
    "v1.0-trainval": ("train", "val"),
    "v1.0-mini": ("mini_train", "mini_val"),
    "v1.0-test": ("test",),
}


class NuScenes(FrameBuilder):
    """
    `NuScenes(data_dir=root).as_frames("mini_train")`; `config_name` is the version where a root has several.

    Splits: the official ones, the paper's `parametrizing` and `verifying`, those that a `splits.json` in the root
    names (`{"name": ["scene-…"]}`), and `all`.
    """

    licence = "CC BY-NC-SA 4.0 with the nuScenes terms of use (https://www.nuscenes.org/terms-of-use)."
    may_be_published = False

    def __init__(self, *args, data_dir: str | Path, config_name: str | None = None, **kwargs):
        config_name = config_name or find_version(Path(data_dir))
        super().__init__(*args, data_dir=str(data_dir), config_name=config_name, **kwargs)
        if (Path(data_dir) / "synthetic" / "segments.json").is_file():
            self.licence = SYNTHETIC_LICENCE
            self.may_be_published = True

    def open(self) -> "KeyFrames":
        return KeyFrames(Path(self.config.data_dir), self.config.name)

    def default_splits(self) -> tuple[str, ...]:
        here = self.split_sequences()
        official = [name for name in OFFICIAL_SPLITS.get(self.config.name, ()) if name in here]
        return tuple(official) or disjoint_splits({name: here[name] for name in self._named_splits() if name in here})

    def split_sequences(self) -> dict[str, list[str]]:
        scenes = self.source.scenes
        splits = read_official_splits() | self._named_splits() | {"all": scenes}
        here = {name: [scene for scene in scenes if scene in members] for name, members in splits.items()}
        return {name: members for name, members in here.items() if members}

    def _named_splits(self) -> dict[str, set[str]]:
        path = Path(self.config.data_dir) / "splits.json"
        splits = read_splits(path) if path.is_file() else {}
        absent = sorted({scene for scenes in splits.values() for scene in scenes} - set(self.source.scenes))
        if absent:
            raise ValueError(f"{path}: names scenes that {self.config.name} does not have: {', '.join(absent)}.")
        return {name: set(scenes) for name, scenes in splits.items()}


class KeyFrames:
    """
    The key frames of one version of a root, as a `FrameSource`: scene by scene, in the order of time.

    Labels are lidarseg's, where the folder `lidarseg/<version>` is there.

    Raises:
        ValueError: where a table or a file is missing, cut short, or refers to what is not there; it names the file.
    """

    taxonomy = "nuscenes"

    def __init__(self, root: Path, version: str):
        self.root = root
        self.label_dir = root / "lidarseg" / version
        vocabulary = load_vocabulary(self.taxonomy)
        self.raw_to_class = vocabulary.raw_to_class
        tables = root / version
        scenes = Table(tables / "scene.json", lambda row: row["name"])
        self.scenes = list(scenes.values())
        self._frames = read_key_frames(tables, scenes)
        self.frame_ids = [captures[LIDAR].token for _, captures in self._frames]
        self.sequence_ids = [scene for scene, _ in self._frames]
        used = {capture.ego_pose_token for _, captures in self._frames for capture in captures.values()}
        self._ego_poses = read_poses(tables, used)
        if self.label_dir.is_dir():
            check_categories(tables / "category.json", vocabulary.raw_names)

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        sequence_id, captures = self._frames[index]
        lidar = captures[LIDAR]
        cameras = [captures[channel] for channel in CAMERAS if channel in captures]
        frame = {
            "frame_id": lidar.token,
            "sequence_id": sequence_id,
            "timestamp": lidar.timestamp,
            "intensity_max": 255.0,
            "instances": None,
            "camera_names": [camera.channel for camera in cameras],
            "image_ids": [camera.token for camera in cameras],
            "camera_timestamps": np.array([camera.timestamp for camera in cameras], np.int64),
            "image_sizes": np.array([camera.image_size for camera in cameras], np.int32).reshape(-1, 2),
            "intrinsics": np.array([camera.intrinsics for camera in cameras], np.float64).reshape(-1, 3, 3),
        }
        if "lidar2global" in columns:
            frame["lidar2global"] = self._sensor2global(lidar)
        if "lidar2cam" in columns:
            frame["lidar2cam"] = self._lidar2cam(lidar, cameras)
        if "points" in columns:
            frame["points"] = self._read_points(lidar)
        if "labels" in columns:
            frame["labels"] = self._read_labels(lidar)
        if "images" in columns:
            frame["images"] = [{"bytes": None, "path": str(self._file(camera))} for camera in cameras]
        return {column: frame[column] for column in columns}

    def _lidar2cam(self, lidar: Capture, cameras: list[Capture]) -> np.ndarray:
        """Lidar → vehicle → city → vehicle at the camera's time → camera, composed once, in float64."""
        motions = [inverse(self._sensor2global(camera)) @ self._sensor2global(lidar) for camera in cameras]
        return np.array(motions, np.float64).reshape(-1, 4, 4)

    def _sensor2global(self, capture: Capture) -> np.ndarray:
        pose = self._ego_poses[capture.ego_pose_token]
        return transform(pose[:4], pose[4:]) @ capture.sensor2ego

    def _read_points(self, lidar: Capture) -> np.ndarray:
        points = read_points(self._file(lidar), POINT_COLUMNS)
        check_finite(points, self._file(lidar))
        return points

    def _num_points(self, lidar: Capture) -> int:
        return self._file(lidar).stat().st_size // (4 * POINT_COLUMNS)

    def _read_labels(self, lidar: Capture) -> np.ndarray | None:
        if not self.label_dir.is_dir():
            return None
        path = self.label_dir / f"{lidar.token}_lidarseg.bin"
        if not path.is_file():
            raise ValueError(f"{path}: expected the lidarseg labels of {lidar.filename}, got no file.")
        raw_labels = np.fromfile(path, np.uint8)
        if len(raw_labels) != self._num_points(lidar):
            raise ValueError(
                f"{path}: expected {self._num_points(lidar)} labels, one for each point of {lidar.filename}, "
                f"got {len(raw_labels)}."
            )
        if raw_labels.max(initial=0) >= len(self.raw_to_class):
            raise ValueError(f"{path}: expected labels 0 to {len(self.raw_to_class) - 1}, got {raw_labels.max()}.")
        return self.raw_to_class[raw_labels]

    def _file(self, capture: Capture) -> Path:
        path = self.root / capture.filename
        if not path.is_file():
            raise ValueError(
                f"{path}: expected the {capture.channel} file of sample {capture.sample_token}, got none."
            )
        return path
