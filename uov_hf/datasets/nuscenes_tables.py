"""The tables of a nuScenes root: rows by token, the sensor captures of every key frame, and the official splits."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from uov_hf.geometry.rotation import quaternion_to_matrix, rigid_motion


LIDAR = "LIDAR_TOP"
# In the order of the paper: clockwise from the front.
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
CHANNELS = frozenset((LIDAR, *CAMERAS))

STREET = "A synthetic street of uov-hf"  # the description of every scene that `uov_hf.synthetic` writes

KEY_FRAME = re.compile(rb'"is_key_frame"\s*:\s*(true)')
TOKEN = re.compile(rb'"token"\s*:\s*"([^"]*)"')
BLOCK_SIZE, LONGEST_ROW = 1 << 16, 1 << 20  # bytes; a block that fits the processor's cache is searched twice as fast

Row = dict[str, Any]  # of a JSON table
Value = TypeVar("Value")


class Mount(NamedTuple):
    """How a sensor is mounted on the vehicle: its channel, its pose (4, 4), and the matrix of a camera (3 rows)."""

    channel: str
    sensor2ego: NDArray[np.float64]
    intrinsics: list[list[float]]


class Capture(NamedTuple):
    """One sensor's file of a key frame, and how the sensor is mounted on the vehicle."""

    token: str
    sample_token: str
    ego_pose_token: str
    timestamp: int
    filename: str
    image_size: tuple[int, int]
    channel: str
    sensor2ego: NDArray[np.float64]
    intrinsics: list[list[float]]


class Table(dict[str, Value]):
    """The rows of a JSON table by token, each as `parse` returns it; rows for which it returns None are dropped.

    Args:
        path (`Path`): The table.
        parse (`Callable`): From a row to what is kept of it.
        pattern, wanted (`re.Pattern` and container of `bytes`, *optional*):
            For a table of millions of rows of which few matter: only rows in which the group of the pattern has a
            wanted value are parsed, so that neither the file nor its rows are ever in memory as a whole. The rows
            must be flat, without inner braces.

    Raises:
        ValueError: The file is missing, cut short or no such table.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[Row], Value | None],
        pattern: re.Pattern[bytes] | None = None,
        wanted: Container[bytes] = frozenset(),
    ):
        self.path = path

        def keep(row: Row) -> tuple[str, Value | None]:
            return _text(row, "token"), parse(row)

        try:
            with open(path, "rb") as file:
                # Without a pattern, every row is reduced as soon as the parser has read it.
                rows = (
                    json.load(file, object_hook=keep) if pattern is None else map(keep, _scan(file, pattern, wanted))
                )
                super().__init__((token, value) for token, value in rows if value is not None)
        except KeyError as error:
            raise ValueError(f"{path}: expected rows with {error}, got one without.") from error
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, ValueError) and str(path.parent) in str(error):
                raise  # of a row that refers to another table
            raise ValueError(f"{path}: expected a table of nuScenes, got: {error}") from error

    def __missing__(self, token: str) -> Value:
        raise ValueError(f"{self.path}: expected a row with token {token!r}, as another table refers to it; got none.")


def _scan(file: BinaryIO, pattern: re.Pattern[bytes], wanted: Container[bytes]) -> Iterator[Row]:
    """The rows of a table `[{…}, {…}, …]` with a wanted match, block by block."""
    rest = b""
    while (block := file.read(BLOCK_SIZE)) and len(rest) < LONGEST_ROW:
        text = rest + block
        end = text.rfind(b"}") + 1
        rows = [
            text[text.rfind(b"{", 0, match.start()) : text.find(b"}", match.end()) + 1]
            for match in pattern.finditer(text, 0, end)
            if match[1] in wanted
        ]
        yield from json.loads(b"[" + b",".join(rows) + b"]")  # a call for each row would take as long as the rows
        rest = text[end:]
    if rest.strip() not in (b"]", b"[]"):
        raise json.JSONDecodeError("Expecting ']' after the last row; the file is cut short", "", 0)


class Tables(NamedTuple):
    """The captures of one version of a root."""

    version: str  # name of the folder, such as `v1.0-mini`
    # Scene name and captures by channel of every sample: scenes in the order of their table, samples by time.
    samples: list[tuple[str, dict[str, Capture]]]
    # Quaternion (w, x, y, z) and translation of the vehicle at every capture, in a fraction of a matrix's memory.
    ego_poses: Table[tuple[float, ...]]

    def sensor2global(self, capture: Capture) -> NDArray[np.float64]:
        """Pose (4, 4) of a sensor in the city at its capture."""
        pose = self.ego_poses[capture.ego_pose_token]
        return rigid_motion(quaternion_to_matrix(pose[:4]), pose[4:]) @ capture.sensor2ego


def read_tables(folder: Path) -> Tables:
    """The captures of all key frames of a version.

    Raises:
        ValueError: A table is missing, cut short, or refers to a row that another one does not have.
    """
    scenes = Table(folder / "scene.json", lambda row: _text(row, "name"))
    scene_of = Table(folder / "sample.json", lambda row: scenes[_text(row, "scene_token")])
    channels = Table(folder / "sensor.json", lambda row: _text(row, "channel"))
    mounts = Table(folder / "calibrated_sensor.json", lambda row: _mount(row, channels))
    rows = Table(folder / "sample_data.json", lambda row: _key_capture(row, mounts), KEY_FRAME, {b"true"})
    captures: dict[str, dict[str, Capture]] = defaultdict(dict)
    for capture in rows.values():
        captures[capture.sample_token][capture.channel] = capture
    if blind := [token for token in scene_of if LIDAR not in captures[token]]:
        raise ValueError(
            f"{folder / 'sample_data.json'}: expected a {LIDAR} key frame for sample {blind[0]}, got none."
        )
    place = {scene: index for index, scene in enumerate(scenes.values())}
    samples = [(scene_of[token], by_channel) for token, by_channel in captures.items()]
    samples.sort(key=lambda sample: (place[sample[0]], sample[1][LIDAR].timestamp))
    return Tables(folder.name, samples, _read_poses(folder, {capture.ego_pose_token for capture in rows.values()}))


def _read_poses(folder: Path, tokens: set[str]) -> Table[tuple[float, ...]]:
    wanted = {token.encode() for token in tokens}
    poses = Table(
        folder / "ego_pose.json",
        lambda row: (*_quaternion(row), *_numbers(row, "translation", 3)),
        *(TOKEN, wanted),
    )
    for token in tokens:
        poses[token]  # a missing pose is an error now, not in the middle of a training
    return poses


def _mount(row: Row, channels: Table[str]) -> Mount:
    sensor2ego = rigid_motion(quaternion_to_matrix(_quaternion(row)), _numbers(row, "translation", 3))
    intrinsics = row["camera_intrinsic"] and np.reshape([_numbers(row, "camera_intrinsic", 9)], (3, 3)).tolist()
    return Mount(channels[_text(row, "sensor_token")], sensor2ego, intrinsics)


def _key_capture(row: Row, mounts: Table[Mount]) -> Capture | None:
    mount = mounts[_text(row, "calibrated_sensor_token")] if row["is_key_frame"] else None
    if mount is None or mount.channel not in CHANNELS:
        return None
    tokens = _text(row, "token"), _text(row, "sample_token"), _text(row, "ego_pose_token")
    size = _whole(row, "height", 2**31), _whole(row, "width", 2**31)
    return Capture(*tokens, _whole(row, "timestamp", 2**63), _text(row, "filename"), size, *mount)


def _text(row: Row, name: str) -> str:
    value: object = row[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} {value!r:.80}, which is no text")
    return value


def _whole(row: Row, name: str, limit: int) -> int:
    value: object = row[name]
    if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
        raise TypeError(f"{name} {value!r:.80}, which is no whole number below {limit:,}")
    return value


def _quaternion(row: Row) -> list[float]:
    if not any(quaternion := _numbers(row, "rotation", 4)):
        raise ValueError("rotation 0, 0, 0, 0, which is none")
    return quaternion


def _numbers(row: Row, name: str, count: int) -> list[float]:
    """The numbers of a list, or of a list of lists."""
    values = np.array(row[name], np.float64).ravel()
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{name} {row[name]!r:.80}, which is not {count} finite numbers")
    return values.tolist()


def check_categories(path: Path, names: list[str]) -> None:
    """A `ValueError` if the ids of the label files mean other classes than those of the vocabulary."""
    categories = Table(path, lambda row: (row.get("index"), row["name"]))
    for index, name in categories.values():
        if type(index) is not int or not 0 <= index < len(names) or names[index] != name:
            raise ValueError(f"{path}: expected the 32 classes of nuScenes-lidarseg, got {name!r} with index {index}.")


def find_version(root: Path) -> str:
    """The only version of a root."""
    versions = sorted(path.parent.name for path in root.glob("v1.0-*/scene.json"))
    if len(versions) != 1:
        raise ValueError(
            f"{root}: expected one folder v1.0-… with the tables, got {', '.join(versions) or 'none'}; "
            "name the version (`--dataset_config v1.0-mini`)."
        )
    return versions[0]


def is_street(folder: Path) -> bool:
    """Whether all scenes of a version are of the synthetic street, by the description in their table."""
    path = folder / "scene.json"
    scenes = Table(path, lambda row: row.get("description") == STREET) if path.is_file() else {}
    return bool(scenes) and all(scenes.values())


def read_official_splits() -> dict[str, set[str]]:
    """Scene names of the official splits, and of the paper's `parametrizing` and `verifying`."""
    content = yaml.safe_load(Path(__file__).with_name("nuscenes_splits.yaml").read_text())
    splits = {name: set(_scene_names(ranges)) for name, ranges in content.items()}
    return splits | {"parametrizing": splits["train"] - splits["verifying"]}


def _scene_names(ranges: str) -> list[str]:
    """`0001-0003 0010` → scene-0001, scene-0002, scene-0003, scene-0010."""
    spans = [(int(part[:4]), int(part[-4:])) for part in ranges.split()]
    return [f"scene-{number:04d}" for first, last in spans for number in range(first, last + 1)]
