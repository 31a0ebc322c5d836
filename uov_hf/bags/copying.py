"""A copy of a bag with further topics: each message of the original as it is, with its type, time and settings."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uov_hf.bags.reading import Bag, RawMessage


if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag1 import Writer as Ros1Writer
    from rosbags.rosbag2 import Writer as Ros2Writer
    from rosbags.typesys.store import Typestore


class BagCopy:
    """An open copy, from [`copy_bag`]."""

    def __init__(self, writer: "Ros1Writer | Ros2Writer", typestore: "Typestore", is_ros2: bool):
        self.typestore = typestore
        self._writer, self._is_ros2 = writer, is_ros2
        self._connections: dict[Any, Connection] = {}

    def copy(self, message: RawMessage) -> None:
        """Write a message of the original as it is."""
        original = message.connection
        names = ("offered_qos_profiles",) if self._is_ros2 else ("callerid", "latching")
        # With them, a player sends `/tf_static` to nodes that start later.
        settings = {name: getattr(original.ext, name) for name in names}
        self._write(original.topic, original.msgtype, settings, message.log_time, message.data)

    def write(self, topic: str, message: Any, log_time: int) -> None:
        """Write a message of one's own."""
        name = message.__msgtype__
        serialize = self.typestore.serialize_cdr if self._is_ros2 else self.typestore.serialize_ros1
        self._write(topic, name, {}, log_time, serialize(message, name))

    def _write(self, topic: str, msgtype: str, settings: dict[str, Any], log_time: int, data: Any) -> None:
        key = (topic, msgtype, str(settings))
        if key not in self._connections:
            self._connections[key] = self._writer.add_connection(topic, msgtype, typestore=self.typestore, **settings)
        self._writer.write(self._connections[key], log_time, data)


@contextmanager
def copy_bag(bag: Bag, output_dir: Path, name: str) -> Iterator[BagCopy]:
    """An empty copy, which `copy` and `write` fill. A bag of ROS 2 becomes .mcap, which Foxglove opens.

    The result is `output_dir/name` (ROS 2) or `output_dir/name.bag` (ROS 1), once everything is written. It replaces
    one of an earlier call.
    """
    from rosbags.rosbag1 import Writer as Ros1Writer
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as Ros2Writer

    partial, final = output_dir / ".partial", copy_path(bag, output_dir, name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer: Ros1Writer | Ros2Writer
    if bag.is_ros2:
        writer = Ros2Writer(partial / final.name, version=9, storage_plugin=StoragePlugin.MCAP)
    else:
        writer = Ros1Writer(partial / final.name)
    try:
        with writer:
            yield BagCopy(writer, bag.typestore, bag.is_ros2)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # it may have gigabytes
        raise
    if final.is_dir():  # renamed before it is removed: a run killed meanwhile leaves no part that looks whole
        final.replace(partial / "earlier")
    (partial / final.name).replace(final)
    shutil.rmtree(partial)


def copy_path(bag: Bag, output_dir: Path, name: str) -> Path:
    """Where [`copy_bag`] writes."""
    return output_dir / (name if bag.is_ros2 else f"{name}.bag")
