"""Segmentation, scored: on all points of a scan, and apart on those that a camera saw and those none did."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from uov_hf.evaluation.metrics import ConfusionMatrix


IGNORED = 255
Matrices = dict[str, ConfusionMatrix]


@dataclass(frozen=True)
class LabelledScan:
    """A scan to segment, and what its answer is held against.

    Args:
        frame_id (`str`): Which frame it is of.
        points (`np.ndarray` of shape `(num_points, 4)`): x, y, z in metres, raw intensity.
        voxels (`dict[str, torch.Tensor]`): `voxel_coords`, `voxel_features`, `point_to_voxel` of the points.
        labels (`np.ndarray` of shape `(num_points,)`): The truth; 255 where it is not scored.
        regions (`dict[str, np.ndarray]`): Masks `(num_points,)`: `all_points`, and with point labels `seen_points`
            (by a camera of the label set) and `unseen_points`.
        teacher_labels (`np.ndarray` of shape `(num_points,)`, *optional*): The point labels; 255 = none.
    """

    frame_id: str
    points: np.ndarray
    voxels: dict[str, torch.Tensor]
    labels: np.ndarray
    regions: dict[str, np.ndarray]
    teacher_labels: np.ndarray | None = None


class LabelledScans(Dataset):
    """The annotated scans of a split, read one at a time.

    Args:
        frames (`Frames`): The split.
        feature_extractor (`UOVFeatureExtractor`): Points to voxels, as the model was trained.
        point_labels (`PointLabels`, *optional*): What a teacher said about these frames, and which points it saw.
        min_range (`float`, *optional*, defaults to 0.0): Points nearer to the sensor's axis than this are not scored:
            metres; within 2 m nearly all are the car's own body.

    Raises:
        ValueError: on access, where a frame has no ground truth.
    """

    def __init__(self, frames, feature_extractor, point_labels=None, min_range: float = 0.0):
        self.frames = frames.select_columns(["frame_id", "points", "intensity_max", "labels"])
        self.feature_extractor = feature_extractor
        self.point_labels = point_labels
        self.min_range = min_range

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledScan:
        frame = self.frames[index]
        frame_id, points = frame["frame_id"], frame["points"]
        if frame["labels"] is None:
            raise ValueError(
                f"Frame {frame_id} has no ground truth to score against. Take an annotated split; of nuScenes, "
                "unpack nuScenes-lidarseg into --data_dir."
            )
        near = np.hypot(points[:, 0], points[:, 1]) < self.min_range
        voxels = self.feature_extractor(points, intensity_max=frame["intensity_max"], return_tensors="pt")
        regions, teacher_labels = {"all_points": np.ones(len(points), dtype=bool)}, None
        if self.point_labels is not None:
            said = self.point_labels.read(frame_id, ["pair_to_point", "labels"])
            seen = np.zeros(len(points), dtype=bool)
            seen[said["pair_to_point"]] = True
            regions |= {"seen_points": seen, "unseen_points": ~seen}
            teacher_labels = said["labels"]
        labels = np.where(near, IGNORED, frame["labels"])
        return LabelledScan(frame_id, points, dict(voxels), labels, regions, teacher_labels)


@torch.no_grad()
def segment(model, voxels: dict[str, torch.Tensor]) -> np.ndarray:
    """Class `(num_points,)` of every point: that of its voxel, by the prompts or the head; 255 without a voxel."""
    device = next(model.parameters()).device
    coords, features = voxels["voxel_coords"].to(device), voxels["voxel_features"].to(device)
    voxel_classes = model.get_voxel_logits(coords, features).argmax(dim=1)  # (num_voxels,)
    point_to_voxel = voxels["point_to_voxel"].to(device)
    padded = torch.cat([voxel_classes, voxel_classes.new_tensor([IGNORED])])  # row −1: no voxel
    return padded[point_to_voxel].cpu().numpy()


def new_matrices(scans: LabelledScans, num_labels: int) -> Matrices:
    """Empty matrices for the regions of these scans, and for the teacher where it spoke about them."""
    regions = ["all_points"]
    if scans.point_labels is not None:
        regions += ["seen_points", "unseen_points", "teacher_seen_points"]
    return {region: ConfusionMatrix(num_labels, IGNORED) for region in regions}


def count(matrices: Matrices, predictions: np.ndarray, scan: LabelledScan) -> None:
    """Hold the predictions `(num_points,)` for one scan against its labels, region by region."""
    for region, inside in scan.regions.items():
        matrices[region].update(predictions[inside], scan.labels[inside])


def evaluate_segmentation(model, loader: Iterable[LabelledScan], matrices: Matrices) -> Matrices:
    """Segment scans one by one and count the answers, the teacher's beside the model's; nothing else is kept.

    Args:
        model (`UOVModel` or `UOVForSemanticSegmentation`): In evaluation mode, and able to name classes.
        loader: The scans of this process, from `LabelledScans`.
        matrices: From `new_matrices`; they are counted into, and returned.
    """
    for scan in loader:
        count(matrices, segment(model, scan.voxels), scan)
        if scan.teacher_labels is not None:
            seen = scan.regions["seen_points"]
            matrices["teacher_seen_points"].update(scan.teacher_labels[seen], scan.labels[seen])
    return matrices


def reduce_matrices(accelerator: Accelerator, matrices: Matrices) -> None:
    """Add up the matrices of all processes, in each of them."""
    for matrix in matrices.values():
        counts = torch.from_numpy(matrix.counts).to(accelerator.device)
        matrix.counts = accelerator.reduce(counts, "sum").cpu().numpy()


def check_classes(model_classes: dict[int, str], class_names: list[str]) -> None:
    """Raise where the model's classes are not those the ground truth is written in, in the same order."""
    names = [model_classes[index] for index in range(len(model_classes))]
    if names != list(class_names):
        raise ValueError(
            f"The model answers with the classes {names or 'none'}, the ground truth has {list(class_names)}. "
            "Evaluate on a dataset of the model's taxonomy, or bake these classes with `set_classes`."
        )
