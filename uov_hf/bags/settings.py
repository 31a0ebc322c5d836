"""`rosbag.yaml`: what a bag does not contain, and which of its topics count where there are several."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uov_hf.own_car.calibration import Optics, parse_intensity_max, parse_lidar2cam, parse_motion, parse_optics
from uov_hf.vocabulary.lines import Entry, read_yaml


SETTINGS_NAME = "rosbag.yaml"


@dataclass(frozen=True, eq=False)
class CameraSettings:
    """A camera of the settings; what is None comes from the bag."""

    topic: str
    optics: Optics | None = None
    lidar2cam: NDArray[np.float64] | None = None
    time_offset: int = 0  # microseconds to add to the camera's timestamps


@dataclass(frozen=True, eq=False)
class BagSettings:
    """The content of a settings file; what is None comes from the bag."""

    path: Path  # of the file, or where it is looked for
    intensity_max: float | None = None
    lidars: list[str] | None = None  # topics; the first is the one whose frame and times count
    cameras: Mapping[str, CameraSettings] | None = None  # by name
    odometry: str | None = None  # a topic, or a tf frame
    lidar2body: NDArray[np.float64] | None = None  # (4, 4): to the part of the car that the odometry is of
    motion_compensation: bool = True


def find_settings(bag: Path, root: Path) -> BagSettings:
    """The settings in the folder of a bag, or in the root; the defaults where there are none."""
    folders = [bag if bag.is_dir() else bag.parent, bag.parent, root if root.is_dir() else root.parent]
    for folder in folders:
        if (path := folder / SETTINGS_NAME).is_file():
            return read_settings(path)
    return BagSettings(folders[0] / SETTINGS_NAME)


def read_settings(path: Path) -> BagSettings:
    """Read and check a settings file; docs/how_to/rosbag.md lists its keys.

    Raises:
        ValueError: A key is missing or unknown, or a value impossible; the message has the file and the line.
    """
    optional = ("lidars", "cameras", "odometry", "lidar2body", "motion_compensation")
    top = read_yaml(path, "the settings of bags").mapping(("intensity_max",), optional)
    return BagSettings(
        path=path,
        intensity_max=parse_intensity_max(top["intensity_max"]),
        lidars=[entry.text() for entry in top["lidars"].items("a topic")] if "lidars" in top else None,
        cameras={name: _parse_camera(name, entry) for name, entry in top["cameras"].mapping().items()}
        if "cameras" in top
        else None,
        odometry=top["odometry"].text() if "odometry" in top else None,
        lidar2body=parse_motion(top["lidar2body"]) if "lidar2body" in top else None,
        motion_compensation=top["motion_compensation"].boolean() if "motion_compensation" in top else True,
    )


def _parse_camera(name: str, entry: Entry) -> CameraSettings:
    optional = ("image_size", "intrinsics", "distortion", "lidar2cam", "cam2lidar", "time_offset")
    keys = entry.mapping(("topic",), optional)
    optics = [key for key in ("image_size", "intrinsics", "distortion") if key in keys]
    if optics and not {"image_size", "intrinsics"} <= set(optics):
        raise entry.error(
            f"expected camera {name!r} to have `image_size` and `intrinsics` together, got {', '.join(optics)} only."
        )
    return CameraSettings(
        topic=keys["topic"].text(),
        optics=parse_optics(keys) if optics else None,
        lidar2cam=parse_lidar2cam(name, entry, keys),
        time_offset=keys["time_offset"].integer() if "time_offset" in keys else 0,
    )
