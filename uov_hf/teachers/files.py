"""Segments that others have made, read from a folder as if a teacher had said them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from uov_hf.teachers.clip_space import ClipSpace, load_clip_space
from uov_hf.teachers.file_layouts import FiledSegments, Layout, open_layout
from uov_hf.teachers.pooling import pool_segments
from uov_hf.teachers.protocol import ImageSegments, Teacher, open_images


class FilesTeacher(Teacher):
    """
    Reads what is known of each image from a folder: the official label files of UOV and AFOV, or panoptic PNGs with
    JSON, COCO's and Cityscapes' among them (docs/vocabularies.md has the layouts). An image is found by its `image_id`
    or by the name of its file; not by one that is only a number, where the `image_id` says of which sequence.

    Official folders bring embeddings along. For the others they are pooled, over the pixels of each segment, from what
    a second model sees in the image, a CLIP or a TIPSv2; never from the words of the segment's own label.

    Args:
        prompts, model_name_or_path, device, dtype:
            As in `Teacher`. `model_name_or_path` is the folder.
        layout (`str`, *optional*, defaults to `"auto"`):
            `"uov"`, `"coco"` or `"panoptic"`; `"auto"` looks at the folder.
        embed_model_name_or_path (`str`, *optional*):
            Hub id or folder of the second model, for a folder without embeddings.
        embed_revision (`str`, *optional*):
            Its branch, tag or commit.
        embed_short_side, embed_window, templates, batch_size:
            `short_side`, `window`, `templates` and `batch_size` of the second model, see `ClipSpace`.

    Raises:
        ValueError: the folder is not as its layout must be, a category is no prompt of the vocabulary, or a second
            model is missing, or given in vain.
    """

    name = "files"

    def __init__(
        self,
        prompts: list[str],
        *,
        layout: str = "auto",
        embed_model_name_or_path: str | None = None,
        embed_revision: str | None = None,
        embed_short_side: int = 448,
        embed_window: int | None = None,
        templates: str = "vild",
        batch_size: int = 8,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        if self.model_name_or_path is None:
            raise ValueError("The teacher `files` needs `model_name_or_path`, the folder with the label files.")
        self.layout = open_layout(Path(self.model_name_or_path), layout, self.prompts)
        self._image_of: dict[Path, str] = {}
        _check_source_of_embeds(self.layout, embed_model_name_or_path)
        self.embed_model_name_or_path = embed_model_name_or_path
        self.space: ClipSpace | None = None
        if embed_model_name_or_path is not None:
            self.space = load_clip_space(
                embed_model_name_or_path,
                embed_revision,
                self.device,
                self.dtype,
                short_side=embed_short_side,
                window=embed_window,
                templates=templates,
                batch_size=batch_size,
            )

    @property
    def embed_dim(self) -> int:
        return self.layout.prompt_embeds.shape[1] if self.space is None else self.space.embed_dim

    @property
    def settings(self) -> dict[str, Any]:
        settings = {"layout": self.layout.name}
        if self.space is not None:
            settings |= {
                "embed_model_name_or_path": self.embed_model_name_or_path,
                "embed_revision": self.space.commit,
                "embed_settings": self.space.settings,
            }
        return settings

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """
        Unit-length float32 embeddings `(num_prompts, embed_dim)`.

        Raises:
            ValueError: the folder's text embeddings have no row for a phrase.
        """
        if self.space is not None:
            return self.space.encode_prompts(prompts).cpu().numpy()
        if unknown := [prompt for prompt in prompts if prompt not in self.prompts]:
            raise ValueError(
                f"{self.model_name_or_path} has text embeddings of its {len(self.prompts)} prompts only, not of "
                f"{', '.join(map(repr, unknown[:5]))}."
            )
        if list(prompts) == self.prompts:  # a phrase that is there twice has two rows
            return self.layout.prompt_embeds
        return self.layout.prompt_embeds[[self.prompts.index(prompt) for prompt in prompts]]

    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        if frame.get("augmentation") is not None:
            raise ValueError(
                f"The segments of the teacher `files` are made: there are none with {frame['augmentation']}. "
                "Leave --augmentations out."
            )
        filed = [self._read(frame, camera) for camera in range(len(frame["camera_names"]))]
        embeds = [one.embeds for one in filed] if self.space is None else self._pool(frame, filed)
        return [
            ImageSegments(one.segmentation, one.labels, one.scores, its_embeds)
            for one, its_embeds in zip(filed, embeds, strict=True)
        ]

    def _read(self, frame: dict[str, Any], camera: int) -> FiledSegments:
        image_id, path = str(frame["image_ids"][camera]), frame["images"][camera].get("path")
        stem = Path(path).stem if path else image_id
        # Every sequence and camera of KITTI has a 000000.png: a number alone names no image.
        names = [image_id] if "/" in image_id and stem.isdigit() else list(dict.fromkeys([image_id, stem]))
        filed = self.layout.read(names)
        if (other := self._image_of.setdefault(filed.path, image_id)) != image_id:
            raise ValueError(
                f"{filed.path} would be of two images, {other} and {image_id}: give each its own, called by these ids."
            )
        size = tuple(int(side) for side in frame["image_sizes"][camera])
        if filed.segmentation.shape != size:
            raise ValueError(
                f"{filed.path} is {filed.segmentation.shape} (height, width), but the image of frame "
                f"{frame['frame_id']}, camera {frame['camera_names'][camera]}, is {size}: they must have one size."
            )
        return filed

    @torch.inference_mode()
    def _pool(self, frame: dict[str, Any], filed: list[FiledSegments]) -> list[np.ndarray]:
        """Each image's `(S, embed_dim)`: what the second model sees in the pixels of each segment."""
        features = self.space.dense_features(open_images(frame))
        return [
            pool_segments(of_one, torch.from_numpy(one.segmentation).to(of_one.device), len(one.labels)).cpu().numpy()
            for of_one, one in zip(features, filed, strict=True)
        ]


def _check_source_of_embeds(layout: Layout, embed_model_name_or_path: str | None) -> None:
    """That embeddings come from the folder or from a second model, and from one of them only."""
    folder = f"{layout.folder} (layout {layout.name})"
    if layout.prompt_embeds is not None and embed_model_name_or_path is not None:
        raise ValueError(f"{folder} has embeddings of its own: leave `embed_model_name_or_path` out.")
    if layout.prompt_embeds is None and embed_model_name_or_path is None:
        raise ValueError(
            f"{folder} has no embeddings: name a model with images and words in one space to take them from, as "
            "`embed_model_name_or_path`, e.g. openai/clip-vit-base-patch16."
        )
