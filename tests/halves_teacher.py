"""Two small cameras that look along x, four points, and a teacher whose segments one can draw."""

from dataclasses import replace

import numpy as np
import pytest

from uov_hf.data import Frames
from uov_hf.teachers import ImageSegments, Teacher
from uov_hf.teachers.protocol import Augmentation
from uov_hf.vocabulary import load_vocabulary


HEIGHT, WIDTH = 21, 41
CAMERA_NAMES = ["CAM_A", "CAM_B"]
# Camera axes: x to the right is the lidar's -y, y down is its -z, z forward is its x. Both cameras stand at the lidar.
LIDAR2CAM = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
INTRINSICS = np.array([[10, 0, 20], [0, 10, 10], [0, 0, 1]], float)
POINTS = np.array(
    [
        [5, 2, 0, 7],  # left: column 20 - 10 * 2 / 5 = 16, row 10
        [5, -2, 0, 7],  # right: column 24, row 10
        [-5, 0, 0, 7],  # behind
        [5, -1.25, 0.75, 7],  # right and up: column 22.5 and row 8.5, halves to even: 22 and 8
    ],
    np.float32,
)


class HalvesTeacher(Teacher):
    """
    CAM_A: the left half (columns below 20) is a car, the right half a tree. CAM_B: the right half is a road, the left
    half is nothing. A sky is where nobody looks.
    """

    name = "halves"
    embed_dim = 4
    settings = {}
    CAR, TREE, ROAD = 0, 166, 100  # rows of the nuScenes prompts

    def encode_prompts(self, prompts):
        embeds = np.random.default_rng(0).normal(size=(len(prompts), 4)).astype(np.float32)
        return embeds / np.linalg.norm(embeds, axis=1, keepdims=True)

    def segment(self, frame):
        augmentation = Augmentation.parse(frame["augmentation"])
        answers = [getattr(self, name)() for name in frame["camera_names"]]
        return [replace(answer, segmentation=augmentation.apply_to_ids(answer.segmentation)) for answer in answers]

    def CAM_A(self):
        segmentation = np.ones((HEIGHT, WIDTH), int)
        segmentation[:, 20:] = 2
        return ImageSegments(segmentation, np.array([self.CAR, self.TREE]), np.array([0.5, 0.75]), np.eye(4)[:2])

    def CAM_B(self):
        segmentation = np.zeros((HEIGHT, WIDTH), int)
        segmentation[:, 20:] = 1
        return ImageSegments(segmentation, np.array([self.ROAD]), np.array([0.25]), np.eye(4)[2:3])


class ListSource:
    """Frames of a list."""

    taxonomy = "nuscenes"

    def __init__(self, frames):
        self.rows = frames
        self.frame_ids = [frame["frame_id"] for frame in frames]
        self.sequence_ids = [frame["sequence_id"] for frame in frames]

    def read(self, index, columns):
        return {column: self.rows[index][column] for column in columns}


def make_frame(frame_id: str, sequence_id: str) -> dict:
    columns = dict.fromkeys(["timestamp", "labels", "instances", "lidar2global"])
    return columns | {
        "frame_id": frame_id,
        "sequence_id": sequence_id,
        "points": POINTS,
        "intensity_max": 255.0,
        "camera_names": CAMERA_NAMES,
        "image_ids": ["a", "b"],
        "images": [{"bytes": None, "path": "nobody opens this"}] * 2,
        "camera_timestamps": np.zeros(2, np.int64),
        "lidar2cam": np.stack([LIDAR2CAM] * 2),
        "intrinsics": np.stack([INTRINSICS] * 2),
        "image_sizes": np.array([[HEIGHT, WIDTH]] * 2, np.int32),
    }


@pytest.fixture
def frames() -> Frames:
    """Two sequences: `one` with frames 1/0 and 1/1, `t/wo` with frame 2/0."""
    ids = [("1/0", "one"), ("1/1", "one"), ("2/0", "t/wo")]
    return Frames(ListSource([make_frame(frame_id, sequence_id) for frame_id, sequence_id in ids]))


@pytest.fixture
def vocabulary():
    return load_vocabulary("nuscenes")


@pytest.fixture
def teacher(vocabulary) -> HalvesTeacher:
    return HalvesTeacher(vocabulary.prompts)
