"""A recording of any number of small frames, which are computed when they are read, and a teacher for them."""

import io
import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from uov_hf.data import FrameBuilder
from uov_hf.data.frames import Frame
from uov_hf.teachers import ImageSegments, Teacher
from uov_hf.teachers.protocol import TeacherFrame


IMAGE_SIZE = (24, 32)  # height, width
INTRINSICS = np.array([[16.0, 0, 16], [0, 16, 12], [0, 0, 1]])
# The cameras look ahead and back. The lidar looks along x, with y to the left and z up.
LIDAR2CAM = np.array(
    [
        [[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]],
        [[0.0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]],
    ]
)
INTERVAL = 500_000  # microseconds


class SmallRecording:
    """
    Frames with two cameras, as a `FrameSource`; those of the same lengths are always the same.

    Args:
        lengths (`Sequence[int]`): Frames of every sequence.
        num_points (`int`, *optional*, defaults to 100): Points of a frame.
        on_read (`Callable`, *optional*): Gets the id of a frame each time its points or images are read.
    """

    taxonomy = "nuscenes"

    def __init__(self, lengths: Sequence[int], num_points: int = 100, on_read: Callable[[str], None] | None = None):
        self.num_points = num_points
        self.on_read = on_read
        places = [(sequence, place) for sequence, length in enumerate(lengths) for place in range(length)]
        self.sequence_ids = [f"scene-{sequence:04d}" for sequence, _ in places]
        self.frame_ids = [f"scene-{sequence:04d}/{place:06d}" for sequence, place in places]
        buffer = io.BytesIO()
        Image.new("RGB", IMAGE_SIZE[::-1]).save(buffer, "png")
        self.png = buffer.getvalue()

    def read(self, index: int, columns: Sequence[str]) -> Frame:
        if self.on_read is not None and {"points", "images"} & {*columns}:
            self.on_read(self.frame_ids[index])
        pose = np.eye(4)
        pose[0, 3] = index * 2.0  # metres
        frame: Frame = {
            "frame_id": self.frame_ids[index],
            "sequence_id": self.sequence_ids[index],
            "timestamp": index * INTERVAL,
            "intensity_max": 255.0,
            "labels": None,
            "instances": None,
            "camera_names": ["ahead", "back"],
            "image_ids": [f"{self.frame_ids[index]}/{name}" for name in ("ahead", "back")],
            "images": [{"bytes": self.png, "path": "black.png"}] * 2,
            "camera_timestamps": np.full(2, index * INTERVAL),
            "lidar2cam": LIDAR2CAM,
            "intrinsics": np.stack([INTRINSICS] * 2),
            "image_sizes": np.array([IMAGE_SIZE] * 2, np.int32),
            "lidar2global": pose,
        }
        if "points" in columns:
            scale = [20, 20, 2, 50]
            points = np.random.default_rng(index).normal(0, scale, (self.num_points, 4)).astype(np.float32)
            points[:, 3] = np.minimum(np.abs(points[:, 3]), 255)
            frame["points"] = points
        return {name: frame[name] for name in columns}


class SmallBuilder(FrameBuilder):
    """The recording as a dataset with one split; `SmallBuilder.of(recording, …)` makes one."""

    @classmethod
    def of(cls, recording: SmallRecording, data_dir: str) -> "SmallBuilder":
        builder = cls(data_dir=data_dir, cache_dir=data_dir, dataset_name="small")
        builder.source = recording
        return builder

    def open(self) -> SmallRecording:
        return self.source

    def split_members(self) -> dict[str, list[str]]:
        return {"train": list(dict.fromkeys(self.source.sequence_ids))}

    def default_splits(self) -> tuple[str, ...]:
        return ("train",)


class Stripes(Teacher):
    """
    Predicts four stripes in every image, with prompts, scores and embeddings drawn by the id of the frame.

    Attributes:
        on_predict (`Callable`, *optional*): Gets the id of a frame before it is predicted.
        seconds (`float`): Time that a prediction takes at least.
    """

    name, embed_dim, settings = "stripes", 8, {"stripes": 4}
    on_predict: Callable[[str], None] | None = None
    seconds = 0.0

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self._draw_embeds(np.random.default_rng(0), len(prompts))

    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        if self.on_predict is not None:
            self.on_predict(frame["frame_id"])
        time.sleep(self.seconds)
        rng = np.random.default_rng(zlib.crc32(frame["frame_id"].encode()))
        return [self._stripes(rng, *size) for size in frame["image_sizes"]]

    def _stripes(self, rng: np.random.Generator, height: int, width: int) -> ImageSegments:
        stripes = np.tile(np.arange(width) * 4 // width + 1, (height, 1))
        labels = rng.integers(len(self.prompts), size=4)
        return ImageSegments(stripes, labels, rng.random(4, np.float32), self._draw_embeds(rng, 4))

    def _draw_embeds(self, rng: np.random.Generator, num: int) -> np.ndarray:
        embeds = rng.normal(size=(num, self.embed_dim)).astype(np.float32)
        return embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
