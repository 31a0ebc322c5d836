"""The files of one split: its frames as Parquet, in files of a bounded size."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
from datasets.arrow_writer import TypedSequence

from uov_hf.data.frames import BROKEN, FRAME_FEATURES, Frame, Frames
from uov_hf.data.parquet import RowReader, read_index
from uov_hf.data.shard_file import MAX_FRAMES, ShardFile
from uov_hf.data.write_report import Attempts, TooManyBrokenFrames, WriteReport, describe
from uov_hf.image_files import EncodedImage, read_whole_image
from uov_hf.leftovers import data_files


@dataclass(frozen=True)
class Chunk:
    """Neighbouring frames of a sequence: the unit of work that processes share.

    Args:
        name (`str`): Number of the sequence and the beginning of its id, as in the names of the files.
        start (`int`): Place of the first frame in the sequence.
        frames (`Frames`): At most `MAX_FRAMES`.
    """

    name: str
    start: int
    frames: Frames


def cut_into_chunks(sequences: list[Frames]) -> list[Chunk]:
    """The chunks of the sequences of a split, in their order."""
    chunks = []
    for number, sequence in enumerate(sequences):
        slug = re.sub(r"[^\w.-]", "-", sequence.sequence_ids[0])[:50]  # a file name has at most 255 bytes
        starts = range(0, len(sequence), MAX_FRAMES)
        chunks += [Chunk(f"{number:05d}_{slug}", start, sequence[start : start + MAX_FRAMES]) for start in starts]
    return chunks


@dataclass(frozen=True)
class SplitWriter:
    """
    Writes the chunks of a split into a folder; every worker process has a copy.

    A file is `<number>_<sequence id>_<place of its first frame>.parquet`, so that the names sort as the frames.

    Args:
        folder (`Path`): The folder of the files.
        chunks (`list[Chunk]`): The frames of the split.
        attempts (`Attempts`): What a broken frame does to the run.
        data_dir (`str`): The footers have errors with paths relative to it, because the files may be published.
        may_be_published (`bool`, *optional*): Goes into the footers.
        max_shard_bytes (`int`): A file ends with the frame that reaches this size.
        is_whole (`bool`): Whether the split was written before; then no file may be missing.
    """

    folder: Path
    chunks: list[Chunk]
    attempts: Attempts
    data_dir: str
    may_be_published: bool | None
    max_shard_bytes: int
    is_whole: bool

    def write(self, number: int) -> tuple[list[Path], WriteReport]:
        """The files of a chunk; those that are missing are written."""
        chunk, report, num_covered = self.chunks[number], WriteReport(), 0
        files: list[Path] = []
        while num_covered < len(chunk.frames):
            name = f"{chunk.name}_{chunk.start + num_covered:06d}.parquet"
            path, part = self.folder / name, chunk.frames[num_covered:]
            if path.is_file():
                written = self._complete(path, part[: _num_covered(path, part)])
            elif self.is_whole:
                raise ValueError(f"{self.folder}: expected {name} in it; remove the folder to write it anew.")
            else:
                try:
                    written = self._write(path, part)
                except TooManyBrokenFrames:
                    self._remove_files_that_skip(self.attempts.streak)
                    raise
            num_covered += written.num_frames + written.num_done_before + len(written.skipped)
            files.append(path)
            report += written
        return files, report

    def _write(self, path: Path, frames: Frames) -> WriteReport:
        """A new file of the first of these frames."""
        report, frame_ids = WriteReport(), []
        with ShardFile(path, FRAME_FEATURES.arrow_schema) as shard:
            for place, frame_id in enumerate(frames.frame_ids):
                row = self.attempts.make(frame_id, partial(_read_row, frames, place))
                if isinstance(row, str):
                    report.skipped[frame_id] = row
                    continue
                shard.add(row)
                frame_ids.append(frame_id)
                if shard.num_bytes >= self.max_shard_bytes:
                    break
            self._publish(shard, frames, frame_ids, report.skipped)
        report.num_frames, report.num_bytes = len(frame_ids), path.stat().st_size
        return report

    def _remove_files_that_skip(self, frame_ids: list[str]) -> None:
        """The fault is not that of the frames: the next run tries them again."""
        for path in data_files(self.folder, "*.parquet"):
            if not read_index(path)["skipped"].keys().isdisjoint(frame_ids):
                path.unlink()

    def _complete(self, path: Path, frames: Frames) -> WriteReport:
        """Write a file again if it skipped frames that can be read now; a run that skips does not try them."""
        index = read_index(path)
        report = WriteReport(num_done_before=len(index["frame_ids"]), skipped=dict(index["skipped"]))
        rows: dict[str, pa.Table] = {}
        for place, frame_id in enumerate(frames.frame_ids):
            if frame_id in index["skipped"] and self.attempts.on_error == "raise":
                try:
                    rows[frame_id] = to_arrow(frames[place])
                    del report.skipped[frame_id]
                except BROKEN as error:
                    report.skipped[frame_id] = describe(error)
        if not rows:
            return report
        reader, present = RowReader(), {name: (str(path), group, 0) for group, name in enumerate(index["frame_ids"])}
        frame_ids = [name for name in frames.frame_ids if name in present or name in rows]
        with ShardFile(path, FRAME_FEATURES.arrow_schema) as shard:
            for name in frame_ids:
                shard.add(rows[name] if name in rows else reader.read_table(present[name]))
            self._publish(shard, frames, frame_ids, report.skipped)
        report.num_frames, report.num_bytes = len(rows), path.stat().st_size
        return report

    def _publish(self, shard: ShardFile, frames: Frames, frame_ids: list[str], skipped: dict[str, str]) -> None:
        folder = f"{Path(self.data_dir)}{os.sep}"
        shard.publish(
            {
                "sequence_id": frames.sequence_ids[0],
                "frame_ids": frame_ids,
                "skipped": {name: error.replace(folder, "") for name, error in skipped.items()},
                "may_be_published": self.may_be_published,
            }
        )


def _read_row(frames: Frames, place: int) -> pa.Table:
    return to_arrow(frames[place])


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
    """The image with its bytes."""
    content, size = read_whole_image(image)
    if size != tuple(image_size):
        raise ValueError(
            f"{image['path']}: expected height and width {tuple(map(int, image_size))}, those of the calibration, got "
            f"{size}."
        )
    return {"bytes": content, "path": os.path.basename(image["path"] or "")}
