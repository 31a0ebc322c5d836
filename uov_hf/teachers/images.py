"""Images as tensors for 2D models: resized, normalised, cut into windows and batched."""

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


Output = TypeVar("Output")


@dataclass(frozen=True)
class ScaledImage:
    """An RGB image, and the factor by which its sides differ from those of the image in the dataset."""

    pixels: Image.Image
    scale: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width; PIL has them the other way round."""
        return self.pixels.height, self.pixels.width


@dataclass(frozen=True)
class PixelTransform:
    """Resizing and normalising as in a model's image processor.

    It needs PIL alone: the processors of newer models need torchvision.

    Args:
        mean, std (`tuple[float, ...]`): Per channel, of pixels that were multiplied by `scale`.
        scale (`float`): Usually 1 / 255.
        resample (`PIL.Image.Resampling`): Method of resizing.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 1 / 255
    resample: Image.Resampling = Image.Resampling.BICUBIC

    @classmethod
    def from_pretrained(cls, model_name_or_path: str, revision: str | None = None) -> "PixelTransform":
        """Read the `preprocessor_config.json` (or `processor_config.json`) of a model.

        Raises:
            OSError: the model has neither.
        """
        config, _ = ImageProcessingMixin.get_image_processor_dict(model_name_or_path, revision=revision)
        normalises = config.get("do_normalize", "image_mean" in config)
        return cls(
            mean=tuple(config["image_mean"]) if normalises else cls.mean,
            std=tuple(config["image_std"]) if normalises else cls.std,
            scale=config.get("rescale_factor", cls.scale) if config.get("do_rescale", True) else 1.0,
            resample=Image.Resampling(config.get("resample", cls.resample)),
        )

    def __call__(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """`(3, height, width)` float32 of an RGB image, resized to `size` (height, width)."""
        pixels = np.asarray(image.resize(size[::-1], self.resample), np.float32) * np.float32(self.scale)
        normalised = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(normalised).permute(2, 0, 1)

    def in_patches(self, image: ScaledImage, short_side: int, patch_size: int) -> Tensor:
        """`(3, height, width)` in whole patches, nearly in proportion, with a shorter side of about `short_side`."""
        # A scaled image gets a scaled `short_side`: resized to the same, it would be the plain image again.
        scale = short_side * image.scale / min(image.size) / patch_size
        height, width = (max(1, round(side * scale)) * patch_size for side in image.size)
        return self(image.pixels, (height, width))


@dataclass(frozen=True)
class Window:
    """A rectangle of an image or grid: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def of(self) -> tuple[slice, slice, slice]:
        """`tensor[window.of]` is the window of a `(channels, height, width)` tensor."""
        return slice(None), slice(self.top, self.bottom), slice(self.left, self.right)

    def times(self, factor: int) -> "Window":
        return Window(self.top * factor, self.left * factor, self.bottom * factor, self.right * factor)


def cut_into_windows(size: tuple[int, int], side: int | None) -> list[Window]:
    """The fewest square windows that cover `size`, row by row; neighbours share at least half of their side.

    Starts are rounded.

    Args:
        size (`tuple[int, int]`): Height and width, in pixels or patches.
        side (`int`, *optional*):
            Side of a window, in the same unit; along a shorter dimension, one window covers the image. None: one
            window, the whole image.
    """
    rows, columns = (_intervals(length, min(side or length, length)) for length in size)
    return [Window(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _intervals(length: int, side: int) -> list[tuple[int, int]]:
    count = math.ceil(2 * (length - side) / side) + 1
    starts = [round(index * (length - side) / max(count - 1, 1)) for index in range(count)]
    return [(start, start + side) for start in starts]


@dataclass(frozen=True)
class WindowOutputs(Generic[Output]):
    """A model's outputs for the windows of one image with a `grid` (rows, columns) of patches."""

    grid: tuple[int, int]
    windows: list[Window]
    outputs: list[Output]


def average_windows(of_image: WindowOutputs[Tensor], factor: int = 1) -> Tensor:
    """Combine the maps of windows to one map `(channels, rows, columns)`: the mean where windows overlap.

    Args:
        of_image (`WindowOutputs`): Each output has the shape `(channels, rows, columns)`.
        factor (`int`, *optional*, defaults to 1): Rows and columns of a map per patch.
    """
    first = of_image.outputs[0]
    total = first.new_zeros(len(first), *(side * factor for side in of_image.grid))
    count = torch.zeros_like(total[:1])
    for values, window in zip(of_image.outputs, of_image.windows, strict=True):
        total[window.times(factor).of] += values
        count[window.times(factor).of] += 1
    return total / count


def run_on_windows(
    model: Callable[[Tensor], Iterable[Output]],
    pixel_values: list[Tensor],
    patch_size: int,
    window: int | None,
    batch_size: int,
) -> list[WindowOutputs[Output]]:
    """Run `model` on each window of each image.

    Args:
        model (`Callable`): From `(batch, 3, height, width)` to one output per row.
        pixel_values (`list[torch.Tensor]`, each of shape `(3, height, width)`): Whole patches high and wide.
        patch_size (`int`): Pixels; windows begin and end between patches.
        window (`int`, *optional*): Side of the square windows, in pixels. None: one window, the whole image.
        batch_size (`int`): Windows of one size in one batch.
    """
    grids = [(pixels.shape[1] // patch_size, pixels.shape[2] // patch_size) for pixels in pixel_values]
    cuts = [cut_into_windows(grid, window and window // patch_size) for grid in grids]
    pieces = [
        pixels[piece.times(patch_size).of] for pixels, cut in zip(pixel_values, cuts, strict=True) for piece in cut
    ]
    outputs = iter(in_batches(model, pieces, batch_size))
    return [WindowOutputs(grid, cut, [next(outputs) for _ in cut]) for grid, cut in zip(grids, cuts, strict=True)]


def in_batches(
    function: Callable[[Tensor], Iterable[Output]], pixel_values: list[Tensor], batch_size: int
) -> list[Output]:
    """Run `function` on all images, up to `batch_size` consecutive images of one size at once."""
    outputs: list[Output] = []
    for _, same_size in groupby(pixel_values, key=lambda pixels: pixels.shape):
        for batch in torch.stack(list(same_size)).split(batch_size):
            outputs += function(batch)
    return outputs
