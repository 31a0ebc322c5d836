"""Scans for benchmarks: each has its own number of points and voxels, as the scans of a training have.

Real samples are changed as training changes them. Where there are none, a simple street is computed for a sensor with
as many beams and firings: a plain, two rows of houses, hedges and things on the road.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf import UOVFeatureExtractor
from uov_hf.point_files import read_points


LONGEST_RANGE = 80.0  # metres
NUM_STREETS = 4
NUM_THINGS = 60  # on each


@dataclass(frozen=True)
class Sensor:
    """File pattern and intensity scaling of a sensor's scans; degrees and metres of its beams."""

    pattern: str
    intensity_scaling: str
    num_beams: int
    elevations: tuple[float, float]
    num_firings: int
    height: float

    def extractor(self) -> UOVFeatureExtractor:
        return UOVFeatureExtractor(intensity_scaling=self.intensity_scaling)


SENSORS = {
    "nuScenes": Sensor("nuscenes/samples/LIDAR_TOP/*.pcd.bin", "raw", 32, (-30.67, 10.67), 1084, 1.84),
    "SemanticKITTI": Sensor(
        "semantickitti/dataset/sequences/*/velodyne/*.bin", "unit_plus_one", 64, (-24.8, 2.0), 2000, 1.73
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
    elevation, azimuth = np.meshgrid(
        np.radians(np.linspace(*sensor.elevations, sensor.num_beams)),
        np.linspace(-np.pi, np.pi, sensor.num_firings, endpoint=False) + generator.uniform(0, 0.001),
        indexing="ij",
    )
    rays = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    surfaces = [_plain(rays, sensor.height), *_houses(rays, sensor.height, generator)]
    surfaces += [_thing(rays, sensor.height, generator) for _ in range(NUM_THINGS)]
    distance = np.min(surfaces, 0)
    # Leaves and grass let a beam go deeper: such surfaces fill more voxels than smooth ones.
    is_rough = generator.random(sensor.num_firings // 40 + 1).repeat(40)[: sensor.num_firings] < 0.6
    distance += is_rough * generator.exponential(0.25, distance.shape) + generator.normal(0, 0.02, distance.shape)
    seen = (distance < LONGEST_RANGE) & (generator.random(distance.shape) > 0.02)
    points = (rays[:, seen] * distance[seen]).T
    return np.concatenate([points, generator.random((len(points), 1))], 1).astype(np.float32)


def _plain(rays: np.ndarray, height: float) -> np.ndarray:
    return np.where(rays[2] < 0, height / np.maximum(-rays[2], 1e-6), np.inf)


def _houses(rays: np.ndarray, height: float, generator: np.random.Generator) -> Iterator[np.ndarray]:
    for side in (-1, 1):
        distance = generator.uniform(6, 15) / np.maximum(side * rays[1], 1e-6)
        block = np.floor(np.minimum(distance, 1e4) * rays[0] / 20)
        is_wall = (distance * rays[2] + height < generator.uniform(8, 12)) & (block % 3 != 0)
        yield np.where(is_wall, distance, np.inf)


def _thing(rays: np.ndarray, height: float, generator: np.random.Generator) -> np.ndarray:
    """An upright cylinder: a car, a person, a trunk."""
    radius, top = generator.uniform(0.15, 1.5), generator.uniform(1.2, 4)
    centre = generator.uniform([-60, 3], [60, 14]) * [1, generator.choice([-1, 1])]
    flat = np.hypot(rays[0], rays[1])
    nearest = (rays[0] * centre[0] + rays[1] * centre[1]) / flat
    half_chord = radius**2 - centre @ centre + nearest**2
    distance = (nearest - np.sqrt(np.maximum(half_chord, 0))) / flat
    z = distance * rays[2] + height
    return np.where((half_chord > 0) & (nearest > 0) & (0 < z) & (z < top), distance, np.inf)
