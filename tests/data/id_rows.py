"""Rows of a frame's id, written and read as shards."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from uov_hf.data import Frames
from uov_hf.data.parquet import Shards
from uov_hf.data.shards import write_shards
from uov_hf.data.write_report import WriteReport


SCHEMA = pa.schema({"frame_id": pa.string(), "data": pa.list_(pa.float32())})


class Writer:
    """Writes the ids of frames; the ids in `broken` raise, and `made` lists the rows that were made."""

    def __init__(self, folder, size=3):
        self.folder, self.size, self.broken, self.made, self.error = folder, size, set(), [], OSError

    def __call__(self, frames, **options) -> WriteReport:
        self.made.clear()
        return write_shards(self.folder, SCHEMA, frames, self.open_sequence, **options)

    def open_sequence(self, sequence):
        return lambda place: self.make_row(sequence.frame_ids[place])

    def make_row(self, frame_id):
        self.made.append(frame_id)
        if frame_id in self.broken:
            raise self.error(f"{self.folder / frame_id} is broken")
        return {"frame_id": frame_id, "data": np.full(self.size, hash_of(frame_id), np.float32)}


def hash_of(frame_id):
    return sum(map(ord, frame_id))


def sequences(**lengths) -> Frames:
    """Frames of the ids `a/0`, `a/1`, … of sequences of these lengths."""
    ids = [f"{name}/{number}" for name, length in lengths.items() for number in range(length)]
    return Frames(SimpleNamespace(frame_ids=ids, sequence_ids=[name.split("/")[0] for name in ids], taxonomy=None))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder):
    shards = Shards(folder)
    return {frame_id: shards.read(frame_id)["data"].tolist() for frame_id in shards.frame_ids}
