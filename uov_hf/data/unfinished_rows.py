"""The rows that are in no shard yet: one small file per frame, in a hidden folder beside the shards."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from uov_hf.data.parquet import RowReader, ShardIndex, read_index
from uov_hf.data.shard_file import ShardFile
from uov_hf.data.writer_lock import UNFINISHED


class UnfinishedRows:
    """
    What a run has made of each frame until its shard is complete: a row, or the error of a skipped frame.

    Args:
        folder (`Path`): The folder of the shards.
        schema (`pa.Schema`): Columns of a row.
    """

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder = folder / UNFINISHED
        self.schema = schema

    def find(self, frame_id: str) -> ShardIndex | None:
        """The index of the file of a frame, which has one frame or one error; None if there is no whole file."""
        path = self._path(frame_id)
        try:
            return read_index(path) if path.is_file() else None
        except (
            ValueError,
            FileNotFoundError,
        ):  # the machine stopped before the content was on the disk: the row is made again
            path.unlink(missing_ok=True)
            return None

    def __contains__(self, frame_id: str) -> bool:
        """Whether there is a row of the frame."""
        index = self.find(frame_id)
        return index is not None and frame_id in index["frame_ids"]

    def read(self, frame_id: str, columns: Sequence[str]) -> dict[str, Any]:
        """The values of a row, as `Shards.read` returns them."""
        return RowReader().read((str(self._path(frame_id)), 0, 0), columns)

    def read_table(self, frame_id: str) -> pa.Table:
        """The row of a frame."""
        return RowReader().read_table((str(self._path(frame_id)), 0, 0))

    def save(self, frame_id: str, row: pa.Table | str, made_from: int) -> int:
        """Save the row of a frame, or the error of a skipped one; returns the bytes of the row."""
        with ShardFile(self._path(frame_id), self.schema) as shard:
            index: ShardIndex = {"sequence_id": "", "frame_ids": [], "skipped": {}, "made_from": made_from}
            if isinstance(row, str):
                index["skipped"][frame_id] = row
            else:
                shard.add(row)
                index["frame_ids"].append(frame_id)
            num_bytes = shard.num_bytes
            shard.publish(index)
        return num_bytes

    def remove(self, frame_ids: Iterable[str]) -> None:
        """Remove the files of these frames, where they exist."""
        if self.folder.is_dir():
            for frame_id in frame_ids:
                self._path(frame_id).unlink(missing_ok=True)

    def _path(self, frame_id: str) -> Path:
        # A digest: an id may be longer than a file name, or contain a slash.
        return self.folder / f"{hashlib.sha256(frame_id.encode()).hexdigest()[:32]}.parquet"
