"""A car that turns in the synthetic street while its lidar turns: each firing has a time and a pose of its own."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from uov_hf.geometry.rotation import rigid_motion
from uov_hf.synthetic.lidar import ELEVATIONS, LIDAR_TO_EGO, LONGEST_RANGE
from uov_hf.synthetic.raycast import cast
from uov_hf.synthetic.surfaces import Surfaces
from uov_hf.synthetic.town import build_town
from uov_hf.synthetic.views import SpinningView


NUM_COLUMNS = 360
SCAN_SECONDS = 0.1
TURN = 0.4  # radians per second, as at a junction


@dataclass(frozen=True, eq=False)
class RollingScan:
    """One turn of the lidar of the moving car, without noise."""

    points: np.ndarray  # (num_points, 4) float32: in the frame that the lidar had at the time of each point
    seconds: np.ndarray  # (num_points,): from the scan's stamp, which is the start of the turn
    surface: np.ndarray  # (num_points,): the surface of each point
    at_wall: np.ndarray  # (num_points, 3): the point in the axes of its part, -1 to 1; of ground, NaN


def make_surfaces(seed: int = 0) -> Surfaces:
    return Surfaces(build_town(np.random.default_rng(seed), duration=4.0))


def body_pose(surfaces: Surfaces, time: float) -> np.ndarray:
    """The car's pose: along the street, and turning."""
    turn = rigid_motion(Rotation.from_rotvec([0, 0, TURN * time]).as_matrix(), np.zeros(3))
    return surfaces.town.ego_pose(time) @ turn


def rolling_scan(surfaces: Surfaces, stamp: float, num_sectors: int = 18) -> RollingScan:
    """A turn that starts at `stamp`; the columns of a sector are fired together."""
    azimuths = 2 * np.pi / NUM_COLUMNS * (np.arange(NUM_COLUMNS) + 0.5) - np.pi
    parts = []
    for sector in range(num_sectors):
        seconds = SCAN_SECONDS * sector / num_sectors
        pose = body_pose(surfaces, stamp + seconds) @ LIDAR_TO_EGO
        snapshot = surfaces.at(stamp + seconds)
        view = SpinningView(pose, ELEVATIONS, azimuths)
        hits = cast(view, snapshot)
        first, last = (NUM_COLUMNS * edge // num_sectors for edge in (sector, sector + 1))
        column, ring = np.nonzero((hits.distance[:, first:last] < LONGEST_RANGE).T)
        column += first
        distance, surface = hits.distance[ring, column].astype(float), hits.surface[ring, column]
        directions = view.directions[:, ring, column].T.astype(float)
        at_wall = np.full((len(distance), 3), np.nan)
        part = np.flatnonzero(surface < len(snapshot.centers))
        in_world = pose[:3, 3] + distance[:, None] * directions
        at_wall[part] = snapshot.local(surface[part], in_world[part].astype(np.float32))
        at_wall[part] /= surfaces.half_size[surface[part]]
        xyz = distance[:, None] * (directions @ pose[:3, :3])
        intensity = np.round(200 * surfaces.material("reflectance")[surface])
        points = np.column_stack([xyz, intensity]).astype(np.float32)
        parts.append((points, np.full(len(points), seconds), surface, at_wall))
    return RollingScan(*(np.concatenate(column) for column in zip(*parts, strict=True)))
