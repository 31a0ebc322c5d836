"""The calibration file of your own car, checked line by line."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from uov_hf.foreign_paths import inside
from uov_hf.geometry.projection import Camera
from uov_hf.geometry.rotation import is_rigid
from uov_hf.own_car.lens import NUM_COEFFICIENTS, Lens
from uov_hf.vocabulary import load_vocabulary
from uov_hf.vocabulary.lines import Entry, read_yaml


CALIBRATION_NAMES = ("calibration.yaml", "calibration.yml", "calibration.json")
MAX_SIDE = 2**31 - 1  # of an image: a row of frames has sizes of 32 bits


@dataclass(frozen=True, eq=False)
class MountedCamera:
    """A camera as it is mounted on the car."""

    camera: Camera  # the pinhole camera of the images in a frame
    lens: Lens | None  # of the image files; None without distortion
    time_offset: int  # microseconds to add to the camera's timestamps


@dataclass(frozen=True, eq=False)
class Optics:
    """A camera without its place."""

    intrinsics: NDArray[np.float64]  # (3, 3): of the image as it is stored
    image_size: tuple[int, int]  # height, width
    lens: Lens | None  # None without distortion

    def mount(self, lidar2cam: NDArray[np.float64], time_offset: int = 0) -> MountedCamera:
        """The camera at its place on the car."""
        intrinsics = self.intrinsics if self.lens is None else self.lens.pinhole_intrinsics
        return MountedCamera(Camera(lidar2cam, intrinsics, self.image_size), self.lens, time_offset)


@dataclass(frozen=True, eq=False)
class Calibration:
    """The content of a calibration file."""

    path: Path
    intensity_max: float  # full scale of the lidar's intensity
    cameras: dict[str, MountedCamera]  # by name
    lidar2body: NDArray[np.float64]  # (4, 4): from the lidar to the part of the car that `poses.txt` tracks
    taxonomy: str | None  # vocabulary of the label files: its name, or the path of its file
    num_columns: int | None  # of `.bin` files
    motion_compensation: bool  # whether points with times are corrected for the car's motion


def make_optics(
    model: str, coefficients: NDArray[np.float64], intrinsics: NDArray[np.float64], image_size: tuple[int, int]
) -> Optics:
    """The optics of a lens of a model; without distortion if all its coefficients are 0.

    Raises:
        ValueError: The number of coefficients is not of this model, or no image can be straightened by them.
        ImportError: OpenCV is not installed.
    """
    if len(coefficients) not in NUM_COEFFICIENTS[model]:
        counts = " or ".join(map(str, NUM_COEFFICIENTS[model]))
        raise ValueError(f"{model} has {counts} coefficients, got {len(coefficients)}.")
    lens = Lens(model, coefficients, intrinsics, image_size) if coefficients.any() else None
    return Optics(intrinsics, image_size, lens)


def find_calibration(*folders: Path) -> Path:
    """The calibration file in the first of the folders that has one.

    Raises:
        ValueError: None has; the message shows the smallest valid file.
    """
    for folder in folders:
        for name in CALIBRATION_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise ValueError(
        f"{folders[0]}: expected a calibration.yaml or calibration.json here or above, got none. Without "
        "cameras, one line is enough: `intensity_max: 255` (the full scale of the lidar's intensity)."
    )


def read_calibration(path: Path) -> Calibration:
    """Read and check a calibration file; docs/how_to/own_car.md lists its keys.

    Raises:
        ValueError: A key is missing or unknown, or a value impossible; the message has the file and the line.
        ImportError: A lens has distortion, and OpenCV is not installed.
    """
    top = read_yaml(path, "a calibration").mapping(
        ("intensity_max",), ("cameras", "lidar2body", "taxonomy", "num_columns", "motion_compensation")
    )
    cameras = top["cameras"].mapping() if "cameras" in top else {}
    return Calibration(
        path=path,
        intensity_max=parse_intensity_max(top["intensity_max"]),
        cameras={name: _parse_camera(name, entry) for name, entry in cameras.items()},
        lidar2body=parse_motion(top["lidar2body"]) if "lidar2body" in top else np.eye(4),
        taxonomy=_parse_taxonomy(top["taxonomy"]) if "taxonomy" in top else None,
        num_columns=_parse_num_columns(top["num_columns"]) if "num_columns" in top else None,
        motion_compensation=top["motion_compensation"].boolean() if "motion_compensation" in top else True,
    )


def parse_intensity_max(entry: Entry) -> float:
    """The full scale of the lidar's intensity."""
    intensity_max = _numbers(entry, ())
    if not intensity_max > 0:
        raise entry.error(f"expected `intensity_max` to be above 0, got {intensity_max:g}.")
    return float(intensity_max)


def _parse_camera(name: str, entry: Entry) -> MountedCamera:
    keys = entry.mapping(("image_size", "intrinsics"), ("lidar2cam", "cam2lidar", "distortion", "time_offset"))
    lidar2cam = parse_lidar2cam(name, entry, keys)
    if lidar2cam is None:
        raise entry.error(f"expected camera {name!r} to have either `lidar2cam` or `cam2lidar`, got neither.")
    time_offset = keys["time_offset"].integer() if "time_offset" in keys else 0
    return parse_optics(keys).mount(lidar2cam, time_offset)


def parse_lidar2cam(name: str, entry: Entry, keys: Mapping[str, Entry]) -> NDArray[np.float64] | None:
    """The motion (4, 4) of a camera with the key `lidar2cam` or `cam2lidar`; None with neither."""
    motions = [key for key in ("lidar2cam", "cam2lidar") if key in keys]
    if not motions:
        return None
    if len(motions) > 1:
        raise entry.error(f"expected camera {name!r} to have either `lidar2cam` or `cam2lidar`, got both.")
    motion = parse_motion(keys[motions[0]])
    return motion if motions == ["lidar2cam"] else np.linalg.inv(motion).astype(np.float64)


def parse_optics(keys: Mapping[str, Entry]) -> Optics:
    """The optics of a camera with the keys `intrinsics`, `image_size` and, if there, `distortion`."""
    intrinsics, image_size = _parse_intrinsics(keys["intrinsics"]), _parse_image_size(keys["image_size"])
    lens = _parse_lens(keys["distortion"], intrinsics, image_size) if "distortion" in keys else None
    return Optics(intrinsics, image_size, lens)


def parse_motion(entry: Entry) -> NDArray[np.float64]:
    """A rigid motion (4, 4)."""
    motion = _numbers(entry, (4, 4))
    if not is_rigid(motion):
        raise entry.error(
            f"expected {entry.name} to be a rotation and a translation in metres, with the last row (0, 0, 0, 1), got "
            f"{motion.tolist()}."
        )
    return motion


def _parse_intrinsics(entry: Entry) -> NDArray[np.float64]:
    intrinsics = _numbers(entry, (3, 3))
    if (intrinsics[2] != (0, 0, 1)).any() or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise entry.error(
            f"expected `intrinsics` to be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, got {intrinsics.tolist()}."
        )
    return intrinsics


def _parse_image_size(entry: Entry) -> tuple[int, int]:
    height, width = _numbers(entry, (2,))
    if height % 1 or width % 1 or min(height, width) < 1 or max(height, width) > MAX_SIDE:
        raise entry.error(f"expected `image_size` to be [height, width] in pixels, got [{height:g}, {width:g}].")
    return int(height), int(width)


def _parse_lens(entry: Entry, intrinsics: NDArray[np.float64], image_size: tuple[int, int]) -> Lens | None:
    """The lens; None if all its coefficients are 0."""
    keys = entry.mapping(("model", "coefficients"))
    model = keys["model"].text()
    if model not in NUM_COEFFICIENTS:
        raise keys["model"].error(f"the lens models are {', '.join(NUM_COEFFICIENTS)}; got {model!r}.")
    coefficients = _numbers(keys["coefficients"], (None,))
    try:
        return make_optics(model, coefficients, intrinsics, image_size).lens
    except (ValueError, ImportError) as error:
        raise type(error)(str(entry.error(str(error)))) from error


def _parse_num_columns(entry: Entry) -> int:
    num_columns = entry.integer()
    if num_columns < 3:
        raise entry.error(f"expected `num_columns` to be 3 or more, as a point has x, y and z, got {num_columns}.")
    return num_columns


def _parse_taxonomy(entry: Entry) -> str:
    """The name of a vocabulary, or the path of its file in the folder of the calibration file."""
    taxonomy = entry.text()
    try:
        if taxonomy.endswith((".yaml", ".yml")):
            taxonomy = str(inside(entry.path.parent, taxonomy, entry.name))
        load_vocabulary(taxonomy)
    except (ValueError, OSError) as error:
        raise entry.error(str(error)) from error
    return taxonomy


def _numbers(entry: Entry, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """An array of this shape from a list of lists, or from one number if the shape is (); None is any length."""
    try:
        values = np.array(_plain(entry.node, len(shape)), np.float64)
    except (ValueError, TypeError):
        values = np.array(np.nan)
    fits = values.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, values.shape, strict=True)
    )
    if not fits or not np.isfinite(values).all():
        size = " x ".join("any number of" if side is None else str(side) for side in shape)
        expected = f"{size} finite numbers" if shape else "one finite number"
        raise entry.error(f"expected {entry.name} to be {expected}, got something else.")
    return values


def _plain(node: yaml.Node, depth: int) -> Any:
    """Lists of this depth, and numbers. PyYAML itself reads 1e-5, as JSON writes it, as a string.

    The depth is limited, because an alias may contain itself.
    """
    if isinstance(node, yaml.SequenceNode) and depth:
        return [_plain(child, depth - 1) for child in node.value]
    return float(node.value)
