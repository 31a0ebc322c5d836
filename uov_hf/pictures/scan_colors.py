"""Checks of labelled scans, the colour of every point, and the count of every class, for pictures and viewers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from uov_hf.array_checks import to_array
from uov_hf.configuration_uov import IGNORED


FAINT = (90, 96, 105)  # points without a class or a value
LEAST_BRIGHTNESS = 160  # of the brightest channel, on the dark background
LARGEST = 1e300  # of a value with a colour of its own: the difference of two such values is finite
VERDICTS, VERDICT_COLORS = ("right", "wrong"), np.array([(70, 130, 180), (240, 60, 50)])


def label_colors(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """One RGB colour per point, `(num_points, 3)` uint8, from class ids 0…C−1 (255: grey) and `colors` `(C, 3)`."""
    colors, labels = (np.atleast_1d(to_array(name, own)) for name, own in (("colors", colors), ("labels", labels)))
    colors = check_palette(colors, len(colors))
    labels = check_labels("labels", labels, len(labels), len(colors))
    palette = np.full((IGNORED + 1, 3), FAINT, dtype=np.uint8)
    palette[: len(colors)] = colors
    return palette[labels]


def value_colors(values: np.ndarray) -> np.ndarray:
    """One RGB colour per point, `(num_points, 3)` uint8, from low (blue) to high (red); not finite: grey."""
    values = np.asarray(values, dtype=np.float64)
    is_finite = np.isfinite(values)
    low, high = value_range(values)
    shown = np.where(is_finite, values, low).clip(-LARGEST, LARGEST)
    with np.errstate(over="ignore"):  # beyond a tiny range
        share = (shown - low) / (high - low)
    shades = to_bytes(full_hues(2 / 3 * (1 - share.clip(0, 1))))
    shades[~is_finite] = FAINT
    return shades


class ClassCount(NamedTuple):
    """A class that occurs in a scan: its id, name, RGB colour (0…255) and number of points."""

    id: int
    name: str
    color: list[int]
    num_points: int


def present_classes(
    labels: np.ndarray, class_names: Sequence[str], colors: np.ndarray, ignored_name: str
) -> list[ClassCount]:
    """Every class that occurs; the points without a class come last."""
    ids = [*range(len(class_names)), IGNORED]
    counts = np.bincount(labels, minlength=IGNORED + 1)[ids].tolist()
    rows = zip(ids, [*class_names, ignored_name], [*np.asarray(colors).tolist(), list(FAINT)], counts, strict=True)
    return [ClassCount(*row) for row in rows if row[-1]]


def distinct_colors(num_classes: int) -> np.ndarray:
    """RGB colours `(num_classes, 3)` uint8 for classes without colours; neighbours in the list differ most."""
    turns = np.arange(num_classes) * 0.61803398875  # steps of the golden ratio never repeat a hue
    saturation = np.array([[1.0], [0.75], [0.55]])[np.arange(num_classes) % 3]
    return to_bytes(1 - saturation * (1 - full_hues(turns % 1)))


def full_hues(hues: np.ndarray) -> np.ndarray:
    """RGB `(n, 3)` from 0 to 1 of hues from 0 to 1 (red, yellow, green, cyan, blue, magenta), fully saturated."""
    distances = np.abs(6 * np.asarray(hues)[:, None] - [3, 2, 4])
    return np.clip(distances * [1, -1, -1] + [-1, 2, 2], 0, 1)


def to_bytes(colors: np.ndarray) -> np.ndarray:
    return np.rint(255 * colors).astype(np.uint8)


def value_range(values: np.ndarray) -> tuple[float, float]:
    """1st and 99th percentile of the finite values, never equal; single outliers must not compress the colours."""
    finite = values[np.isfinite(values)].clip(-LARGEST, LARGEST)
    low, high = np.percentile(finite, (1, 99)) if len(finite) else (0.0, 1.0)
    return float(low), float(high if high > low else low + max(1, abs(low) * 1e-6))


def check_points(points: np.ndarray) -> np.ndarray:
    points = to_array("points", points)
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"`points` must have shape (num_points, 3) or more columns (x, y, z, …), got {points.shape}.")
    return points


def check_values(name: str, values: np.ndarray, num_points: int) -> np.ndarray:
    values = to_array(name, values)
    if values.shape != (num_points,):
        raise ValueError(f"`{name}` must have one value per point, shape ({num_points},), got {values.shape}.")
    return values


def check_labels(name: str, labels: np.ndarray, num_points: int, num_classes: int) -> np.ndarray:
    labels = check_values(name, labels, num_points)
    strangers = np.setdiff1d(labels, [*range(num_classes), IGNORED])
    if labels.dtype.kind not in "iu" or len(strangers):
        raise ValueError(
            f"`{name}` must be integer class ids 0…{num_classes - 1}, or {IGNORED} for none, "
            f"got {labels.dtype} with {strangers[:5].tolist()}. Map raw ids to classes with a vocabulary first."
        )
    return labels.astype(np.int64)


def check_palette(colors: np.ndarray, num_classes: int) -> np.ndarray:
    """The colours after a check; dark ones, such as nuScenes' sidewalk, become lighter in the same hue."""
    colors = to_array("colors", colors)
    if colors.shape != (num_classes, 3) or colors.dtype.kind not in "iu" or ((colors < 0) | (colors > 255)).any():
        raise ValueError(
            f"`colors` must be integers 0…255 of shape ({num_classes}, 3), got {colors.dtype} of shape "
            f"{colors.shape} with {np.unique(colors)[[0, -1]].tolist() if colors.size else 'no value'}."
        )
    if num_classes > IGNORED:
        raise ValueError(f"At most {IGNORED} classes can be shown, got {num_classes}: merge some.")
    brightness = colors.max(axis=1, keepdims=True).clip(1)  # (num_classes, 1)
    return (colors * np.maximum(1, LEAST_BRIGHTNESS / brightness)).astype(np.uint8)
