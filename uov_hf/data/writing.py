"""Frames of a raw folder written as Parquet, in shards of a bounded size."""

import argparse
import inspect
import logging
import multiprocessing
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from threading import Thread

from tqdm import tqdm

from uov_hf.counts import positive_int
from uov_hf.data.frames import FrameBuilder
from uov_hf.data.publishing import check_may_be_pushed, check_same_terms, push_dataset, write_dataset_card
from uov_hf.data.split_writer import SplitWriter, cut_into_chunks
from uov_hf.data.write_report import Attempts, OnError, WriteReport
from uov_hf.data.writer_lock import writer_lock
from uov_hf.leftovers import data_files


logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 500_000_000


def write_parquet(
    builder: FrameBuilder,
    output_dir: str | Path,
    num_proc: int | None = None,
    on_error: OnError = "raise",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> WriteReport:
    """
    Write the splits of a builder's config as Parquet, with the images and a dataset card.

    `datasets.load_dataset(output_dir, config_name)` and `load_frames(output_dir)` read them. A split is in
    `output_dir/<config name>/<split>`, one row group per frame. The folder has this name when it is complete; until
    then it is hidden, and the same call continues it. The split `all` is written as `train`, because `datasets` cannot
    read a split of that name.

    Args:
        builder (`FrameBuilder`): Reads the raw dataset.
        output_dir (`str` or `Path`): The folder of the dataset. Its other configs and splits stay.
        num_proc (`int`, *optional*): Processes that write, each at most `MAX_FRAMES` frames of a sequence at a time.
        on_error (`str`, *optional*, defaults to `"raise"`):
            `"skip"` leaves out frames with a broken file and reports them.
        max_shard_bytes (`int`, *optional*, defaults to 500 MB): A file ends with the frame that reaches this size.

    Returns:
        The report of what was written.

    Raises:
        ValueError: a frame is broken, or the folder holds other frames or frames under other terms; names the file.
        OSError: a file cannot be written, as on a full disk; names the file.
    """
    folder, start, report = Path(output_dir) / builder.config.name, time.perf_counter(), WriteReport()
    check_same_terms(builder, Path(output_dir))
    splits = builder.config.splits or builder.default_splits()
    if odd := [split for split in splits if not re.fullmatch(r"\w+(\.\w+)*", split)]:
        raise ValueError(f"Splits in Parquet have names of letters, digits, _ and inner dots, got {', '.join(odd)}.")
    if "all" in splits and len(splits) > 1:
        raise ValueError(
            f"Expected `all` alone, or splits without it, got {', '.join(splits)}: `all` includes their frames."
        )
    with writer_lock(folder):
        for split in splits:
            name = "train" if split == "all" else split  # `datasets` refuses to read a split of the name `all`
            place, is_whole = _folder_of_split(folder, name)
            writer = SplitWriter(
                place,
                cut_into_chunks(builder.as_frames(split).by_sequence()),
                Attempts(on_error),
                str(builder.config.data_dir),
                builder.may_be_published,
                max_shard_bytes,
                is_whole,
            )
            for written in _write_split(writer, folder / name, num_proc or 1):
                report += written
        write_dataset_card(builder, Path(output_dir))
    report.seconds = time.perf_counter() - start
    return report


def write_from_command_line(builder_class: type[FrameBuilder], description: str) -> None:
    """The program of a dataset script: it writes a raw folder as Parquet, and uploads that with `--push_to_hub`."""
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
            f"--split all: `datasets` cannot read a split of this name. Name the splits to write (default: "
            f"{', '.join(default)}); `load_frames(folder, 'all')` reads them as one."
        )
    if args.push_to_hub:
        check_may_be_pushed(builder, args.private)
    logger.info("%s", write_parquet(builder, args.output_dir, args.num_proc, args.on_error))
    if args.push_to_hub:
        folder = Path(args.output_dir)
        address = push_dataset(builder, folder, args.push_to_hub, private=args.private, revision=args.revision)
        logger.info("%s", address)


def _parse_args(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="The raw folder.")
    parser.add_argument("--dataset_config", help="E.g. v1.0-mini. Default: the only one there is.")
    parser.add_argument("--split", nargs="+", help="Splits to write. Default: those that share no sequence.")
    parser.add_argument("--output_dir", required=True, help="The Parquet folder; an interrupted run continues.")
    parser.add_argument("--num_proc", type=positive_int, default=1, help="Processes that write.")
    parser.add_argument(
        "--on_error", choices=("raise", "skip"), default="raise", help="skip: leave out broken frames and report them."
    )
    parser.add_argument("--push_to_hub", metavar="ID", help="Upload the folder to this dataset repository.")
    parser.add_argument("--private", action="store_true", help="Require a private repository.")
    parser.add_argument("--revision", help="Branch of the repository, created if missing. Default: main.")
    args = parser.parse_args()
    for name in ("private", "revision"):
        if getattr(args, name) and not args.push_to_hub:
            parser.error(f"--{name} belongs to --push_to_hub; give that, too.")
    return args


def _folder_of_split(folder: Path, split: str) -> tuple[Path, bool]:
    """Where the files of a split are, and whether they are all there: until then the folder is hidden."""
    final, partial = folder / split, folder / f".{split}.partial"
    if final.is_dir():
        return final, True
    partial.mkdir(parents=True, exist_ok=True)
    for temporary in partial.glob("*.tmp"):  # of a killed run; this one holds the lock
        temporary.unlink()
    return partial, False


def _write_split(writer: SplitWriter, final: Path, num_proc: int) -> Iterator[WriteReport]:
    """The report of every chunk; the folder gets the name of the split after the last one."""
    expected: set[Path] = set()
    for files, report in _write_all(writer, final.name, num_proc):
        expected.update(files)
        yield report
    if strange := sorted(set(data_files(writer.folder, "*.parquet")) - expected):
        raise ValueError(
            f"{strange[0]}: belongs to no sequence of the present {final.name}; remove {writer.folder} to write it "
            "anew, or give another --output_dir."
        )
    writer.folder.rename(final)


def _write_all(writer: SplitWriter, split: str, num_proc: int) -> Iterator[tuple[list[Path], WriteReport]]:
    places = range(len(writer.chunks))
    bar = partial(tqdm, desc=split, total=len(places), unit="file", disable=None)
    if num_proc == 1:
        yield from bar(map(writer.write, places))
        return
    # Forked workers have the tables of the dataset already; to spawned ones they are sent once, by the initializer.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    with ProcessPoolExecutor(num_proc, context, initializer=_start_worker, initargs=(writer,)) as pool:
        yield from bar(pool.map(_write_in_worker, places))


_writer_of_this_worker: SplitWriter


def _start_worker(writer: SplitWriter) -> None:
    global _writer_of_this_worker
    _writer_of_this_worker = writer
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it was killed: the pool would wait for its next chunk forever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _write_in_worker(place: int) -> tuple[list[Path], WriteReport]:
    return _writer_of_this_worker.write(place)
