"""What the readers of raw folders share: frames whose columns are read one by one, splits, and common file formats."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from uov_hf.data.frames import Frame, FrameSource, disjoint_splits, places_by_name, places_of_members
from uov_hf.image_files import EncodedImage
from uov_hf.point_files import check_finite, read_points
from uov_hf.setting_files import read_json
from uov_hf.vocabulary import Vocabulary


MAX_NAMES = 100  # of sequences in a message; an archive of nuScenes has 85


class RawFrame:
    """One frame of a raw folder. Each column is an attribute or a property: its file is read when the column is.

    The default columns are those of a `.bin` scan with a label file in a folder that may be missing.
    """

    frame_id: str
    sequence_id: str
    scan_file: Path
    num_columns = 4  # float32 numbers of a point in the file
    label_file: Path | None = None
    label_dtype: DTypeLike = np.uint32
    vocabulary: Vocabulary | None = None

    @property
    def points(self) -> NDArray[np.float32]:
        points = read_points(self.scan_file, self.num_columns)
        check_finite(points, self.scan_file)
        return points

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        return self.classes_of(self.raw_labels)

    @property
    def instances(self) -> NDArray[np.int32] | None:
        return None

    @property
    def raw_labels(self) -> NDArray[Any] | None:
        """The labels of the file, `(num_points,)`; None without a folder of labels.

        Raises:
            ValueError: The file is missing, or does not have one label for each point.
        """
        if self.label_file is None or not self.label_file.parent.is_dir():
            return None
        scan = existing(self.scan_file, f"the scan of frame {self.frame_id}")
        num_points = scan.stat().st_size // (4 * self.num_columns)
        num_bytes = np.dtype(self.label_dtype).itemsize
        size = existing(self.label_file, f"the labels of {self.scan_file}").stat().st_size
        if size != num_bytes * num_points:
            raise ValueError(
                f"{self.label_file}: expected {num_points} labels of {num_bytes} bytes, one for each point of "
                f"{scan.name}, got {size} bytes."
            )
        return np.fromfile(self.label_file, self.label_dtype)

    def classes_of(self, raw_labels: NDArray[Any] | None) -> NDArray[np.uint8] | None:
        """Training ids of raw labels; a `ValueError` names the file with unknown ids."""
        if raw_labels is None or self.vocabulary is None:
            return None
        try:
            return self.vocabulary.classes_of(raw_labels)
        except ValueError as error:
            raise ValueError(f"{self.label_file}: {error}") from error

    def files_of(self, column: str) -> list[Path]:
        """The files that the tables of the dataset name for a column; they may be missing."""
        return [self.scan_file] if column == "points" else []

    def select(self, columns: Sequence[str]) -> Frame:
        frame = copy(self)  # so that a cached property lives for one read: data does not pile up in memory
        # A TypedDict takes only literal keys; `Frames` has checked that these are columns.
        return cast(Frame, {column: getattr(frame, column) for column in columns})


class RawFrames:
    """The frames of a raw folder, as a `FrameSource`.

    Args:
        frames (sequence of `RawFrame`): Sequence by sequence, in the order of time.
        taxonomy (`str`, *optional*): Vocabulary of the labels; None where there are none.
        fraction_of (`str`, *optional*, defaults to `"sequences"`): What `data_fraction` counts, as in `FrameSource`.
    """

    def __init__(self, frames: Sequence[RawFrame], taxonomy: str | None, fraction_of: str = "sequences"):
        self.frames, self.taxonomy, self.fraction_of = frames, taxonomy, fraction_of
        self.frame_ids = [frame.frame_id for frame in frames]
        self.sequence_ids = [frame.sequence_id for frame in frames]

    def read(self, index: int, columns: Sequence[str]) -> Frame:
        return self.frames[index].select(columns)

    def check_files(self, indices: Sequence[int], columns: Sequence[str]) -> None:
        """Check that each sequence has a file for each column; it has none if its archive was not downloaded.

        Single missing files are errors of their frames.

        Raises:
            ValueError: A sequence has none. The message contains the sequences that have files.
        """
        sequences = places_by_name(self.sequence_ids[index] for index in indices)
        for column in columns:
            absent: dict[str, Path] = {}
            for sequence, places in sequences.items():
                files = (path for place in places for path in self.frames[indices[place]].files_of(column))
                if (first := next(files, None)) and not any(path.is_file() for path in chain([first], files)):
                    absent[sequence] = first
            if absent:
                raise ValueError(
                    _missing_sequences(column, absent, [name for name in sequences if name not in absent])
                )


def _missing_sequences(column: str, absent: Mapping[str, Path], present: Sequence[str]) -> str:
    sequence, path = next(iter(absent.items()))
    message = (
        f"{path}: expected files with the {column} of each sequence, got none of {sequence} ({len(absent)} of "
        f"{len(absent) + len(present)} sequences). Download the archives that contain them."
    )
    if not present:
        return message
    names = json.dumps(present[:MAX_NAMES])[1:-1] + (", …" if len(present) > MAX_NAMES else "")
    return (
        f"{message} Or use the {len(present)} others only: write them to the file splits.json in `data_dir`, "
        f'{{"here": [{names}]}}, and pass the split `here` (`--split here`).'
    )


def splits_in(source: FrameSource, splits: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The sequences and frames of the source in each split, without empty splits, and the sequences of `all`."""
    sequences = list(dict.fromkeys(source.sequence_ids))
    names = dict.fromkeys([*sequences, *source.frame_ids])
    wanted = {split: set(members) for split, members in splits.items()}
    members = {split: [name for name in names if name in wanted[split]] for split in wanted}
    return {split: names for split, names in members.items() if names} | {"all": sequences}


def own_splits(root: Path, source: FrameSource) -> dict[str, list[str]]:
    """The splits in the `splits.json` of a root: sequences, and single frames by their ids; none without that file.

    Raises:
        ValueError: The file is not of that form, names a sequence or frame that the source does not have, or has a
            frame in two default splits.
    """
    path = root / "splits.json"
    if not path.is_file():
        return {}
    try:
        splits = read_json(path)
        if not isinstance(splits, dict) or not all(isinstance(members, list) for members in splits.values()):
            raise ValueError(f"a {type(splits).__name__}")
        if not all(isinstance(name, str) for members in splits.values() for name in members):
            raise ValueError("a member that is no text")
        if wrong := [name for name in splits if not re.fullmatch(r"[^./\\][^/\\]*", name)]:
            raise ValueError(f"the split {wrong[0]!r}, which cannot be the name of a folder")
    except (OSError, ValueError) as error:
        raise ValueError(
            f'{path}: expected {{"split": ["sequence", "sequence/frame", …], …}}, got: {error}'
        ) from error
    _check_members(splits, source, path)
    return splits


def _check_members(splits: dict[str, list[str]], source: FrameSource, path: Path) -> None:
    """Check that each name exists, and that no default split has a frame whose sequence another one has."""
    places = places_of_members(source)
    absent = sorted({name for names in splits.values() for name in names} - places.keys())
    if absent:
        raise ValueError(
            f"{path}: expected sequences or frames that {path.parent} has, got {', '.join(absent[:10])}. Frames are "
            f"named by their ids, such as {source.frame_ids[0]}."
        )
    split_of: dict[int, str] = {}
    for split in disjoint_splits(splits):
        for place in {place for name in splits.get(split, []) for place in places[name]}:
            if (other := split_of.setdefault(place, split)) != split:
                raise ValueError(
                    f"{path}: frame {source.frame_ids[place]} is in {other} and in {split}, in one of them with its "
                    "whole sequence. Name the frames of the sequence one by one in each split."
                )


def existing(path: Path, content: str) -> Path:
    """The path itself; a `ValueError` names it and its expected `content` if there is no file."""
    if not path.is_file():
        raise ValueError(f"{path}: expected {content}, got no file.")
    return path


def encoded_image(path: Path, content: str) -> EncodedImage:
    """An image that stays in its file, which must exist."""
    return {"bytes": None, "path": str(existing(path, content))}


def instances_of(label_words: NDArray[Any]) -> NDArray[np.int32]:
    """Instances from SemanticKITTI's label words: the class in the lower 16 bits, its instance number in the upper.

    The whole word is the instance id, because each raw class numbers its own instances; 0 where the number is 0.
    """
    words = label_words.astype(np.uint32)
    return np.where(words >> 16 > 0, words, 0).view(np.int32)
