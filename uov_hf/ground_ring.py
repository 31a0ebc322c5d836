"""The ring of ground around the vehicle: its allowed classes and its points."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch


RANSAC_TRIALS, RANSAC_SAMPLES = 20, 10


@dataclass(frozen=True)
class GroundRing:
    """Settings of the ring of ground around the vehicle.

    Its points give no evidence and get only ground classes. Points of the vehicle give no evidence either. Ground are
    the points near a plane z = a x + b y + c, fitted by RANSAC (20 trials of 10 points) to the low points of the ring.
    With fewer than 10 low points there is no ground.

    Args:
        classes (`tuple[int, ...]`): Columns of `scores` that ground may have; see [`~GroundRing.from_names`].
        sensor_height (`float`, *optional*, defaults to 1.84): Metres of the lidar above the ground (nuScenes).
        max_height (`float`, *optional*, defaults to 0.44): Metres above the ground below which a point is low.
        min_radius (`float`, *optional*, defaults to 2.0):
            Metres from the vertical axis; nearer points belong to the vehicle.
        max_radius (`float`, *optional*, defaults to 5.0): Metres from the vertical axis at which the ring ends.
        max_residual (`float`, *optional*, defaults to 0.1): Metres in z from the plane up to which a point is ground.
        seed (`int`, *optional*, defaults to 42): Seed of the trials.

    Raises:
        ValueError: There are no classes, the radii do not ascend, or a value is no finite number.
    """

    classes: tuple[int, ...]
    sensor_height: float = 1.84
    max_height: float = 0.44
    min_radius: float = 2.0
    max_radius: float = 5.0
    max_residual: float = 0.1
    seed: int = 42

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))  # the dataclass is frozen
        check_numbers(self, Integral, "classes", "seed")
        check_numbers(self, Real, "sensor_height", "max_height", "min_radius", "max_radius", "max_residual")
        if self.seed < 0:
            raise ValueError(f"`seed` must be 0 or more, got {self.seed}.")
        if not self.classes or min(self.classes) < 0 or not 0 <= self.min_radius < self.max_radius:
            raise ValueError(f"A ring needs `classes`, and 0 <= `min_radius` < `max_radius`, got {self}.")

    @classmethod
    def from_names(cls, names: Sequence[str], label2id: dict[str, int], **settings: Any) -> "GroundRing":
        """Create a ring from class names and `model.config.label2id`.

        Raises:
            ValueError: A name is not in `label2id`, or a setting is unknown.
        """
        unknown = sorted(set(names) - set(label2id))
        if unknown:
            raise ValueError(f"{unknown} are no classes: ground classes must be among {sorted(label2id)}.")
        check_names(settings, cls)
        return cls(classes=tuple(label2id[name] for name in names), **settings)


def find_ground(points: torch.Tensor, ring: GroundRing) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks `(N,)` of the ground points of the ring and of the points of the vehicle; `points`: `(N, 3 or more)`."""
    radius = points[:, :2].norm(dim=1)
    vehicle = radius <= ring.min_radius
    low = points[:, 2] < ring.max_height - ring.sensor_height
    candidates = (~vehicle & (radius < ring.max_radius) & low).nonzero().squeeze(1)
    ground = torch.zeros_like(vehicle)
    if len(candidates) < RANSAC_SAMPLES:
        return ground, vehicle
    x, y, z = points[candidates, :3].double().unbind(dim=1)
    columns = torch.stack([x, y, torch.ones_like(x)], dim=1)  # (R, 3)
    rows = np.tile(np.arange(len(candidates)), (RANSAC_TRIALS, 1))
    rows = np.random.default_rng(ring.seed).permuted(rows, axis=1)[:, :RANSAC_SAMPLES]
    draws = torch.from_numpy(rows).to(points.device)  # (trials, samples)
    planes = torch.linalg.pinv(columns[draws]) @ z[draws][..., None]  # (trials, 3, 1)
    near = (columns @ planes - z[:, None]).abs().squeeze(-1) <= ring.max_residual  # (trials, R)
    ground[candidates] = near[near.sum(dim=1).argmax()]
    return ground, vehicle


def check_names(settings: dict[str, Any], dataclass: type) -> None:
    """Raise a ValueError for keys of `settings` that are not fields of a dataclass."""
    names = [field.name for field in fields(dataclass)]
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise ValueError(f"{unknown} are no settings of {dataclass.__name__}: it has {', '.join(names)}.")


def check_numbers(settings: Any, kind: type[Integral] | type[Real], *names: str) -> None:
    """Raise a ValueError for fields, or items of fields, that are no finite numbers of this kind."""
    for name in names:
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            is_number = isinstance(number, kind) and not isinstance(number, bool)
            if not is_number or not abs(number) <= sys.float_info.max:
                wanted = "whole numbers" if kind is Integral else "finite numbers"
                raise ValueError(f"`{name}` must be {wanted}, got {value!r:.100}.")
