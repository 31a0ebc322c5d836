"""Write a result as PCD, and read all fields of a PCD file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf.pcd_files import PcdHeader, read_header, read_planes
from uov_hf.point_fields import check_whole
from uov_hf.results.segmented_scan import SegmentedScan, name_new_fields


HEADER = """VERSION 0.7
FIELDS {names}
SIZE {sizes}
TYPE {types}
COUNT {counts}
WIDTH {num_points}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {num_points}"""
PACKED = "binary_compressed"
NEW_ENTRIES = {"SIZE": "1 4", "TYPE": "U F", "COUNT": "1 1"}


@dataclass(frozen=True)
class PcdContent:
    """A PCD file: its header, the lines before DATA, and its points as they are stored.

    Args:
        header (`PcdHeader`): Fields, number of points and encoding.
        lines (`list[str]`): Comments included.
        rows (`np.ndarray` of shape `(num_points, point_size)`, uint8, or `list[str]`): Bytes, or lines of ASCII.
    """

    header: PcdHeader
    lines: list[str]
    rows: np.ndarray | list[str]


def write_pcd(path: Path, result: SegmentedScan, file: Path) -> None:
    """Write the points of a PCD file with all their bytes, or those of another scan; see [`write_result`].

    ASCII stays ASCII. A compressed file becomes a binary one.
    """
    content = read_content(result.scan) if result.scan.suffix.lower() == ".pcd" else _to_content(result)
    new_fields = " ".join(name_new_fields([field.name for field in content.header.fields]))
    entries = NEW_ENTRIES | {"FIELDS": new_fields, "COLUMNS": new_fields}
    lines = [f"{line} {entry}" if (entry := entries.get(_key(line))) else line for line in content.lines]
    if isinstance(content.rows, list):
        pairs = zip(content.rows, result.labels.tolist(), result.scores.tolist(), strict=True)
        body = "".join(f"{line} {label} {score:.9g}\n" for line, label, score in pairs).encode()
    else:
        columns = result.labels[:, None], result.scores.astype("<f4").view(np.uint8).reshape(-1, 4)
        body = np.concatenate([content.rows, *columns], axis=1).tobytes()
    encoding = "ascii" if isinstance(content.rows, list) else "binary"
    header = "\n".join([*lines, f"DATA {encoding}\n"]).encode("utf-8", "surrogateescape")  # comments of any encoding
    file.write_bytes(header + body)


def read_content(path: Path) -> PcdContent:
    """Read a PCD file with all its fields.

    Raises:
        ValueError: The header is broken, or declares more points than the file has.
    """
    with path.open("rb") as file:
        header = read_header(path, file)
        num_bytes = file.tell()
        body = _join(header, read_planes(path, file, header)) if header.encoding == PACKED else file.read()
        file.seek(0)
        lines = file.read(num_bytes).decode("utf-8", "surrogateescape").splitlines()[:-1]
    if header.encoding == "ascii":
        rows = [line.rstrip() for line in body.decode("ascii", "replace").splitlines() if line.strip()]
        check_whole(path, header.num_points, len(rows))
        return PcdContent(header, lines, rows[: header.num_points])
    size = header.num_points * header.point_size
    check_whole(path, header.num_points, len(body) // max(header.point_size, 1))
    return PcdContent(header, lines, np.frombuffer(body[:size], np.uint8).reshape(header.num_points, -1))


def _join(header: PcdHeader, planes: bytes) -> bytes:
    """The points one after the other; a compressed file has the fields one after the other."""
    if not header.num_points:
        return b""
    ends = header.num_points * np.cumsum([field.size for field in header.fields])
    parts = np.split(np.frombuffer(planes, np.uint8), ends[:-1])
    return np.concatenate([part.reshape(header.num_points, -1) for part in parts], axis=1).tobytes()


def _to_content(result: SegmentedScan) -> PcdContent:
    fields = result.to_fields()
    names, sizes = fields.dtype.names or (), [str(fields.dtype[name].itemsize) for name in fields.dtype.names or ()]
    lines = HEADER.format(
        names=" ".join(names),
        sizes=" ".join(sizes),
        types=" ".join("F" for _ in names),
        counts=" ".join("1" for _ in names),
        num_points=len(fields),
    ).splitlines()
    rows = fields.view(np.uint8).reshape(len(fields), fields.dtype.itemsize)
    return PcdContent(PcdHeader([], len(fields), "binary"), lines, rows)


def _key(line: str) -> str:
    return (line.split() or [""])[0].upper()
