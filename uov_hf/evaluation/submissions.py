"""Predictions in the submission layouts of nuScenes-lidarseg and SemanticKITTI."""

import json
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.shard_file import errors_named, write_atomically
from uov_hf.foreign_paths import inside
from uov_hf.vocabulary import load_vocabulary


# The description that nuScenes requires: images serve training only, by a model with other training data.
NUSCENES_META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": True}
TAXONOMIES = {"nuscenes": "nuscenes", "semantickitti": "semantic_kitti"}


class Submission:
    """A folder of predictions to zip and submit; any process may write scans, in any order.

    Benchmarks require a class for every point. A point without a label (outside the grid, or not finite) gets the
    label of the nearest point that has one.

    Args:
        folder (`Path`): Where it is written.
        layout (`"nuscenes"` or `"semantickitti"`):
            nuScenes: `lidarseg/<split>/<lidar token>_lidarseg.bin`, uint8, classes from 1, and
            `<split>/submission.json`. SemanticKITTI: `sequences/<sequence>/predictions/<scan>.label`, uint32, raw ids.
        split (`str`): The split of the scans.
        class_names (`list[str]`): The predicted classes, in the order of their ids.

    Raises:
        ValueError: If the classes are not those of the benchmark.
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
        """Write the predicted labels `(num_points,)` of one frame; 255 is none."""
        path = inside(self.folder, self._name(frame_id), f"The frame id {frame_id}")
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name for each scan: the next run writes over what a killed one has left.
        partial = path.with_name(f".{path.name}.partial")
        with errors_named(path):
            partial.write_bytes(self.codes[label_everywhere(points, labels)].tobytes())
            partial.replace(path)

    def write_description(self) -> None:
        """Write `submission.json`, if the layout has one; one process calls this."""
        if self.layout == "nuscenes":
            path = self.folder / self.split / "submission.json"
            write_atomically(path, (json.dumps({"meta": NUSCENES_META}, indent=2) + "\n").encode())

    def _name(self, frame_id: str) -> str:
        if self.layout == "nuscenes":
            return f"lidarseg/{self.split}/{frame_id}_lidarseg.bin"
        sequence, scan = frame_id.split("/")
        return f"sequences/{sequence}/predictions/{scan}.label"


def label_everywhere(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labels `(num_points,)`, with the label of the nearest labelled point instead of 255.

    A point that is not finite counts as a point at the origin. If no point has a label, all get class 0.
    """
    labels, is_labelled = labels.copy(), labels != IGNORED
    if not is_labelled.any():
        return np.zeros_like(labels)
    if not is_labelled.all():
        positions = np.nan_to_num(points[:, :3].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        nearest = cKDTree(positions[is_labelled]).query(positions[~is_labelled])[1]
        labels[~is_labelled] = labels[is_labelled][nearest]
    return labels
