"""Frames in Parquet files, local or on the Hub: a row group is a frame, so that any frame is read alone."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DownloadManager, load_dataset_builder
from huggingface_hub import DatasetCard
from huggingface_hub.errors import EntryNotFoundError

from uov_hf.data.frames import FRAME_FEATURES, Frames


# The footer of a shard says under this key which frames are in it, so that to find them is one small read a file.
SHARD_INDEX = "uov_hf"
# A footer of 40 frames takes about a megabyte of memory once it is parsed.
MAX_OPEN_FILES = 16
NUM_INDEXING_THREADS = 16

Place = tuple[str, int, int]  # file, row group, row in it


class ParquetFrames:
    """
    Parquet files of frames, as a `FrameSource`. A frame that came before, as where splits overlap, is left out.

    Args:
        files (`Sequence[str]`):
            Paths or addresses, in the order of the frames.
        taxonomy (`str`, *optional*):
            The vocabulary that `labels` are in.
        fraction_of (`str`, *optional*, defaults to `"sequences"`):
            What `data_fraction` counts: `"sequences"` or `"frames"`.

    Raises:
        ValueError: where a file does not have the columns of frames; it names the file.
    """

    def __init__(self, files: Sequence[str], taxonomy: str | None, fraction_of: str = "sequences"):
        self.taxonomy = taxonomy
        self.fraction_of = fraction_of
        self._open_files: dict[tuple[int, str], pq.ParquetFile] = {}
        with ThreadPoolExecutor(NUM_INDEXING_THREADS) as pool:
            places: dict[tuple[str, str], Place] = {}
            for indexed in pool.map(_index, files):
                for sequence_id, frame_id, place in zip(*indexed, strict=True):
                    places.setdefault((sequence_id, frame_id), place)
        self.sequence_ids: list[str] = [sequence_id for sequence_id, _ in places]
        self.frame_ids: list[str] = [frame_id for _, frame_id in places]
        self._places = list(places.values())

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        file, row_group, row = self._places[index]
        table = self._open(file).read_row_group(row_group, columns=list(columns), use_threads=False).slice(row, 1)
        return {column: _cell(table.column(column)) for column in columns}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open_files": {}}  # a worker process opens its own

    def _open(self, file: str) -> pq.ParquetFile:
        """The file, of which the last few stay open; a forked process must not share the parent's place in it."""
        key = (os.getpid(), file)
        self._open_files[key] = self._open_files.pop(key, None) or _open(file)  # the last used is the last
        while len(self._open_files) > MAX_OPEN_FILES:
            del self._open_files[next(iter(self._open_files))]
        return self._open_files[key]


def open_parquet(dataset: str, split: str | None, dataset_config: str | None, download: bool = True) -> Frames:
    """Frames of a Parquet folder or of a dataset on the Hub, which is downloaded once, or read where it lies."""
    builder = load_dataset_builder(dataset, dataset_config)
    splits = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
    files = _files_of(dataset, split, splits)
    if download:
        files = DownloadManager(dataset_name=builder.dataset_name).download(files)
    card = _read_card(dataset)
    return Frames(ParquetFrames(files, card.get("taxonomy"), card.get("fraction_of", "sequences")))


def read_shard_index(metadata: pq.FileMetaData) -> dict[str, Any] | None:
    """`sequence_id`, `frame_ids` and `skipped` (frame id -> error) of a shard that this package wrote; else None."""
    content = (metadata.metadata or {}).get(SHARD_INDEX.encode())
    return None if content is None else json.loads(content)


def _open(file: str) -> pq.ParquetFile:
    return pq.ParquetFile(file if "://" not in file else fsspec.open(file).open())


def _index(file: str) -> tuple[list[str], list[str], list[Place]]:
    """Sequence id, frame id and place of every frame in a file."""
    try:
        parquet = _open(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{file}: expected a Parquet file of frames, got: {error} A raw folder goes to its dataset script, as "
            "`data_dir` (`--dataset nuscenes --data_dir …`)."
        ) from error
    with parquet:
        absent = sorted(set(FRAME_FEATURES) - set(parquet.schema_arrow.names))
        if absent:
            raise ValueError(f"{file}: expected the columns of frames, got a file without {', '.join(absent)}.")
        if index := read_shard_index(parquet.metadata):
            frame_ids, sequence_ids = index["frame_ids"], [index["sequence_id"]] * len(index["frame_ids"])
        else:
            ids = parquet.read(columns=["frame_id", "sequence_id"])
            frame_ids, sequence_ids = ids["frame_id"].to_pylist(), ids["sequence_id"].to_pylist()
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    places = [(file, group, row) for group, num_rows in enumerate(sizes) for row in range(num_rows)]
    if len(places) != len(frame_ids):
        raise ValueError(f"{file}: expected {len(frame_ids)} frames, as its footer says, got {len(places)}.")
    return sequence_ids, frame_ids, places


def _files_of(dataset: str, split: str | None, splits: dict[str, list[str]]) -> list[str]:
    if split == "all" and "all" not in splits:
        return [file for files in splits.values() for file in files]
    if split is None:
        split = next((name for name in splits if len(splits) == 1 or "train" in name), None)
    if split not in splits:
        raise ValueError(f"{dataset}: expected one of the splits {', '.join(splits)} or all, got {split!r}.")
    return splits[split]


def _read_card(dataset: str) -> dict[str, Any]:
    """The head of the dataset card; nothing where there is no card."""
    local = Path(dataset) / "README.md"
    if local.parent.is_dir() and not local.is_file():
        return {}
    try:
        return DatasetCard.load(local if local.is_file() else dataset).data.to_dict()
    except EntryNotFoundError:
        return {}


def _cell(column: pa.ChunkedArray) -> Any:
    """The value in a column of one row; arrays keep their dtype (the numpy format of `datasets` makes float32)."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if array.null_count:
        return None
    if isinstance(array, pa.ExtensionArray):
        return _as_numpy(array)
    if pa.types.is_list(array.type) and pa.types.is_integer(array.type.value_type):
        return np.array(array[0].values)
    return array[0].as_py()


def _as_numpy(array: pa.ExtensionArray) -> np.ndarray:
    """The one array in a column of them: its numbers lie in a row; `datasets` would go through its rows one by one."""
    values = array.storage
    while pa.types.is_list(values.type):
        values = values.flatten()
    return np.array(values).reshape([-1 if size is None else size for size in array.type.shape])
