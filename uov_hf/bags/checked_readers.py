"""What a bag defines itself, checked before `rosbags` runs it: tables of a .db3, definitions and sizes of messages.

A bag of a few kilobytes may define a table, a constant or a message that takes hours or gigabytes, or have a chunk of
messages that is unpacked to gigabytes.
"""

import bz2
import re
import sqlite3
import sys
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lz4.frame
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.rosbag1 import reader as ros1
from rosbags.rosbag2 import storage_mcap
from rosbags.rosbag2.reader import DirectoryReader, Reader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.serde.utils import SIZEMAP


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore


# A message or a chunk has at most these bytes, and so many more for each compressed byte.
UNPACKED_SIZE, UNPACKED_RATIO = 2**26, 50

MAX_VALUES = 10_000  # of a message, with one element in each of its lists

# A recorder joins the IDL files of a message so.
IDL_SEPARATOR = "=" * 80 + "\n"
IDL_SILENT = re.compile(r'"(?:\\"|[^"])*"|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
IDL_ANNOTATION = re.compile(r"@\s*[\w:]+\s*\([^()]*\)")
# `rosbags` parses a bracket in hundreds of ways, and a list of lists in two; numbers grow by the two operators.
IDL_COSTLY = re.compile(r"[(*]|<<|<[^<>;]*<[^<>;]*<")


class _Database(Sqlite3Reader):
    def open(self) -> None:
        check_tables(Path(str(self.path)))
        super().open()


class _Folder(DirectoryReader):
    STORAGE_PLUGINS = {"mcap": storage_mcap.McapReader, "sqlite3": _Database}

    def open(self) -> None:
        super().open()
        self._is_packed = self.metadata.compression_mode == "message"
        self.metadata = self.metadata._replace(compression_mode=None)  # `messages` unpacks them

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Connection, int, bytes], None, None]:
        for connection, log_time, data in super().messages(connections, start, stop):
            yield connection, log_time, unpack(data, zstd.ZstdDecompressor) if self._is_packed else data


class CheckedReader(Reader):
    """A reader of a bag of ROS 2."""

    STORAGE_PLUGINS = {"dir": _Folder, ".mcap": storage_mcap.McapReader, ".db3": _Database}

    @property
    def connections(self) -> list[Connection]:
        """The connections, with each definition once: `rosbags` parses that of every connection.

        Raises:
            ValueError: A definition would take unlimited time.
        """
        seen, connections = set(), []
        for connection in super().connections:
            if (key := (connection.msgtype, connection.msgdef)) in seen:
                connection = connection._replace(msgdef=MessageDefinition(MessageDefinitionFormat.NONE, ""))
            elif connection.msgdef.format == MessageDefinitionFormat.IDL:
                check_idl(connection.msgtype, connection.msgdef.data)
            seen.add(key)
            connections.append(connection)
        return connections


def unpack(data: bytes, make: Callable[[], Any]) -> bytes:
    """Decompress a message or a chunk of messages.

    Raises:
        ValueError: It is cut short, or becomes far larger than any real one.
    """
    limit, parts, rest = UNPACKED_SIZE + UNPACKED_RATIO * len(data), [], data
    while rest:
        one = make()
        parts.append(one.decompress(rest, max_length=limit))
        limit -= len(parts[-1])
        if not one.eof:
            raise ValueError(f"expected {len(data)} compressed bytes to be whole and of a usual size, got others.")
        rest = one.unused_data
    return b"".join(parts)


# `rosbags` decompresses without a limit, and compares the size afterwards.
storage_mcap.DECOMPRESSORS.update(
    lz4=lambda data, _: unpack(data, lz4.frame.LZ4FrameDecompressor),
    zstd=lambda data, _: unpack(data, zstd.ZstdDecompressor),
)
ros1.decompressors.update(
    bz2=lambda data: unpack(data, bz2.BZ2Decompressor),
    lz4=lambda data: unpack(data, lz4.frame.LZ4FrameDecompressor),
)


def check_tables(path: Path) -> None:
    """Refuse a database whose values are computed while it is read.

    Raises:
        ValueError: It has a view, a trigger, a virtual table or a computed column, or topics with equal ids.
    """
    with closing(sqlite3.connect(f"file:{path}?immutable=1&mode=ro", uri=True)) as database:
        computed = database.execute(
            "SELECT name FROM sqlite_master WHERE sql NOT LIKE 'CREATE TABLE %' AND sql NOT LIKE 'CREATE INDEX %' "
            "AND sql NOT LIKE 'CREATE UNIQUE INDEX %' UNION ALL "
            "SELECT t.name || '.' || c.name FROM sqlite_master t, pragma_table_xinfo(t.name) c WHERE c.hidden"
        ).fetchone()
        keys = database.execute("SELECT name FROM pragma_table_info('topics') WHERE pk").fetchall()
    if computed:
        raise ValueError(f"expected tables with stored values only, got {computed[0]}, whose values are computed.")
    if keys != [("id",)]:
        raise ValueError("expected a table `topics` with the primary key `id`, got another one.")


def check_idl(name: str, text: str) -> None:
    """Refuse a definition in IDL that takes unlimited time to parse. IDL files of ROS have none of what is refused.

    Raises:
        ValueError: It has brackets or operators in a value, or a list of lists of lists.
    """
    parts = [text]
    if text.startswith(f"{IDL_SEPARATOR}IDL: "):
        parts = [part.partition("\n")[2] for part in text.split(IDL_SEPARATOR)]
    for part in parts:
        if found := IDL_COSTLY.search(IDL_ANNOTATION.sub("", IDL_SILENT.sub("", part))):
            raise ValueError(
                f"expected the definition of {name} in IDL to have plain values and lists, got {found[0][:20]!r}."
            )


def check_sizes(typestore: "Typestore", name: str) -> None:
    """Refuse a type of messages whose values take far more memory than its bytes.

    `rosbags` writes code for every element of a fixed array, and makes an object of every message in a list.

    Raises:
        ValueError: A message has too many values, or an element of a list has more values than bytes.
    """

    def of_field(content: Any) -> tuple[int, int]:
        """The number of values with one element in each list, and the number of bytes with none."""
        kind, inner = content
        if kind == Nodetype.BASE:
            return 1, 4 if inner[0] == "string" else SIZEMAP[inner[0]]
        if kind == Nodetype.NAME:
            return of_type(inner)
        element, length = inner
        values, num_bytes = of_field(element)
        if kind == Nodetype.SEQUENCE:
            if values > num_bytes:
                raise ValueError(
                    f"expected {name} to have lists of messages, got {element[1]}: more values than bytes."
                )
            return 1 + values, 4
        is_numeric = element[0] == Nodetype.BASE and element[1][0] != "string"
        return 1 if is_numeric else 1 + length * values, length * num_bytes

    @cache
    def of_type(part: str) -> tuple[int, int]:
        fields = [of_field(content) for _, content in typestore.fielddefs[part][1]]
        return 1 + sum(values for values, _ in fields), sum(num_bytes for _, num_bytes in fields)

    if (num_values := of_type(name)[0]) > MAX_VALUES:
        raise ValueError(f"expected {name} to have at most {MAX_VALUES} values, got {num_values} in its definition.")
