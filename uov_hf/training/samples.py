"""One frame of tri-modal pre-training: voxels, and the superpoints that a teacher's segments cut out of them."""

import numpy as np
import torch
from torch.utils.data import Dataset

from uov_hf.data.augmentation import AugmentationConfig, augment, select_pairs
from uov_hf.labels import LabelSet, PointLabels


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
        return {name: voxels[name] for name in ("voxel_coords", "voxel_features", "point_to_voxel")} | superpoints

    def _read_pairs(self, frame) -> dict[str, np.ndarray]:
        columns = ["pair_to_point", "pair_camera", "pair_pixel", "pair_segment", "labels"]
        pairs = self.point_labels.read(frame["frame_id"], columns)
        num_labelled = len(pairs.pop("labels"))
        if num_labelled != len(frame["points"]):
            raise ValueError(
                f"Frame {frame['frame_id']} has {len(frame['points'])} points, but {num_labelled} point labels in "
                f"{self.point_labels.folder}: they were made from another dataset. Make them again."
            )
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
