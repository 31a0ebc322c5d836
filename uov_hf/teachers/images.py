"""From pictures to what a 2D model reads: resized, normalised, cut into windows, and put through it in batches."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_base import ImageProcessingMixin


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class PixelTransform:
    """
    Resizing and normalising as a model's image processor does it, with PIL alone: the processors of the newer models
    need torchvision.

    Args:
        mean, std (`tuple[float, ...]`):
            Per channel, of pixels that were multiplied by `scale`.
        scale (`float`):
            Usually 1 / 255.
        resample (`PIL.Image.Resampling`):
            How it resizes.
        size (`tuple[int, int]`, *optional*):
            Height and width that the model was trained on, where its processor says so.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 1 / 255
    resample: Image.Resampling = Image.Resampling.BICUBIC
    size: tuple[int, int] | None = None

    @classmethod
    def from_pretrained(cls, model_name_or_path: str, revision: str | None = None) -> "PixelTransform":
        """What the `preprocessor_config.json` (or `processor_config.json`) of a model says.

        Raises:
            OSError: the model has neither.
        """
        config, _ = ImageProcessingMixin.get_image_processor_dict(model_name_or_path, revision=revision)
        fields = {"scale": config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0}
        if config.get("do_normalize", "image_mean" in config):
            fields |= {"mean": tuple(config["image_mean"]), "std": tuple(config["image_std"])}
        if "resample" in config:
            fields["resample"] = Image.Resampling(config["resample"])
        return cls(**fields, size=_height_and_width(config.get("size")))

    def __call__(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """`(3, height, width)` float32 of an RGB image, resized to `size` (height, width)."""
        pixels = np.asarray(image.resize(size[::-1], self.resample), np.float32) * np.float32(self.scale)
        normalised = (pixels - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(normalised).permute(2, 0, 1)


def _height_and_width(size: dict[str, int] | int | None) -> tuple[int, int] | None:
    """The size in any of the forms in which processors have written it."""
    if isinstance(size, int):
        return size, size
    if not size:
        return None
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    return (size["height"], size["width"]) if "height" in size else None


def whole_patches(image: Image.Image, short_side: int, patch_size: int) -> tuple[int, int]:
    """
    Height and width, both whole patches, nearly in proportion, of which the shorter is about `short_side`; of an
    image that was scaled before the teacher saw it (`Augmentation`), about as much of `short_side`.
    """
    scale = short_side * image.info.get("scale", 1.0) / min(image.size) / patch_size
    return max(1, round(image.height * scale)) * patch_size, max(1, round(image.width * scale)) * patch_size


@dataclass(frozen=True)
class Window:
    """A rectangle of an image or of a grid: rows `top` to `bottom`, columns `left` to `right`, the ends not in it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def of(self) -> tuple[slice, slice, slice]:
        """`tensor[window.of]` is the window of a `(channels, height, width)` tensor."""
        return slice(None), slice(self.top, self.bottom), slice(self.left, self.right)

    def times(self, factor: int) -> "Window":
        return Window(self.top * factor, self.left * factor, self.bottom * factor, self.right * factor)


def cut_into_windows(size: tuple[int, int], side: int | None) -> list[Window]:
    """
    The fewest square windows that cover `size`, row by row, whose neighbours share half of their side or more; starts
    are rounded.

    Args:
        size (`tuple[int, int]`):
            Height and width, in pixels or patches.
        side (`int`, *optional*):
            Of a window, in the same unit; an image that is smaller one way is covered in one that way. None: one
            window, the whole.
    """
    rows, columns = (_intervals(length, min(side or length, length)) for length in size)
    return [Window(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _intervals(length: int, side: int) -> list[tuple[int, int]]:
    count = math.ceil(2 * (length - side) / side) + 1
    starts = [round(index * (length - side) / max(count - 1, 1)) for index in range(count)]
    return [(start, start + side) for start in starts]


@dataclass(frozen=True)
class Views(Generic[Answer]):
    """What a model says about the windows of one image, whose patches are a `grid` of (rows, columns)."""

    grid: tuple[int, int]
    windows: list[Window]
    answers: list[Answer]


def average_windows(views: Views[Tensor], factor: int = 1) -> Tensor:
    """
    One map `(channels, rows, columns)` of those of the windows; where windows overlap, their mean.

    Args:
        views (`Views`):
            Each answer is of shape `(channels, rows, columns)`.
        factor (`int`, *optional*, defaults to 1):
            Rows and columns of a map per patch.
    """
    first = views.answers[0]
    total = first.new_zeros(len(first), *(side * factor for side in views.grid))
    count = torch.zeros_like(total[:1])
    for values, window in zip(views.answers, views.windows, strict=True):
        total[window.times(factor).of] += values
        count[window.times(factor).of] += 1
    return total / count


def look_through_windows(
    model: Callable[[Tensor], Iterable[Answer]],
    pixel_values: list[Tensor],
    patch_size: int,
    window: int | None,
    batch_size: int,
) -> list[Views[Answer]]:
    """
    `model`'s answers for each window of each image.

    Args:
        model (`Callable`):
            From `(batch, 3, height, width)` to one answer per row.
        pixel_values (`list[torch.Tensor]`, each of shape `(3, height, width)`):
            Whole patches high and wide.
        patch_size (`int`):
            Pixels; windows begin and end between patches.
        window (`int`, *optional*):
            Side in pixels of the square windows. None: one window, the whole image.
        batch_size (`int`):
            Windows of one size that go through the model at once.
    """
    grids = [tuple(side // patch_size for side in pixels.shape[1:]) for pixels in pixel_values]
    cuts = [cut_into_windows(grid, window and window // patch_size) for grid in grids]
    pieces = [
        pixels[piece.times(patch_size).of] for pixels, cut in zip(pixel_values, cuts, strict=True) for piece in cut
    ]
    answers = iter(in_batches(model, pieces, batch_size))
    return [Views(grid, cut, [next(answers) for _ in cut]) for grid, cut in zip(grids, cuts, strict=True)]


def in_batches(
    function: Callable[[Tensor], Iterable[Answer]], pixel_values: list[Tensor], batch_size: int
) -> list[Answer]:
    """`function`'s answer for each image; up to `batch_size` consecutive images of one size go through it at once."""
    answers = []
    for _, same_size in groupby(pixel_values, key=lambda pixels: pixels.shape):
        for batch in torch.stack(list(same_size)).split(batch_size):
            answers += function(batch)
    return answers
