"""Teachers that propose masks which may overlap: windows, embeddings by pooling, one segmentation of them all."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uov_hf.teachers.clip_space import SecondSpaceTeacher
from uov_hf.teachers.images import Window, cut_into_windows
from uov_hf.teachers.masks import Proposals, areas, full_size_masks, mask_boxes, paint, pool_masks
from uov_hf.teachers.protocol import ImageSegments, Teacher, open_images
from uov_hf.teachers.settings import check_counts, check_shares


EDGE = 20  # pixels: a mask that ends as near to the edge of its window is taken to go on beyond it (SAM's generator)


class MaskTeacher(Teacher):
    """
    Masks from a model, of the whole image and of windows of it, resolved to one segmentation: the better-scored mask
    wins a pixel, and pixels without a mask have no segment.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        window (`int`, *optional*):
            Side in pixels of the image of square windows that are looked at besides the whole image, each neighbour
            sharing half with the next: small and far things get masks, too. Masks that a window cuts off are left
            out. None: the whole image only.
        min_area (`int`, *optional*, defaults to 0):
            Segments of fewer pixels are left out.
        min_visible (`float`, *optional*, defaults to 0.5):
            So are masks that better ones leave less than this share of.
        mask_batch_size (`int`, *optional*, defaults to 2):
            Images, or windows, that go through the mask model at once.
    """

    def __init__(
        self,
        prompts: list[str],
        *,
        window: int | None = None,
        min_area: int = 0,
        min_visible: float = 0.5,
        mask_batch_size: int = 2,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        check_shares(min_visible=min_visible)
        check_counts(mask_batch_size=mask_batch_size)
        if window is not None and window <= 2 * EDGE:
            raise ValueError(f"`window` must be more than {2 * EDGE} pixels wide, got {window}.")
        self.window, self.min_area, self.min_visible = window, min_area, min_visible
        self.mask_batch_size = mask_batch_size
        self.mask_settings: dict[str, Any] = {  # subclasses add theirs
            "dtype": str(self.dtype).removeprefix("torch."),
            "window": window,
            "min_area": min_area,
            "min_visible": min_visible,
        }

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.mask_settings)

    @abstractmethod
    def propose(self, images: list[Image.Image]) -> list[Proposals]:
        """What the mask model sees in each of some RGB images."""

    def dense_features(self, images: list[Image.Image]) -> list[Tensor | None]:
        """What `describe` needs of each image beside its masks."""
        return [None] * len(images)

    def describe(self, proposals: Proposals, features: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Labels `(N,)`, scores `(N,)` and unit-length embeddings `(N, embed_dim)` of full-size masks."""
        return proposals.labels, proposals.scores, proposals.embeds

    @torch.inference_mode()
    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        images = open_images(frame)
        windows = [windows_of((image.height, image.width), self.window) for image in images]
        pieces = [
            image.crop((window.left, window.top, window.right, window.bottom))
            for image, its_windows in zip(images, windows, strict=True)
            for window in its_windows
        ]
        found = iter(self.propose(pieces))
        return [
            self._segments((image.height, image.width), [(window, next(found)) for window in its_windows], features)
            for image, its_windows, features in zip(images, windows, self.dense_features(images), strict=True)
        ]

    def _segments(
        self, size: tuple[int, int], found: list[tuple[Window, Proposals]], features: Tensor | None
    ) -> ImageSegments:
        proposals = gather_windows(size, found)
        if len(proposals.masks) == 0:
            return no_segments(size, self.embed_dim)
        labels, scores, embeds = self.describe(proposals, features)
        segmentation, kept = paint(proposals.masks, scores, self.min_area, self.min_visible)
        return ImageSegments(
            segmentation=segmentation.cpu().numpy(),
            labels=labels[kept].cpu().numpy(),
            scores=scores[kept].cpu().numpy(),
            embeds=embeds[kept].cpu().numpy(),
        )


class PooledMaskTeacher(MaskTeacher, SecondSpaceTeacher):
    """
    A mask's embedding is the mean of what the second model, a CLIP or TIPSv2, sees in its pixels, those under other
    masks too (the recipe of OVSeg and FC-CLIP with public parts). Where the mask model has no words, a mask is called
    what its embedding is nearest to, and its score is that prompt's softmax probability times the mask's quality.

    Args:
        prompts, model_name_or_path, revision, device, dtype:
            See `Teacher`.
        embed_model_name_or_path, embed_revision, embed_short_side, embed_window, templates, batch_size:
            The second model, see `SecondSpaceTeacher`.
        window, min_area, min_visible, mask_batch_size:
            See `MaskTeacher`.
    """

    @property
    def settings(self) -> dict[str, Any]:
        return SecondSpaceTeacher.settings.fget(self) | self.mask_settings

    def dense_features(self, images: list[Image.Image]) -> list[Tensor]:
        return self.space.dense_features(images)

    def describe(self, proposals: Proposals, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embeds = pool_masks(features, proposals.masks)
        if proposals.labels is not None:
            return proposals.labels, proposals.scores, embeds
        labels, probabilities = self.space.classify(embeds, self.prompt_embeds)
        return labels, probabilities * proposals.scores, embeds


def windows_of(size: tuple[int, int], side: int | None) -> list[Window]:
    """The whole of an image (height, width), and windows of it where it is larger than they are."""
    whole = Window(0, 0, *size)
    return [whole] if side is None or side >= max(size) else [whole, *cut_into_windows(size, side)]


def gather_windows(size: tuple[int, int], found: list[tuple[Window, Proposals]]) -> Proposals:
    """
    What was found in windows of one image of `size` (height, width), with full-size masks, bool; empty masks are left
    out, and those that go on beyond their window.
    """
    gathered = []
    for window, proposals in found:
        local = full_size_masks(proposals.masks, (window.bottom - window.top, window.right - window.left))
        whole = (areas(local) > 0) & ~is_cut_off(mask_boxes(local), window, size)
        masks = torch.zeros(int(whole.sum()), *size, dtype=torch.bool, device=local.device)
        masks[window.of] = local[whole]
        gathered.append(replace(proposals.take(whole), masks=masks))
    return Proposals.cat(gathered)


def is_cut_off(boxes: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """`(N,)`: whether a box, in pixels of the window, ends at an edge of it that is no edge of the image."""
    height, width = size
    to_edge = torch.stack(
        [
            boxes[:, 0],
            boxes[:, 1],
            window.right - window.left - 1 - boxes[:, 2],
            window.bottom - window.top - 1 - boxes[:, 3],
        ],
        dim=1,
    )
    inner = [window.left > 0, window.top > 0, window.right < width, window.bottom < height]
    return ((to_edge < EDGE) & torch.tensor(inner, device=boxes.device)).any(dim=1)


def no_segments(size: tuple[int, int], embed_dim: int) -> ImageSegments:
    """The answer for an image (height, width) in which nothing was found."""
    return ImageSegments(
        segmentation=np.zeros(size, np.int64),
        labels=np.empty(0, np.int64),
        scores=np.empty(0, np.float32),
        embeds=np.empty((0, embed_dim), np.float32),
    )
