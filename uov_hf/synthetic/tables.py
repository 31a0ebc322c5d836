"""The tables of a nuScenes root: rows for what was recorded, tokens that depend on nothing but names and the seed."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.synthetic.cameras import CAMERAS
from uov_hf.synthetic.surfaces import raw_names


LOCATIONS = ("singapore-onenorth", "boston-seaport", "singapore-queenstown", "singapore-hollandvillage")
VISIBILITY = {"1": (0, 40), "2": (40, 60), "3": (60, 80), "4": (80, 100)}  # token: per cent of the thing
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

Tables = dict[str, list[dict[str, Any]]]


def make_token(*names: Any) -> str:
    """32 hexadecimal digits, the same for the same names."""
    return hashlib.md5("/".join(map(str, names)).encode(), usedforsecurity=False).hexdigest()


def fixed_tables() -> Tables:
    """Tables that are the same in every root: sensors, categories, attributes, levels of visibility."""
    channels = [("LIDAR_TOP", "lidar"), *((camera.channel, "camera") for camera in CAMERAS)]
    return {
        "sensor": [{"token": make_token("sensor", c), "channel": c, "modality": m} for c, m in channels],
        "category": [
            {"token": make_token("category", name), "name": name, "description": "", "index": index}
            for index, name in enumerate(raw_names())
        ],
        "attribute": [
            {"token": make_token("attribute", name), "name": name, "description": ""} for name in ATTRIBUTES
        ],
        "visibility": [
            {
                "token": token,
                "level": f"v{low}-{high}",
                "description": f"visibility of whole object is between {low} and {high}%",
            }
            for token, (low, high) in VISIBILITY.items()
        ],
    }


def merge_tables(parts: list[Tables]) -> Tables:
    """The rows of several scenes, one after another."""
    merged = defaultdict(list)
    for tables in parts:
        for name, rows in tables.items():
            merged[name] += rows
    return dict(merged)


def write_tables(folder: Path, tables: Tables) -> None:
    """One JSON file per table, as in nuScenes."""
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")


def chain(rows: list[dict[str, Any]]) -> None:
    """Link rows in the order of time by `prev` and `next`."""
    for before, row in zip([None, *rows], rows, strict=False):
        row["prev"] = before["token"] if before else ""
        row["next"] = ""
        if before:
            before["next"] = row["token"]


def transform_columns(pose: np.ndarray) -> dict[str, list[float]]:
    """`translation` and `rotation` (quaternion w, x, y, z) of a pose (4, 4)."""
    return {"translation": pose[:3, 3].tolist(), "rotation": quaternion(pose[:3, :3]).tolist()}


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix: the main eigenvector of Bar-Itzhack's matrix."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    vector = np.linalg.eigh(matrix)[1][:, -1]
    return vector * (1 if vector[0] >= 0 else -1)


def attribute_of(category: str, speed: float) -> list[str]:
    """Attribute tokens of a thing: whether it moves, or is ridden."""
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
    """Visibility token of the share (0…1) of a thing that can be seen."""
    return next((token for token, (_, high) in VISIBILITY.items() if 100 * share < high), "4")
