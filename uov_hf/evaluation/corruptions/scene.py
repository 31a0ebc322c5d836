"""The scan that a corruption takes, and the echoes that it returns."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CleanScan:
    """A scan before its corruption. All points are finite, and none lies at the sensor.

    Args:
        xyz (`np.ndarray` of shape `(num_points, 3)`): float64, metres, in the frame of the sensor.
        intensity (`np.ndarray` of shape `(num_points,)`): float64, the share of the sensor's full scale.
        labels (`np.ndarray` of shape `(num_points,)`): The true classes, or 255.
        ground, vehicles (`np.ndarray`): The classes of paved ground, and of vehicles.
    """

    xyz: NDArray[np.float64]
    intensity: NDArray[np.float64]
    labels: NDArray[np.integer]
    ground: NDArray[np.int64]
    vehicles: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.xyz)

    @cached_property
    def distance(self) -> NDArray[np.float64]:
        """Metres from the sensor, `(num_points,)`."""
        return np.linalg.norm(self.xyz, axis=1)

    @cached_property
    def is_ground(self) -> NDArray[np.bool_]:
        """The points on paved ground, `(num_points,)`."""
        return np.isin(self.labels, self.ground)

    def echoes(
        self,
        xyz: NDArray[np.float64] | None = None,
        intensity: NDArray[np.float64] | None = None,
        kept: NDArray[np.bool_] | None = None,
        is_noise: NDArray[np.bool_] | None = None,
    ) -> "Echoes":
        """The echoes of these points, each as it is unless an argument `(num_points, ...)` replaces it."""
        rows = np.arange(len(self)) if kept is None else np.flatnonzero(kept)
        return Echoes(
            (self.xyz if xyz is None else xyz)[rows],
            np.clip(self.intensity if intensity is None else intensity, 0, 1)[rows],
            rows,
            (np.zeros(len(self), dtype=bool) if is_noise is None else is_noise)[rows],
        )


@dataclass(frozen=True)
class Echoes:
    """What the sensor measures under a corruption: at most one echo of each point of the clean scan.

    Args:
        xyz (`np.ndarray` of shape `(num_echoes, 3)`): float64, metres.
        intensity (`np.ndarray` of shape `(num_echoes,)`): float64, the share of the sensor's full scale.
        rows (`np.ndarray` of shape `(num_echoes,)`): int64, ascending: the point of the clean scan.
        is_noise (`np.ndarray` of shape `(num_echoes,)`):
            bool; a droplet, a snowflake or another lidar caused the echo, and it has no true class.
    """

    xyz: NDArray[np.float64]
    intensity: NDArray[np.float64]
    rows: NDArray[np.int64]
    is_noise: NDArray[np.bool_]
