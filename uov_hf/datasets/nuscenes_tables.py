"""The tables of a nuScenes root: rows by token, what the sensors recorded for every key frame, and the splits."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import yaml


LIDAR = "LIDAR_TOP"
# In the order of the paper: clockwise from the front.
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
CHANNELS = frozenset((LIDAR, *CAMERAS))

KEY_FRAME = re.compile(rb'"is_key_frame"\s*:\s*(true)')
TOKEN = re.compile(rb'"token"\s*:\s*"([^"]*)"')
BLOCK_SIZE, LONGEST_ROW = 1 << 16, 1 << 20  # bytes; a block that fits the processor's cache is searched twice as fast


class Capture(NamedTuple):
    """What one sensor recorded for a key frame, and how it sat on the vehicle."""

    token: str
    sample_token: str
    ego_pose_token: str
    timestamp: int
    filename: str
    image_size: tuple[int, int]
    channel: str
    sensor2ego: np.ndarray
    intrinsics: list[list[float]]


class Table(dict):
    """
    What `parse` makes of the rows of a JSON table, by token; rows of which it makes None are forgotten at once.

    Args:
        path (`Path`):
            The table.
        parse (`Callable`):
            Row -> what is kept of it.
        pattern, wanted (`re.Pattern` and container of `bytes`, *optional*):
            For a table of millions of rows, of which few matter: only those are parsed in which the pattern's group
            has a wanted value, so that neither the file nor its rows are ever in memory as a whole. The rows must be
            flat, without braces in them.

    Raises:
        ValueError: the file is missing, cut short or no such table; it names the file.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[dict[str, Any]], Any],
        pattern: re.Pattern[bytes] | None = None,
        wanted: Container[bytes] = frozenset(),
    ):
        self.path = path

        def keep(row: dict[str, Any]) -> tuple[str, Any]:
            return row["token"], parse(row)

        try:
            with open(path, "rb") as file:
                rows = (
                    json.load(file, object_hook=keep) if pattern is None else map(keep, _scan(file, pattern, wanted))
                )
                super().__init__(row for row in rows if row[1] is not None)
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected a table of nuScenes, got: {error}") from error
        except KeyError as error:
            raise ValueError(f"{path}: expected rows with {error}, got one without.") from error

    def __missing__(self, token: str):
        raise ValueError(f"{self.path}: expected a row with token {token!r}, as another table refers to it; got none.")


def _scan(file: BinaryIO, pattern: re.Pattern[bytes], wanted: Container[bytes]) -> Iterator[dict[str, Any]]:
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


def read_key_frames(tables: Path, scenes: Table) -> list[tuple[str, dict[str, Capture]]]:
    """Scene name and captures by channel of every sample: scenes in the order of their table, samples by time."""
    samples = Table(tables / "sample.json", lambda row: scenes[row["scene_token"]])
    sensors = Table(tables / "sensor.json", lambda row: row["channel"])
    mounts = Table(tables / "calibrated_sensor.json", lambda row: _mount(row, sensors))
    captures: dict[str, dict[str, Capture]] = defaultdict(dict)
    rows = Table(tables / "sample_data.json", lambda row: _key_capture(row, mounts), KEY_FRAME, {b"true"})
    for capture in rows.values():
        captures[capture.sample_token][capture.channel] = capture
    frames = [(samples[token], captures[token]) for token in samples | captures]
    blind = [token for token in samples if LIDAR not in captures[token]]
    if blind:
        raise ValueError(
            f"{tables / 'sample_data.json'}: expected a {LIDAR} key frame for sample {blind[0]}, got none."
        )
    place = {scene: index for index, scene in enumerate(scenes.values())}
    return sorted(frames, key=lambda frame: (place[frame[0]], frame[1][LIDAR].timestamp))


def read_poses(tables: Path, tokens: set[str]) -> Table:
    """Quaternion and translation, seven numbers, of these ego poses; one that is not there is an error."""
    wanted = {token.encode() for token in tokens}
    poses = Table(tables / "ego_pose.json", lambda row: (*row["rotation"], *row["translation"]), TOKEN, wanted)
    for token in tokens:
        poses[token]  # now, not in the middle of a training
    return poses


def _mount(row: dict[str, Any], sensors: Table) -> tuple[str, np.ndarray, list[list[float]]]:
    """Channel, sensor2ego and intrinsics."""
    return (
        sensors[row["sensor_token"]],
        transform(row["rotation"], row["translation"]),
        row["camera_intrinsic"],
    )


def _key_capture(row: dict[str, Any], mounts: Table) -> Capture | None:
    mount = mounts[row["calibrated_sensor_token"]] if row["is_key_frame"] else None
    if mount is None or mount[0] not in CHANNELS:
        return None
    image_size = row["height"], row["width"]
    return Capture(
        row["token"],
        row["sample_token"],
        row["ego_pose_token"],
        row["timestamp"],
        row["filename"],
        image_size,
        *mount,
    )


def transform(rotation: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """The (4, 4) matrix of a `rotation` (quaternion w, x, y, z) and a `translation` (metres)."""
    w, x, y, z = np.array(rotation, np.float64) / np.linalg.norm(rotation)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = translation
    return matrix


def inverse(rigid: np.ndarray) -> np.ndarray:
    """The inverse of a rigid motion (4, 4)."""
    back = np.eye(4)
    back[:3, :3] = rigid[:3, :3].T
    back[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return back


def check_categories(path: Path, names: list[str]) -> None:
    """That the ids of the label files mean what the vocabulary takes them for."""
    categories = Table(path, lambda row: (row.get("index"), row["name"]))
    for index, name in categories.values():
        if index is None or not 0 <= index < len(names) or names[index] != name:
            raise ValueError(f"{path}: expected the 32 classes of nuScenes-lidarseg, got {name!r} with index {index}.")


def find_version(root: Path) -> str:
    """The only version that a root has."""
    versions = sorted(path.parent.name for path in root.glob("v1.0-*/scene.json"))
    if len(versions) != 1:
        raise ValueError(
            f"{root}: expected one folder v1.0-… with the tables, got {', '.join(versions) or 'none'}; "
            "name the version (`--dataset_config v1.0-mini`)."
        )
    return versions[0]


def read_official_splits() -> dict[str, set[str]]:
    """Scene names of every split that does not depend on a root."""
    content = yaml.safe_load(Path(__file__).with_name("nuscenes_splits.yaml").read_text())
    splits = {name: set(_scene_names(ranges)) for name, ranges in content.items()}
    return splits | {"parametrizing": splits["train"] - splits["verifying"]}


def _scene_names(ranges: str) -> list[str]:
    """`0001-0003 0010` → scene-0001, scene-0002, scene-0003, scene-0010."""
    spans = [(int(part[:4]), int(part[-4:])) for part in ranges.split()]
    return [f"scene-{number:04d}" for first, last in spans for number in range(first, last + 1)]
