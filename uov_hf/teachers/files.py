"""Segments from files: label files that other programs wrote, as a teacher."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.clip_space import ClipSpace
from uov_hf.teachers.file_layouts import FiledSegments, open_layout
from uov_hf.teachers.pooling import pool_segments
from uov_hf.teachers.protocol import ImageSegments, Teacher, TeacherFrame, open_images
from uov_hf.teachers.second_space import EXAMPLE, SecondSpaceConfig, load_clip_space


@dataclass(frozen=True, kw_only=True)
class FilesConfig(SecondSpaceConfig):
    """Settings of `FilesTeacher`; `SecondSpaceConfig` has those for a folder without embeddings.

    Args:
        layout (`str`, *optional*, defaults to `"auto"`):
            `"uov"`, `"coco"` or `"panoptic"`; `"auto"` detects the layout.
    """

    layout: str = "auto"


class FilesTeacher(Teacher):
    """Reads the segments of each image from the folder `model_name_or_path`.

    The folder contains the official label files of UOV and AFOV, or panoptic PNGs with JSON, such as COCO's and
    Cityscapes' (docs/how_to/existing_labels.md has the layouts). The files of an image have its `image_id` or its file
    name. A file name that is only a number does not suffice where the `image_id` contains the sequence.

    Official folders contain embeddings. For other folders a second model, a CLIP or a TIPSv2, provides them: the mean
    of its features in each segment's pixels, never the embedding of the segment's label. `FilesConfig` has the
    settings.

    Raises:
        ValueError: the folder does not have the layout, a category is no prompt of the vocabulary, or a second model
            is missing or superfluous.
    """

    name = "files"
    config_class = FilesConfig
    config: FilesConfig

    def load(self) -> None:
        if self.model_name_or_path is None:
            raise ValueError("The teacher `files` needs `model_name_or_path`, the folder with the label files.")
        self.layout = open_layout(Path(self.model_name_or_path), self.config.layout, self.prompts)
        self._image_of: dict[Path, str] = {}
        self.space: ClipSpace | None = None
        folder = f"{self.layout.folder} (layout {self.layout.name})"
        source = self.config.embed_model_name_or_path
        if source is not None and self.layout.prompt_embeds.size:
            raise ValueError(f"{folder} has embeddings of its own: leave `embed_model_name_or_path` out.")
        if source is not None:
            checkpoint = Checkpoint(source, self.config.embed_revision, self.device, self.dtype)
            self.space = load_clip_space(checkpoint, self.config.space_config)
        elif not self.layout.prompt_embeds.size:
            raise ValueError(
                f"{folder} has no embeddings: give a model with images and words in one space as "
                f"`embed_model_name_or_path`, e.g. {EXAMPLE}."
            )

    @property
    def embed_dim(self) -> int:
        return self.layout.prompt_embeds.shape[1] if self.space is None else self.space.embed_dim

    @property
    def settings(self) -> dict[str, Any]:
        own = {"layout": self.layout.name}
        return own if self.space is None else own | self.config.record_space(self.space)

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Unit-length float32 embeddings `(num_prompts, embed_dim)`.

        Raises:
            ValueError: the folder's text embeddings have no row for a phrase.
        """
        if self.space is not None:
            return self.space.encode_prompts(prompts).cpu().numpy()
        embeds = self.layout.prompt_embeds
        if unknown := [prompt for prompt in prompts if prompt not in self.prompts]:
            raise ValueError(
                f"{self.model_name_or_path} has text embeddings of its {len(self.prompts)} prompts only, not of "
                f"{', '.join(map(repr, unknown[:5]))}."
            )
        # A phrase that occurs twice has two rows.
        return embeds if list(prompts) == self.prompts else embeds[[self.prompts.index(prompt) for prompt in prompts]]

    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        if frame.get("augmentation") is not None:
            raise ValueError(
                f"The teacher `files` reads finished segments: there are none with {frame['augmentation']}. "
                "Leave --augmentations out."
            )
        filed = [self._read(frame, camera) for camera in range(len(frame["camera_names"]))]
        embeds = [one.embeds for one in filed] if self.space is None else self._pool(self.space, frame, filed)
        return [
            ImageSegments(one.segmentation, one.labels, one.scores, its_embeds)
            for one, its_embeds in zip(filed, embeds, strict=True)
        ]

    def _read(self, frame: TeacherFrame, camera: int) -> FiledSegments:
        image_id, path = str(frame["image_ids"][camera]), frame["images"][camera].get("path")
        stem = Path(path).stem if path else image_id
        # Every sequence and camera of KITTI has a 000000.png: a number alone does not identify an image.
        names = [image_id] if "/" in image_id and stem.isdigit() else list(dict.fromkeys([image_id, stem]))
        filed = self.layout.read(names)
        if (other := self._image_of.setdefault(filed.path, image_id)) != image_id:
            raise ValueError(
                f"{filed.path} fits two images, {other} and {image_id}: give each image a file with its id as name."
            )
        size = tuple(int(side) for side in frame["image_sizes"][camera])
        if filed.segmentation.shape != size:
            raise ValueError(
                f"{filed.path} is {filed.segmentation.shape} (height, width), but the image of frame "
                f"{frame['frame_id']}, camera {frame['camera_names'][camera]}, is {size}: they must have one size."
            )
        return filed

    @torch.inference_mode()
    def _pool(self, space: ClipSpace, frame: TeacherFrame, filed: list[FiledSegments]) -> list[np.ndarray]:
        """Mean features `(S, embed_dim)` of the second model in the pixels of each image's segments."""
        features = space.dense_features(open_images(frame))
        return [
            pool_segments(of_image, torch.from_numpy(one.segmentation).to(of_image.device), len(one.labels))
            .cpu()
            .numpy()
            for of_image, one in zip(features, filed, strict=True)
        ]
