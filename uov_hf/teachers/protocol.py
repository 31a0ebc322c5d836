"""The protocol of teachers: frozen 2D open-vocabulary models that segment camera images."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uov_hf.image_files import EncodedImage, decode_image
from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.config import TeacherConfig
from uov_hf.teachers.images import ScaledImage
from uov_hf.vocabulary import Vocabulary


@dataclass(frozen=True)
class Rows:
    """Columns with one row per segment, mask or box; an optional column may be None."""

    def take(self, rows: Tensor | np.ndarray) -> Self:
        """Select rows by index or by a bool for each."""
        columns = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: column[rows] for name, column in columns.items() if column is not None})


class TeacherFrame(TypedDict, total=False):
    """The K camera images of a frame, in the order of `camera_names`."""

    frame_id: str
    camera_names: list[str]
    image_ids: list[str]
    images: list[EncodedImage]
    image_sizes: NDArray[np.int32]  # (K, 2): height, width
    augmentation: str | None  # see `Augmentation`; the images themselves are stored without it


@dataclass(frozen=True)
class ImageSegments:
    """The segments of one image.

    Args:
        segmentation (`np.ndarray` of shape `(height, width)`, integer):
            Segment ids 1…S, 0 = no segment; row `v - 1` of the other arrays describes id `v`.
        labels (`np.ndarray` of shape `(S,)`, integer): Row of the segment's prompt in the teacher's `prompts`.
        scores (`np.ndarray` of shape `(S,)`): The teacher's confidence, 0…1.
        embeds (`np.ndarray` of shape `(S, embed_dim)`):
            Unit length, in the space of `Teacher.encode_prompts`; of width 0 for a teacher without embeddings.

    Raises:
        ValueError: shapes, ids or lengths do not fit.
    """

    segmentation: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    embeds: np.ndarray

    @classmethod
    def from_tensors(cls, segmentation: Tensor, labels: Tensor, scores: Tensor, embeds: Tensor) -> "ImageSegments":
        """The same from tensors on any device."""
        return cls(*(tensor.cpu().numpy() for tensor in (segmentation, labels, scores, embeds)))

    def __post_init__(self) -> None:
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
        if self.embeds.shape[1] and not np.allclose(norms, 1.0, atol=1e-2):
            raise ValueError(f"`embeds` must be of unit length, got lengths {norms.min():.3g}…{norms.max():.3g}.")


@dataclass(frozen=True)
class Augmentation:
    """A change of an image before the teacher; `restore` maps the segmentation back to the original image.

    Args:
        flip (`bool`, *optional*, defaults to `False`): Whether left and right change places.
        scale (`float`, *optional*, defaults to 1.0): Factor for both sides.
    """

    flip: bool = False
    scale: float = 1.0

    @classmethod
    def parse(cls, name: str | None) -> "Augmentation":
        """Read the `augmentation` of a frame: None, `"flip"`, or for example `"scale=0.75"`.

        Raises:
            ValueError: the name is none of these, or the scale is not from 0.1 to 10.
        """
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

    def apply(self, image: Image.Image) -> ScaledImage:
        """Augment an image."""
        if self.scale != 1:
            height, width = self.augmented_size((image.height, image.width))
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return ScaledImage(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else image, self.scale)

    def apply_to_ids(self, ids: np.ndarray) -> np.ndarray:
        """Augment segment ids `(height, width)` as their image."""
        height, width = ids.shape
        ids = _nearest(ids, self.augmented_size((height, width)))
        return ids[:, ::-1] if self.flip else ids

    def restore(self, ids: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Map segment ids of the augmented image to the original image of `image_size` (height, width)."""
        return _nearest(ids[:, ::-1] if self.flip else ids, image_size)


def _nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize `ids` to (height, width): each pixel takes the id at its centre."""
    if ids.shape == tuple(size):
        return ids
    row, column = (
        np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(ids.shape, size, strict=True)
    )
    return ids[row[:, None], column]


class Teacher(ABC):
    """A frozen 2D model behind one protocol. To add one, see docs/how_to/teachers.md.

    Args:
        prompts (`list[str]`): The vocabulary; segment labels are rows of it.
        config (`TeacherConfig`, *optional*): The teacher's own settings, of its `config_class`.
        model_name_or_path (`str`, *optional*): Hub id or folder of the weights, for teachers with weights.
        revision (`str`, *optional*): Branch, tag or commit on the Hub; after loading, the commit.
        data_dir (`str`, *optional*): Root of the dataset, for teachers that read files beside the images.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`): Where the model runs.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Precision of the model.

    Raises:
        ValueError: `prompts` is empty or no list of phrases, or something that the teacher needs is missing.
    """

    name: ClassVar[str]
    example: ClassVar[str]  # a checkpoint on the Hub, for messages
    config_class: ClassVar[type[TeacherConfig]] = TeacherConfig
    config: TeacherConfig

    def __init__(
        self,
        prompts: list[str],
        config: TeacherConfig | None = None,
        *,
        model_name_or_path: str | None = None,
        revision: str | None = None,
        data_dir: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"`prompts` must be a list of at least one phrase, got {prompts!r}.")
        self.prompts = list(prompts)
        self.config = config or self.config_class()
        self.model_name_or_path = model_name_or_path
        self.revision = revision
        self.data_dir = data_dir
        self.device = torch.device(device)
        self.dtype = dtype
        self.load()

    @classmethod
    def fit_vocabulary(
        cls,
        vocabulary: Vocabulary,
        model_name_or_path: str | None = None,
        revision: str | None = None,
        **settings: Any,
    ) -> Vocabulary:
        """The vocabulary with the prompts that the teacher can predict: the same, unless its list of labels is closed.

        Args:
            vocabulary (`Vocabulary`): The classes, and prompts for open-vocabulary teachers.
            model_name_or_path, revision (`str`, *optional*): Those that the teacher will be loaded with.
            settings: Those of the teacher's `config_class` that it will be loaded with.
        """
        return vocabulary

    def load(self) -> None:  # noqa: B027  a teacher without models or files has nothing to load
        """Load models and files; subclasses call `super().load()` first."""

    def checkpoint(self) -> Checkpoint:
        """The teacher's own weights; `revision` becomes their commit."""
        checkpoint = self.require_checkpoint(
            "model_name_or_path", self.model_name_or_path, self.revision, self.example
        )
        self.revision = checkpoint.revision
        return checkpoint

    def require_checkpoint(self, argument: str, value: str | None, revision: str | None, example: str) -> Checkpoint:
        """The model that `argument` names, at its commit.

        Raises:
            ValueError: `value` is None; the message names the argument and an example.
        """
        if value is None:
            is_its_own = argument == "model_name_or_path"
            option = "--teacher_model_name_or_path " if is_its_own else f"--teacher_settings {argument}="
            raise ValueError(
                f"The teacher `{self.name}` needs `{argument}`, the id or folder of a model, e.g. `{option}{example}`."
            )
        return Checkpoint(value, revision, self.device, self.dtype).pinned()

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Dimension of the space that segments and prompts share; 0 for a teacher without embeddings."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything else that changes predictions (templates, image size, seed, …), as JSON for `label_set.json`."""
        return self.config.record()

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Unit-length float32 embeddings `(num_prompts, embed_dim)` of phrases."""

    @abstractmethod
    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        """Segment each image of a frame, in the order of `frame["camera_names"]`.

        With an `augmentation` in the frame (see `Augmentation`), `open_images` returns augmented images. Segmentations
        have the size of the augmented images; the caller maps them back.
        """

    def train(self, mode: bool = True) -> "Teacher":
        """Teachers are frozen: `train()` raises, `train(False)` does nothing."""
        if mode:
            raise RuntimeError(f"The teacher `{self.name}` is frozen: it has no train mode.")
        return self

    def eval(self) -> "Teacher":
        return self.train(False)


def open_images(frame: TeacherFrame) -> list[ScaledImage]:
    """Open the frame's images as RGB, one per camera, with the frame's `augmentation` applied.

    Raises:
        ValueError: an image is missing or broken; the message names frame, camera and file.
    """
    augmentation, images = Augmentation.parse(frame.get("augmentation")), []
    for camera, image in zip(frame["camera_names"], frame["images"], strict=True):
        try:
            images.append(augmentation.apply(decode_image(image)))
        except ValueError as error:
            raise ValueError(f"Frame {frame['frame_id']}, camera {camera}: {error}") from error
    return images
