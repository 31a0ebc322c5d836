"""Frames written as Parquet in whole shards of a bounded size; an interrupted run continues where it stopped."""

import argparse
import inspect
import logging
import math
import multiprocessing
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from uov_hf.data.broken import BROKEN, MAX_BROKEN_IN_A_ROW, report_lines
from uov_hf.data.frames import FrameBuilder, Frames
from uov_hf.data.parquet import read_shard_index
from uov_hf.data.publishing import check_may_be_pushed, check_same_terms, push_dataset, write_dataset_card
from uov_hf.data.shard_file import ShardFile, to_arrow


logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 500_000_000


@dataclass
class ParquetReport:
    """What a conversion wrote.

    Args:
        folder (`Path`): The folder of the config, which holds one folder of shards per split.
        num_frames (`int`): Frames in it.
        num_done_before (`int`): How many of them an earlier run had written.
        seconds (`float`): Time it took.
        skipped (`dict[str, str]`): Frame id -> error, under `on_error="skip"`.
    """

    folder: Path
    num_frames: int = 0
    num_done_before: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        first = f"{self.folder}: {self.num_frames} frames in {self.seconds:.1f} s"
        return "\n".join(report_lines(first, self.num_done_before, self.skipped))


@dataclass
class WrittenSequence:
    """The files of a sequence, their frames, how many of these were there before, and what was broken."""

    files: list[Path] = field(default_factory=list)
    num_frames: int = 0
    num_done_before: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SequenceWriter:
    """
    Writes the sequences of a split into a folder; a worker process has a copy.

    A sequence becomes `<place>_<sequence id>_<part>.parquet`, part after part, so that the names sort as the frames.
    The footer of each part says which frames it covers, the skipped ones too: that is what a later run continues from.
    A skipped frame is then tried again, and its file written anew if it is whole now.
    """

    folder: Path
    sequences: list[Frames]
    on_error: str
    max_shard_bytes: int
    data_dir: str
    may_be_published: bool | None
    may_write: bool = True

    def write(self, place: int) -> WrittenSequence:
        """The sequence at `place`, or what an earlier run left of it to write."""
        sequence, written, covered = self.sequences[place], WrittenSequence(), 0
        while covered < len(sequence):
            name = f"{place:05d}_{_slug(sequence.sequence_ids[0])}_{len(written.files):03d}.parquet"
            path = self.folder / name
            was_there = path.is_file()
            if not was_there:
                self._write_shard(path, sequence, covered)
            index = _check_same(path, sequence, covered)
            part = sequence[covered : covered + len(index["frame_ids"]) + len(index["skipped"])]
            written.num_done_before += len(index["frame_ids"]) if was_there else 0
            if was_there and any(_is_mended(part, frame_id) for frame_id in index["skipped"]):
                # All of it, however large: the files after it begin where it ends.
                self._write(path, part, "skip", math.inf, was_whole=index["frame_ids"])
                index = _check_same(path, sequence, covered)
            covered += len(part)
            written.files.append(path)
            written.num_frames += len(index["frame_ids"])
            written.skipped |= index["skipped"]
        return written

    def _write_shard(self, path: Path, sequence: Frames, first: int) -> None:
        if not self.may_write:
            raise ValueError(f"{self.folder}: expected {path.name} in it; remove the folder to write it anew.")
        self._write(path, sequence[first:], self.on_error, self.max_shard_bytes)

    def _write(
        self, path: Path, frames: Frames, on_error: str, max_bytes: float, was_whole: Sequence[str] = ()
    ) -> None:
        """A file of these frames, up to the one with which it reaches `max_bytes`.

        A frame that was whole before is not skipped if it is broken now: the file stays as it was. What is said about
        broken files counts from `data_dir`: it may be published, and where that lies is not.
        """
        frame_ids, skipped, here = [], {}, f"{Path(self.data_dir)}{os.sep}"
        with ShardFile(path) as shard:
            for frame_id, row in _rows(frames, on_error, skipped, frozenset(was_whole)):
                if row is not None:
                    shard.add(row)
                    frame_ids.append(frame_id)
                if shard.num_bytes >= max_bytes:
                    break
            said = {frame_id: error.replace(here, "") for frame_id, error in skipped.items()}
            about = {"sequence_id": frames.sequence_ids[0], "frame_ids": frame_ids, "skipped": said}
            shard.publish(about | {"may_be_published": self.may_be_published})


def write_parquet(
    builder: FrameBuilder,
    output_dir: str | Path,
    num_proc: int | None = None,
    on_error: str = "raise",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> ParquetReport:
    """
    Write the splits of a builder's config as Parquet, images and all, with a dataset card by which
    `datasets.load_dataset(output_dir, config_name)` and `load_frames(output_dir)` find them.

    A split is in `output_dir/<config name>/<split>`, one row group per frame. It gets that name when it is whole;
    until then it is a hidden folder that nobody reads, and the same call continues it. The split `all` is written as
    `train`, because `datasets` reads none of that name.

    Args:
        builder (`FrameBuilder`):
            Of the raw dataset.
        output_dir (`str` or `Path`):
            Other configs and splits of the dataset in it stay.
        num_proc (`int`, *optional*):
            Processes that write, each a sequence at a time.
        on_error (`str`, *optional*, defaults to `"raise"`):
            `"skip"` leaves out frames of which a file is broken, and counts them.
        max_shard_bytes (`int`, *optional*, defaults to 500 MB):
            A file is closed by the frame that reaches this size.

    Raises:
        ValueError: a frame is broken, or the folder holds other frames, or some under other terms; it names the file.
        OSError: a file cannot be written, as on a full disk; it names the file.
    """
    folder, start = Path(output_dir) / builder.config.name, time.perf_counter()
    report = ParquetReport(folder)
    how = {"on_error": on_error, "max_shard_bytes": max_shard_bytes, "data_dir": str(builder.config.data_dir)}
    how["may_be_published"] = builder.may_be_published
    check_same_terms(builder, Path(output_dir))
    splits = builder.config.splits or builder.default_splits()
    if odd := [split for split in splits if not re.fullmatch(r"\w+(\.\w+)*", split)]:
        raise ValueError(f"Splits in Parquet have names of letters, digits, _ and inner dots, got {', '.join(odd)}.")
    if "all" in splits and len(splits) > 1:
        raise ValueError(
            f"Expected `all` alone, or splits without it, got {', '.join(splits)}: their frames are in it."
        )
    for split in splits:
        name = "train" if split == "all" else split  # `datasets` refuses to read a split of the name `all`
        for written in _write_split(folder, name, builder.as_frames(split).by_sequence(), num_proc or 1, **how):
            report.num_frames += written.num_frames
            report.num_done_before += written.num_done_before
            report.skipped |= written.skipped
    write_dataset_card(builder, Path(output_dir))
    report.seconds = time.perf_counter() - start
    return report


def write_from_command_line(builder_class: type[FrameBuilder], description: str) -> None:
    """The program that a dataset script is: raw folder in, Parquet out, and onto the Hub where asked and allowed."""
    args = _parse_args(description)
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger("uov_hf").setLevel(logging.INFO)
    builder = builder_class(
        data_dir=args.data_dir,
        config_name=args.dataset_config,
        splits=args.split,
        dataset_name=Path(inspect.getfile(builder_class)).stem,
    )
    if "all" in (args.split or ()) and (default := builder.default_splits()) != ("all",):
        raise ValueError(
            f"--split all: `datasets` reads no split of this name. Name those you want ({', '.join(default)} where "
            "--split is left out); `load_frames(folder, 'all')` reads them as one."
        )
    if args.push_to_hub:
        check_may_be_pushed(builder, args.private)
    logger.info("%s", write_parquet(builder, args.output_dir, args.num_proc, args.on_error))
    if args.push_to_hub:
        where = {"private": args.private, "revision": args.revision}
        logger.info("%s", push_dataset(builder, Path(args.output_dir), args.push_to_hub, **where))


def _parse_args(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="The raw folder.")
    parser.add_argument("--dataset_config", help="E.g. v1.0-mini. Default: the only one there is.")
    parser.add_argument("--split", nargs="+", help="Splits to write. Default: those that share no sequence.")
    parser.add_argument("--output_dir", required=True, help="Run again with the same one, an interrupted run goes on.")
    parser.add_argument("--num_proc", type=int, default=1, help="Processes that write.")
    parser.add_argument(
        "--on_error", choices=("raise", "skip"), default="raise", help="skip: leave out broken frames, and count them."
    )
    parser.add_argument("--push_to_hub", metavar="ID", help="Upload the folder to this dataset repository.")
    parser.add_argument("--private", action="store_true", help="The repository must be private.")
    parser.add_argument("--revision", help="Its branch; made where it is not there. Default: main.")
    args = parser.parse_args()
    for name in ("private", "revision"):
        if getattr(args, name) and not args.push_to_hub:
            parser.error(f"--{name} says what the repository of --push_to_hub is; give that, too.")
    return args


def _write_split(folder: Path, split: str, sequences: list[Frames], num_proc: int, **how) -> Iterator[WrittenSequence]:
    """What came of every sequence; the folder has the name of the split after the last one."""
    final, partial = folder / split, folder / f".{split}.partial"
    is_whole = final.is_dir()
    place = final if is_whole else partial
    place.mkdir(parents=True, exist_ok=True)
    files: set[Path] = set()
    for written in _write_all(SequenceWriter(place, sequences, may_write=not is_whole, **how), split, num_proc):
        files.update(written.files)
        yield written
    if strange := sorted(set(place.glob("*.parquet")) - files):
        raise ValueError(
            f"{strange[0]}: is of no sequence of {split} as it is now; remove {place} to write it anew, or give "
            "another --output_dir."
        )
    place.rename(final)


def _write_all(writer: SequenceWriter, split: str, num_proc: int) -> Iterator[WrittenSequence]:
    places = range(len(writer.sequences))
    bar = {"desc": split, "total": len(places), "unit": "sequence", "disable": None}
    if num_proc == 1:
        yield from tqdm(map(writer.write, places), **bar)
        return
    # Forked workers have the tables already; to spawned ones they are sent once.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    with ProcessPoolExecutor(num_proc, context, initializer=_start_worker, initargs=(writer,)) as pool:
        yield from tqdm(pool.map(_write_in_worker, places), **bar)


_writer_of_this_worker: SequenceWriter | None = None


def _start_worker(writer: SequenceWriter) -> None:
    global _writer_of_this_worker
    _writer_of_this_worker = writer


def _write_in_worker(place: int) -> WrittenSequence:
    return _writer_of_this_worker.write(place)


def _rows(
    frames: Frames, on_error: str, skipped: dict[str, str], was_whole: frozenset[str]
) -> Iterator[tuple[str, Any]]:
    """Id and row of every frame; None where it is broken and skipped, and `skipped` then says why."""
    num_in_a_row = 0
    for index, frame_id in enumerate(frames.frame_ids):
        try:
            row = to_arrow(frames[index])
            num_in_a_row = 0
        except BROKEN as error:
            num_in_a_row += 1
            if on_error != "skip" or frame_id in was_whole or num_in_a_row == MAX_BROKEN_IN_A_ROW:
                raise
            row, skipped[frame_id] = None, f"{type(error).__name__}: {error}"
        yield frame_id, row


def _is_mended(frames: Frames, frame_id: str) -> bool:
    """Whether a frame that was broken can be read now."""
    try:
        to_arrow(frames[frames.frame_ids.index(frame_id)])
    except BROKEN:
        return False
    return True


def _check_same(path: Path, sequence: Frames, first: int) -> dict[str, Any]:
    """The index of a shard, if it covers the frames of the sequence from the first on."""
    index = read_shard_index(pq.read_metadata(path))
    covered = {*index["frame_ids"], *index["skipped"]} if index else set()
    if not covered or covered != set(sequence.frame_ids[first : first + len(covered)]):
        raise ValueError(
            f"{path}: expected frames of {sequence.sequence_ids[0]} from {sequence.frame_ids[first]} on, got others: "
            "the folder was written from other data. Remove it, or give another --output_dir."
        )
    return index


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name)
