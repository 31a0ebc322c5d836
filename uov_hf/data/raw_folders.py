"""What the readers of raw folders share: frames whose columns are read one by one, splits, and common file formats."""

from collections.abc import Container, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from uov_hf.data.frames import EncodedImage, Frame, FrameSource, read_splits
from uov_hf.point_files import check_finite, read_points
from uov_hf.vocabulary import Vocabulary


class RawFrame:
    """One frame of a raw folder. Each column is an attribute or a property: its file is read when the column is."""

    frame_id: str
    sequence_id: str

    def select(self, columns: Sequence[str]) -> Frame:
        frame = copy(self)  # so that a cached property lives for one read: data does not pile up in memory
        # A TypedDict takes only literal keys; `Frames` has checked that these are columns.
        return cast(Frame, {column: getattr(frame, column) for column in columns})


class RawFrames:
    """The frames of a raw folder, as a `FrameSource`.

    Args:
        frames (sequence of `RawFrame`):
            Sequence by sequence, in the order of time.
        taxonomy (`str`, *optional*):
            Vocabulary of the labels; None where there are none.
        fraction_of (`str`, *optional*, defaults to `"sequences"`):
            What `data_fraction` counts, as in `FrameSource`.
    """

    def __init__(self, frames: Sequence[RawFrame], taxonomy: str | None, fraction_of: str = "sequences"):
        self.frames, self.taxonomy, self.fraction_of = frames, taxonomy, fraction_of
        self.frame_ids = [frame.frame_id for frame in frames]
        self.sequence_ids = [frame.sequence_id for frame in frames]

    def read(self, index: int, columns: Sequence[str]) -> Frame:
        return self.frames[index].select(columns)


def splits_in(source: FrameSource, splits: Mapping[str, Container[str]]) -> dict[str, list[str]]:
    """The sequences of the source in each split, without empty splits, and those of `all`."""
    sequences = list(dict.fromkeys(source.sequence_ids))
    members = {split: [name for name in sequences if name in wanted] for split, wanted in splits.items()}
    return {split: names for split, names in members.items() if names} | {"all": sequences}


def own_splits(root: Path, source: FrameSource) -> dict[str, list[str]]:
    """The splits in the `splits.json` of a root; none without that file.

    Raises:
        ValueError: The file is not of that form, or names a sequence that the source does not have.
    """
    path = root / "splits.json"
    splits = read_splits(path) if path.is_file() else {}
    absent = sorted({name for names in splits.values() for name in names} - set(source.sequence_ids))
    if absent:
        raise ValueError(f"{path}: expected sequences that {root} has, got {', '.join(absent)}.")
    return splits


def existing(path: Path, content: str) -> Path:
    """The path itself; a `ValueError` names it and its expected `content` if there is no file."""
    if not path.is_file():
        raise ValueError(f"{path}: expected {content}, got no file.")
    return path


def encoded_image(path: Path) -> EncodedImage:
    """An image that stays in its file."""
    return {"bytes": None, "path": str(path)}


def read_image_size(path: Path) -> tuple[int, int]:
    """Height and width, from the head of an image file; a `ValueError` names a broken or missing file."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except OSError as error:
        raise ValueError(f"{path}: expected an image file, got: {error}") from error


def read_scan(path: Path, num_columns: int | None) -> NDArray[np.float32]:
    """[`read_points`], with a `ValueError` that names the file if no point is finite."""
    points = read_points(path, num_columns)
    check_finite(points, path)
    return points


def read_raw_labels(path: Path, scan: Path, num_columns: int = 4, dtype: DTypeLike = np.uint32) -> NDArray[Any]:
    """The labels of a scan from a file without a header, `(num_points,)`.

    Args:
        path (`Path`):
            The label file.
        scan (`Path`):
            The `.bin` file of the points.
        num_columns (`int`, *optional*, defaults to 4):
            Columns of the scan file.
        dtype (*optional*, defaults to `np.uint32`):
            Type of one label.

    Raises:
        ValueError: The file is missing, or does not hold one label for each point.
    """
    num_points, num_bytes = scan.stat().st_size // (4 * num_columns), np.dtype(dtype).itemsize
    size = existing(path, f"the labels of {scan}").stat().st_size
    if size != num_bytes * num_points:
        raise ValueError(
            f"{path}: expected {num_points} labels of {num_bytes} bytes, one for each point of {scan.name}, got "
            f"{size} bytes."
        )
    return np.fromfile(path, dtype)


def to_classes(raw_labels: NDArray[Any], vocabulary: Vocabulary, path: Path) -> NDArray[np.uint8]:
    """Training ids of raw labels; a `ValueError` names the file with unknown ids."""
    try:
        return vocabulary.classes_of(raw_labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def instances_of(label_words: NDArray[Any]) -> NDArray[np.int32]:
    """Instances from SemanticKITTI's label words: the class in the lower 16 bits, its instance number in the upper.

    The whole word is the instance id, because each raw class numbers its own instances; 0 where the number is 0.
    """
    words = label_words.astype(np.uint32)
    return np.where(words >> 16 > 0, words, 0).view(np.int32)
