"""A bag whose tables or definitions would take hours or gigabytes is refused by name; usual ones are read."""

import bz2
import sqlite3
import struct

import lz4.frame
import numpy as np
import pytest
import small_bags
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.reader import zstd
from rosbags.typesys import Stores, get_typestore
from test_bag_choices import AHEAD, START

from uov_hf.bags import checked_readers
from uov_hf.bags.inspection import inspect_bag
from uov_hf.bags.reading import Bag


CLOUD = "sensor_msgs/msg/PointCloud2"
IDL_HEAD = f"{'=' * 80}\nIDL: pkg/msg/Count\n"
# As a recorder writes it: brackets in annotations, comments and strings, lists of limited texts.
USUAL_IDL = """// generated from pkg/msg/Count.msg (a copy)
module pkg { module msg {
  typedef double double__9[9];
  module Count_Constants {
    const long SIZE = -3;
    @verbatim (language="comment", text="a \\"text\\" ((of)) " "two << * parts")
    const string NAME = "((x * y))";
  };
  /* a comment (((with))) brackets, 1 << 2 */
  @verbatim (language="comment", text=
    "more ((brackets))")
  struct Count {
    @default (value=1) @unit (value="m/(s*s)")
    long seq;
    sequence<string<10> > names;
    sequence<double, 3> values;
    double__9 matrix;
  };
}; };
"""


def count_bag(folder, definition, encoding="ros2idl", num_topics=1):
    """An .mcap with one message `pkg/msg/Count`, whose bytes are 16 zeros."""

    def text(content):
        return struct.pack("<I", len(content.encode())) + content.encode()

    def record(code, content):
        return bytes([code]) + struct.pack("<Q", len(content)) + content

    records = [record(1, text("ros2") + text(""))]
    records.append(record(3, struct.pack("<H", 1) + text("pkg/msg/Count") + text(encoding) + text(definition)))
    for topic in range(num_topics):
        channel = text(f"/count{topic}") + text("cdr") + text("")
        records.append(record(4, struct.pack("<HH", topic, 1) + channel))
    data = b"\x00\x01\x00\x00" + bytes(16)
    records += [record(5, struct.pack("<HIQQ", 0, 0, START, START) + data), record(2, bytes(20))]
    path = folder / "count.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + b"".join(records) + b"\x89MCAP0\r\n")
    return path


@pytest.mark.parametrize("head", ["", IDL_HEAD])
def test_a_usual_definition_in_idl_is_read(tmp_path, head):
    bag = Bag(count_bag(tmp_path, head + USUAL_IDL))
    constants, fields = bag.typestore.fielddefs["pkg/msg/Count"]
    assert [value for *_, value in constants] == [-3, "((x * y))"]
    assert [name for name, _ in fields] == ["seq", "names", "values", "matrix"]


@pytest.mark.parametrize("head", ["", IDL_HEAD, f'{"=" * 80}\nIDL: "\nmodule b {{ const long B = 1; }};{IDL_HEAD}'])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("const long A = ((1));", "'[(]'"),
        ("const long A = 2 * 3;", "'[*]'"),
        ("const long A = 1 << 4000000000;", "'<<'"),
        (f"struct B {{ {'sequence<' * 30}long{'>' * 30} a; }};", "'<sequence<sequence<'"),
    ],
)
def test_a_costly_definition_in_idl_is_refused(tmp_path, head, content, named):
    path = count_bag(tmp_path, f"{head}module a {{ {content} }};")
    with pytest.raises(ValueError, match=rf"count.mcap: .*pkg/msg/Count in IDL to have plain .*, got {named}"):
        Bag(path)


def test_a_definition_of_many_topics_is_parsed_once(tmp_path, monkeypatch):
    from rosbags.highlevel import anyreader

    parsed, parse = [], anyreader.get_types_from_msg
    monkeypatch.setattr(anyreader, "get_types_from_msg", lambda *given: parsed.append(given) or parse(*given))
    bag = Bag(count_bag(tmp_path, "uint32 seq\n", "ros2msg", num_topics=50))
    assert len(bag.topics) == 50 and len(parsed) == 1


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("uint64[1000000] many\nuint8[4] few\n", "Could not deserialize"),  # numbers are one array
        ("string[9] few\nuint8[4] more\n", "Could not deserialize|string"),
        ("string[300000] many\n", "at most 10000 values, got 300002"),
        ("Part[200] parts\n" + "=" * 80 + "\nMSG: pkg/Part\nstring[200] many\n", "at most 10000 values, got 40402"),
        ("Part[] parts\n" + "=" * 80 + "\nMSG: pkg/Part\nuint8 only\n", "lists of messages, got pkg/msg/Part: more"),
        ("Part[] parts\n" + "=" * 80 + "\nMSG: pkg/Part\n", "lists of messages, got pkg/msg/Part: more"),
        ("Count inner\n", "RecursionError"),
    ],
)
def test_a_message_of_too_many_values_is_refused(tmp_path, definition, expected):
    path = count_bag(tmp_path, definition, "ros2msg")
    with pytest.raises(ValueError, match=f"count.mcap: .*({expected})"):
        list(Bag(path).messages(["/count0"]))


def test_every_type_that_is_read_passes_the_limits():
    from uov_hf.bags import messages
    from uov_hf.bags.checked_readers import check_sizes

    names = [messages.POINT_CLOUD, messages.IMAGE, messages.COMPRESSED_IMAGE, messages.CAMERA_INFO, messages.ODOMETRY]
    for store in (Stores.LATEST, Stores.ROS2_FOXY):
        for name in (*names, messages.TRANSFORMS[0]):
            assert check_sizes(get_typestore(store), name) is None


def database_of(folder):
    with small_bags.open_bag(folder, "db3") as bag:
        bag.cloud("/points", START, "lidar", AHEAD)
    (path,) = (folder / "drive").glob("*.db3")
    return path


@pytest.mark.parametrize(
    ("script", "named"),
    [
        (
            "DROP TABLE schema; CREATE VIEW schema AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) "
            "SELECT max(x) AS schema_version FROM c",
            "schema, whose",
        ),
        (
            "CREATE TABLE copy(id INTEGER PRIMARY KEY, topic_id, timestamp, data BLOB AS (zeroblob(300000000))); "
            "INSERT INTO copy(topic_id, timestamp) SELECT topic_id, timestamp FROM messages; DROP TABLE messages; "
            "ALTER TABLE copy RENAME TO messages",
            "messages.data, whose",
        ),
        ("CREATE VIRTUAL TABLE more USING fts3(a)", "more, whose"),
        (
            "CREATE TABLE copy AS SELECT * FROM topics; DROP TABLE topics; ALTER TABLE copy RENAME TO topics",
            "primary key `id`",
        ),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_database_of_computed_values_is_refused(tmp_path, script, named, alone):
    path = database_of(tmp_path)
    with sqlite3.connect(path) as database:
        database.executescript(script)
    with pytest.raises(ValueError, match=f"drive.*: expected .*{named}"):
        inspect_bag(path if alone else path.parent)


def test_a_usual_database_is_read(tmp_path):
    path = database_of(tmp_path)
    with sqlite3.connect(path) as database:
        database.execute("CREATE UNIQUE INDEX own ON messages(id)")
    for bag in (path, path.parent):
        assert [raw.connection.msgtype for raw in Bag(bag).raw_messages(["/points"])] == [CLOUD]


def pack_lz4(data):
    return lz4.frame.compress(data, store_size=False)


@pytest.mark.parametrize(
    ("pack", "make"),
    [
        (zstd.compress, zstd.ZstdDecompressor),
        (bz2.compress, bz2.BZ2Decompressor),
        (pack_lz4, lz4.frame.LZ4FrameDecompressor),
    ],
)
def test_a_chunk_is_unpacked_to_a_usual_size_only(pack, make, monkeypatch):
    monkeypatch.setattr(checked_readers, "UNPACKED_SIZE", 1000)
    content = bytes(range(256)) * 40
    assert checked_readers.unpack(pack(content), make) == content
    assert checked_readers.unpack(pack(content) + pack(b"more"), make) == content + b"more"
    for wrong in (pack(bytes(10**6)), pack(content)[:-20]):
        with pytest.raises(ValueError, match=f"expected {len(wrong)} compressed bytes to be whole and of a usual"):
            checked_readers.unpack(wrong, make)


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.STORAGE, CompressionMode.FILE])
@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_compressed_bag_of_ros2_is_read_within_limits(tmp_path, mode, plugin, monkeypatch):
    if (mode, plugin) == (CompressionMode.STORAGE, StoragePlugin.SQLITE3):
        pytest.skip("has no compression of its own")
    writer = Writer(tmp_path / "drive", version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        small_bags.BagWriter("mcap", writer).cloud("/points", START, "lidar", np.tile(AHEAD, 3000))
    (message,) = [message for _, message in Bag(tmp_path / "drive").messages(["/points"])]
    assert message.data.tobytes() == np.tile(AHEAD, 3000).tobytes()
    if mode != CompressionMode.FILE:
        monkeypatch.setattr(checked_readers, "UNPACKED_SIZE", 1000)
        with pytest.raises(ValueError, match="drive: expected a whole ROS bag, got: .* compressed bytes to be whole"):
            list(Bag(tmp_path / "drive").messages(["/points"]))


@pytest.mark.parametrize("kind", [Ros1Writer.CompressionFormat.BZ2, Ros1Writer.CompressionFormat.LZ4])
def test_a_compressed_bag_of_ros1_is_read_within_limits(tmp_path, kind, monkeypatch):
    writer = Ros1Writer(tmp_path / "drive.bag")
    writer.set_compression(kind)
    with writer:
        small_bags.BagWriter("bag", writer).cloud("/points", START, "lidar", np.tile(AHEAD, 30_000))
    bag = Bag(tmp_path / "drive.bag")
    (message,) = [message for _, message in bag.messages(["/points"])]
    assert message.data.tobytes() == np.tile(AHEAD, 30_000).tobytes()
    monkeypatch.setattr(checked_readers, "UNPACKED_SIZE", 1000)
    with pytest.raises(ValueError, match=r"drive.bag: expected a whole ROS bag, got: .* compressed bytes to be whole"):
        list(Bag(tmp_path / "drive.bag").messages(["/points"]))
