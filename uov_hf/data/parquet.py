"""Parquet files of frames and labels, local or on the Hub: a row group is a frame, so that any frame is read alone."""

import glob
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NotRequired, TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetBuilder, DownloadManager, load_dataset_builder
from datasets.data_files import sanitize_patterns
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from uov_hf.data.cells import read_cell
from uov_hf.data.frame_rows import check_row
from uov_hf.data.frames import FRAME_FEATURES, Frame, Frames, parse_split, places_by_name, select_split
from uov_hf.data.parquet_files import errors_of_file, open_parquet_file, read_metadata
from uov_hf.foreign_paths import inside
from uov_hf.leftovers import data_files


SHARD_INDEX = "uov_hf"  # the key of `ShardIndex` in a footer
# A footer of 40 frames takes about a megabyte of memory once it is parsed.
MAX_OPEN_FILES = 16
NUM_INDEXING_THREADS = 16
FRACTIONS = ("sequences", "frames")  # what `data_fraction` counts

Place = tuple[str, int, int]  # file, row group, row in it


class ShardIndex(TypedDict):
    """
    The frames of a shard, as JSON in its footer: a frame is found by one small read per file.

    `frame_ids` has the id of each row group, `skipped` the error of each frame that was left out.
    """

    sequence_id: str
    frame_ids: list[str]
    skipped: dict[str, str]
    may_be_published: NotRequired[bool | None]
    sequence_length: NotRequired[int]  # frames of the whole sequence in the dataset
    made_from: NotRequired[int]  # how many frames the rows depend on, beyond their own


def read_index(file: str | Path | IO[bytes]) -> ShardIndex:
    """
    The index of a shard. Where the footer has none, the ids come from the column `frame_id`.

    Raises:
        ValueError: the file is damaged or no Parquet file, or has no frame ids; it names the file.
        FileNotFoundError: there is no such file.
    """
    with errors_of_file(file) if isinstance(file, (str, Path)) else nullcontext():
        with open(file, "rb") if isinstance(file, (str, Path)) else nullcontext(file) as opened:
            metadata = read_metadata(opened)
            if content := (metadata.metadata or {}).get(SHARD_INDEX.encode()):
                return _parse_index(content)
            parquet = pq.ParquetFile(opened, metadata=metadata, page_checksum_verification=True)
            frame_ids = parquet.read(columns=["frame_id"])["frame_id"].to_pylist()
            if not all(isinstance(one, str) for one in frame_ids):
                raise ValueError("expected text in its column frame_id")
    return {"sequence_id": "", "frame_ids": frame_ids, "skipped": {}}


def _parse_index(content: bytes) -> ShardIndex:
    """Raises a `ValueError` for anything but an index."""
    try:
        index = json.loads(content)
    except RecursionError as error:
        raise ValueError(f"its index is nested too deeply: {error}") from error
    own: dict[str, Any] = index if isinstance(index, dict) else {}
    ids, skipped, lengths = own.get("frame_ids"), own.get("skipped"), [own.get("sequence_length", 0)]
    if (
        not isinstance(own.get("sequence_id"), str)
        or not isinstance(ids, list)
        or not isinstance(skipped, dict)
        or not all(isinstance(one, str) for one in [*ids, *skipped.values()])
        or type(lengths[0]) is not int
    ):
        raise ValueError(f"expected an index with sequence_id, frame_ids and skipped in its footer, got {index!r:.80}")
    return cast(ShardIndex, index)


class RowReader:
    """Reads single rows of Parquet files. The files read last stay open."""

    def __init__(self) -> None:
        self._open_files: dict[tuple[int, str], pq.ParquetFile] = {}

    def read_table(self, place: Place, columns: Sequence[str] | None = None) -> pa.Table:
        """The row at a place, as a table; all columns by default."""
        file, row_group, row = place
        names = None if columns is None else list(columns)
        with errors_of_file(file):
            group = self._open(file).read_row_group(row_group, columns=names, use_threads=False)
            if row >= group.num_rows:
                raise ValueError(f"its index has a frame in row {row} of a group of {group.num_rows} rows")
            return group.slice(row, 1)

    def read(self, place: Place, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The row at a place; numbers are read-only numpy views of the pages of the file."""
        table = self.read_table(place, columns)
        with errors_of_file(place[0]):
            return {name: read_cell(column) for name, column in zip(table.column_names, table.columns, strict=True)}

    def __getstate__(self) -> dict[str, Any]:
        return {"_open_files": {}}  # a worker process opens its own

    def _open(self, file: str) -> pq.ParquetFile:
        key = (os.getpid(), file)  # a forked process must not share the parent's position in the file
        self._open_files[key] = self._open_files.pop(key, None) or open_parquet_file(file)  # the last used is the last
        while len(self._open_files) > MAX_OPEN_FILES:
            del self._open_files[next(iter(self._open_files))]
        return self._open_files[key]


class Shards:
    """
    The shards in a folder as [`~uov_hf.data.shards.write_shards`] leaves it, read by frame id.

    The index of the folder is read once, on first use. Shards are never changed: frames that are added later are in
    shards of their own, which this index lacks.

    Raises:
        ValueError: on first use, where a file is no shard or two hold the same frame.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._reader = RowReader()

    @cached_property
    def indexes(self) -> dict[Path, ShardIndex]:
        """The index of every shard, in the order of the names."""
        paths = data_files(self.folder, "*.parquet")
        with ThreadPoolExecutor(NUM_INDEXING_THREADS) as pool:
            return dict(zip(paths, pool.map(read_index, paths), strict=True))

    @cached_property
    def _places(self) -> dict[str, Place]:
        places: dict[str, Place] = {}
        for path, index in self.indexes.items():
            for row_group, frame_id in enumerate(index["frame_ids"]):
                if frame_id in places:
                    raise ValueError(
                        f"Frame {frame_id} is in {path} and in {places[frame_id][0]}: delete one of them."
                    )
                places[frame_id] = (str(path), row_group, 0)
        return places

    @property
    def frame_ids(self) -> list[str]:
        """The id of every frame; no row is read for it."""
        return list(self._places)

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Frame id -> error of the frames that were broken and are in no shard."""
        errors = {name: error for index in self.indexes.values() for name, error in index["skipped"].items()}
        return {name: error for name, error in errors.items() if name not in self._places}

    def __contains__(self, frame_id: str) -> bool:
        return frame_id in self._places

    def file_of(self, frame_id: str) -> str:
        """The path of the shard that holds a frame."""
        return self._places[frame_id][0]

    def read(self, frame_id: str, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """
        The row of a frame; numbers are read-only numpy views of the file.

        Raises:
            KeyError: no shard holds the frame.
            ValueError: the shard lacks a column, or was replaced or deleted after the index was read.
        """
        if frame_id in self.skipped:
            raise KeyError(f"Frame {frame_id} was broken and was skipped: {self.skipped[frame_id]} ({self.folder}).")
        if frame_id not in self._places:
            raise KeyError(
                f"Frame {frame_id} is not in {self.folder} ({len(self._places)} frames): it was made from other "
                "sequences, or its generation has not finished. Run the generation again."
            )
        return read_frame(self._reader, self._places[frame_id], frame_id, columns)


def read_frame(reader: RowReader, place: Place, frame_id: str, columns: Sequence[str] | None) -> dict[str, Any]:
    """
    The row at a place, checked to be that of the frame.

    Raises:
        ValueError: the file lacks a column, or was replaced or deleted.
    """
    way_out = "the folder was written anew after it was opened. Open it again (start this program again)."
    wanted = None if columns is None else [*columns, *({"frame_id"} - {*columns})]
    try:
        row = reader.read(place, wanted)
    except FileNotFoundError as error:
        raise ValueError(f"{place[0]} is gone: {way_out}") from error
    if missing := {*(wanted or ["frame_id"])} - row.keys():
        raise ValueError(
            f"{place[0]}: expected a column {', '.join(sorted(missing))}, got {', '.join(row) or 'no columns'}."
        )
    found = row["frame_id"] if columns is None or "frame_id" in columns else row.pop("frame_id")
    if not isinstance(found, str) or found != frame_id:
        expected = f"expected frame {frame_id} in its place {place[1:]}"
        raise ValueError(f"{place[0]}: {expected}, got {found!s:.80}: {way_out}")
    return row


class ParquetFrames:
    """
    Parquet files of frames, as a `FrameSource`.

    Args:
        files (`Sequence[str]`): Paths or addresses, in the order of the frames.
        taxonomy (`str`, *optional*): The vocabulary of `labels`.
        fraction_of (`str`, *optional*, defaults to `"sequences"`):
            What `data_fraction` counts: `"sequences"` or `"frames"`.

    Raises:
        ValueError: a file does not have the columns of frames; it names the file.
    """

    def __init__(self, files: Sequence[str], taxonomy: str | None = None, fraction_of: str = "sequences"):
        self.taxonomy = taxonomy
        self.fraction_of = fraction_of
        self.sequence_ids: list[str] = []
        self.frame_ids: list[str] = []
        self.places: list[Place] = []
        self._reader = RowReader()
        with ThreadPoolExecutor(NUM_INDEXING_THREADS) as pool:
            for sequence_ids, frame_ids, places in pool.map(_index_rows, files):
                self.sequence_ids += sequence_ids
                self.frame_ids += frame_ids
                self.places += places

    def read(self, index: int, columns: Sequence[str]) -> Frame:
        row = read_frame(self._reader, self.places[index], self.frame_ids[index], columns)
        check_row(row, self.places[index][0])
        # Copies: augmentation writes into the arrays of a frame.
        return cast(Frame, {name: np.array(v) if isinstance(v, np.ndarray) else v for name, v in row.items()})


def open_parquet(dataset: str, split: str | None, dataset_config: str | None, download: bool = True) -> Frames:
    """
    Frames of a Parquet folder or of a dataset on the Hub; the arguments are those of `load_frames`.

    Raises:
        ValueError: there is no such split, or a file is not one of frames.
    """
    if Path(dataset).is_dir():
        _read_card(dataset)  # before `datasets`, whose errors about a card do not name it
    builder = _open_builder(dataset, dataset_config)
    files = {str(name): list(paths) for name, paths in (builder.config.data_files or {}).items()}
    card = _read_card(dataset)
    vocabulary = _find_vocabulary(dataset, card.get("taxonomy"))
    fraction_of = card.get("fraction_of", "sequences")
    base = dataset if Path(dataset).is_dir() else builder.base_path
    _check_files((path for paths in files.values() for path in paths), base)
    split = split or next((name for name in files if len(files) == 1 or "train" in name), "")
    files.setdefault("all", [path for paths in files.values() for path in paths])
    # Percentages of an assumed 100 frames: the names are needed before the files that hold the frames are read.
    names = dict.fromkeys(name for name, _ in parse_split(split, dict.fromkeys(files, 100), dataset))
    files = {name: files[name] for name in names}
    if download:
        files = DownloadManager(dataset_name=builder.dataset_name).download(files)
    paths = dict.fromkeys(path for paths in files.values() for path in paths)
    source = ParquetFrames(list(paths), vocabulary, fraction_of)
    rows = places_by_name(path for path, _, _ in source.places)
    members = {name: [index for path in paths for index in rows.get(path, [])] for name, paths in files.items()}
    return select_split(Frames(source), split, members, dataset)


def _open_builder(dataset: str, dataset_config: str | None) -> DatasetBuilder:
    """The builder of a folder or of a dataset on the Hub.

    `datasets` takes the path of a folder for a pattern. A folder with `[`, `*` or `?` in its path is opened by the
    patterns of its card, with the path escaped.
    """
    if not glob.has_magic(dataset) or not Path(dataset).is_dir():
        return load_dataset_builder(dataset, dataset_config)
    folder = glob.escape(os.path.abspath(dataset))
    configs = MetadataConfigs({config.pop("config_name"): config for config in _read_card(dataset).get("configs", [])})
    if not configs:
        return load_dataset_builder("parquet", data_dir=folder)
    name = dataset_config or configs.get_default_config_name()
    if name not in configs:
        raise ValueError(f"{dataset}: expected one of its configs {', '.join(configs)}, got {name}.")
    patterns = sanitize_patterns(configs[name]["data_files"])
    data_files = {split: [f"{folder}/{pattern}" for pattern in own] for split, own in patterns.items()}
    return load_dataset_builder("parquet", data_files=data_files)


def _index_rows(file: str) -> tuple[list[str], list[str], list[Place]]:
    """Sequence id, frame id and place of every frame in a file."""
    try:
        opened = open_parquet_file(file)
    except ValueError as error:
        raise ValueError(
            f"{error} To read a raw folder, give its dataset script and the folder as `data_dir` "
            "(`--dataset nuscenes --data_dir …`)."
        ) from error
    with opened as parquet, errors_of_file(file):
        absent = sorted(set(FRAME_FEATURES) - set(parquet.schema_arrow.names))
        if absent:
            raise ValueError(f"{file}: expected the columns of frames, got a file without {', '.join(absent)}.")
        if content := (parquet.metadata.metadata or {}).get(SHARD_INDEX.encode()):
            index = _parse_index(content)
            frame_ids, sequence_ids = index["frame_ids"], [index["sequence_id"]] * len(index["frame_ids"])
        else:
            ids = parquet.read(columns=["frame_id", "sequence_id"])
            frame_ids, sequence_ids = ids["frame_id"].to_pylist(), ids["sequence_id"].to_pylist()
            if not all(isinstance(one, str) for one in [*frame_ids, *sequence_ids]):
                raise ValueError("expected text in its columns frame_id and sequence_id")
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    if sum(sizes) != len(frame_ids) or min(sizes, default=0) < 0:
        raise ValueError(f"{file}: its footer lists {len(frame_ids)} frames, but it has {sum(sizes)} rows.")
    places = [(file, group, row) for group, num_rows in enumerate(sizes) for row in range(num_rows)]
    return sequence_ids, frame_ids, places


def _check_files(files: Iterable[str], base: str) -> None:
    """Check that a dataset lists its own files only: its card can name any file of this machine."""
    # `datasets` gives the files of a local folder that is a link by the link or by its target.
    bases = [base] if "://" in base else [os.path.abspath(base), os.path.realpath(base)]
    for file in files:
        own = next((one for one in bases if Path(file).is_relative_to(one)), bases[0])
        inside(Path(own), os.path.relpath(file, own), f"{base}/README.md")


def _find_vocabulary(dataset: str, taxonomy: str | None) -> str | None:
    """The name of a vocabulary, or the path of its file, which lies beside the card."""
    if taxonomy is None or not taxonomy.endswith((".yaml", ".yml")):
        return taxonomy
    path = inside(Path(dataset), taxonomy, f"{dataset}/README.md")
    return str(path) if Path(dataset).is_dir() else hf_hub_download(dataset, taxonomy, repo_type="dataset")


def _read_card(dataset: str) -> dict[str, Any]:
    """The YAML of the dataset card; empty where there is no card.

    Raises:
        ValueError: It is no YAML, or has values of other types; the message names it.
    """
    local = Path(dataset) / "README.md"
    if local.parent.is_dir() and not local.is_file():
        return {}
    try:
        data = DatasetCard.load(local if local.is_file() else dataset).data
        for config in MetadataConfigs.from_dataset_card_data(data).values():
            sanitize_patterns(config.get("data_files", []))
        DatasetInfosDict.from_dataset_card_data(data)
        card = data.to_dict()
        if not isinstance(taxonomy := card.get("taxonomy"), (str, type(None))):
            raise ValueError(f"`taxonomy` {taxonomy!r:.80}")
        if (fraction_of := card.get("fraction_of", "frames")) not in FRACTIONS:
            raise ValueError(f"`fraction_of` {fraction_of!r:.80}")
    except EntryNotFoundError:
        return {}
    except OSError:  # of the disk or the Hub
        raise
    except Exception as error:  # anybody can write a card, and `datasets` raises many kinds of errors
        raise ValueError(
            f"{dataset}/README.md: expected the card of a dataset, got: {error!r}. `uov_hf.data.writing.write_parquet"
            "` writes one. Without a card, all Parquet files of a folder are read."
        ) from error
    return card
