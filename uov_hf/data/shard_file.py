"""One Parquet file of frames, a row group each: there whole or not at all, its images whole too."""

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.arrow_writer import TypedSequence
from PIL import Image

from uov_hf.data.frames import FRAME_FEATURES
from uov_hf.data.parquet import SHARD_INDEX


class ShardFile:
    """
    A file that gets its name when it is on the disk with all its rows.

    Args:
        path (`Path`): The name.

    Raises:
        OSError: it cannot be written, as on a full disk; it names the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.temporary = path.with_name(f"{path.name}.tmp")  # not *.parquet: what a killed run leaves is never read

    def __enter__(self) -> "ShardFile":
        with self._errors_named():
            self._file = open(self.temporary, "wb")
        # Neither dictionaries nor statistics: they help where rows are searched, and cost in every row group.
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file), FRAME_FEATURES.arrow_schema, use_dictionary=False, write_statistics=False
        )
        return self

    def add(self, row: pa.Table) -> None:
        with self._errors_named():
            self._writer.write_table(row)

    @property
    def num_bytes(self) -> int:
        return self._file.tell()

    def publish(self, index: dict[str, Any]) -> None:
        """Write the footer, with an index of the frames, and give the file its name."""
        with self._errors_named():
            self._writer.add_key_value_metadata({SHARD_INDEX: json.dumps(index)})
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self.temporary, self.path)

    def __exit__(self, *error) -> None:
        with suppress(OSError):  # a full disk has been complained about
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        self.temporary.unlink(missing_ok=True)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"{self.path}: could not be written: {error}. The frames before it are whole; make room, or set "
                "right what is wrong, and run the same command again: it continues."
            ) from error


def to_arrow(frame: dict[str, Any]) -> pa.Table:
    """
    A frame as a table of one row, the bytes of its images in it.

    Raises:
        ValueError: an image is cut short, empty, or of another size than its calibration; it names the file.
    """
    images = [_whole_image(*image) for image in zip(frame["images"], frame["image_sizes"], strict=True)]
    row = frame | {"images": images}
    columns = [pa.array(TypedSequence([row[name]], type=feature)) for name, feature in FRAME_FEATURES.items()]
    return pa.table(columns, schema=FRAME_FEATURES.arrow_schema)


def _whole_image(image: dict[str, Any], image_size: Sequence[int]) -> dict[str, Any]:
    """The image with its bytes, decoded to the last of them for a test, and without the folders of its path."""
    content = Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
    try:
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
            picture.draft("RGB", (1, 1))  # a JPEG at an eighth of its size, in half the time
            picture.load()
    except (OSError, SyntaxError) as error:  # the latter is Pillow's for a broken PNG
        raise ValueError(f"{image['path']}: expected a whole image file, got: {error}") from error
    if (height, width) != tuple(image_size):
        raise ValueError(
            f"{image['path']}: expected height and width {tuple(map(int, image_size))}, for which the calibration is, "
            f"got {(height, width)}."
        )
    return {"bytes": content, "path": os.path.basename(image["path"])}
