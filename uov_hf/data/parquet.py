"""Frames in Parquet files, local or on the Hub: a row group is a frame, so that any frame is read alone."""

from collections.abc import Sequence
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


class ParquetFrames:
    """
    Parquet files of frames, as a `FrameSource`.

    Raises:
        ValueError: where a file does not have the columns of frames; it names the file.
    """

    def __init__(self, files: Sequence[str], taxonomy: str | None):
        self.taxonomy = taxonomy
        self.frame_ids: list[str] = []
        self.sequence_ids: list[str] = []
        self._places: list[tuple[str, int, int]] = []  # file, row group and row in it of every frame
        self._open_files: dict[str, pq.ParquetFile] = {}
        for file in files:
            self._index(file)

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        file, row_group, row = self._places[index]
        table = self._open(file).read_row_group(row_group, columns=list(columns)).slice(row, 1)
        return {column: _cell(table.column(column)) for column in columns}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open_files": {}}  # a worker process opens its own

    def _index(self, file: str) -> None:
        try:
            parquet = self._open(file)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"{file}: expected a Parquet file of frames, got: {error} A raw folder goes to its dataset script, as "
                "`data_dir` (`--dataset nuscenes --data_dir …`)."
            ) from error
        absent = sorted(set(FRAME_FEATURES) - set(parquet.schema_arrow.names))
        if absent:
            raise ValueError(f"{file}: expected the columns of frames, got a file without {', '.join(absent)}.")
        for row_group in range(parquet.num_row_groups):
            ids = parquet.read_row_group(row_group, columns=["frame_id", "sequence_id"])
            self.frame_ids += ids.column("frame_id").to_pylist()
            self.sequence_ids += ids.column("sequence_id").to_pylist()
            self._places += [(file, row_group, row) for row in range(len(ids))]

    def _open(self, file: str) -> pq.ParquetFile:
        if file not in self._open_files:
            local = "://" not in file
            # Mapped memory has no position in the file that forked workers could take from one another.
            self._open_files[file] = pq.ParquetFile(pa.memory_map(file) if local else fsspec.open(file).open())
        return self._open_files[file]


def open_parquet(dataset: str, split: str | None, dataset_config: str | None, download: bool = True) -> Frames:
    """Frames of a Parquet folder or of a dataset on the Hub, which is downloaded once, or read where it lies."""
    builder = load_dataset_builder(dataset, dataset_config)
    splits = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
    files = _files_of(dataset, split, splits)
    if download:
        files = DownloadManager(dataset_name=builder.dataset_name).download(files)
    return Frames(ParquetFrames(files, _taxonomy_of(dataset)))


def _files_of(dataset: str, split: str | None, splits: dict[str, list[str]]) -> list[str]:
    if split == "all":
        return [file for files in splits.values() for file in files]
    if split is None:
        split = next((name for name in splits if len(splits) == 1 or "train" in name), None)
    if split not in splits:
        raise ValueError(f"{dataset}: expected one of the splits {', '.join(splits)} or all, got {split!r}.")
    return splits[split]


def _taxonomy_of(dataset: str) -> str | None:
    """The vocabulary that the labels are in, from the head of the dataset card; None where it does not say."""
    local = Path(dataset) / "README.md"
    if local.parent.is_dir() and not local.is_file():
        return None
    try:
        return DatasetCard.load(local if local.is_file() else dataset).data.get("taxonomy")
    except EntryNotFoundError:
        return None


def _cell(column: pa.ChunkedArray) -> Any:
    """The value in a column of one row; arrays keep their dtype (the numpy format of `datasets` makes float32)."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if isinstance(array, pa.ExtensionArray):
        return np.array(array.to_numpy(zero_copy_only=False)[0])
    if pa.types.is_list(array.type) and pa.types.is_integer(array.type.value_type) and array.is_valid()[0].as_py():
        return np.array(array[0].values)
    return array[0].as_py()
