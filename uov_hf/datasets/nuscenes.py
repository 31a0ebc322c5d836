"""nuScenes with nuScenes-lidarseg, from a root in its original layout; sensor data stays in its files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uov_hf.data.frames import SYNTHETIC_LICENCE, EncodedImage, FrameBuilder, disjoint_splits
from uov_hf.data.raw_folders import RawFrame, RawFrames, encoded_image, own_splits, splits_in
from uov_hf.datasets.nuscenes_tables import (
    CAMERAS,
    LIDAR,
    Tables,
    check_categories,
    find_version,
    is_street,
    read_official_splits,
    read_tables,
)
from uov_hf.foreign_paths import inside
from uov_hf.geometry.rotation import inverse_motion
from uov_hf.vocabulary import Vocabulary, load_vocabulary


TAXONOMY = "nuscenes"
OFFICIAL_SPLITS = {"v1.0-trainval": ("train", "val"), "v1.0-mini": ("mini_train", "mini_val"), "v1.0-test": ("test",)}


class NuScenes(FrameBuilder):
    """`NuScenes(data_dir=root).as_frames("mini_train")`; `config_name` is the version if a root has several.

    Splits: the official ones, the paper's `parametrizing` and `verifying`, those of a `splits.json` in the root
    (`{"name": ["scene-…"]}`), and `all`.
    """

    pretty_name = "nuScenes"
    licence = "CC BY-NC-SA 4.0 with the nuScenes terms of use (https://www.nuscenes.org/terms-of-use)."
    may_be_published = False

    def __init__(self, *args: object, data_dir: str | Path, config_name: str | None = None, **kwargs: object):
        config_name = config_name or find_version(Path(data_dir))
        super().__init__(*args, data_dir=str(data_dir), config_name=config_name, **kwargs)
        self.settings_patterns = (f"{config_name}/*.json",)
        if is_street(Path(data_dir) / config_name):
            self.pretty_name = "Synthetic street (nuScenes format)"
            self.licence = SYNTHETIC_LICENCE
            self.may_be_published = True

    def open(self) -> RawFrames:
        root, version, vocabulary = Path(self.config.data_dir), self.config.name, load_vocabulary(TAXONOMY)
        if (root / "lidarseg" / version).is_dir():
            check_categories(root / version / "category.json", vocabulary.raw_names)
        tables = read_tables(root / version)
        return RawFrames([KeyFrame(root, tables, index, vocabulary) for index in range(len(tables.samples))], TAXONOMY)

    def default_splits(self) -> tuple[str, ...]:
        here, own = self.split_members(), own_splits(Path(self.config.data_dir), self.source)
        official = [name for name in OFFICIAL_SPLITS.get(self.config.name, ()) if name in here]
        return tuple(official) or disjoint_splits({name: here[name] for name in own if name in here})

    def split_members(self) -> dict[str, list[str]]:
        own = own_splits(Path(self.config.data_dir), self.source)
        return splits_in(self.source, {**read_official_splits(), **own})


class KeyFrame(RawFrame):
    """A sample: its lidar scan, its images and, if the root has `lidarseg/<version>`, its labels."""

    intensity_max = 255.0
    num_columns = 5  # float32: x, y, z, intensity 0-255, ring
    label_dtype = np.uint8

    def __init__(self, root: Path, tables: Tables, index: int, vocabulary: Vocabulary):
        self._root, self._tables, self.vocabulary = root, tables, vocabulary
        self.sequence_id, captures = tables.samples[index]
        self._lidar = captures[LIDAR]
        self._cameras = [captures[channel] for channel in CAMERAS if channel in captures]
        self.frame_id, self.timestamp = self._lidar.token, self._lidar.timestamp
        self.scan_file = self._file(self._lidar.filename)
        self.label_file = self._file(f"lidarseg/{tables.version}/{self.frame_id}_lidarseg.bin")

    @property
    def camera_names(self) -> list[str]:
        return [camera.channel for camera in self._cameras]

    @property
    def image_ids(self) -> list[str]:
        return [camera.token for camera in self._cameras]

    @property
    def images(self) -> list[EncodedImage]:
        files = zip(self.files_of("images"), self.camera_names, strict=True)
        return [encoded_image(path, f"the {name} image of key frame {self.frame_id}") for path, name in files]

    def files_of(self, column: str) -> list[Path]:
        if column == "images":
            return [self._file(camera.filename) for camera in self._cameras]
        return super().files_of(column)

    @property
    def camera_timestamps(self) -> NDArray[np.int64]:
        return np.array([camera.timestamp for camera in self._cameras], np.int64)

    @property
    def image_sizes(self) -> NDArray[np.int32]:
        return np.array([camera.image_size for camera in self._cameras], np.int32).reshape(-1, 2)

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        return np.array([camera.intrinsics for camera in self._cameras], np.float64).reshape(-1, 3, 3)

    @property
    def lidar2global(self) -> NDArray[np.float64]:
        return self._tables.sensor2global(self._lidar)

    @property
    def lidar2cam(self) -> NDArray[np.float64]:
        """Lidar → vehicle → city → vehicle at the camera's time → camera, composed once, in float64."""
        lidar2global = self.lidar2global
        motions = [inverse_motion(self._tables.sensor2global(camera)) @ lidar2global for camera in self._cameras]
        return np.array(motions, np.float64).reshape(-1, 4, 4)

    def _file(self, name: str) -> Path:
        """The path of a file that a table names."""
        return inside(self._root, name, self._root / self._tables.version / "sample_data.json")
