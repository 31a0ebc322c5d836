"""What one frame is to a training: voxels, and what a teacher or the ground truth says about them."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from uov_hf.data import Frames, load_frames
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.training.augmentation import AugmentationConfig, augment, select_pairs, turn_and_mirror
from uov_hf.training.launch import sharing, wait_for_all


VOXELS = ("voxel_coords", "voxel_features", "point_to_voxel")


def load_split(args: Any, split: str | None, data_fraction: float = 1.0) -> Frames:
    """The frames of a split of the dataset that the script's arguments name."""
    return load_frames(
        args.dataset,
        split,
        data_dir=args.data_dir,
        dataset_config=args.dataset_config,
        data_fraction=data_fraction,
        download=not args.streaming,
    )


def load_labelled_frames(
    accelerator: Accelerator, args: Any, split: str | None, label_set: LabelSet, data_fraction: float = 1.0
) -> tuple[Frames, PointLabels]:
    """The frames of a split and their `PointLabels`, which are made first where there are none yet.

    All processes call this, and each makes its share.
    """
    frames = load_split(args, split, data_fraction)
    label_points(label_set, frames, args.point_labels_preset, on_error=args.on_error, **sharing(accelerator))
    wait_for_all(accelerator)
    return frames, PointLabels(label_set.folder, args.point_labels_preset)


class TMPSamples(Dataset):
    """
    Frames with what a teacher said about them, augmented; neither JPEG nor PNG is opened.

    A sample depends on (seed, epoch, index of the frame) and on nothing else. Its key is `(epoch, index)`.

    Args:
        frames (`Frames`):
            The dataset.
        label_set (`LabelSet`):
            Segments and prompts.
        point_labels (`PointLabels`):
            The label set's segments at the points.
        feature_extractor (`UOVFeatureExtractor`):
            Points to voxels.
        augmentation (`AugmentationConfig`, *optional*):
            `None` leaves the frames as they are, for validation.
        seed (`int`, *optional*, defaults to 0):
            What the augmentation depends on, beside epoch and index.

    Each sample is a dictionary of tensors: `voxel_coords`, `voxel_features`, `point_to_voxel` as from the feature
    extractor, `pair_to_point` and `superpoint_ids` `(num_pairs,)`, `segment_embeds` `(num_superpoints, embed_dim)` of
    unit length, `segment_labels` `(num_superpoints,)`, `prompt_embeds` and `prompt_groups`. Pairs without a segment or
    whose point is in no voxel are not in it; nor are segments that are left with no pair.
    """

    def __init__(
        self,
        frames,
        label_set: LabelSet,
        point_labels: PointLabels,
        feature_extractor,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
    ):
        self.frames = frames.select_columns(["frame_id", "points", "intensity_max", "image_sizes"])
        self.label_set = label_set
        self.point_labels = point_labels
        self.feature_extractor = feature_extractor
        self.augmentation = augmentation
        self.seed = seed
        self.prompts = {
            "prompt_embeds": torch.from_numpy(label_set.prompt_embeds),
            "prompt_groups": torch.from_numpy(label_set.prompt_groups),
        }

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key
        frame = self.frames[index]
        points, pairs = frame["points"], self._read_pairs(frame)
        if self.augmentation is not None:
            generator = np.random.default_rng([self.seed, epoch, index])
            points, pairs = augment(points, pairs, frame["image_sizes"], self.augmentation, generator)
        voxels = self.feature_extractor(points, intensity_max=frame["intensity_max"], return_tensors="pt")
        in_a_voxel = voxels["point_to_voxel"].numpy()[pairs["pair_to_point"]] >= 0  # (num_pairs,)
        pairs = select_pairs(pairs, in_a_voxel & (pairs["pair_segment"] > 0))
        superpoints = self._superpoints(frame["frame_id"], pairs)
        return {name: voxels[name] for name in VOXELS} | superpoints

    def _read_pairs(self, frame) -> dict[str, np.ndarray]:
        columns = ["pair_to_point", "pair_camera", "pair_pixel", "pair_segment", "labels"]
        pairs = _read_point_labels(self.point_labels, frame, columns)
        del pairs["labels"]
        return pairs

    def _superpoints(self, frame_id: str, pairs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        segments, superpoint_ids = np.unique(pairs["pair_segment"], return_inverse=True)
        said = self.label_set.read(frame_id, ["segment_labels", "segment_embeds"])
        embeds = said["segment_embeds"][segments - 1].astype(np.float32)  # (num_superpoints, embed_dim)
        embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)  # float16 has left them a little off unit length
        return {
            "pair_to_point": torch.from_numpy(pairs["pair_to_point"].astype(np.int64)),
            "superpoint_ids": torch.from_numpy(superpoint_ids),
            "segment_embeds": torch.from_numpy(embeds),
            "segment_labels": torch.from_numpy(said["segment_labels"][segments - 1].astype(np.int64)),
            **self.prompts,
        }


class ScanSamples(Dataset, ABC):
    """
    Frames with a label for each point, turned and mirrored; no image is opened.

    A sample depends on (seed, epoch, index of the frame) and on nothing else. Its key is `(epoch, index)`. It is a
    dictionary of tensors: `voxel_coords`, `voxel_features`, `point_to_voxel` as from the feature extractor, and
    `labels` (long, 255 = none) `(num_points,)`, perhaps `confidence` (float32) `(num_points,)`.

    Args:
        frames (`Frames`):
            The dataset, with the columns that are read.
        feature_extractor (`UOVFeatureExtractor`):
            Points to voxels.
        augmentation (`AugmentationConfig`, *optional*):
            Its `rotate` and `flip`; `None` leaves the frames as they are, for validation.
        seed (`int`, *optional*, defaults to 0):
            What the augmentation depends on, beside epoch and index.
    """

    def __init__(self, frames, feature_extractor, augmentation: AugmentationConfig | None = None, seed: int = 0):
        self.frames = frames
        self.feature_extractor = feature_extractor
        self.augmentation = augmentation
        self.seed = seed

    @abstractmethod
    def read_labels(self, frame: dict[str, Any]) -> dict[str, np.ndarray]:
        """`labels`, and perhaps `confidence`, of the frame's points."""

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key
        frame = self.frames[index]
        points, said = frame["points"], self.read_labels(frame)
        if self.augmentation is not None:
            points = turn_and_mirror(points, self.augmentation, np.random.default_rng([self.seed, epoch, index]))
        voxels = self.feature_extractor(points, intensity_max=frame["intensity_max"], return_tensors="pt")
        sample = {name: voxels[name] for name in VOXELS}
        sample["labels"] = torch.from_numpy(said["labels"].astype(np.int64))
        if "confidence" in said:
            sample["confidence"] = torch.from_numpy(said["confidence"].astype(np.float32))
        return sample


class DistillationSamples(ScanSamples):
    """
    Frames with the label that a teacher gave to each point; no truth is read.

    Args:
        frames, feature_extractor, augmentation, seed:
            As in [`ScanSamples`].
        point_labels (`PointLabels`):
            The teacher's.
        with_confidence (`bool`, *optional*, defaults to `False`):
            Whether samples have the `confidence` of each label.
    """

    def __init__(
        self,
        frames,
        point_labels: PointLabels,
        feature_extractor,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        with_confidence: bool = False,
    ):
        frames = frames.select_columns(["frame_id", "points", "intensity_max"])
        super().__init__(frames, feature_extractor, augmentation, seed)
        self.point_labels = point_labels
        self.columns = ["labels", "confidence"] if with_confidence else ["labels"]

    def read_labels(self, frame: dict[str, Any]) -> dict[str, np.ndarray]:
        return _read_point_labels(self.point_labels, frame, self.columns)


class AnnotatedSamples(ScanSamples):
    """Frames with the ground truth of each point, by which a network is fine-tuned; arguments as in [`ScanSamples`].

    Raises:
        ValueError: on access, where a frame is not annotated.
    """

    def __init__(self, frames, feature_extractor, augmentation: AugmentationConfig | None = None, seed: int = 0):
        frames = frames.select_columns(["frame_id", "points", "intensity_max", "labels"])
        super().__init__(frames, feature_extractor, augmentation, seed)

    def read_labels(self, frame: dict[str, Any]) -> dict[str, np.ndarray]:
        if frame["labels"] is None:
            raise ValueError(
                f"Frame {frame['frame_id']} has no ground truth to train on. Take an annotated split; of nuScenes, "
                "unpack nuScenes-lidarseg into --data_dir."
            )
        return {"labels": frame["labels"]}


def _read_point_labels(point_labels: PointLabels, frame, columns: list[str]) -> dict[str, np.ndarray]:
    """These columns, `labels` among them, if they are of this cloud."""
    said = point_labels.read(frame["frame_id"], columns)
    if len(said["labels"]) != len(frame["points"]):
        raise ValueError(
            f"Frame {frame['frame_id']} has {len(frame['points'])} points, but {len(said['labels'])} point labels in "
            f"{point_labels.folder}: they were made from another dataset. Make them again."
        )
    return said
