"""Frames: one lidar scan with the cameras around it, in the same columns whatever they are read from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypedDict, overload

import numpy as np
from datasets import (
    Array2D,
    Array3D,
    BuilderConfig,
    DatasetInfo,
    Features,
    GeneratorBasedBuilder,
    Image,
    IterableDataset,
    List,
    ReadInstruction,
    SplitGenerator,
    Value,
)
from datasets.iterable_dataset import ExamplesIterable
from numpy.typing import NDArray

from uov_hf.image_files import EncodedImage
from uov_hf.leftovers import data_files
from uov_hf.vocabulary import load_vocabulary


# What reading a broken frame raises; any other error is a fault of the program and stops it.
BROKEN = (OSError, ValueError, KeyError)
# So many broken frames in a row mean that the disk is gone or that the folder holds another dataset.
MAX_BROKEN_IN_A_ROW = 20

SYNTHETIC_LICENCE = "A synthetic street of uov-hf. It shows no real place; no terms apply."
OWN_LICENCE = "Your own recordings. People and number plates in them are protected by law in many countries."
FRAME_FEATURES = Features(
    {
        "frame_id": Value("string"),
        "sequence_id": Value("string"),
        "timestamp": Value("int64"),  # microseconds
        "points": Array2D((None, 4), "float32"),  # x, y, z in metres in the lidar frame; intensity as in the file
        "intensity_max": Value("float32"),
        "labels": List(Value("uint8")),  # training id per point, 255 = ignored; null where there is no annotation
        "instances": List(Value("int32")),  # per point, 0 = none; null where there is no annotation
        "camera_names": List(Value("string")),
        "image_ids": List(Value("string")),
        "images": List(Image(decode=False)),  # encoded; `uov_hf.data.decode_image` opens one
        "camera_timestamps": List(Value("int64")),
        "lidar2cam": Array3D((None, 4, 4), "float64"),  # with the vehicle's motion between the two exposures
        "intrinsics": Array3D((None, 3, 3), "float64"),
        "image_sizes": Array2D((None, 2), "int32"),  # height, width
        "lidar2global": Array2D((4, 4), "float64"),
    }
)


class Frame(TypedDict, total=False):
    """One lidar scan with the cameras around it; only the selected columns are present.

    Arrays of K cameras follow the order of `camera_names`.
    """

    frame_id: str
    sequence_id: str
    timestamp: int | None  # microseconds; None in a recording without times
    points: NDArray[np.float32]  # (num_points, 4): x, y, z in metres in the lidar frame, intensity as in the file
    intensity_max: float
    labels: NDArray[np.uint8] | None  # (num_points,): training ids, 255 = ignored; None without annotation
    instances: NDArray[np.int32] | None  # (num_points,): 0 = none; None without annotation
    camera_names: list[str]
    image_ids: list[str]
    images: list[EncodedImage]
    camera_timestamps: NDArray[np.int64] | None  # (K,): microseconds; None in a recording without times
    lidar2cam: NDArray[np.float64]  # (K, 4, 4): with the vehicle's motion between the two exposures
    intrinsics: NDArray[np.float64]  # (K, 3, 3): pixels
    image_sizes: NDArray[np.int32]  # (K, 2): height, width
    lidar2global: NDArray[np.float64] | None  # (4, 4)


class FrameSource(Protocol):
    """
    The source of `Frames`. `read` opens only the files that the columns need.

    A source may have an attribute `fraction_of`, `"sequences"` (the default) or `"frames"`: what `data_fraction`
    counts, as the paper does for the dataset. It may have a method `check_files(indices, columns)`, which raises a
    `ValueError` if the files of whole sequences are missing.
    """

    frame_ids: list[str]
    sequence_ids: list[str]  # of every frame; the frames of a sequence are neighbours, in the order of time
    taxonomy: str | None

    def read(self, index: int, columns: Sequence[str]) -> Frame: ...


class Frames(Sequence[Frame]):
    """
    Frames of a source, each read when it is indexed: `frames[i]` is a [`Frame`].

    Args:
        source (`FrameSource`): Reads the frames.
        indices (`Sequence[int]`, *optional*): Which frames of the source; all of them by default.
        columns (`Sequence[str]`, *optional*): Which columns; all of them by default.

    Raises:
        ValueError: a column is not a frame column. On indexing: a file of the frame is broken, none of its points is
            finite, or it has labels for another number of points.
    """

    def __init__(
        self, source: FrameSource, indices: Sequence[int] | None = None, columns: Sequence[str] | None = None
    ):
        self.source = source
        self.indices = range(len(source.frame_ids)) if indices is None else [int(index) for index in indices]
        self.columns = list(FRAME_FEATURES if columns is None else columns)
        unknown = sorted(set(self.columns) - set(FRAME_FEATURES))
        if unknown:
            raise ValueError(
                f"Frames have no column {', '.join(unknown)}; their columns are {', '.join(FRAME_FEATURES)}."
            )

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> "Frames": ...

    def __getitem__(self, index: int | slice) -> "Frame | Frames":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        frame = self.source.read(self.indices[index], self.columns)
        _check_points(frame, self.source.frame_ids[self.indices[index]])
        return frame

    @property
    def frame_ids(self) -> list[str]:
        """The id of every frame; no frame is read for it."""
        return [self.source.frame_ids[index] for index in self.indices]

    @property
    def sequence_ids(self) -> list[str]:
        """The sequence of every frame; no frame is read for it."""
        return [self.source.sequence_ids[index] for index in self.indices]

    @property
    def taxonomy(self) -> str | None:
        """The name of the vocabulary of `labels`; None without annotation."""
        return self.source.taxonomy

    @property
    def class_names(self) -> list[str]:
        """The class of every training id."""
        return load_vocabulary(self.taxonomy).class_names if self.taxonomy else []

    def select_columns(self, columns: Sequence[str]) -> "Frames":
        """The same frames with these columns only; the others are not read.

        Raises:
            ValueError: A raw folder has none of the files of a sequence that these columns need.
        """
        check_files(self, columns)
        return Frames(self.source, self.indices, columns)

    def select(self, indices: Sequence[int]) -> "Frames":
        """Some of these frames, in the given order."""
        return Frames(self.source, [self.indices[index] for index in indices], self.columns)

    def by_sequence(self) -> list["Frames"]:
        """The sequences of these frames, in the order in which they come."""
        return [self.select(indices) for indices in places_by_name(self.sequence_ids).values()]

    def stream(self) -> IterableDataset:
        """The same rows as a stream, one shard per sequence."""
        # Not `from_generator`: it pickles the whole source, for the fingerprint of a cache that a stream does not use.
        return IterableDataset(ExamplesIterable(_with_keys, {"sequences": self.by_sequence()}))


@dataclass
class FrameConfig(BuilderConfig):
    """`data_dir` is the raw folder; `splits` are streamed or written, by default `default_splits()`."""

    splits: tuple[str, ...] | None = None


class FrameBuilder(GeneratorBasedBuilder, ABC):
    """
    A dataset script: `Builder(config_name=…, data_dir=…)`, then `as_frames(split)`.

    It is a builder of `datasets`, which also streams (one shard per sequence) and prepares Parquet.

    Attributes:
        licence (`str`): The terms of the data, in a sentence or two.
        may_be_published (`bool`, *optional*): Whether the terms allow a public copy; None where this is not stated.
        pretty_name (`str`, *optional*): The name of the dataset in its card.
        settings_patterns (`tuple[str, ...]`, *optional*):
            The files in `data_dir` that describe the frames: calibration, times, poses; not scans and images.
    """

    pretty_name: str | None = None
    licence: str = "Not stated: ask who made the dataset before you pass it on."
    may_be_published: bool | None = None
    settings_patterns: tuple[str, ...] = ()

    BUILDER_CONFIG_CLASS = FrameConfig
    DEFAULT_WRITER_BATCH_SIZE = 1  # a row group of Parquet is one frame, so that any frame can be read alone

    @abstractmethod
    def open(self) -> FrameSource:
        """Open the raw folder, `config.data_dir`."""

    @cached_property
    def source(self) -> FrameSource:
        """The opened raw folder."""
        return self.open()

    @abstractmethod
    def split_members(self) -> dict[str, list[str]]:
        """The sequences of every split that has any in the raw folder; single frames are in it by their ids."""

    @abstractmethod
    def default_splits(self) -> tuple[str, ...]:
        """Splits that share no frame; the first is the one to train on."""

    def settings_files(self) -> list[Path]:
        """The files of `settings_patterns` that exist, and `splits.json`."""
        root = Path(str(self.config.data_dir))
        return [path for pattern in ("splits.json", *self.settings_patterns) for path in data_files(root, pattern)]

    def as_frames(self, split: str | None = None) -> Frames:
        """
        The frames of a split, or of parts of splits as `datasets` writes them: `train[:10]`, `train[50%:]+val`.

        Args:
            split (`str`, *optional*): The first of `default_splits` by default.

        Raises:
            ValueError: there is no such split, or the scans of a whole sequence of it are missing.
        """
        split = split or self.default_splits()[0]
        places = places_of_members(self.source)
        members = {
            part: sorted({place for name in names for place in places.get(name, [])})
            for part, names in self.split_members().items()
        }
        frames = select_split(Frames(self.source), split, members, str(self.config.data_dir))
        check_files(frames, ("points",))
        return frames

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=FRAME_FEATURES)

    def _split_generators(self, dl_manager: object) -> list[SplitGenerator]:
        return [
            SplitGenerator(name=split, gen_kwargs={"sequences": self.as_frames(split).by_sequence()})
            for split in self.config.splits or self.default_splits()
        ]

    def _generate_examples(self, sequences: list[Frames]) -> Iterator[tuple[str, Frame]]:
        return _with_keys(sequences)


def check_files(frames: Frames, columns: Sequence[str]) -> None:
    """Check, before a run, that a raw folder has files of each sequence for these columns."""
    if check := getattr(frames.source, "check_files", None):
        check(frames.indices, columns)


def places_by_name(names: Iterable[str]) -> dict[str, list[int]]:
    """Where each name occurs, in the order of the first places."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return places


def places_of_members(source: FrameSource) -> dict[str, list[int]]:
    """The places of the frames of every sequence, and the place of every frame, by name."""
    return places_by_name(source.frame_ids) | places_by_name(source.sequence_ids)


def parse_split(split: str, num_frames: Mapping[str, int], dataset: str) -> list[tuple[str, slice]]:
    """
    The named splits of a split as `datasets` writes it, and which frames of each: `train[:2]+test`.

    `num_frames` has the number of frames of every split that there is; errors name the `dataset`.

    Raises:
        ValueError: there is no such split, or the brackets are wrong.
    """
    if split in num_frames:  # `datasets` has no names with hyphens, raw folders may
        return [(split, slice(None))]
    try:
        parts = ReadInstruction.from_spec(split).to_absolute(num_frames)
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"{dataset}: expected one of the splits {', '.join(num_frames)}, or parts of them such as "
            f"`{next(iter(num_frames), 'train')}[:10]`, got {split!r}."
        ) from error
    return [(part.splitname, slice(part.from_, part.to)) for part in parts]


def select_split(frames: Frames, split: str, members: Mapping[str, Sequence[int]], dataset: str) -> Frames:
    """The frames of a split as in [`parse_split`], each once; `members` has the places of the frames of each split."""
    parts = parse_split(split, {name: len(places) for name, places in members.items()}, dataset)
    sequence_ids, frame_ids = frames.sequence_ids, frames.frame_ids
    chosen: dict[tuple[str, str], int] = {}
    for name, part in parts:
        for index in members[name][part]:
            chosen.setdefault((sequence_ids[index], frame_ids[index]), index)
    return frames.select(list(chosen.values()))


def disjoint_splits(splits: dict[str, list[str]]) -> tuple[str, ...]:
    """The splits that share no name with an earlier one; `all` only if it is the only one."""
    chosen: list[str] = []
    taken: set[str] = set()
    for name, members in splits.items():
        if name != "all" and members and taken.isdisjoint(members):
            chosen.append(name)
            taken.update(members)
    return tuple(chosen or ["all"])


def _check_points(frame: Frame, frame_id: str) -> None:
    """Check the points and labels of a frame. Some points may be NaN or infinite (no echo): they are in no voxel."""
    points = frame.get("points")
    if points is None:
        return
    if not any(np.isfinite(xyz).all() for xyz in points[:, :3]):  # usually the first point ends the search
        raise ValueError(
            f"Frame {frame_id}: expected a scan with finite points, got {len(points)} points, none finite."
        )
    for column, values in {"labels": frame.get("labels"), "instances": frame.get("instances")}.items():
        if values is not None and len(values) != len(points):
            raise ValueError(f"Frame {frame_id}: expected `{column}` of {len(points)} points, got {len(values)}.")


def _with_keys(sequences: list[Frames]) -> Iterator[tuple[str, Frame]]:
    for sequence in sequences:
        yield from zip(sequence.frame_ids, sequence, strict=True)
