"""Scans for benchmarks: each has its own number of points and voxels, as the scans of a training have.

Real samples are changed as training changes them. Where there are none, a lidar with as many beams and firings scans
a synthetic street.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf import UOVFeatureExtractor
from uov_hf.point_files import read_points
from uov_hf.synthetic.lidar import LIDAR_TO_EGO, scan
from uov_hf.synthetic.surfaces import Surfaces
from uov_hf.synthetic.town import build_town


NUM_STREETS = 4


@dataclass(frozen=True)
class Sensor:
    """File pattern and intensity scaling of a sensor's scans; its beams, from the lowest to the highest in degrees."""

    pattern: str
    intensity_scaling: str
    num_beams: int
    elevations: tuple[float, float]
    num_firings: int

    def extractor(self) -> UOVFeatureExtractor:
        return UOVFeatureExtractor(intensity_scaling=self.intensity_scaling)


SENSORS = {
    "nuScenes": Sensor("nuscenes/samples/LIDAR_TOP/*.pcd.bin", "raw", 32, (-30.67, 10.67), 1084),
    "SemanticKITTI": Sensor(
        "semantickitti/dataset/sequences/*/velodyne/*.bin", "unit_plus_one", 64, (-24.8, 2.0), 2000
    ),
}


def make_scans(sensor: Sensor, data_dir: Path, num_scans: int) -> Iterator[np.ndarray]:
    """Different scans `(num_points, 4)`, made from the real ones in `data_dir`, or else from computed ones."""
    generator = np.random.default_rng(0)
    sources = [read_points(path)[:, :4] for path in find_scans(sensor, data_dir)]
    sources = sources or [scan_a_street(sensor, generator) for _ in range(NUM_STREETS)]
    for index in range(num_scans):
        yield vary(sources[index % len(sources)], generator)


def find_scans(sensor: Sensor, data_dir: Path) -> list[Path]:
    return sorted(data_dir.glob(sensor.pattern))


def vary(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Turn about z, mirror, drop a cuboid and a share of the points, move each point by about a centimetre."""
    angle = generator.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]) * [*generator.choice([-1, 1], 2), 1]
    xyz = points[:, :3] @ turn
    inside = np.abs(xyz - generator.choice(xyz)) < generator.uniform(1, 8, 3)
    kept = ~inside.all(1) & (generator.random(len(points)) >= generator.uniform(0, 0.1))
    xyz += generator.normal(0, 0.01, xyz.shape)
    return np.concatenate([xyz, points[:, 3:]], 1)[kept].astype(np.float32)


def scan_a_street(sensor: Sensor, generator: np.random.Generator) -> np.ndarray:
    """One turn of a sensor in a street of its own: `(num_points, 4)`, intensities from 0 to 1."""
    town = build_town(generator, duration=1.0)
    elevations = np.radians(np.linspace(*sensor.elevations, sensor.num_beams))
    pose = town.ego_pose(0.0) @ LIDAR_TO_EGO
    points = scan(generator, Surfaces(town).at(0.0), pose, sensor.num_firings, elevations).points[:, :4]
    return points / np.array([1, 1, 1, 255], np.float32)
