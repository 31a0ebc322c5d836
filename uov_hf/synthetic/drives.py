"""The settings of all drives of a root, in any format, and the processes that record them."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import numpy as np

from uov_hf.synthetic.cameras import CAMERAS, CameraMount
from uov_hf.synthetic.surfaces import Surfaces
from uov_hf.synthetic.town import build_town


FRAME_INTERVAL = 0.5  # seconds: nuScenes's keyframes

Recorded = TypeVar("Recorded")


@dataclass(frozen=True)
class DriveSettings:
    """The settings of every scene of a root, as in `generate_street`; a `ValueError` if one is out of range."""

    root: Path  # the output folder
    seed: int
    frames_per_scene: int
    image_size: tuple[int, int]
    azimuth_steps: int
    synchronised: bool
    version: str | None = None  # of the tables, in a nuScenes root

    def __post_init__(self):
        check_counts(frames_per_scene=self.frames_per_scene, azimuth_steps=self.azimuth_steps)
        if len(self.image_size) != 2 or min(self.image_size) < 8:
            raise ValueError(f"`image_size` must be (height, width) of at least 8 pixels, got {self.image_size}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}.")

    @property
    def cameras(self) -> list[CameraMount]:
        return [replace(camera, delay=0.0) if self.synchronised else camera for camera in CAMERAS]

    def surfaces(self, index: int) -> Surfaces:
        """The town of scene number `index`; it depends on the seed and that number only."""
        rng = np.random.default_rng([self.seed, index])
        return Surfaces(build_town(rng, self.frames_per_scene * FRAME_INTERVAL))

    def rng(self, index: int, frame: int) -> np.random.Generator:
        """The random numbers of one frame, first for the scan, then for the pictures, camera by camera."""
        return np.random.default_rng([self.seed, index, frame])


def check_counts(**counts: int) -> None:
    """A `ValueError` if a count is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}.")


def share_out(num_scenes: int, splits: dict[str, int] | None) -> dict[str, int]:
    """Number of scenes in each split; by default the last third is `test`, the rest `train`."""
    splits = splits or {"train": num_scenes - num_scenes // 3, "test": num_scenes // 3}
    if sum(splits.values()) != num_scenes or min(splits.values()) < 0:
        raise ValueError(f"`splits` must share out all {num_scenes} scenes, got {splits}.")
    return splits


def record_all(
    record: Callable[[DriveSettings, int], Recorded], settings: DriveSettings, num_scenes: int, num_workers: int
) -> list[Recorded]:
    """The results of `record(settings, index)` for every scene, in order."""
    if num_workers == 1 or num_scenes == 1:
        return [record(settings, index) for index in range(num_scenes)]
    # Forked workers start at once; spawned ones would import the whole package first.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context(method)) as pool:
        return list(pool.map(record, repeat(settings), range(num_scenes)))
