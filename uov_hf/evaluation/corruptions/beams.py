"""The beam of each point of a scan, estimated from its elevation."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d


CELL = 0.02  # degrees of elevation in a cell of the histogram
BLUR = 0.06  # degrees; the densest beams of today's sensors are 0.17 degrees apart
MIN_DISTANCE = 2.0  # metres; nearer points are the vehicle's own body, whose elevations are spread


def find_beams(xyz: NDArray[np.floating]) -> NDArray[np.int64]:
    """The beam of each point, counted from the lowest.

    A beam is a peak in the histogram of the elevations; two beams are separated at the emptiest cell between their
    peaks. The elevation of a beam varies where the scan is compensated for motion or the sensor is inclined; then a
    beam found here is a band of elevation of about the width of a beam.

    Args:
        xyz (`np.ndarray` of shape `(num_points, 3)`): Metres, in the frame of the sensor.

    Returns:
        `np.ndarray` of shape `(num_points,)`: int64; each number from 0 to the largest is a beam that has points.
    """
    elevation = np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1])))
    cells = np.floor((elevation + 90) / CELL).astype(np.int64)
    far = np.linalg.norm(xyz, axis=1) > MIN_DISTANCE
    # One cell more on each side, so that a peak at the border has a lower neighbour.
    counts = np.bincount(cells[far] + 1, minlength=round(180 / CELL) + 3).astype(np.float64)
    density = gaussian_filter1d(counts, BLUR / CELL, mode="constant")
    peaks = 1 + np.flatnonzero((density[1:-1] > density[:-2]) & (density[1:-1] >= density[2:]))
    borders = [low + int(np.argmin(density[low:high])) for low, high in zip(peaks, peaks[1:], strict=False)]
    beams = np.searchsorted(np.array(borders, dtype=np.int64), cells + 1, side="right")
    return np.unique(beams, return_inverse=True)[1]
