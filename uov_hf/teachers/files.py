"""Segments from files: label files that other programs wrote, as a teacher."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.clip_space import ClipSpace
from uov_hf.teachers.file_layouts import COCOLayout, FiledSegments, Layout, PanopticLayout, UOVLayout
from uov_hf.teachers.pooling import pool_segments
from uov_hf.teachers.protocol import ImageSegments, Teacher, TeacherFrame, open_images
from uov_hf.teachers.second_space import EXAMPLE, SecondSpaceConfig, load_clip_space
from uov_hf.teachers.semantic_layout import SemanticLayout, read_classes
from uov_hf.vocabulary import Vocabulary


# A folder whose parent has a `classes.json` may itself have another layout: that one is found first.
LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout for layout in (UOVLayout, COCOLayout, PanopticLayout, SemanticLayout)
}


@dataclass(frozen=True, kw_only=True)
class FilesConfig(SecondSpaceConfig):
    """Settings of `FilesTeacher`; `SecondSpaceConfig` has those of a second model.

    Args:
        layout (`str`, *optional*, defaults to `"auto"`):
            `"uov"`, `"coco"`, `"panoptic"` or `"semantic"`; `"auto"` detects the layout.
    """

    layout: str = "auto"


class FilesTeacher(Teacher):
    """Reads the segments of each image from the folder `model_name_or_path`.

    The folder contains the official label files of UOV and AFOV, or panoptic PNGs with JSON, such as COCO's and
    Cityscapes', or the label of each pixel (docs/how_to/existing_labels.md has the layouts). The files of an image
    have its `image_id` or its file name. A file name that is only a number does not suffice where the `image_id`
    contains the sequence. Where a frame has one camera, the sequence and the file name suffice.

    Official folders contain embeddings, and label maps may contain probabilities, which are embeddings, too. A second
    model, a CLIP or a TIPSv2, replaces them, or provides them where there are none: the mean of its features in each
    segment's pixels, never the embedding of the segment's label. `FilesConfig` has the settings. Without either, the
    segments have labels only, and `embed_dim` is 0.

    Raises:
        ValueError: the folder does not have the layout, or a category is no prompt of the vocabulary.
    """

    name = "files"
    config_class = FilesConfig
    config: FilesConfig

    @classmethod
    def fit_vocabulary(
        cls,
        vocabulary: Vocabulary,
        model_name_or_path: str | None = None,
        revision: str | None = None,
        **settings: Any,
    ) -> Vocabulary:
        """The vocabulary with the labels of a folder of label maps as prompts; the same for other layouts.

        Raises:
            ValueError: the vocabulary has no class for a label.
        """
        if model_name_or_path is None:
            return vocabulary
        layout = settings.get("layout", "auto")
        layouts = find_layouts(Path(model_name_or_path)) if layout == "auto" else [LAYOUTS.get(layout)]
        if layouts[:1] != [SemanticLayout]:
            return vocabulary
        return vocabulary.with_model_labels(read_classes(Path(model_name_or_path)), model_name_or_path)

    def load(self) -> None:
        if self.model_name_or_path is None:
            raise ValueError("The teacher `files` needs `model_name_or_path`, the folder with the label files.")
        self.layout = open_layout(Path(self.model_name_or_path), self.config.layout, self.prompts)
        self._image_of: dict[Path, str] = {}
        self.space: ClipSpace | None = None
        source = self.config.embed_model_name_or_path
        if source is not None:
            checkpoint = Checkpoint(source, self.config.embed_revision, self.device, self.dtype)
            self.space = load_clip_space(checkpoint, self.config.space_config)

    @property
    def embed_dim(self) -> int:
        return self.layout.prompt_embeds.shape[1] if self.space is None else self.space.embed_dim

    @property
    def settings(self) -> dict[str, Any]:
        own = self.layout.settings
        return own if self.space is None else own | self.config.record_space(self.space)

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Unit-length float32 embeddings `(num_prompts, embed_dim)`.

        Raises:
            ValueError: the folder's text embeddings have no row for a phrase.
        """
        if self.space is not None:
            return self.space.encode_prompts(prompts).cpu().numpy()
        embeds = self.layout.prompt_embeds
        if not embeds.size:
            raise ValueError(
                f"{self.layout.folder} (layout {self.layout.name}) has no embeddings: give a model with images and "
                f"words in one space as `embed_model_name_or_path`, e.g. {EXAMPLE}."
            )
        if unknown := [prompt for prompt in prompts if prompt not in self.prompts]:
            raise ValueError(
                f"{self.model_name_or_path} has embeddings of its {len(self.prompts)} prompts only, not of "
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
        sequence, has_sequence, _ = image_id.partition("/")
        names = [image_id]
        if has_sequence and len(frame["camera_names"]) == 1:  # with several, each camera has an image of this name
            names.append(f"{sequence}/{stem}")
        if not (has_sequence and stem.isdigit()):
            # Every sequence and camera of KITTI has a 000000.png: a number alone does not identify an image.
            names.append(stem)
        height, width = map(int, frame["image_sizes"][camera])
        filed = self.layout.read(list(dict.fromkeys(names)), (height, width))
        if (other := self._image_of.setdefault(filed.path, image_id)) != image_id:
            raise ValueError(
                f"{filed.path} fits two images, {other} and {image_id}: give each image a file with its id as name."
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


def find_layouts(folder: Path) -> list[type[Layout]]:
    """The layouts that a folder looks like."""
    return [layout for layout in LAYOUTS.values() if layout.fits(folder)]


def open_layout(folder: Path, name: str, prompts: list[str]) -> Layout:
    """Open a folder with the layout called `name`; `"auto"` detects it.

    Raises:
        ValueError: there is no such folder or layout, or no layout fits.
    """
    forms = "; ".join(f"{layout}: {LAYOUTS[layout].form}" for layout in LAYOUTS)
    if name not in ("auto", *LAYOUTS):
        raise ValueError(f"`layout` must be auto or one of these, got {name!r}. {forms}.")
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: expected the label files of the images in it. {forms}.")
    fitting = find_layouts(folder) if name == "auto" else [LAYOUTS[name]]
    if not fitting:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise ValueError(f"{folder} has no known layout. It contains {found}; expected one of: {forms}.")
    return fitting[0](folder, prompts)
