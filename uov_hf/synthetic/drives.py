"""What every drive needs to know, whatever it is written as; and the drives of a root, shared out among processes."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.synthetic.cameras import CAMERAS, CameraMount
from uov_hf.synthetic.surfaces import Surfaces
from uov_hf.synthetic.town import build_town


FRAME_INTERVAL = 0.5  # seconds: nuScenes's keyframes


@dataclass(frozen=True)
class DriveSettings:
    """What a generator was asked for, as every scene needs it.

    Args:
        root (`Path`): where files go.
        seed, frames_per_scene, azimuth_steps (`int`), image_size (`tuple[int, int]`): as in `generate_street`.
        synchronised (`bool`): whether all cameras fire at the time of the scan, or each after a delay of its own.
        version (`str`, *optional*): of the tables, in a nuScenes root.

    Raises:
        ValueError: where one is out of range.
    """

    root: Path
    seed: int
    frames_per_scene: int
    image_size: tuple[int, int]
    azimuth_steps: int
    synchronised: bool
    version: str | None = None

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
        """The town of scene number `index`, made from the seed and that number alone."""
        rng = np.random.default_rng([self.seed, index])
        return Surfaces(build_town(rng, self.frames_per_scene * FRAME_INTERVAL))

    def rng(self, index: int, frame: int) -> np.random.Generator:
        """The chance in one frame: first the scan's, then the pictures', camera by camera."""
        return np.random.default_rng([self.seed, index, frame])


def check_counts(**counts: int) -> None:
    """That numbers of things are at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}.")


def record_all(
    record: Callable[[DriveSettings, int], Any], settings: DriveSettings, num_scenes: int, num_workers: int
) -> list[Any]:
    """What `record(settings, index)` returns for every scene, in order."""
    if num_workers == 1 or num_scenes == 1:
        return [record(settings, index) for index in range(num_scenes)]
    # Forked workers start at once; spawned ones would import the whole package first.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context(method)) as pool:
        return list(pool.map(record, repeat(settings), range(num_scenes)))
