"""Read `.bin` scans: numbers without a header, whose layout is measured."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


NUM_COLUMNS = range(3, 17)  # that are measured
MAX_COORDINATE = 1e7  # metres; more than a quarter of the Earth's circumference
MIN_MEASURED, MAX_MEASURED = 400, 200_000  # numbers for a median; with fewer, chance makes one of 14 small


def read_bin(path: Path, num_columns: int | None = None) -> NDArray[np.floating]:
    """x, y, z and the fourth column, `(num_points, 3 or 4)`.

    The numbers are float32; if these cannot be coordinates, float64. The number of columns is the c with the least
    median of |v[i + c] − v[i]|, as neighbouring points are measured one after the other. Without a clear minimum (few
    points, or points in random order), it is 5 if the name ends in `.pcd.bin` (nuScenes); otherwise 4 (KITTI) or 5,
    whichever divides the size. If both do, it is 5 if the fifth column has only whole numbers from 0, as a ring does.

    Args:
        path (`Path`): The file.
        num_columns (`int`, *optional*): Columns of the file, if they are not to be measured.

    Raises:
        ValueError: The file is cut short, or no layout gives finite coordinates below 10,000 km.
    """
    if num_columns is not None and num_columns < 3:
        raise ValueError(f"`num_columns` must be 3 or more, as a point has x, y and z, got {num_columns}.")
    errors = []
    for dtype in (np.float32, np.float64):
        try:
            points = _read_as(path, np.dtype(dtype), num_columns)
            _check_coordinates(path, points, is_measured=num_columns is None)
            return points
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _read_as(path: Path, dtype: np.dtype, num_columns: int | None) -> NDArray[np.floating]:
    size, values = path.stat().st_size, np.fromfile(path, dtype)
    found = num_columns or _measure_columns(values) or _guess_columns(path, values)
    num_points, rest = divmod(size, dtype.itemsize * found)
    if rest:
        raise ValueError(
            f"{path}: expected a whole number of points of {found} {dtype}, got {size:,} bytes: {num_points:,} points "
            f"and {rest} bytes. The file is cut short, or has other columns: pass `num_columns` (`--num_columns`)."
        )
    return values.reshape(-1, found)[:, :4].copy()


def _measure_columns(values: NDArray[np.floating]) -> int | None:
    """The period of the numbers; None if no candidate is clearly better than most."""
    values = values[:MAX_MEASURED]
    if len(values) < MIN_MEASURED:
        return None
    with np.errstate(all="ignore"):  # numbers of another type may be anything
        steps = np.array([np.nanmedian(np.abs(values[c:] - values[:-c])) for c in NUM_COLUMNS])
    if not np.isfinite(steps).all() or steps.min() >= np.median(steps) / 2:
        return None
    # Genuine scans have the least step at the right one, up to 3 times as much at its multiples, and at least 8 times
    # as much at all others. Points in random order have the same step at the multiples.
    best = NUM_COLUMNS[int(steps.argmin())]
    divisors = [c for c, step in zip(NUM_COLUMNS, steps, strict=True) if best % c == 0 and step <= 1.5 * steps.min()]
    return divisors[0]


def _guess_columns(path: Path, values: NDArray[np.floating]) -> int:
    if path.name.endswith(".pcd.bin") or len(values) % 4:
        return 5
    if len(values) % 5:
        return 4
    ring = values[4::5]
    with np.errstate(invalid="ignore"):
        return 5 if len(ring) and ((ring >= 0) & (ring == np.trunc(ring))).all() else 4


def _check_coordinates(path: Path, points: NDArray[np.floating], is_measured: bool) -> None:
    """Check that x, y, z can be metres.

    All three may be NaN, as some drivers write for a beam without an echo. A known layout may have single numbers that
    are not finite, too: it does not depend on them.
    """
    xyz = points[:, :3]
    xyz = xyz[~np.isnan(xyz).all(axis=1)] if is_measured else xyz[np.isfinite(xyz).all(axis=1)]
    if not (wrong := ~(np.abs(xyz) <= MAX_COORDINATE).all(axis=1)).any():
        return
    raise ValueError(
        f"{path}: expected float32 x, y, z in metres, got {xyz[wrong][0].tolist()} in point {int(wrong.argmax())} of "
        f"{len(points):,}. The file has other columns or numbers: pass `num_columns` (`--num_columns`), or convert it "
        "to .npy."
    )
