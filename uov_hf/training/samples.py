"""Samples of a training: the voxels of a frame, with what a label set or the ground truth has for its points."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypedDict

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import Frames, load_frames
from uov_hf.data.frames import BROKEN, Frame
from uov_hf.feature_extraction_uov import UOVFeatureExtractor
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.labels.labelling import Pairs, PointLabelRow
from uov_hf.training.arguments import DataArguments, LabelSetArguments
from uov_hf.training.augmentation import AugmentationConfig, augment, select_pairs, transform
from uov_hf.training.collation import Batch, BatchT, ScanBatch, TMPBatch, concatenate_rows
from uov_hf.training.launch import sharing
from uov_hf.training.mixing import MAX_SCANS, Scan, mix_sectors
from uov_hf.training.order import FrameKey


def load_split(args: DataArguments, split: str | None, data_fraction: float = 1.0) -> Frames:
    """The frames of a split of the dataset that the arguments name."""
    if args.dataset is None:
        raise ValueError("--dataset is needed: a script such as nuscenes, a Parquet folder or a Hub id.")
    return load_frames(
        args.dataset,
        split,
        data_dir=args.data_dir,
        dataset_config=args.dataset_config,
        frame_stride=args.frame_stride,
        data_fraction=data_fraction,
        download=not args.streaming,
    )


@dataclass(frozen=True)
class LabelledFrames:
    """The frames of one dataset, and its own labels."""

    frames: Frames
    label_set: LabelSet
    point_labels: PointLabels


def load_labelled_frames(
    accelerator: Accelerator,
    args: LabelSetArguments,
    datasets: Sequence[DataArguments | None],
    label_sets: Sequence[LabelSet],
    data_fraction: float = 1.0,
) -> list[LabelledFrames]:
    """The frames of datasets and their point labels by the rule of the arguments; missing ones are made first.

    All processes call this, and each makes its share. `None` in `datasets` stands for one that takes no part.
    """
    rule, loaded = args.make_point_labels_rule(), []
    for dataset, label_set in zip(datasets, label_sets, strict=True):
        if dataset is not None:
            frames = load_split(dataset, dataset.split, data_fraction)
            label_points(label_set, frames, rule, **sharing(accelerator, args.on_error))
            loaded.append(LabelledFrames(frames, label_set, PointLabels(label_set.folder, rule)))
    return loaded


def load_annotated_frames(datasets: Sequence[DataArguments | None], data_fraction: float = 1.0) -> list[Frames]:
    """The frames of datasets to train on by their ground truth; `None` stands for one that takes no part."""
    return [load_split(dataset, dataset.split, data_fraction) for dataset in datasets if dataset is not None]


class Samples(Dataset[BatchT], ABC):
    """Frames as voxels with supervision, augmented. No image is opened.

    A sample depends on (seed, epoch, index of the frame) and on nothing else. Its key is `(epoch, index)`.

    Args:
        frames (`Frames`): The dataset.
        feature_extractor (`UOVFeatureExtractor`): Points to voxels.
        augmentation (`AugmentationConfig`, *optional*): `None` leaves the frames as they are, for validation.
        seed (`int`, *optional*, defaults to 0): Of the augmentation.
        point_labels (`PointLabels`, *optional*):
            Labels by which the samples are supervised, unless that is the ground truth.
    """

    columns: ClassVar[tuple[str, ...]]
    label_map: np.ndarray | None = None  # (256,) uint8, the class to train on for each label of the ground truth

    def __init__(
        self,
        frames: Frames,
        feature_extractor: UOVFeatureExtractor,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        point_labels: PointLabels | None = None,
    ):
        self.frames = frames.select_columns(self.columns)
        self.feature_extractor = feature_extractor
        self.augmentation = augmentation
        self.seed = seed
        self.point_labels = point_labels

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: FrameKey) -> BatchT:
        return self.make_sample(self.frames[key[1]], np.random.default_rng([self.seed, *key]))

    @abstractmethod
    def make_sample(self, frame: Frame, generator: np.random.Generator) -> BatchT:
        """The sample of a frame; its augmentation draws from the generator alone."""

    def voxelize(self, frame: Frame, points: np.ndarray) -> Batch:
        """The voxels of the frame's points `(num_points, 4)` after their augmentation.

        Raises:
            ValueError: The frame has points or intensities that no voxel can have; the message names it.
        """
        try:
            voxels = self.feature_extractor(points, intensity_max=frame["intensity_max"], return_tensors="pt")
        except ValueError as error:
            self.check_points(frame)  # with the coordinates of the file
            raise ValueError(f"Frame {frame['frame_id']}, augmented: {error}") from error
        return {
            "voxel_coords": voxels["voxel_coords"],
            "voxel_features": voxels["voxel_features"],
            "point_to_voxel": voxels["point_to_voxel"],
            "num_points": torch.tensor([len(points)]),
        }

    def check_points(self, frame: Frame) -> None:
        """Check, before any augmentation, that the points of a frame have voxels.

        Raises:
            ValueError: They have none; the message names the frame, and the point by its coordinates in the file.
        """
        try:
            self.feature_extractor.check_points(frame["points"], frame["intensity_max"])
        except ValueError as error:
            raise ValueError(f"Frame {frame['frame_id']}: {error}") from error


class TeacherSamples(Samples[BatchT], ABC):
    """Samples that a label set supervises, mixed from the scans of several frames where `mix_sectors` is set."""

    def read_scans(self, frame: Frame, generator: np.random.Generator) -> list[Scan]:
        """The augmented scan of a frame; with `mix_sectors` completed by parts of further ones, drawn at random."""
        return mix_sectors(self._read_to_mix(frame, generator))

    def _read_to_mix(self, frame: Frame, generator: np.random.Generator) -> Iterator[Scan]:
        yield self.read_scan(frame, generator)
        if self.augmentation is None or not self.augmentation.mix_sectors:
            return
        for _ in range(MAX_SCANS):
            try:
                other = self.frames[int(generator.integers(len(self.frames)))]
                self.check_points(other)
                scan = self.read_scan(other, generator)
            except BROKEN:  # the epoch stops at this frame or reports it where it is the first of a scan
                continue
            scan.points[:, 3] *= frame["intensity_max"] / other["intensity_max"]  # the scale of the mixed scan
            yield scan

    @abstractmethod
    def read_scan(self, frame: Frame, generator: np.random.Generator) -> Scan:
        """The points of a frame with the teacher's labels, augmented."""


class _Superpoints(TypedDict):
    """The superpoints of one scan; see [`TMPBatch`]."""

    pair_to_point: torch.Tensor
    superpoint_ids: torch.Tensor
    segment_embeds: torch.Tensor
    segment_labels: torch.Tensor


class TMPSamples(TeacherSamples[TMPBatch]):
    """Frames with the superpoints of a label set's segments, for tri-modal pre-training.

    Pairs without a segment or without a voxel are left out, and so are segments that have no pair left.

    Args:
        label_set (`LabelSet`): Segments and prompts.
        point_labels (`PointLabels`): The label set's segments at the points.
    """

    columns = ("frame_id", "points", "intensity_max", "image_sizes")

    def __init__(
        self,
        frames: Frames,
        label_set: LabelSet,
        point_labels: PointLabels,
        feature_extractor: UOVFeatureExtractor,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
    ):
        super().__init__(frames, feature_extractor, augmentation, seed, point_labels)
        self.label_set = label_set
        self.prompt_embeds = torch.from_numpy(label_set.prompt_embeds)
        self.prompt_groups = torch.from_numpy(label_set.prompt_groups)

    def make_sample(self, frame: Frame, generator: np.random.Generator) -> TMPBatch:
        scans = self.read_scans(frame, generator)
        num_points = [len(scan.points) for scan in scans]
        voxels = self.voxelize(frame, np.concatenate([scan.points for scan in scans]))
        in_a_voxel = (voxels["point_to_voxel"] >= 0).split(num_points)
        parts = [self._superpoints(scan, mask.numpy()) for scan, mask in zip(scans, in_a_voxel, strict=True)]
        num_superpoints = [len(part["segment_labels"]) for part in parts]
        return {
            **voxels,
            "pair_to_point": concatenate_rows([part["pair_to_point"] for part in parts], num_points),
            "superpoint_ids": concatenate_rows([part["superpoint_ids"] for part in parts], num_superpoints),
            "scene_ids": torch.zeros(sum(num_superpoints), dtype=torch.int64),
            "segment_embeds": torch.cat([part["segment_embeds"] for part in parts]),
            "segment_labels": torch.cat([part["segment_labels"] for part in parts]),
            "prompt_embeds": self.prompt_embeds,
            "prompt_groups": self.prompt_groups,
        }

    def read_scan(self, frame: Frame, generator: np.random.Generator) -> Scan:
        columns = ["pair_to_point", "pair_camera", "pair_pixel", "pair_segment"]
        pairs: Pairs = read_point_labels(self.point_labels, frame, columns)
        points = frame["points"]
        if self.augmentation is not None:
            points, pairs = augment(points, pairs, frame["image_sizes"], self.augmentation, generator)
        pairs = select_pairs(pairs, pairs["pair_segment"] > 0)
        is_labelled = np.zeros(len(points), dtype=bool)
        is_labelled[pairs["pair_to_point"]] = True
        return Scan(frame["frame_id"], points, is_labelled, pairs=pairs)

    def _superpoints(self, scan: Scan, in_a_voxel: np.ndarray) -> _Superpoints:
        """The superpoints of one scan that have points in voxels."""
        pairs = select_pairs(scan.pairs, in_a_voxel[scan.pairs["pair_to_point"]])
        segments, superpoint_ids = np.unique(pairs["pair_segment"], return_inverse=True)
        of_frame = self.label_set.read(scan.frame_id, ["segment_labels", "segment_embeds"])
        num_segments = len(of_frame["segment_labels"])
        if segments.max(initial=0) > num_segments:
            raise ValueError(
                f"Frame {scan.frame_id} has {num_segments} segments, but a point label of the segment "
                f"{segments.max()}: they were made from another label set. Make them again."
            )
        embeds = of_frame["segment_embeds"][segments - 1].astype(np.float32)  # (num_superpoints, embed_dim)
        embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)  # float16 has left them a little off unit length
        return {
            "pair_to_point": torch.from_numpy(pairs["pair_to_point"].astype(np.int64)),
            "superpoint_ids": torch.from_numpy(superpoint_ids),
            "segment_embeds": torch.from_numpy(embeds),
            "segment_labels": torch.from_numpy(of_frame["segment_labels"][segments - 1].astype(np.int64)),
        }


class DistillationSamples(TeacherSamples[ScanBatch]):
    """Frames with the teacher's label of each point, rotated and mirrored. No ground truth is read.

    Args:
        point_labels (`PointLabels`): The teacher's labels.
        with_confidence (`bool`, *optional*, defaults to `False`): Whether samples have the `confidence` of each label.
        class_weights (`np.ndarray` of shape `(num_classes,)`, *optional*):
            Factors of the `confidence`, which samples then have.
    """

    columns = ("frame_id", "points", "intensity_max")

    def __init__(
        self,
        frames: Frames,
        point_labels: PointLabels,
        feature_extractor: UOVFeatureExtractor,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        with_confidence: bool = False,
        class_weights: np.ndarray | None = None,
    ):
        super().__init__(frames, feature_extractor, augmentation, seed, point_labels)
        self.with_confidence = with_confidence
        self.class_weights = class_weights

    def make_sample(self, frame: Frame, generator: np.random.Generator) -> ScanBatch:
        scans = self.read_scans(frame, generator)
        points = np.concatenate([scan.points for scan in scans])
        columns = {name: np.concatenate([scan.columns[name] for scan in scans]) for name in scans[0].columns}
        labels = torch.from_numpy(columns["labels"].astype(np.int64))
        sample: ScanBatch = {**self.voxelize(frame, points), "labels": labels}
        if "confidence" in columns:
            sample["confidence"] = torch.from_numpy(columns["confidence"])
        return sample

    def read_scan(self, frame: Frame, generator: np.random.Generator) -> Scan:
        row = read_point_labels(self.point_labels, frame, ["confidence"] if self.with_confidence else [])
        points = transform(frame["points"], self.augmentation, generator)
        labels = row["labels"]
        is_labelled, columns = labels != IGNORED, {"labels": labels}
        if self.with_confidence:
            columns["confidence"] = row["confidence"].astype(np.float32)
        if self.class_weights is not None:
            weights = np.zeros(len(labels), dtype=np.float32)
            weights[is_labelled] = self.class_weights[labels[is_labelled]]
            columns["confidence"] = weights * columns.get("confidence", 1)
        return Scan(frame["frame_id"], points, is_labelled, columns)


class AnnotatedSamples(Samples[ScanBatch]):
    """Frames with the ground truth of each point, rotated and mirrored.

    Args:
        label_map (`np.ndarray` of shape `(256,)`, *optional*):
            uint8, the class to train on for each label, 255 = ignored; by default the labels themselves.

    Raises:
        ValueError: On access, where a frame is not annotated.
    """

    columns = ("frame_id", "points", "intensity_max", "labels")

    def __init__(
        self,
        frames: Frames,
        feature_extractor: UOVFeatureExtractor,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        label_map: np.ndarray | None = None,
    ):
        super().__init__(frames, feature_extractor, augmentation, seed)
        self.label_map = label_map

    def make_sample(self, frame: Frame, generator: np.random.Generator) -> ScanBatch:
        if frame["labels"] is None:
            raise ValueError(
                f"Frame {frame['frame_id']} has no ground truth to train on. Take an annotated split; of nuScenes, "
                "unpack nuScenes-lidarseg into --data_dir."
            )
        points = transform(frame["points"], self.augmentation, generator)
        labels = frame["labels"] if self.label_map is None else self.label_map[frame["labels"]]
        return {**self.voxelize(frame, points), "labels": torch.from_numpy(labels.astype(np.int64))}


def read_point_labels(point_labels: PointLabels | None, frame: Frame, columns: list[str]) -> PointLabelRow:
    """`labels` and these columns of a frame's point labels.

    Raises:
        ValueError: They are of another cloud.
    """
    if point_labels is None:
        raise ValueError("These samples need `point_labels`.")
    row = point_labels.read(frame["frame_id"], ["labels", *columns])
    if len(row["labels"]) != len(frame["points"]):
        raise ValueError(
            f"Frame {frame['frame_id']} has {len(frame['points'])} points, but {len(row['labels'])} point labels in "
            f"{point_labels.folder}: they were made from another dataset. Make them again."
        )
    return row
