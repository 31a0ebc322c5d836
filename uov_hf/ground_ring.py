"""The ring of ground around the vehicle: what classes it may have, and which points it is."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch


RANSAC_TRIALS, RANSAC_SAMPLES = 20, 10


@dataclass(frozen=True)
class GroundRing:
    """
    The ring of ground around the vehicle: its points give no evidence, and get only classes that ground may have. The
    vehicle's own points give no evidence either. Ground is what lies near a plane z = a x + b y + c, fitted by RANSAC
    (20 trials of 10 points) to the low points of the ring. With fewer than 10 of these there is none.

    Args:
        classes (`tuple[int, ...]`): columns of `scores` that ground may have; [`~GroundRing.from_names`] finds them.
        sensor_height (`float`, defaults to 1.84): metres of the lidar above the ground (nuScenes).
        max_height (`float`, defaults to 0.44): metres above the ground up to which a point is low.
        min_radius (`float`, defaults to 2.0): metres from the vertical axis; nearer points are the vehicle's own body.
        max_radius (`float`, defaults to 5.0): metres from the vertical axis at which the ring ends.
        max_residual (`float`, defaults to 0.1): metres in z from the plane up to which a point is ground.
        seed (`int`, defaults to 42): of the trials.
    """

    classes: tuple[int, ...]
    sensor_height: float = 1.84
    max_height: float = 0.44
    min_radius: float = 2.0
    max_radius: float = 5.0
    max_residual: float = 0.1
    seed: int = 42

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))  # the dataclass is frozen
        if not self.classes or min(self.classes) < 0 or not 0 <= self.min_radius < self.max_radius:
            raise ValueError(f"A ring needs `classes`, and 0 <= `min_radius` < `max_radius`, got {self}.")

    @classmethod
    def from_names(cls, names: Sequence[str], label2id: dict[str, int], **settings) -> "GroundRing":
        """The ring whose ground may have the classes of these names, as `model.config.label2id` numbers them."""
        unknown = sorted(set(names) - set(label2id))
        if unknown:
            raise ValueError(f"{unknown} are no classes: ground classes must be among {sorted(label2id)}.")
        check_names(settings, cls)
        return cls(classes=tuple(label2id[name] for name in names), **settings)


def find_ground(points: torch.Tensor, ring: GroundRing) -> tuple[torch.Tensor, torch.Tensor]:
    """Which points are the ground of the ring, and which the vehicle, both bool (N,)."""
    radius = points[:, :2].norm(dim=1)
    vehicle = radius <= ring.min_radius
    low = points[:, 2] < ring.max_height - ring.sensor_height
    candidates = (~vehicle & (radius < ring.max_radius) & low).nonzero().squeeze(1)
    ground = torch.zeros_like(vehicle)
    if len(candidates) < RANSAC_SAMPLES:
        return ground, vehicle
    x, y, z = points[candidates].double().unbind(dim=1)
    columns = torch.stack([x, y, torch.ones_like(x)], dim=1)  # (R, 3)
    draws = np.tile(np.arange(len(candidates)), (RANSAC_TRIALS, 1))
    draws = np.random.default_rng(ring.seed).permuted(draws, axis=1)[:, :RANSAC_SAMPLES]
    draws = torch.from_numpy(draws).to(points.device)  # (trials, samples)
    planes = torch.linalg.pinv(columns[draws]) @ z[draws][..., None]  # (trials, 3, 1)
    near = (columns @ planes - z[:, None]).abs().squeeze(-1) <= ring.max_residual  # (trials, R)
    ground[candidates] = near[near.sum(dim=1).argmax()]
    return ground, vehicle


def check_names(settings: dict, dataclass: type) -> None:
    """Raise where `settings` names what is no field of a dataclass."""
    known = [field.name for field in fields(dataclass)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{unknown} are no settings of {dataclass.__name__}: it has {', '.join(known)}.")
