"""A dataset of five frames in two sequences whose files are real and can be broken one by one.

The first frame has no pose; the third has neither camera nor labels.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from uov_hf.data import FrameBuilder


NUM_POINTS = 1000  # 16,000 bytes


class OwnCar(FrameBuilder):
    """`OwnCar.record(folder)` writes the files and opens them."""

    licence = "Its owner's."

    @classmethod
    def record(cls, folder: Path) -> "OwnCar":
        rng = np.random.default_rng(0)
        for frame_id in Files.frame_ids:
            stem = folder / frame_id
            stem.parent.mkdir(parents=True, exist_ok=True)
            np.save(stem.with_suffix(".npy"), rng.normal(0, 20, (NUM_POINTS, 4)).astype(np.float32))
            Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).save(stem.with_suffix(".jpg"))
        return cls(data_dir=str(folder), dataset_name="own_car")

    def open(self) -> "Files":
        return Files(Path(self.config.data_dir))

    def default_splits(self) -> tuple[str, ...]:
        return ("train",)

    def split_members(self) -> dict[str, list[str]]:
        return {"train": ["a 1", "b"], "val": ["b"], "all": ["a 1", "b"]}


class SecretCar(OwnCar):
    """The same, of an owner who does not."""

    may_be_published = False


class PublicCar(OwnCar):
    """The same, of an owner who gives it away."""

    may_be_published = True


class Files:
    taxonomy = "nuscenes"
    fraction_of = "frames"
    frame_ids = ["a 1/0", "a 1/1", "a 1/2", "b/0", "b/1"]
    sequence_ids = ["a 1", "a 1", "a 1", "b", "b"]

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, index, columns):
        stem = self.folder / self.frame_ids[index]
        points = np.load(stem.with_suffix(".npy")) if "points" in columns else None
        num_cameras = 0 if index == 2 else 1
        row = {
            "frame_id": self.frame_ids[index],
            "sequence_id": self.sequence_ids[index],
            "timestamp": index,
            "points": points,
            "intensity_max": 1.0,
            "labels": None if points is None or not num_cameras else (np.arange(len(points)) % 16).astype(np.uint8),
            "instances": None,
            "camera_names": ["front"] * num_cameras,
            "image_ids": [f"{index}"] * num_cameras,
            "images": [{"bytes": None, "path": str(stem.with_suffix(".jpg"))}] * num_cameras,
            "camera_timestamps": np.full(num_cameras, index + 2**40),
            "lidar2cam": np.eye(4)[None][:num_cameras],
            "intrinsics": np.eye(3)[None][:num_cameras],
            "image_sizes": np.array([[6, 8]], np.int32)[:num_cameras],
            "lidar2global": None if index == 0 else np.eye(4),
        }
        return {column: row[column] for column in columns}
