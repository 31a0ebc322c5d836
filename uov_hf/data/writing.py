"""Frames of a raw folder written as Parquet, in shards of a bounded size."""

import argparse
import inspect
import io
import logging
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
from datasets.arrow_writer import TypedSequence
from PIL import Image
from tqdm import tqdm

from uov_hf.data.frames import FRAME_FEATURES, EncodedImage, Frame, FrameBuilder, Frames, read_image
from uov_hf.data.parquet import read_index
from uov_hf.data.publishing import check_may_be_pushed, check_same_terms, push_dataset, write_dataset_card
from uov_hf.data.shards import OnError, ShardWriter, WriteReport


logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 500_000_000


@dataclass(frozen=True)
class SplitWriter:
    """
    Writes the sequences of a split into a folder; every worker process has a copy.

    A sequence becomes `<place>_<sequence id>_<part>.parquet`, part after part, so that the names sort as the frames.
    """

    folder: Path
    sequences: list[Frames]
    shards: ShardWriter
    max_shard_bytes: int
    is_whole: bool

    def write(self, place: int) -> tuple[list[Path], WriteReport]:
        """The files of the sequence at `place`; those that are missing are written."""
        sequence, report, num_covered = self.sequences[place], WriteReport(), 0
        files: list[Path] = []
        slug = re.sub(r"[^\w.-]", "-", sequence.sequence_ids[0])
        while num_covered < len(sequence):
            name = f"{place:05d}_{slug}_{len(files):03d}.parquet"
            path, part = self.folder / name, sequence[num_covered:]
            if path.is_file():
                part = part[: _num_covered(path, part)]
            elif self.is_whole:
                raise ValueError(f"{self.folder}: expected {name} in it; remove the folder to write it anew.")
            written = self.shards.complete(path, part, self.max_shard_bytes)
            num_covered += written.num_frames + written.num_done_before + len(written.skipped)
            files.append(path)
            report += written
        return files, report


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
        num_proc (`int`, *optional*): Processes that write, each a sequence at a time.
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
    shards = ShardWriter(
        FRAME_FEATURES.arrow_schema,
        open_sequence=_open_sequence,
        on_error=on_error,
        data_dir=str(builder.config.data_dir),
        may_be_published=builder.may_be_published,
    )
    check_same_terms(builder, Path(output_dir))
    splits = builder.config.splits or builder.default_splits()
    if odd := [split for split in splits if not re.fullmatch(r"\w+(\.\w+)*", split)]:
        raise ValueError(f"Splits in Parquet have names of letters, digits, _ and inner dots, got {', '.join(odd)}.")
    if "all" in splits and len(splits) > 1:
        raise ValueError(
            f"Expected `all` alone, or splits without it, got {', '.join(splits)}: `all` includes their frames."
        )
    for split in splits:
        name = "train" if split == "all" else split  # `datasets` refuses to read a split of the name `all`
        sequences = builder.as_frames(split).by_sequence()
        for written in _write_split(folder, name, sequences, shards, max_shard_bytes, num_proc or 1):
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
    parser.add_argument("--num_proc", type=int, default=1, help="Processes that write.")
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


def _write_split(
    folder: Path, split: str, sequences: list[Frames], shards: ShardWriter, max_shard_bytes: int, num_proc: int
) -> Iterator[WriteReport]:
    """The report of every sequence; the folder gets the name of the split after the last one."""
    final = folder / split
    is_whole = final.is_dir()
    place = final if is_whole else folder / f".{split}.partial"
    place.mkdir(parents=True, exist_ok=True)
    expected: set[Path] = set()
    for files, report in _write_all(SplitWriter(place, sequences, shards, max_shard_bytes, is_whole), split, num_proc):
        expected.update(files)
        yield report
    if strange := sorted(set(place.glob("*.parquet")) - expected):
        raise ValueError(
            f"{strange[0]}: belongs to no sequence of the present {split}; remove {place} to write it anew, or give "
            "another --output_dir."
        )
    place.rename(final)


def _write_all(writer: SplitWriter, split: str, num_proc: int) -> Iterator[tuple[list[Path], WriteReport]]:
    places = range(len(writer.sequences))
    bar = partial(tqdm, desc=split, total=len(places), unit="sequence", disable=None)
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


def _write_in_worker(place: int) -> tuple[list[Path], WriteReport]:
    return _writer_of_this_worker.write(place)


def _open_sequence(frames: Frames) -> Callable[[int], pa.Table]:
    return lambda place: to_arrow(frames[place])


def _num_covered(path: Path, frames: Frames) -> int:
    """How many of the next frames a shard covers, the skipped ones included."""
    index = read_index(path)
    covered = {*index["frame_ids"], *index["skipped"]}
    if not covered or covered != set(frames.frame_ids[: len(covered)]):
        raise ValueError(
            f"{path}: expected frames of {frames.sequence_ids[0]} from {frames.frame_ids[0]} on, got others: the "
            "folder was written from other data. Remove it, or give another --output_dir."
        )
    return len(covered)


def to_arrow(frame: Frame) -> pa.Table:
    """
    A frame as a table of one row, with the bytes of its images.

    Raises:
        ValueError: an image is truncated, empty, or of another size than its calibration; it names the file.
    """
    images = [_whole_image(*image) for image in zip(frame["images"], frame["image_sizes"], strict=True)]
    row = {**frame, "images": images}
    columns = [pa.array(TypedSequence([row[name]], type=feature)) for name, feature in FRAME_FEATURES.items()]
    return pa.table(columns, schema=FRAME_FEATURES.arrow_schema)


def _whole_image(image: EncodedImage, image_size: Sequence[int]) -> EncodedImage:
    """The image with its bytes. It is decoded, because a truncated file has a whole header."""
    content = read_image(image)
    try:
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
            picture.draft("RGB", (1, 1))  # a JPEG at an eighth of its size, in half the time
            picture.load()
    except (OSError, SyntaxError) as error:  # the latter is Pillow's for a broken PNG
        raise ValueError(f"{image['path']}: expected a whole image file, got: {error}") from error
    if (height, width) != tuple(image_size):
        raise ValueError(
            f"{image['path']}: expected height and width {tuple(map(int, image_size))}, those of the calibration, got "
            f"{(height, width)}."
        )
    return {"bytes": content, "path": os.path.basename(image["path"] or "")}
