"""What the readers of scans share: fields by name, the form of an array, limits of size, and optional libraries."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


logger = logging.getLogger(__name__)

AXES = ("x", "y", "z")
# Names of the intensity in the files of other programs, as `plain_name` returns them. The first in a file counts.
INTENSITY_NAMES = (
    "intensity",
    "intensities",
    "i",
    "reflectance",
    "remission",
    "remissions",
    "reflectivity",
    "reflectivities",
    "refl",
    "signal",
    "amplitude",
)
MAX_POINT_SIZE = 256  # bytes of a point with all its fields; those of lidars have 12 to 70
MAX_CHECKED = 20_000  # points whose units are looked at
MAX_HEIGHT = 2000  # metres between the lowest and the highest points, without the last percent on each side
MAX_BEAMS = 128
MAX_COLUMNS = 12  # of an array with fewer rows than columns: a point of a lidar has fewer


def plain_name(name: str) -> str:
    """A field's name without case, quotes, units in brackets and CloudCompare's prefix `scalar_`.

    `scalar_Intensity`, `Intensity [W]` and `"intensity"` are `intensity`.
    """
    name = re.sub(r"[(\[].*", "", name.strip(" \"'#/")).strip().lower()
    return name.removeprefix("scalar_").strip("_ ")


def find_field(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The field of a file that has the first of the wanted plain names; None if the file has none of them."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(plain_name(name), name)
    return next((found[name] for name in wanted if name in found), None)


def stack_fields(path: Path, fields: Mapping[str, NDArray[np.generic]]) -> NDArray[np.floating]:
    """x, y, z and, if the file has it, the intensity: `(num_points, 3 or 4)`.

    Names are compared without case, units in brackets and the prefix `scalar_` of CloudCompare. A warning names the
    fields of a file in which none is the intensity.

    Raises:
        ValueError: A coordinate is missing, or is a whole number.
    """
    plain: dict[str, NDArray[np.generic]] = {}
    for name, values in fields.items():
        plain.setdefault(plain_name(name), values)
    if not {*AXES} <= set(plain):
        raise ValueError(
            f"{path}: expected the fields x, y and z, got {', '.join(fields) or 'none'}. Rename "
            "the metric coordinates to x, y and z."
        )
    _check_metric_type(path, [plain[name].dtype for name in AXES])
    intensity = [name for name in INTENSITY_NAMES if name in plain and plain[name].ndim == 1][:1]
    if not intensity and (others := [name for name in fields if plain_name(name) not in AXES]):
        _warn_of_missing_intensity(path.with_name(f"*{path.suffix}"), tuple(others))
    columns = [plain[name] for name in (*AXES, *intensity)]
    return np.stack(columns, axis=1, dtype=np.result_type(np.float32, *columns))  # map coordinates need float64


def array_to_points(array: NDArray[Any], source: str | Path) -> NDArray[Any]:
    """The points of an array in a file or of a caller: `(num_points, columns)`; of named fields x, y, z and intensity.

    Args:
        array (`np.ndarray`): Of shape `(num_points, 3 or more)`, or structured (named fields) of any shape.
        source (`str` or `Path`): The file or argument, for messages.

    Raises:
        ValueError: The array has another shape, is transposed, or does not contain numbers.
    """
    if array.dtype.names:
        flat = array.reshape(-1)
        scalars = [name for name in array.dtype.names if flat[name].ndim == 1 and flat.dtype[name].kind in "fiu"]
        try:
            return stack_fields(Path(source), {name: flat[name] for name in scalars})
        except ValueError as error:
            names = ", ".join(array.dtype.names)
            raise ValueError(f"{error} The array is structured, with the fields {names}.") from error
    if array.ndim != 2 or array.shape[1] < 3:
        raise ValueError(f"{source}: expected an array of shape (num_points, 3 or more), got {array.shape}.")
    if array.shape[1] > max(len(array), MAX_COLUMNS) and len(array):
        raise ValueError(
            f"{source}: expected an array of shape (num_points, 3 or more), got {array.shape}, which looks "
            "transposed. Use its transpose: `points.T`."
        )
    _check_metric_type(source, [array.dtype])
    return array


def check_metres(path: Path, points: NDArray[np.generic]) -> None:
    """Check that x, y, z can be metres: not millimetres, no longitudes and latitudes, no angles and ranges.

    Raises:
        ValueError: They cannot. The message contains the likely unit and the way out.
    """
    xyz = points[:: max(1, len(points) // MAX_CHECKED), :3].astype(np.float64)
    xyz = xyz[np.isfinite(xyz).all(axis=1)]
    if not len(xyz):
        return
    width, depth, height = (np.percentile(xyz, 99, axis=0) - np.percentile(xyz, 1, axis=0)).tolist()
    spans = f"got coordinates that span {width:.6g}, {depth:.6g} and {height:.6g}"
    # Millimetres are often whole numbers; metres are not, around a sensor or on a map.
    is_whole = max(width, depth) > 1000 and (xyz == np.floor(xyz)).all()
    if height > MAX_HEIGHT or is_whole:
        raise ValueError(f"{path}: expected x, y, z in metres, {spans}, probably in millimetres. Divide them by 1000.")
    if (
        height > 0.5
        and max(width, depth) < height / 10
        and np.abs(xyz[:, :2]).max() <= 360
        and max(width, depth) < 0.1
    ):
        raise ValueError(
            f"{path}: expected x, y, z in metres, {spans}, probably longitude and latitude in degrees. Project them "
            "to a map in metres, such as UTM."
        )
    if any(_looks_spherical(*xyz.T[list(order)]) for order in permutations(range(3))):
        raise ValueError(
            f"{path}: expected x, y, z in metres, got probably a range, an azimuth and an elevation in degrees. "
            "Convert them: x = r cos(el) cos(az), y = r cos(el) sin(az), z = r sin(el)."
        )


def _looks_spherical(
    distance: NDArray[np.float64], azimuth: NDArray[np.float64], elevation: NDArray[np.float64]
) -> bool:
    """Whether the columns are those of a full turn in degrees: few elevations, all azimuths, no negative distance."""
    low, high = np.percentile(azimuth, (1, 99))
    return bool(
        len(distance) >= 1000
        and distance.min() >= 0
        and 300 < high - low <= 360
        and np.abs(azimuth).max() <= 360
        and np.abs(elevation).max() <= 90
        and 4 <= len(np.unique(elevation)) <= MAX_BEAMS < len(np.unique(distance))
    )


def check_size(path: Path, num_points: int, point_size: int, max_points: int | None) -> None:
    """Check the number of points, and the bytes of each where the header has them."""
    if max_points is not None and num_points > max_points:
        raise ValueError(f"{path}: expected at most {max_points:,} points, got {num_points:,}.")
    if max_points is not None and point_size > MAX_POINT_SIZE:
        raise ValueError(f"{path}: expected at most {MAX_POINT_SIZE} bytes a point, got {point_size:,}.")


def check_whole(path: Path, num_expected: int, num_found: int) -> None:
    """Raise a `ValueError` if a file has fewer points than its header declares."""
    if num_found < num_expected:
        raise ValueError(
            f"{path}: expected {num_expected:,} points, as its header declares, got {num_found:,}: the file is cut "
            "short. Copy or download it again."
        )


def load_library(path: Path, name: str, requirement: str) -> ModuleType:
    """Import the library that reads a format; an `ImportError` names the file and the package to install."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{path}: {path.suffix} files are read by a library that is not installed: pip install '{requirement}'."
        ) from error


@contextmanager
def errors_of_library(path: Path, expected: str | None = None) -> Iterator[None]:
    """Raise a `ValueError` that names the file for every error of a library that reads it.

    Each library raises other errors for broken files. An `ImportError` stays what it is.

    Args:
        path (`Path`): The file.
        expected (`str`, *optional*): What it should contain; by default a whole file of its suffix.
    """
    try:
        yield
    except BaseException as error:
        # A panic of a library in Rust is no `Exception`, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, ImportError) or (isinstance(error, ValueError) and str(path) in str(error)):
            raise
        reason = " ".join(str(error).split()).rstrip(".")  # some libraries write several lines
        raise ValueError(
            f"{path}: expected {expected or f'a whole {path.suffix} file'}, and it cannot be read: "
            f"{type(error).__name__}: {reason}. If it is cut short or damaged, copy or download it again."
        ) from error


@cache  # a folder of thousands of such scans warns once
def _warn_of_missing_intensity(files: Path, others: tuple[str, ...]) -> None:
    logger.warning(
        "%s: no intensity is read from these files. Of their fields, these are not used: %s. Rename the one that is "
        "the intensity to `intensity`.",
        files,
        ", ".join(others),
    )


def _check_metric_type(source: str | Path, dtypes: Iterable[np.dtype]) -> None:
    for dtype in dtypes:
        if dtype.kind in "iu":
            raise ValueError(
                f"{source}: expected x, y, z in metres as floating-point numbers, got whole numbers ({dtype}), which "
                "are probably millimetres. Convert them: `points / 1000`."
            )
        if dtype.kind != "f":
            raise ValueError(f"{source}: expected numbers, got an array of {dtype}.")
