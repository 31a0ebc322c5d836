"""A spinning lidar of 32 beams, with range noise, dropout, and intensity by material and angle."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uov_hf.synthetic.materials import Rng
from uov_hf.synthetic.raycast import cast
from uov_hf.synthetic.shapes import Floats, Ints
from uov_hf.synthetic.surfaces import Snapshot
from uov_hf.synthetic.views import SpinningView


ELEVATIONS = np.radians(np.linspace(-30.67, 10.67, 32))  # nuScenes's HDL-32E
# x right → -y, y forward → x
LIDAR_TO_EGO = np.array([[0.0, 1, 0, 0.94], [-1, 0, 0, 0.0], [0, 0, 1, 1.84], [0, 0, 0, 1]])
LONGEST_RANGE = 80.0  # metres
RANGE_NOISE = 0.02  # metres, standard deviation; cut off at 2.5 of them
LONGEST_STRAY = 0.6  # metres by which grass may shorten a range


@dataclass(frozen=True, eq=False)
class Scan:
    """One turn of the lidar."""

    points: NDArray[np.float32]  # (num_points, 5): x right, y forward, z up in metres, intensity 0 to 255, ring
    surface: Ints  # (num_points,): the surface of each point


def scan(
    rng: Rng, snapshot: Snapshot, lidar_pose: NDArray[np.float64], azimuth_steps: int, elevations: Floats = ELEVATIONS
) -> Scan:
    """A scan of the surfaces of a snapshot from `lidar_pose` (4, 4; global frame)."""
    step = 2 * np.pi / azimuth_steps
    view = SpinningView(lidar_pose, elevations, rng.uniform(0, step) + step * np.arange(azimuth_steps) - np.pi)
    hits = cast(view, snapshot, see_ego=True, luck=rng.random((len(elevations), azimuth_steps), dtype=np.float32))
    # As in nuScenes's files, the beams of one firing are adjacent.
    column, ring = np.nonzero((hits.distance < LONGEST_RANGE).T)
    distance, surface = hits.distance[ring, column], hits.surface[ring, column]
    directions = view.directions[:, ring, column].T
    points = lidar_pose[:3, 3].astype(np.float32) + distance[:, None] * directions
    normals = snapshot.normals(surface, points)
    cosine = np.abs(np.einsum("ni,ni->n", normals, directions))
    intensity = _intensity(rng, snapshot.surfaces.material("reflectance")[surface], cosine)
    distance = distance + _range_error(rng, snapshot, surface, cosine)
    kept = rng.random(len(distance)) > _dropout(intensity, distance)
    xyz = distance[:, None] * (directions @ lidar_pose[:3, :3].astype(np.float32))
    points = np.concatenate([xyz, intensity[:, None], ring[:, None]], axis=1)
    return Scan(points[kept].astype(np.float32), surface[kept])


def _intensity(rng: Rng, reflectance: Floats, cosine: Floats) -> Floats:
    """Lambert's law softened, speckle, and whole numbers as in nuScenes's files."""
    speckle = np.exp(0.25 * rng.standard_normal(len(cosine)))
    return np.clip(np.round(120 * reflectance * cosine**0.6 * speckle), 0, 255)


def _range_error(rng: Rng, snapshot: Snapshot, surface: Ints, cosine: Floats) -> Floats:
    """Metres: noise; leaves lengthen a range, and grass shortens it the more, the flatter the beam."""
    noise = RANGE_NOISE * np.clip(rng.standard_normal(len(surface)), -2.5, 2.5)
    scatter = snapshot.surfaces.material("scatter")[surface] * rng.random(len(surface))
    on_ground = surface >= len(snapshot.centers)
    earlier = np.minimum(scatter / np.maximum(cosine, 0.02), LONGEST_STRAY)
    return noise + np.where(on_ground, -earlier, scatter)


def _dropout(intensity: Floats, distance: Floats) -> Floats:
    """Probability of no echo: small everywhere, larger for low intensity and long range."""
    return 0.02 + 0.5 * np.exp(-(intensity + 1) * (25 / np.maximum(distance, 1)) ** 2)
