"""Teachers that propose overlapping masks: windows, pooled embeddings, one segmentation of all masks."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from uov_hf.teachers.checkpoints import dtype_name
from uov_hf.teachers.config import TeacherConfig, batch_size, share
from uov_hf.teachers.images import ScaledImage, Window, cut_into_windows
from uov_hf.teachers.masks import Proposals, areas, full_size_masks, mask_boxes, paint, pool_masks
from uov_hf.teachers.protocol import ImageSegments, Teacher, TeacherFrame, open_images
from uov_hf.teachers.second_space import SecondSpaceConfig, SecondSpaceTeacher


EDGE = 20  # pixels: a mask that ends this close to the edge of its window may continue beyond it (SAM's generator)


@dataclass(frozen=True, kw_only=True)
class MaskConfig(TeacherConfig):
    """How masks are proposed and resolved to one segmentation.

    Args:
        window (`int`, *optional*):
            Side in pixels of square windows that are processed besides the whole image, so that small and distant
            objects get masks; neighbours share half. Masks that a window cuts off are dropped. None: the whole image
            only.
        min_area (`int`, *optional*, defaults to 0): Segments of fewer pixels are dropped.
        min_visible (`float`, *optional*, defaults to 0.5): A mask with a smaller visible share of its area is dropped.
        mask_batch_size (`int`, *optional*, defaults to 2): Images or windows in one batch of the mask model.

    Raises:
        ValueError: a value is out of range.
    """

    window: int | None = None
    min_area: int = 0
    min_visible: float = share(0.5)
    mask_batch_size: int = batch_size(2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window <= 2 * EDGE:
            raise ValueError(f"`window` must be more than {2 * EDGE} pixels wide, got {self.window}.")


class MaskTeacher(Teacher):
    """Masks of the whole image and of its windows, resolved to one segmentation.

    A pixel belongs to its best-scored mask; pixels without a mask have no segment. `MaskConfig` has the settings.
    """

    config_class: ClassVar[type[MaskConfig]] = MaskConfig
    config: MaskConfig

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"dtype": dtype_name(self.dtype)}

    @abstractmethod
    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        """Masks of each RGB image."""

    def dense_features(self, images: list[ScaledImage]) -> list[Tensor]:
        """Features of each image for `describe`, which needs none by default."""
        return [torch.empty(0)] * len(images)

    def describe(self, proposals: Proposals, features: Tensor) -> Proposals:
        """Complete the full-size masks of one image with labels, final scores and embeddings."""
        return proposals

    @torch.inference_mode()
    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        images = open_images(frame)
        windows = [windows_of(image.size, self.config.window) for image in images]
        pieces = [
            image.pixels.crop((window.left, window.top, window.right, window.bottom))
            for image, its_windows in zip(images, windows, strict=True)
            for window in its_windows
        ]
        found = iter(self.propose(pieces))
        return [
            # Full-size masks of one image at a time: those of all cameras would fill the memory.
            self._segments(gather_windows(image.size, [(window, next(found)) for window in its_windows]), features)
            for image, its_windows, features in zip(images, windows, self.dense_features(images), strict=True)
        ]

    def _segments(self, proposals: Proposals, features: Tensor) -> ImageSegments:
        proposals = self.describe(proposals, features)
        if proposals.labels is None or proposals.embeds is None:
            raise ValueError(f"`describe` of the teacher `{self.name}` must add labels and embeddings to its masks.")
        segmentation, kept = paint(proposals.masks, proposals.scores, self.config.min_area, self.config.min_visible)
        return ImageSegments.from_tensors(
            segmentation, proposals.labels[kept], proposals.scores[kept], proposals.embeds[kept]
        )


@dataclass(frozen=True, kw_only=True)
class PooledMaskConfig(MaskConfig, SecondSpaceConfig):
    """Settings of `PooledMaskTeacher`: see `MaskConfig` and `SecondSpaceConfig`."""


class PooledMaskTeacher(MaskTeacher, SecondSpaceTeacher):
    """Masks with pooled embeddings: the mean of the second model's features in all pixels of a mask.

    Pixels under other masks count too (the recipe of OVSeg and FC-CLIP with public parts). Where the mask model has no
    text input, a mask's label is the prompt nearest to its embedding, and its score is that prompt's softmax
    probability times the mask's quality.
    """

    config_class: ClassVar[type[PooledMaskConfig]] = PooledMaskConfig
    config: PooledMaskConfig

    def dense_features(self, images: list[ScaledImage]) -> list[Tensor]:
        return self.space.dense_features(images)

    def describe(self, proposals: Proposals, features: Tensor) -> Proposals:
        embeds = pool_masks(features, proposals.masks)
        if proposals.labels is not None:
            return replace(proposals, embeds=embeds)
        labels, probabilities = self.space.classify(embeds, self.prompt_embeds)
        return Proposals(proposals.masks, probabilities * proposals.scores, labels, embeds)


def windows_of(size: tuple[int, int], side: int | None) -> list[Window]:
    """The whole image of `size` (height, width), and its windows where it is larger than one window."""
    whole = Window(0, 0, *size)
    return [whole] if side is None or side >= max(size) else [whole, *cut_into_windows(size, side)]


def gather_windows(size: tuple[int, int], found: list[tuple[Window, Proposals]]) -> Proposals:
    """Combine the proposals of an image's windows to full-size bool masks `(N, *size)`.

    Empty masks and masks that continue beyond their window are dropped.
    """
    gathered = []
    for window, proposals in found:
        local = full_size_masks(proposals.masks, window.size)
        whole = (areas(local) > 0) & ~is_cut_off(mask_boxes(local), window, size)
        masks = torch.zeros(int(whole.sum()), *size, dtype=torch.bool, device=local.device)
        masks[window.of] = local[whole]
        gathered.append(replace(proposals.take(whole), masks=masks))
    return Proposals.cat(gathered)


def is_cut_off(boxes: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """Whether each box, in pixels of the window, ends at an edge of the window inside the image, `(N,)`."""
    height, width = size
    last_row, last_column = (side - 1 for side in window.size)
    to_edge = torch.stack([boxes[:, 0], boxes[:, 1], last_column - boxes[:, 2], last_row - boxes[:, 3]], dim=1)
    inner = [window.left > 0, window.top > 0, window.right < width, window.bottom < height]
    return ((to_edge < EDGE) & torch.tensor(inner, device=boxes.device)).any(dim=1)
