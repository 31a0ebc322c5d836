"""Parquet files with checksums: of each page, as in the standard, and of the footer, which the standard leaves out."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq


FOOTER_SHA256 = "uov_hf_sha256"  # the key, in a footer, of the SHA-256 of this footer with zeros in its own place
NO_SHA256 = "0" * 64
# The two bytes between are Thrift's: the type of the field, and the length of the text.
SEAL = re.compile(FOOTER_SHA256.encode() + rb"..([0-9a-f]{64})", re.DOTALL)
# `datasets` and pyarrow take the types in a file as they are, and fail in many ways where they make Python's values.
DAMAGED = (
    *(ValueError, OSError, KeyError, pa.ArrowException),
    *(TypeError, AttributeError, IndexError, OverflowError, AssertionError, RecursionError),
)
MIN_ELEMENTS, BYTES_PER_ELEMENT = 1000, 8  # of the lists in a footer
TAIL = 1 << 16  # bytes: most footers are shorter, and one request to a server reads it


def seal_footer(file: IO[bytes]) -> None:
    """Fill in the SHA-256 of the footer, in a complete file whose footer has `NO_SHA256` under its key."""
    footer = _read_footer(file)
    place = _find_seal(footer)
    file.seek(place - len(footer), 2)
    file.write(hashlib.sha256(footer).hexdigest().encode())


def open_parquet_file(file: str | Path) -> pq.ParquetFile:
    """Open a local file or an address. Its pages are verified as they are read.

    Raises:
        ValueError: The file is damaged or is no Parquet file; the message names it.
        FileNotFoundError: There is no such file.
    """
    is_remote = "://" in str(file)
    opened = fsspec.open(str(file)).open() if is_remote else open(file, "rb")
    with errors_of_file(file):
        try:
            metadata = read_metadata(opened)
            if is_remote:
                return pq.ParquetFile(opened, metadata=metadata, page_checksum_verification=True)
            return pq.ParquetFile(file, metadata=metadata, memory_map=True, page_checksum_verification=True)
        finally:
            if not is_remote:
                opened.close()


def read_metadata(file: IO[bytes]) -> pq.FileMetaData:
    """The metadata in a footer, after a check of its SHA-256 where it has one; other writers write none.

    Raises:
        ValueError: The SHA-256 is another.
        pyarrow.ArrowException, OSError: This is no footer of Parquet.
    """
    footer = _read_footer(file)
    if SEAL.search(footer):
        place = _find_seal(footer)
        found, footer = footer[place : place + 64], footer[:place] + NO_SHA256.encode() + footer[place + 64 :]
        if hashlib.sha256(footer).hexdigest().encode() != found:
            raise ValueError(
                f"the footer has another SHA-256 than the one in its key `{FOOTER_SHA256}`. If another program wrote "
                "the file anew and copied the key, the file may be whole: remove the key from its metadata, as with "
                "`table.replace_schema_metadata` of pyarrow"
            )
    # An element of a list in a footer has a few bytes there, and some hundreds in memory.
    limit = MIN_ELEMENTS + len(footer) // BYTES_PER_ELEMENT
    return pq.ParquetFile(pa.BufferReader(b"PAR1" + footer), thrift_container_size_limit=limit).metadata


def _find_seal(footer: bytes) -> int:
    *_, seal = SEAL.finditer(footer)
    return seal.start(1)


def _read_footer(file: IO[bytes]) -> bytes:
    """The footer with its length and the last mark of the file."""
    size = file.seek(0, 2)
    file.seek(max(size - TAIL, 0))
    tail = file.read()
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        file.seek(max(size - length, 0))
        tail = file.read()
    return tail[-length:]


@contextmanager
def errors_of_file(file: str | Path) -> Iterator[None]:
    """Raise a `ValueError` that names the file where its content is damaged; errors of the disk stay what they are."""
    try:
        yield
    except DAMAGED as error:
        # pyarrow raises `OSError` for a wrong checksum, too, but without the number that errors of the system have.
        is_of_system = isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None)
        if is_of_system or str(file) in str(error):
            raise
        raise ValueError(
            f"{file}: expected a whole Parquet file, got one that is damaged or of another format: {error}. If it was "
            "downloaded, delete it and download it again. If it was made here, delete it and run its writer again."
        ) from error
