"""The tables of a nuScenes root, with tokens that depend on names and the seed only."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uov_hf.geometry.rotation import matrix_to_quaternion
from uov_hf.synthetic.cameras import CAMERAS
from uov_hf.vocabulary import load_vocabulary


LOCATIONS = ("singapore-onenorth", "boston-seaport", "singapore-queenstown", "singapore-hollandvillage")
VISIBILITY = {"1": (0, 40), "2": (40, 60), "3": (60, 80), "4": (80, 100)}  # token: per cent of the object
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
)

Row = dict[str, Any]
Tables = dict[str, list[Row]]


def make_token(*names: Any) -> str:
    """32 hexadecimal digits, the same for the same names."""
    return hashlib.md5("/".join(map(str, names)).encode(), usedforsecurity=False).hexdigest()


def fixed_tables() -> Tables:
    """The tables that are the same in every root: sensors, categories, attributes, levels of visibility."""
    raw_names = load_vocabulary("nuscenes").raw_names
    channels = [("LIDAR_TOP", "lidar"), *((camera.channel, "camera") for camera in CAMERAS)]
    levels = {token: (f"v{low}-{high}", f"between {low} and {high}%") for token, (low, high) in VISIBILITY.items()}
    return {
        "sensor": [{"token": make_token("sensor", c), "channel": c, "modality": m} for c, m in channels],
        "category": [named_row("category", name) | {"index": index} for index, name in enumerate(raw_names)],
        "attribute": [named_row("attribute", name) for name in ATTRIBUTES],
        "visibility": [
            {"token": token, "level": level, "description": f"visibility of whole object is {share}"}
            for token, (level, share) in levels.items()
        ],
    }


def named_row(table: str, name: str) -> Row:
    return {"token": make_token(table, name), "name": name, "description": ""}


def write_tables(folder: Path, tables: Tables) -> None:
    """One JSON file per table, as in nuScenes."""
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")


def chain(rows: list[Row]) -> None:
    """Link rows in the order of time by `prev` and `next`."""
    for before, row in zip([None, *rows], rows, strict=False):
        row["prev"] = before["token"] if before else ""
        row["next"] = ""
        if before:
            before["next"] = row["token"]


def transform_columns(pose: NDArray[np.float64]) -> dict[str, list[float]]:
    """`translation` and `rotation` (quaternion w, x, y, z) of a pose (4, 4)."""
    return {"translation": pose[:3, 3].tolist(), "rotation": matrix_to_quaternion(pose[:3, :3]).tolist()}


def attribute_of(category: str, speed: float) -> list[str]:
    """Attribute tokens of an object: whether it moves, or has a rider."""
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        name = "cycle.with_rider" if speed else "cycle.without_rider"
    elif category.startswith("vehicle."):
        name = "vehicle.moving" if speed else "vehicle.parked"
    elif category.startswith("human."):
        name = "pedestrian.moving" if speed else "pedestrian.standing"
    else:
        return []
    return [make_token("attribute", name)]


def visibility_of(share: float) -> str:
    """Visibility token of the visible share (0…1) of an object."""
    return next((token for token, (_, high) in VISIBILITY.items() if 100 * share < high), "4")
