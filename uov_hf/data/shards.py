"""The store of one row per frame: shards, to which runs add and which they never change.

The row of a frame is first written to a small file of its own. When all rows of a shard are there, they become the
shard. So an interrupted run loses at most the frame that each process was at. The shards have the same bytes however
often a run was interrupted, and however many processes shared it.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

import pyarrow as pa

from uov_hf.data.estimate import Forecast
from uov_hf.data.frames import BROKEN, Frames
from uov_hf.data.parquet import ShardIndex, Shards
from uov_hf.data.progress import Progress
from uov_hf.data.shard_file import MAX_FRAMES, ShardFile, to_table
from uov_hf.data.unfinished_rows import UnfinishedRows
from uov_hf.data.write_report import Attempts, OnError, TooManyBrokenFrames, WriteReport, describe
from uov_hf.data.writer_lock import remove_leftovers, writer_lock
from uov_hf.leftovers import is_leftover


OpenSequence = Callable[[Frames], Callable[[int], Mapping[str, Any]]]


class Sharing(TypedDict, total=False):
    """How several processes share the frames of one run; the keyword arguments of `write_shards`."""

    process_index: int
    num_processes: int
    wait: Callable[[], None] | None
    on_error: OnError
    show_progress: bool


@dataclass(frozen=True)
class Part:
    """Frames of one sequence that become one shard.

    Args:
        folder (`Path`): The folder of the shard.
        name (`str`): Its file name.
        sequence (`Frames`): The frames of the sequence that the run is about.
        places (`list[int]`): Which of them.
        frame_ids (`list[str]`): Their ids.
        made_from (`int`): As of `write_shards`.
    """

    folder: Path
    name: str
    sequence: Frames
    places: list[int]
    frame_ids: list[str]
    made_from: int

    @property
    def path(self) -> Path:
        # Made anew each time: a path that is used keeps its text, and a run has a thousand parts.
        return self.folder / self.name


MAX_NAME = 100  # characters of a sequence in the name of its shards

# A frame of a part: the part and the position in it.
Item = tuple[Part, int]


def write_shards(
    folder: str | Path,
    schema: pa.Schema,
    frames: Frames,
    open_sequence: OpenSequence,
    *,
    made_from: Callable[[Frames], int] = lambda sequence: 0,
    process_index: int = 0,
    num_processes: int = 1,
    wait: Callable[[], None] | None = None,
    on_error: OnError = "raise",
    show_progress: bool = False,
) -> WriteReport:
    """
    Write the rows of the frames that no shard has. Shards that are there stay as they are.

    A skipped frame is remembered: later runs with `on_error="skip"` do not try it again, those with `"raise"` do.

    Args:
        folder (`str` or `Path`): The folder of the shards.
        schema (`pa.Schema`): Columns of a row; `frame_id` is among them.
        frames (`Frames`): The frames to write.
        open_sequence (`Callable`): Frames of one sequence -> a function from the place of a frame to its row.
        made_from (`Callable`, *optional*):
            Frames of one sequence -> how many frames its rows depend on, beyond their own. Shards whose rows were made
            from fewer are deleted, and their rows are made again.
        process_index, num_processes (`int`): The process writes one of `num_processes` equal shares.
        wait (`Callable`, *optional*):
            Returns when all processes have called it. With it, the processes share the frames that are missing, and
            the lock that process 0 has holds until the last one has finished. Without it, as in an array of jobs,
            they share all frames, and process 0 has the lock while it works.
        on_error (`str`, *optional*, defaults to `"raise"`):
            `"skip"` leaves out a frame whose row raises one of `BROKEN` (data/frames.py).
        show_progress (`bool`, *optional*, defaults to `False`):
            Log the expected cost of the run after the first frames, and show a progress bar in a terminal.

    Raises:
        RuntimeError: another run writes into the folder, or many frames in a row are broken.
        ValueError, OSError, KeyError: with `on_error="raise"`, a frame is broken.
        ValueError: two frames have the same id.
        OSError: the disk has no room for the whole run (after the first frames), or a file cannot be written.
    """
    start, wait_for_all = time.perf_counter(), wait or (lambda: None)
    is_coordinated = num_processes == 1 or wait is not None
    plan = Plan(Path(folder), frames, made_from, on_error)
    with writer_lock(Path(folder), is_coordinated) if plan.parts and process_index == 0 else nullcontext():
        wait_for_all()  # process 0 has the lock
        if plan.parts:  # another run may have written some of them before it released the lock
            plan = Plan(Path(folder), frames, made_from, on_error)
        share = plan.share(process_index, num_processes, of_missing=is_coordinated)
        report = plan.report() if process_index == 0 else WriteReport()
        writer = ShardsWriter(plan, UnfinishedRows(Path(folder), schema), on_error, report)
        wait_for_all()  # all have read the index, and none has written
        if process_index == 0:
            plan.delete_outdated()
            writer.rows.remove(plan.done)
            if not plan.parts:
                remove_leftovers(Path(folder))
        forecast = Forecast(Path(folder), plan.num_missing, len(share), num_processes)
        with Progress(forecast, len(share), show_progress) as progress:
            writer.write(share, open_sequence, progress)
        wait_for_all()  # all rows are there
        # With `wait`, the process that has a part's last frame assembles it. Without, whoever finds it complete.
        ends = [part for part, row in share if row == len(part.places) - 1]
        writer.assemble(ends if wait else {part.name: part for part, _ in share}.values())
        wait_for_all()  # all shards are there
    report.seconds = time.perf_counter() - start
    return report


class Plan:
    """
    What a folder has of the frames of a run, and the shards that it lacks.

    Args:
        folder (`Path`): The folder of the shards.
        frames, made_from, on_error: As of `write_shards`.

    Raises:
        ValueError: two frames have the same id, or a file in the folder is no shard.
    """

    def __init__(self, folder: Path, frames: Frames, made_from: Callable[[Frames], int], on_error: OnError):
        _check_ids(frames)
        self.folder = folder
        self.on_error = on_error
        self.sequences = {sequence.sequence_ids[0]: sequence for sequence in frames.by_sequence()}
        self.made_from = {name: made_from(sequence) for name, sequence in self.sequences.items()}
        self.sequence_lengths = Counter(frames.source.sequence_ids)
        indexes = Shards(folder).indexes
        self.outdated = [path for path, index in indexes.items() if self._is_outdated(index)]
        valid = [index for path, index in indexes.items() if path not in self.outdated]
        self.done = {name for index in valid for name in index["frame_ids"]}
        errors = {name: error for index in valid for name, error in index["skipped"].items()}
        # Frame id -> error, of the frames of this run that earlier runs have skipped.
        self.skipped = {name: errors[name] for name in self.frame_ids if name in errors and name not in self.done}
        self.parts = [part for name, sequence in self.sequences.items() for part in self._cut(name, sequence)]

    @property
    def frame_ids(self) -> list[str]:
        """The frames of the run, sequence by sequence."""
        return [name for sequence in self.sequences.values() for name in sequence.frame_ids]

    @property
    def num_missing(self) -> int:
        return sum(len(part.places) for part in self.parts)

    def report(self) -> WriteReport:
        """What earlier runs have done."""
        done = {*self.frame_ids} & self.done
        return WriteReport(num_done_before=len(done), skipped=dict(self.skipped) if self.on_error == "skip" else {})

    def share(self, process_index: int, num_processes: int, of_missing: bool) -> list[Item]:
        """
        The frames that a process writes: neighbours, because a vote over time reads the frames around each.

        Equal shares of the missing frames need processes that read the index at the same time (`of_missing`).
        """
        missing = [(part, row) for part in self.parts for row in range(len(part.places))]
        if of_missing:
            return _share(missing, process_index, num_processes)
        own = {*_share(self.frame_ids, process_index, num_processes)}
        return [(part, row) for part, row in missing if part.frame_ids[row] in own]

    def delete_outdated(self) -> None:
        for path in self.outdated:
            path.unlink(missing_ok=True)

    def _is_outdated(self, index: ShardIndex) -> bool:
        name = index["sequence_id"]
        return index.get("made_from", 0) < self.made_from.get(name, 0)

    def _cut(self, name: str, sequence: Frames) -> Iterator[Part]:
        """The shards that a sequence lacks. If some are written in the meantime, the others stay the same."""
        remembered = self.skipped if self.on_error == "skip" else {}
        missing = {
            frame_id: place
            for place, frame_id in enumerate(sequence.frame_ids)
            if frame_id not in self.done and frame_id not in remembered
        }
        made_from = self.made_from[name]
        for start in range(0, len(missing), MAX_FRAMES):
            ids = list(missing)[start : start + MAX_FRAMES]
            # Other frames, another `made_from` and frames that are tried again make another file: none is replaced.
            facts = [ids, made_from, [frame_id for frame_id in ids if frame_id in self.skipped]]
            digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
            slug = quote(name, safe="")
            if is_leftover(Path(slug)):  # such as "..", which would make a hidden file
                slug = f"%{ord(slug[0]):02X}{slug[1:]}"
            # A file name has at most 255 bytes. The digest distinguishes sequences whose names begin alike.
            file = f"{slug[:MAX_NAME]}-{missing[ids[0]]:05d}-{digest}.parquet"
            yield Part(self.folder, file, sequence, [missing[frame_id] for frame_id in ids], ids, made_from)


class ShardsWriter:
    """
    Makes rows, and shards of them.

    Args:
        plan (`Plan`): The shards of the run.
        rows (`UnfinishedRows`): Takes the rows.
        on_error (`str`): As of `write_shards`.
        report (`WriteReport`): Counts them.
    """

    def __init__(self, plan: Plan, rows: UnfinishedRows, on_error: OnError, report: WriteReport):
        self.plan = plan
        self.rows = rows
        self.attempts = Attempts(on_error)
        self.report = report

    def write(self, items: list[Item], open_sequence: OpenSequence, progress: Progress) -> None:
        """Make the rows that are missing, and the shards that become complete."""
        complete: list[Part] = []
        opened: tuple[Frames, Callable[[int], Mapping[str, Any]]] | None = None
        for part, row in items:
            if not self._is_made(part, row):
                if opened is None or opened[0] is not part.sequence:
                    opened = part.sequence, open_sequence(part.sequence)
                self._make(part, row, opened[1], progress)
            if row == len(part.places) - 1:
                complete.append(part)
            # Frames that were broken one after another may yet stop the run, and are then not remembered as skipped.
            if not self.attempts.streak:
                self.assemble(complete)
                complete.clear()

    def assemble(self, parts: Iterable[Part]) -> None:
        """Write those of these shards whose rows are all there, and remove the rows."""
        for part in parts:
            if not part.path.is_file():
                self._assemble(part)

    def _is_made(self, part: Part, row: int) -> bool:
        """Whether an interrupted run has left the row."""
        frame_id = part.frame_ids[row]
        index = self.rows.find(frame_id)
        if index is None or index.get("made_from", 0) < part.made_from:
            return False
        if index["skipped"] and self.attempts.on_error == "raise":
            self.plan.skipped |= index["skipped"]
            return False
        self.report.num_done_before += len(index["frame_ids"])
        self.report.skipped |= index["skipped"]
        return True

    def _make(self, part: Part, row: int, make_row: Callable[[int], Mapping[str, Any]], progress: Progress) -> None:
        frame_id, place = part.frame_ids[row], part.places[row]
        try:
            made = self.attempts.make(frame_id, lambda: to_table(make_row(place), self.rows.schema))
        except TooManyBrokenFrames:
            self.rows.remove(self.attempts.streak)
            raise
        except BROKEN as error:
            if frame_id not in self.plan.skipped:
                raise
            raise ValueError(
                f"{self.plan.folder}: frame {frame_id} was skipped by an earlier run and is still broken: "
                f'{describe(error)}. Mend it, or skip it again with `on_error="skip"` (`--on_error skip`).'
            ) from error
        if isinstance(made, str):
            self.report.skipped[frame_id] = made
            made = made.split(":")[0]  # the shards may be published, and the rest may name folders of this machine
            self.rows.save(frame_id, made, part.made_from)
            return
        num_bytes = self.rows.save(frame_id, made, part.made_from)
        self.report.num_frames += 1
        self.report.num_bytes += num_bytes
        progress.row_written(num_bytes)

    def _assemble(self, part: Part) -> None:
        index: ShardIndex = {
            "sequence_id": part.sequence.sequence_ids[0],
            "frame_ids": [],
            "skipped": {},
            "sequence_length": self.plan.sequence_lengths[part.sequence.sequence_ids[0]],
            "made_from": part.made_from,
        }
        for frame_id in part.frame_ids:
            found = self.rows.find(frame_id)
            if found is None:
                return
            index["frame_ids"] += found["frame_ids"]
            index["skipped"] |= found["skipped"]
        try:
            with ShardFile(part.path, self.rows.schema) as shard:
                for frame_id in index["frame_ids"]:
                    shard.add(self.rows.read_table(frame_id))
                shard.publish(index)
        except FileNotFoundError:
            if not part.path.is_file():  # else another process has assembled the same bytes in the meantime
                raise
        self.rows.remove(part.frame_ids)


def _share(items: list[Any], process_index: int, num_processes: int) -> list[Any]:
    start, end = (len(items) * index // num_processes for index in (process_index, process_index + 1))
    return items[start:end]


def _check_ids(frames: Frames) -> None:
    """Check that no two frames have the same id: labels are found by it."""
    places: dict[str, int] = {}
    for index, frame_id, sequence_id in zip(frames.indices, frames.frame_ids, frames.sequence_ids, strict=True):
        if (first := places.setdefault(frame_id, index)) != index:
            other = frames.source.sequence_ids[first]
            raise ValueError(
                f"Frame {frame_id} of sequence {sequence_id} has the id of a frame of sequence {other}: expected ids "
                "that differ in the whole dataset, because labels are found by them. Put the sequence into the id, "
                f"such as {sequence_id}/{frame_id}."
            )
