"""ROS 1 bags and ROS 2 bags (.db3, .mcap) as topics and messages, by the library `rosbags`."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uov_hf.bags.messages import Stamped, frame_of, microseconds
from uov_hf.bags.settings import SETTINGS_NAME


if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.typesys.store import Typestore


# Programs that save the messages of a bag without its end.
REPAIRS = {".bag": "`rosbag reindex`", ".mcap": "`mcap recover`", ".db3": "`sqlite3`'s command `.recover`"}


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: its type as ROS 2 writes it (`sensor_msgs/msg/Image`), and the number of its messages."""

    name: str
    type: str
    num_messages: int


@dataclass(frozen=True)
class Moment:
    """Where a message is in a bag, and when it was measured."""

    topic: str
    log_time: int  # nanoseconds: when it was recorded
    place: int  # among the messages of the topic with the same `log_time`
    time: int  # microseconds: of its header, or when it was recorded if the header has none
    frame: str  # the coordinate frame of its header


@dataclass(frozen=True)
class RawMessage:
    """A message as it is stored."""

    connection: "Connection"
    log_time: int  # nanoseconds
    place: int  # among the messages of the topic with the same `log_time`
    data: bytes


class Bag:
    """A bag: a `.bag`, `.mcap` or `.db3` file, or the folder of a ROS 2 bag with its `metadata.yaml`.

    Args:
        path (`Path`): The bag.

    Raises:
        ValueError: It is no whole bag.
        ImportError: `rosbags` is not installed.
    """

    def __init__(self, path: Path):
        self.path = path
        self._reader: AnyReader | None = None
        self._process = 0
        self._checked_types: set[str] = set()
        reader = self._open()
        try:  # metadata.yaml may have values of any type
            self.seconds = index(reader.duration) / 1e9 if reader.message_count else 0.0  # from first to last message
            topics = sorted(reader.topics.items())
            self.topics = {name: Topic(name, info.msgtype or "several types", info.msgcount) for name, info in topics}
            for topic in self.topics.values():
                if not (isinstance(topic.name, str) and isinstance(topic.type, str)):
                    raise ValueError(f"expected texts as the name and the type of a topic, got {topic.name!r}.")
                if not 0 <= index(topic.num_messages) < 2**63:
                    raise ValueError(f"expected the number of messages of {topic.name} in 64 bits, got another one.")
        except Exception as error:
            raise self._broken(error) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_reader": None}  # an open file does not go to another process

    @property
    def is_ros2(self) -> bool:
        return self.path.suffix != ".bag"

    def of_type(self, *types: str) -> list[str]:
        """The names of the topics of these types that have messages, sorted."""
        return [name for name, topic in self.topics.items() if topic.type in types and topic.num_messages]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Moment, Any]]:
        """The messages of some topics, in the order of recording.

        Raises:
            ValueError: The bag is broken.
        """
        for raw in self.raw_messages(topics):
            message = self.decode(raw)
            yield _moment(raw, message), message

    def read(self, moment: Moment) -> Any:
        """One message."""
        found = self.raw_messages([moment.topic], moment.log_time, moment.log_time + 1)
        for raw in islice(found, moment.place, None):
            return self.decode(raw)
        raise ValueError(f"{self.path}: expected the message of {moment.topic} at {moment.log_time} ns, got none.")

    def raw_messages(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[RawMessage]:
        """The messages of some topics as they are stored, recorded from `start` until before `stop` (nanoseconds)."""
        reader = self._open()
        connections = [connection for connection in reader.connections if connection.topic in topics]
        if not connections:  # `rosbags` reads all topics where none is given
            return
        last: dict[str, tuple[int, int]] = {}
        try:
            for connection, log_time, data in reader.messages(connections, start, stop):
                before, place = last.get(connection.topic, (-1, 0))
                place = place + 1 if log_time == before else 0
                last[connection.topic] = log_time, place
                yield RawMessage(connection, log_time, place, data)
        except GeneratorExit:
            raise
        except Exception as error:  # of any kind, from a bag that is cut short
            raise self._broken(error) from error

    def decode(self, message: RawMessage) -> Any:
        """The content of a message."""
        from uov_hf.bags.checked_readers import check_sizes

        name = message.connection.msgtype
        try:
            if name not in self._checked_types:
                check_sizes(self.typestore, name)
                self._checked_types.add(name)
            return self._open().deserialize(message.data, name)
        except Exception as error:
            raise self._broken(error) from error

    @property
    def typestore(self) -> "Typestore":
        """The types of the bag's messages."""
        return self._open().typestore

    def _open(self) -> "AnyReader":
        """The reader of this process: a position in a file is not shared with a process that was forked."""
        if self._reader is None or self._process != os.getpid():
            self._reader, self._process = self._make_reader(), os.getpid()
        return self._reader

    def _make_reader(self) -> "AnyReader":
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore

            from uov_hf.bags.checked_readers import CheckedReader
        except ImportError as error:
            raise ImportError(f"{self.path}: ROS bags need `rosbags`: pip install 'uov-hf[bags]'.") from error
        try:
            # A .db3 of ROS 2 before Iron has no definitions of its types.
            reader = AnyReader([self.path], default_typestore=get_typestore(Stores.LATEST))
            if self.is_ros2:
                reader.readers = [CheckedReader(self.path)]
            reader.open()
        except Exception as error:
            raise self._broken(error) from error
        return reader

    def _broken(self, error: Exception) -> ValueError:
        if self.path.is_file() and not self.path.stat().st_size:
            return ValueError(f"{self.path}: expected a ROS bag, got an empty file. Copy or download it again.")
        reason, repair = f"{type(error).__name__}: {error}".rstrip(". "), REPAIRS.get(self.path.suffix)
        way_out = f" If its recording was interrupted, repair it with {repair}." if repair else ""
        return ValueError(
            f"{self.path}: expected a whole ROS bag, got: {reason}.{way_out} If it was "
            "copied or downloaded, do that again."
        )


@contextmanager
def errors_of_bag(path: Path) -> Iterator[None]:
    """Raise a `ValueError` that names the bag, or its settings, for every error of a content that is no drive.

    A bag defines the types of its messages itself: a field may be missing, or be of another type.
    """
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and (str(path) in str(error) or SETTINGS_NAME in str(error)):
            raise
        raise ValueError(
            f"{path}: expected the messages of a drive, got others: {type(error).__name__}: {error}"
        ) from error


def _moment(raw: RawMessage, message: Any) -> Moment:
    topic, recorded = raw.connection.topic, raw.log_time // 1000
    if not hasattr(message, "header"):
        return Moment(topic, raw.log_time, raw.place, recorded, "")
    stamped: Stamped = message
    return Moment(topic, raw.log_time, raw.place, microseconds(stamped) or recorded, frame_of(stamped))
