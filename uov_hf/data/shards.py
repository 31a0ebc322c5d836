"""The writer of sharded Parquet: one row group per frame, each file whole or absent, interrupted runs continue."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.config import DEFAULT_CDC_OPTIONS
from tqdm import tqdm

from uov_hf.data.estimate import Forecast
from uov_hf.data.frames import BROKEN, MAX_BROKEN_IN_A_ROW, Frames
from uov_hf.data.parquet import SHARD_INDEX, Place, RowReader, ShardIndex, read_index


logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]


class Sharing(TypedDict, total=False):
    """How several processes share the sequences of one run; the keyword arguments of `write_shards`."""

    process_index: int
    num_processes: int
    on_error: OnError
    show_progress: bool


@dataclass
class WriteReport:
    """What a run wrote.

    Args:
        num_frames (`int`): Frames written by this run.
        num_bytes (`int`): Bytes of the shards written.
        seconds (`float`): Time it took.
        num_done_before (`int`): Frames that an earlier run had written.
        skipped (`dict[str, str]`): Frame id -> error, under `on_error="skip"`.
    """

    num_frames: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    num_done_before: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: "WriteReport") -> "WriteReport":
        """The sum of two processes that ran side by side."""
        return WriteReport(
            num_frames=self.num_frames + other.num_frames,
            num_bytes=self.num_bytes + other.num_bytes,
            seconds=max(self.seconds, other.seconds),
            num_done_before=self.num_done_before + other.num_done_before,
            skipped=self.skipped | other.skipped,
        )

    def __str__(self) -> str:
        first = f"{self.num_frames} frames in {self.seconds:.1f} s, {self.num_bytes / 1e6:.1f} MB"
        if self.num_done_before:
            first += f"; {self.num_done_before} were there already"
        if self.skipped:
            first += f"; {len(self.skipped)} broken and skipped:"
        return "\n".join([first, *(f"  {frame_id}: {error}" for frame_id, error in self.skipped.items())])


@dataclass(frozen=True)
class ShardWriter:
    """
    Writes the frames of a sequence as a shard, and completes a shard that an earlier run left.

    The footer lists the frames of the shard and those that were skipped. A later run tries the skipped ones again.
    A shard is written again if it lacks a frame that can be read now; no row that it has is lost.

    Args:
        schema (`pa.Schema`): Columns of a row; `frame_id` is among them.
        open_sequence (`Callable`):
            Frames of one sequence -> a function from the place of a frame to its row, a table of one row.
        on_error (`str`, *optional*, defaults to `"raise"`):
            `"skip"` leaves out a frame whose row raises one of the `broken` exceptions.
        broken (`tuple`, *optional*):
            The exceptions of a broken frame. Any other is a fault of the program and stops the run.
        keeps_rows (`bool`, *optional*, defaults to `True`):
            Whether a shard that is written again keeps its rows. `False` where a row depends on other frames.
        data_dir (`str`, *optional*):
            The footer has errors with paths relative to it; without it only their types, because shards are published.
        may_be_published (`bool`, *optional*): Goes into the footer.
    """

    schema: pa.Schema
    open_sequence: Callable[[Frames], Callable[[int], pa.Table]]
    on_error: OnError = "raise"
    broken: tuple[type[Exception], ...] = BROKEN
    keeps_rows: bool = True
    data_dir: str | None = None
    may_be_published: bool | None = None

    def complete(
        self,
        path: Path,
        frames: Frames,
        max_bytes: float = math.inf,
        on_row: Callable[[int], object] = lambda num_bytes: None,
    ) -> WriteReport:
        """
        Write what a shard lacks.

        Args:
            path (`Path`): The shard; it may be there.
            frames (`Frames`): The frames of it, of one sequence.
            max_bytes (`float`, *optional*): A new shard ends with the frame that reaches this size.
            on_row (`Callable`, *optional*): Called after each new row with its bytes.

        Raises:
            ValueError: a frame is broken, or the shard cannot be read.
            OSError: the shard cannot be written, as on a full disk.
        """
        if not path.is_file():
            return self._write(path, frames, max_bytes, on_row, {}, skipped={})
        index = read_index(path)
        present = {name: (str(path), group, 0) for group, name in enumerate(index["frame_ids"])}
        missing = [place for place, name in enumerate(frames.frame_ids) if name not in present]
        if all(frames.frame_ids[place] in index["skipped"] for place in missing):
            errors = self._errors(frames, missing)
            if len(errors) == len(missing):
                return WriteReport(num_done_before=len(frames) - len(missing), skipped=errors)
        return self._write(path, frames, math.inf, on_row, present, index["skipped"])

    def _errors(self, frames: Frames, places: list[int]) -> dict[str, str]:
        """Frame id -> error of those that cannot be read."""
        errors: dict[str, str] = {}
        if not places:
            return errors
        make_row = self.open_sequence(frames)
        for place in places:
            try:
                make_row(place)
            except self.broken as error:
                errors[frames.frame_ids[place]] = _describe(error)
        return errors

    def _write(
        self,
        path: Path,
        frames: Frames,
        max_bytes: float,
        on_row: Callable[[int], object],
        present: dict[str, Place],
        skipped: Mapping[str, str],
    ) -> WriteReport:
        """A shard of the frames, in the place of one that has those of `present` and skipped those of `skipped`."""
        report, frame_ids = WriteReport(), []
        with ShardFile(path, self.schema) as shard:
            for frame_id, row in self._rows(frames, present, skipped, report):
                num_bytes = shard.num_bytes
                shard.add(row)
                frame_ids.append(frame_id)
                if frame_id not in present:
                    on_row(shard.num_bytes - num_bytes)
                if shard.num_bytes >= max_bytes:
                    break
            shard.publish(
                {
                    "sequence_id": frames.sequence_ids[0],
                    "frame_ids": frame_ids,
                    "skipped": {name: self._for_footer(error) for name, error in report.skipped.items()},
                    "may_be_published": self.may_be_published,
                }
            )
        report.num_bytes = path.stat().st_size
        return report

    def _rows(
        self, frames: Frames, present: dict[str, Place], skipped: Mapping[str, str], report: WriteReport
    ) -> Iterator[tuple[str, pa.Table]]:
        """Id and row of every frame that is not skipped, then the rows that only the earlier shard has."""
        make_row, reader, wanted, num_broken_in_a_row = self.open_sequence(frames), RowReader(), frames.frame_ids, 0
        for place, frame_id in enumerate(wanted):
            if frame_id in present and self.keeps_rows:
                report.num_done_before += 1
                num_broken_in_a_row = 0
                yield frame_id, reader.read_table(present[frame_id])
                continue
            try:
                row = make_row(place)
            except self.broken as error:
                num_broken_in_a_row += 1
                may_skip = self.on_error == "skip" or frame_id in skipped
                # A frame that was whole is not skipped: the shard would be replaced by less.
                if not may_skip or frame_id in present or num_broken_in_a_row == MAX_BROKEN_IN_A_ROW:
                    raise
                report.skipped[frame_id] = _describe(error)
            else:
                num_broken_in_a_row = 0
                report.num_frames += 1
                yield frame_id, row
        for frame_id in present:
            if frame_id not in wanted:
                yield frame_id, reader.read_table(present[frame_id])

    def _for_footer(self, error: str) -> str:
        """The error as it may be published: without the folders of this machine."""
        return error.split(":")[0] if self.data_dir is None else error.replace(f"{Path(self.data_dir)}{os.sep}", "")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def write_shards(
    folder: str | Path,
    schema: pa.Schema,
    frames: Frames,
    open_sequence: Callable[[Frames], Callable[[int], Mapping[str, Any]]],
    *,
    keeps_rows: bool = True,
    process_index: int = 0,
    num_processes: int = 1,
    on_error: OnError = "raise",
    show_progress: bool = False,
) -> WriteReport:
    """
    Write one shard per sequence, `<sequence id>.parquet`. Finished shards stay.

    Args:
        folder (`str` or `Path`): The folder of the shards.
        schema (`pa.Schema`): Columns of a row; `frame_id` is among them.
        frames (`Frames`): The dataset.
        open_sequence (`Callable`):
            Frames of one sequence -> a function from the place of a frame to its row. Any exception that the function
            raises counts as a broken frame.
        keeps_rows, on_error:
            As of [`ShardWriter`].
        process_index, num_processes (`int`):
            The process takes every `num_processes`-th sequence, from the `process_index`-th on.
        show_progress (`bool`, *optional*, defaults to `False`):
            Log the expected cost of the run after the first frames, and show a progress bar in a terminal.

    Raises:
        ValueError: with `on_error="raise"`, a frame that an earlier run skipped is still broken.
        OSError: the disk has no room for the whole run (after the first frames), or a shard cannot be written.
    """

    def open_tables(sequence: Frames) -> Callable[[int], pa.Table]:
        make_row = open_sequence(sequence)
        return lambda place: to_table(make_row(place), schema)

    writer = ShardWriter(schema, open_tables, on_error, broken=(Exception,), keeps_rows=keeps_rows)
    report, start = WriteReport(), time.perf_counter()
    shards = {Path(folder) / f"{quote(part.sequence_ids[0], safe='')}.parquet": part for part in frames.by_sequence()}
    num_missing = {path: _count_missing(path, sequence) for path, sequence in shards.items()}
    own = list(shards)[process_index::num_processes]
    own_share = sum(num_missing[path] for path in own)
    forecast = Forecast(Path(folder), sum(num_missing.values()), own_share, num_processes)
    total, num_new_bytes = sum(len(shards[path]) for path in own), 0
    # `disable=None` shows the bar in a terminal only.
    with tqdm(total=total, initial=total - own_share, unit="frame", disable=None if show_progress else True) as bar:

        def on_row(num_bytes: int) -> None:
            nonlocal num_new_bytes
            num_new_bytes += num_bytes
            bar.update()
            estimate = forecast.frame_written(num_new_bytes)
            if estimate and show_progress:
                bar.clear()
                logger.info("%s", estimate)

        for path in own:
            written = writer.complete(path, shards[path], on_row=on_row)
            bar.update(len(written.skipped))
            report += written
            if on_error == "raise" and written.skipped:
                frame_id, error = next(iter(written.skipped.items()))
                raise ValueError(
                    f"{path}: frame {frame_id} was skipped by an earlier run and is still broken: {error}. Mend it, "
                    'or skip it again with `on_error="skip"` (`--on_error skip`).'
                )
    report.seconds = time.perf_counter() - start
    return report


def _count_missing(path: Path, sequence: Frames) -> int:
    present = set(read_index(path)["frame_ids"]) if path.is_file() else set()
    return sum(frame_id not in present for frame_id in sequence.frame_ids)


class ShardFile:
    """
    A Parquet file that gets its name when all its rows are on the disk. Its folder is made where it is missing.

    Raises:
        OSError: it cannot be written, as on a full disk; it names the file.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        self.path = path
        self.schema = schema
        self.temporary = path.with_name(f"{path.name}.tmp")  # not *.parquet: what a killed run leaves is never read

    def __enter__(self) -> "ShardFile":
        with _errors_named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.temporary, "wb")
        # Page index and content-defined chunks as `datasets` writes them: the Hub's viewer reads single pages, and a
        # changed file uploads only the changed chunks. No dictionaries, and statistics of ids only: for arrays they
        # cost space in every row group and serve no search.
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file),
            self.schema,
            use_dictionary=False,
            write_statistics=[name for name in ("frame_id", "sequence_id") if name in self.schema.names],
            write_page_index=True,
            use_content_defined_chunking=DEFAULT_CDC_OPTIONS,
        )
        return self

    def add(self, row: pa.Table) -> None:
        with _errors_named(self.path):
            self._writer.write_table(row)

    @property
    def num_bytes(self) -> int:
        return self._file.tell()

    def publish(self, index: ShardIndex) -> None:
        """Write the footer, with the index of the frames, and give the file its name."""
        metadata = {SHARD_INDEX: json.dumps(index), "content_defined_chunking": json.dumps(DEFAULT_CDC_OPTIONS)}
        with _errors_named(self.path):
            self._writer.add_key_value_metadata(metadata)
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self.temporary, self.path)

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # the disk is full, and that error is on its way
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        self.temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """
    Write a file that is there whole or, after an error, as it was before.

    Raises:
        OSError: it cannot be written, as on a full disk; it names the file.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with _errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: could not be written: {error}. Free some space or fix the cause, then run the same command "
            "again: it continues after the last complete file."
        ) from error


def to_table(row: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """A row as a table; lists of numbers are numpy arrays."""
    return pa.table([_to_column(row[column.name], column.type) for column in schema], schema=schema)


def _to_column(value: Any, column_type: pa.DataType) -> pa.Array:
    is_matrix = pa.types.is_list(column_type) and pa.types.is_fixed_size_list(column_type.value_type)
    if value is None or not is_matrix:
        return pa.array([value], type=column_type)
    width, number = column_type.value_type.list_size, column_type.value_type.value_type
    value = np.ascontiguousarray(value, dtype=number.to_pandas_dtype()).reshape(-1, width)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel(), type=number), width)
    return pa.ListArray.from_arrays(pa.array([0, len(value)], pa.int32()), rows)
