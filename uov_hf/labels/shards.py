"""Parquet shards, one per sequence and one row group per frame: written whole or not at all, read frame by frame."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from uov_hf.data.broken import report_lines
from uov_hf.labels.estimate import Forecast


logger = logging.getLogger(__name__)
Row = dict[str, Any]


class Shards:
    """A folder of shards, read by frame id.

    Args:
        folder (`str` or `Path`):
            Holds one `<sequence id>.parquet` per sequence.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @cached_property
    def _index(self) -> dict[str, tuple[Path, int]]:
        """frame id -> (file, row group)"""
        index = {}
        for path in sorted(self.folder.glob("*.parquet")):
            for row_group, frame_id in enumerate(_read_frame_ids(path)):
                if frame_id in index:
                    raise ValueError(f"Frame {frame_id} is in {path} and in {index[frame_id][0]}: delete one of them.")
                index[frame_id] = (path, row_group)
        return index

    @property
    def frame_ids(self) -> list[str]:
        return list(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, frame_id: str, columns: list[str] | None = None) -> Row:
        """One frame's row; lists of numbers are read-only numpy views of the file's pages, nothing is boxed.

        Raises:
            KeyError: no shard holds the frame.
        """
        if frame_id not in self._index:
            raise KeyError(
                f"Frame {frame_id} is not in {self.folder} ({len(self)} frames). "
                "The labels were made from other sequences, or their generation has not finished: run it again."
            )
        path, row_group = self._index[frame_id]
        with pq.ParquetFile(path, metadata=self._metadata(path), memory_map=True) as file:
            table = file.read_row_group(row_group, columns=columns, use_threads=False)
        return {name: _from_arrow(column) for name, column in zip(table.column_names, table.columns, strict=True)}

    def _metadata(self, path: Path) -> pq.FileMetaData:
        if path not in self._footers:
            self._footers[path] = pq.read_metadata(path)
        return self._footers[path]

    @cached_property
    def _footers(self) -> dict[Path, pq.FileMetaData]:
        return {}

    def refresh(self) -> None:
        """Forget what the folder held: shards have been written since."""
        self.__dict__.pop("_index", None)
        self.__dict__.pop("_footers", None)


@dataclass
class WriteReport:
    """What one process wrote.

    Args:
        num_frames (`int`): Frames written.
        num_bytes (`int`): Bytes of the shards written.
        seconds (`float`): Time it took.
        num_done_before (`int`): Frames that an earlier run had written already.
        skipped (`dict[str, str]`): Frame id -> error, under `on_error="skip"`.
    """

    num_frames: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    num_done_before: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: "WriteReport") -> "WriteReport":
        """What two processes wrote side by side."""
        return WriteReport(
            num_frames=self.num_frames + other.num_frames,
            num_bytes=self.num_bytes + other.num_bytes,
            seconds=max(self.seconds, other.seconds),
            num_done_before=self.num_done_before + other.num_done_before,
            skipped=self.skipped | other.skipped,
        )

    def __str__(self) -> str:
        first = f"{self.num_frames} frames in {self.seconds:.1f} s, {self.num_bytes / 1e6:.1f} MB"
        return "\n".join(report_lines(first, self.num_done_before, self.skipped))


def write_shards(
    folder: str | Path,
    schema: pa.Schema,
    frames,
    make_rows: Callable[[Any], Iterable[Row]],
    process_index: int = 0,
    num_processes: int = 1,
    on_error: str = "raise",
    show_progress: bool = False,
) -> WriteReport:
    """Write the shards that are still missing: every process takes its share of the sequences, finished ones are left.

    Args:
        folder (`str` or `Path`):
            Where the shards go.
        schema (`pa.Schema`):
            Columns of a row; `frame_id` is among them.
        frames (`Frames`):
            The dataset.
        make_rows (`Callable`):
            Frames of one sequence -> their rows, in the same order. Where a frame is broken, asking for its row
            raises, and asking again gives the next frame's: `map` does so, a generator does not.
        process_index, num_processes (`int`):
            This process, and how many share the work.
        on_error (`str`, *optional*, defaults to `"raise"`):
            `"skip"` leaves a frame whose row cannot be made out, and reports it.
        show_progress (`bool`, *optional*, defaults to `False`):
            Log what the run will cost once the first frames are written, and show a progress bar of this process's
            frames where there is a terminal.

    Raises:
        OSError: the disk has no room for the whole run; said after the first frames.
    """
    report, start = WriteReport(), time.perf_counter()
    shards = {_shard_path(folder, sequence): sequence for sequence in frames.by_sequence()}
    missing = [path for path, sequence in shards.items() if not _is_written(path, sequence)]
    own = list(shards)[process_index::num_processes]
    to_write = [path for path in own if path in missing]
    total, num_missing, own_share = (sum(len(shards[path]) for path in paths) for paths in (own, missing, to_write))
    report.num_done_before = total - own_share
    forecast = Forecast(Path(folder), num_missing, own_share, num_processes)
    bar = tqdm(total=total, initial=total - own_share, unit="frame", disable=None if show_progress else True)
    with bar:  # `None` is: not where there is no terminal
        for path in to_write:
            with _whole_or_not_at_all(path, schema) as write:
                for row in _rows(shards[path], make_rows, on_error, report.skipped):
                    if row is not None:
                        num_bytes = report.num_bytes + write(row)
                        report.num_frames += 1
                        if (estimate := forecast.frame_written(num_bytes)) and show_progress:
                            bar.clear()
                            logger.info("%s", estimate)
                    bar.update()
            report.num_bytes += path.stat().st_size
    report.seconds = time.perf_counter() - start
    return report


def _shard_path(folder: str | Path, sequence) -> Path:
    return Path(folder) / f"{quote(sequence.sequence_ids[0], safe='')}.parquet"


def _is_written(path: Path, sequence) -> bool:
    return path.exists() and set(sequence.frame_ids) <= set(_read_frame_ids(path))


def _rows(sequence, make_rows, on_error: str, skipped: dict[str, str]) -> Iterator[Row | None]:
    """The rows of a sequence; None where a broken frame is skipped, and `skipped` then says why."""
    rows = iter(make_rows(sequence))
    for frame_id in sequence.frame_ids:
        try:
            row = next(rows)
        except StopIteration as end:
            raise RuntimeError(f"`make_rows` gave no row for frame {frame_id}: it must give one per frame.") from end
        except Exception as error:
            if on_error != "skip":
                raise
            skipped[frame_id] = f"{type(error).__name__}: {error}"
            row = None
        yield row


def write_atomically(path: Path, content: bytes) -> None:
    """The file is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    _publish(temporary, path)


@contextmanager
def _whole_or_not_at_all(path: Path, schema: pa.Schema) -> Iterator[Callable[[Row], int]]:
    """Yields a function that adds a row and returns the bytes so far; the shard gets its name after the last row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")  # not *.parquet, so a killed writer leaves nothing to read
    try:
        with pq.ParquetWriter(temporary, schema, compression="snappy", use_dictionary=False) as writer:

            def write(row: Row) -> int:
                writer.write_table(_to_arrow(row, schema))
                return temporary.stat().st_size

            yield write
        _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read_frame_ids(path: Path) -> list[str]:
    try:
        return pq.read_table(path, columns=["frame_id"])["frame_id"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"{path} is not a readable shard: {error}. Delete it and run the generation again."
        ) from error


def _to_arrow(row: Row, schema: pa.Schema) -> pa.Table:
    return pa.table([_to_column(row[field.name], field.type) for field in schema], schema=schema)


def _to_column(value: Any, column_type: pa.DataType) -> pa.Array:
    is_table = pa.types.is_list(column_type) and pa.types.is_fixed_size_list(column_type.value_type)
    if value is None or not is_table:
        return pa.array([value], type=column_type)
    width, number = column_type.value_type.list_size, column_type.value_type.value_type
    value = np.ascontiguousarray(value, dtype=number.to_pandas_dtype()).reshape(-1, width)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel(), type=number), width)
    return pa.ListArray.from_arrays(pa.array([0, len(value)], pa.int32()), rows)


def _from_arrow(column: pa.ChunkedArray) -> Any:
    array = column.combine_chunks()
    if array.null_count or not pa.types.is_list(array.type):
        return array[0].as_py()
    values = array.flatten()
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten().to_numpy(zero_copy_only=True).reshape(-1, values.type.list_size)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return values.to_numpy(zero_copy_only=True)
    return values.to_pylist()
