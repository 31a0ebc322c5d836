"""What a teacher is: a frozen 2D open-vocabulary model whose image segments live in the space of words."""

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn


@dataclass(frozen=True)
class ImageSegments:
    """The segments of one image.

    Args:
        segmentation (`np.ndarray` of shape `(height, width)`, integer):
            Segment ids 1…S, 0 = no segment; id `v` is described by row `v - 1` of the other arrays.
        labels (`np.ndarray` of shape `(S,)`, integer):
            Row of the segment's prompt in the teacher's `prompts`.
        scores (`np.ndarray` of shape `(S,)`):
            The teacher's own confidence, 0…1.
        embeds (`np.ndarray` of shape `(S, embed_dim)`):
            Unit length, in the space of `Teacher.encode_prompts`.
    """

    segmentation: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    embeds: np.ndarray

    def __post_init__(self):
        num_segments = len(self.labels)
        if self.segmentation.ndim != 2 or not np.issubdtype(self.segmentation.dtype, np.integer):
            raise ValueError(
                "`segmentation` must be a (height, width) array of integer ids, "
                f"got {self.segmentation.dtype} of shape {self.segmentation.shape}."
            )
        if self.labels.shape != (num_segments,) or self.scores.shape != (num_segments,):
            raise ValueError(
                "`labels` and `scores` must have one entry per segment, "
                f"got shapes {self.labels.shape} and {self.scores.shape}."
            )
        if self.embeds.ndim != 2 or len(self.embeds) != num_segments:
            raise ValueError(f"`embeds` must be of shape ({num_segments}, embed_dim), got {self.embeds.shape}.")
        if self.segmentation.size and not 0 <= self.segmentation.min() <= self.segmentation.max() <= num_segments:
            raise ValueError(
                f"`segmentation` holds ids {self.segmentation.min()}…{self.segmentation.max()}, "
                f"but {num_segments} segments are described: ids run from 1 to {num_segments}, 0 = no segment."
            )
        norms = np.linalg.norm(self.embeds.astype(np.float32), axis=1)
        if not np.allclose(norms, 1.0, atol=1e-2):
            raise ValueError(f"`embeds` must be of unit length, got lengths {norms.min():.3g}…{norms.max():.3g}.")


@dataclass(frozen=True)
class Augmentation:
    """
    How an image is changed before a teacher sees it; `restore` brings the answer back to the image as it was.

    Args:
        flip (`bool`, *optional*, defaults to `False`):
            Whether left and right change places.
        scale (`float`, *optional*, defaults to 1.0):
            What both sides are multiplied by.
    """

    flip: bool = False
    scale: float = 1.0

    @classmethod
    def parse(cls, name: str | None) -> "Augmentation":
        """The augmentation that a frame's `augmentation` names: None, `"flip"`, or such as `"scale=0.75"`."""
        kind, _, value = (name or "").partition("=")
        if name is None or name == "flip":
            return cls(flip=name == "flip")
        try:
            scale = float(value) if kind == "scale" else 0.0
        except ValueError:
            scale = 0.0
        if not 0.1 <= scale <= 10:
            raise ValueError(f"An augmentation is `flip` or `scale=<factor from 0.1 to 10>`, got {name!r}.")
        return cls(scale=scale)

    def augmented_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of an image of `image_size` after `apply`."""
        height, width = (max(1, round(int(side) * self.scale)) for side in image_size)
        return height, width

    def apply(self, image: Image.Image) -> Image.Image:
        """The image as the teacher sees it; `info["scale"]` tells who resizes images what was done to this one."""
        if self.scale != 1:
            height, width = self.augmented_size((image.height, image.width))
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            image.info["scale"] = self.scale
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else image

    def apply_to_ids(self, ids: np.ndarray) -> np.ndarray:
        """Segment ids `(height, width)` of an image, as they lie in the augmented one."""
        ids = _nearest(ids, self.augmented_size(ids.shape))
        return ids[:, ::-1] if self.flip else ids

    def restore(self, ids: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Segment ids of the augmented image, as they lie in the image as it was, `image_size` (height, width)."""
        return _nearest(ids[:, ::-1] if self.flip else ids, image_size)


def _nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`ids` resized to (height, width): each pixel reads the one its centre lies in."""
    if ids.shape == tuple(size):
        return ids
    row, column = (
        np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(ids.shape, size, strict=True)
    )
    return ids[row[:, None], column]


class Teacher(ABC):
    """A frozen 2D model behind one protocol. Adding one is a file with a subclass and a line in `TEACHERS`.

    Args:
        prompts (`list[str]`):
            The vocabulary; segment labels are rows of it.
        model_name_or_path (`str`, *optional*):
            Hub id or folder of the weights, for teachers that have some.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        data_dir (`str`, *optional*):
            Root of the dataset, for teachers that read files which lie beside the images.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Where the model runs.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Precision of the model.
    """

    name: ClassVar[str]

    def __init__(
        self,
        prompts: list[str],
        model_name_or_path: str | None = None,
        revision: str | None = None,
        data_dir: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"`prompts` must be a list of at least one phrase, got {prompts!r}.")
        self.prompts = list(prompts)
        self.model_name_or_path = model_name_or_path
        self.revision = revision
        self.data_dir = data_dir
        self.device = torch.device(device)
        self.dtype = dtype

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Dimension of the space that segments and prompts share."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What else decides the answers (templates, image size, seed, …); JSON, kept in `label_set.json`."""

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Unit-length float32 embeddings `(num_prompts, embed_dim)` of phrases."""

    @abstractmethod
    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        """
        The segments of each of the frame's images, in the order of `frame["camera_names"]`.

        Where `frame["augmentation"]` names one (see `Augmentation`), `open_images` gives the images augmented, and the
        segmentation has the size of what it gives: whoever asked brings it back.
        """

    def train(self, mode: bool = True) -> "Teacher":
        """Teachers are frozen: `train()` is refused, `train(False)` does nothing."""
        if mode:
            raise RuntimeError(f"The teacher `{self.name}` is frozen: it has no train mode.")
        return self

    def eval(self) -> "Teacher":
        return self.train(False)


def freeze(model: nn.Module) -> nn.Module:
    """`model` in evaluation mode and without gradients, for good: its `train()` raises."""

    def refuse(mode: bool = True) -> nn.Module:
        if mode:
            raise RuntimeError(f"{type(model).__name__} belongs to a teacher and is frozen: it has no train mode.")
        return model

    model.eval().requires_grad_(False)
    model.train = refuse
    return model


def open_images(frame: dict[str, Any]) -> list[Image.Image]:
    """The frame's images as RGB, one per camera, augmented as `frame["augmentation"]` says where there is such a key.

    Raises:
        OSError: an image is missing or damaged; the message names frame, camera and file.
    """
    augmentation, images = Augmentation.parse(frame.get("augmentation")), []
    for camera, image in zip(frame["camera_names"], frame["images"], strict=True):
        source = image["path"] if image.get("bytes") is None else io.BytesIO(image["bytes"])
        try:
            images.append(augmentation.apply(Image.open(source).convert("RGB")))
        except OSError as error:
            raise OSError(
                f"Frame {frame['frame_id']}, camera {camera}: {image.get('path')} is not a readable image: {error}"
            ) from error
    return images
