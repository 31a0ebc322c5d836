"""From pictures to what a 2D model reads: resized, normalised, cut into windows, and put through it in batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_base import ImageProcessingMixin


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
    """Height and width, both whole patches, nearly in proportion, of which the shorter is about `short_side`."""
    scale = short_side / min(image.size) / patch_size
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
    The fewest square windows that cover `size`, row by row, neighbours sharing at least half of their side.

    Args:
        size (`tuple[int, int]`):
            Height and width, in pixels or patches.
        side (`int`, *optional*):
            Of a window, in the same unit; an image that is smaller one way is covered in one that way. None: one
            window, the whole.
    """
    height, width = size
    rows, columns = (_intervals(length, min(side or length, length)) for length in size)
    return [Window(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _intervals(length: int, side: int) -> list[tuple[int, int]]:
    count = math.ceil(2 * (length - side) / side) + 1
    starts = [round(index * (length - side) / max(count - 1, 1)) for index in range(count)]
    return [(start, start + side) for start in starts]


def average_windows(maps: list[Tensor], windows: list[Window], size: tuple[int, int]) -> Tensor:
    """One `(channels, height, width)` map of those of its windows; where windows overlap, their mean."""
    total = maps[0].new_zeros(len(maps[0]), *size)
    count = maps[0].new_zeros(1, *size)
    for values, window in zip(maps, windows, strict=True):
        total[window.of] += values
        count[window.of] += 1
    return total / count


def in_batches(function: Callable[[Tensor], Tensor], pixel_values: list[Tensor], batch_size: int) -> list[Tensor]:
    """`function` of each image; at most `batch_size` consecutive images of one size go through it at once."""
    answers, start = [], 0
    while start < len(pixel_values):
        end = start + 1
        while (
            end < min(start + batch_size, len(pixel_values)) and pixel_values[end].shape == pixel_values[start].shape
        ):
            end += 1
        answers += function(torch.stack(pixel_values[start:end]))
        start = end
    return answers
