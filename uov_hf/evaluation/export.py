"""Predictions as the benchmarks take them in: nuScenes-lidarseg's and SemanticKITTI's submission layouts."""

import json
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from uov_hf.evaluation.segmentation import IGNORED
from uov_hf.vocabulary import load_vocabulary


# What nuScenes asks about a method: images are looked at in training only, and by a model that saw others before.
NUSCENES_META = {
    "use_camera": False,
    "use_lidar": True,
    "use_radar": False,
    "use_map": False,
    "use_external": True,
}
TAXONOMIES = {"nuscenes": "nuscenes", "semantickitti": "semantic_kitti"}


class Submission:
    """
    A folder of predictions, to be zipped and sent. Scans may be written by any process, in any order.

    Every point gets a class, because the benchmarks take no other answer: one without an answer (outside the grid, or
    not finite) gets that of the nearest point that has one.

    Args:
        folder (`Path`): Where it is written.
        layout (`"nuscenes"` or `"semantickitti"`): nuScenes: `lidarseg/<split>/<lidar token>_lidarseg.bin`, uint8,
            classes from 1, and `<split>/submission.json`. SemanticKITTI:
            `sequences/<sequence>/predictions/<scan>.label`, uint32, raw ids.
        split (`str`): Whose predictions they are.
        class_names (`list[str]`): The classes that are predicted, in the order of their ids.

    Raises:
        ValueError: the classes are not those of the benchmark.
    """

    def __init__(self, folder: Path, layout: str, split: str, class_names: list[str]):
        vocabulary = load_vocabulary(TAXONOMIES[layout])
        if list(class_names) != vocabulary.class_names:
            raise ValueError(
                f"A {layout} submission has the classes {vocabulary.class_names}; the model predicts "
                f"{list(class_names)}."
            )
        self.folder, self.layout, self.split = Path(folder), layout, split
        raw_ids = dict(zip(vocabulary.raw_names, vocabulary.raw_ids.tolist(), strict=True))
        if layout == "nuscenes":
            self.codes = np.arange(1, len(class_names) + 1, dtype=np.uint8)  # the challenge's own, not the raw ids
        else:
            self.codes = np.array([raw_ids[name] for name in class_names], dtype=np.uint32)

    def write_scan(self, frame_id: str, points: np.ndarray, labels: np.ndarray) -> None:
        """The predictions `(num_points,)` for one frame; 255 is no answer."""
        path = self._path(frame_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.codes[answer_everywhere(points, labels)].tofile(path)

    def write_description(self) -> None:
        """What stands beside the predictions; one process writes it."""
        if self.layout == "nuscenes":
            path = self.folder / self.split / "submission.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"meta": NUSCENES_META}, indent=2) + "\n")

    def _path(self, frame_id: str) -> Path:
        if self.layout == "nuscenes":
            return self.folder / "lidarseg" / self.split / f"{frame_id}_lidarseg.bin"
        sequence, scan = frame_id.split("/")
        return self.folder / "sequences" / sequence / "predictions" / f"{scan}.label"


def answer_everywhere(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labels `(num_points,)`, where 255 has given way to the label of the nearest point that has one.

    Points that are not finite stand at the origin for this; where no point has a label, all get class 0.
    """
    labels, answered = labels.copy(), labels != IGNORED
    if not answered.any():
        return np.zeros_like(labels)
    if not answered.all():
        positions = np.nan_to_num(points[:, :3].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        labels[~answered] = labels[answered][cKDTree(positions[answered]).query(positions[~answered])[1]]
    return labels
