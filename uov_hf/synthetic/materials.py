"""Appearance of surfaces to a camera and to a lidar, with ranges that overlap between the classes."""

from typing import NamedTuple

import numpy as np


Rng = np.random.Generator


class Material(NamedTuple):
    """The appearance of a surface."""

    color: tuple[float, float, float]  # red, green, blue from 0 to 1
    reflectance: float  # share of the laser light that is reflected
    scatter: float = 0.0  # metres by which the measured range may be off (leaves, grass)
    porosity: float = 0.0  # share of the beams that pass through
    windows: bool = False  # whether there are rows of dark windows on it


class _Kind(NamedTuple):
    colors: tuple[tuple[float, float, float], ...]
    reflectance: tuple[float, float]
    scatter: float = 0.0
    porosity: float = 0.0


# The ranges of reflectance overlap on purpose: intensity alone must not determine the class.
KINDS = {
    "paint": _Kind(
        (
            (0.85, 0.85, 0.87),
            (0.12, 0.12, 0.14),
            (0.5, 0.52, 0.55),
            (0.65, 0.1, 0.1),
            (0.1, 0.2, 0.5),
            (0.75, 0.65, 0.2),
        ),
        (0.06, 0.5),
    ),
    "machine": _Kind(((0.9, 0.65, 0.1), (0.85, 0.45, 0.1), (0.8, 0.75, 0.2), (0.45, 0.5, 0.45)), (0.08, 0.45)),
    "glass": _Kind(((0.12, 0.15, 0.18), (0.2, 0.25, 0.28)), (0.03, 0.2)),
    "rubber": _Kind(((0.06, 0.06, 0.06),), (0.03, 0.12)),
    "spokes": _Kind(((0.1, 0.1, 0.1),), (0.05, 0.3), 0.0, 0.5),
    "metal": _Kind(((0.55, 0.56, 0.58), (0.3, 0.32, 0.33), (0.25, 0.35, 0.3)), (0.1, 0.5)),
    "mesh": _Kind(((0.5, 0.52, 0.54), (0.2, 0.3, 0.2)), (0.08, 0.4), 0.0, 0.55),
    "facade": _Kind(
        ((0.7, 0.62, 0.5), (0.6, 0.35, 0.27), (0.75, 0.74, 0.7), (0.5, 0.5, 0.52), (0.8, 0.72, 0.55)), (0.08, 0.45)
    ),
    "concrete": _Kind(((0.6, 0.6, 0.58), (0.7, 0.68, 0.64), (0.5, 0.49, 0.47)), (0.1, 0.45)),
    "plastic": _Kind(((0.9, 0.35, 0.08), (0.85, 0.15, 0.1), (0.9, 0.9, 0.88), (0.95, 0.75, 0.1)), (0.1, 0.6)),
    "sign": _Kind(((0.1, 0.25, 0.6), (0.75, 0.1, 0.1), (0.9, 0.9, 0.9), (0.1, 0.45, 0.25)), (0.2, 1.0)),
    "cloth": _Kind(
        (
            (0.15, 0.2, 0.4),
            (0.5, 0.12, 0.15),
            (0.2, 0.2, 0.2),
            (0.75, 0.72, 0.65),
            (0.85, 0.85, 0.1),
            (0.25, 0.4, 0.25),
        ),
        (0.06, 0.5),
    ),
    "skin": _Kind(((0.8, 0.6, 0.48), (0.5, 0.34, 0.25), (0.3, 0.2, 0.14)), (0.15, 0.45)),
    "leaves": _Kind(
        ((0.16, 0.36, 0.12), (0.24, 0.42, 0.14), (0.36, 0.42, 0.16), (0.5, 0.38, 0.14)), (0.08, 0.45), 0.5, 0.25
    ),
    "hedge": _Kind(((0.14, 0.32, 0.12), (0.26, 0.38, 0.14)), (0.08, 0.45), 0.15, 0.05),
    "bark": _Kind(((0.32, 0.24, 0.17), (0.45, 0.4, 0.34)), (0.08, 0.35), 0.03),
    "asphalt": _Kind(((0.3, 0.3, 0.31), (0.24, 0.24, 0.26), (0.38, 0.37, 0.36)), (0.06, 0.25), 0.01),
    "paving": _Kind(((0.55, 0.52, 0.48), (0.45, 0.44, 0.43), (0.6, 0.5, 0.44)), (0.08, 0.32), 0.01),
    "marking": _Kind(((0.85, 0.85, 0.83),), (0.25, 0.6)),
    "grass": _Kind(((0.28, 0.42, 0.16), (0.38, 0.44, 0.2), (0.24, 0.36, 0.14)), (0.08, 0.35), 0.1),
    "soil": _Kind(((0.42, 0.34, 0.24), (0.5, 0.44, 0.34)), (0.07, 0.3), 0.06),
    "ballast": _Kind(((0.42, 0.4, 0.39), (0.5, 0.46, 0.42)), (0.07, 0.3), 0.04),
    "slab": _Kind(((0.5, 0.5, 0.48), (0.62, 0.6, 0.56)), (0.08, 0.32), 0.01),
    "water": _Kind(((0.2, 0.3, 0.34), (0.24, 0.32, 0.28)), (0.03, 0.15), 0.02, 0.2),
}


def draw_material(rng: Rng, name: str, windows: bool = False) -> Material:
    """A material of one of `KINDS`, with a random colour and reflectance."""
    kind = KINDS[name]
    tint = rng.uniform(-0.06, 0.06) + rng.uniform(-0.03, 0.03, 3)
    red, green, blue = np.clip(np.array(kind.colors[rng.integers(len(kind.colors))]) + tint, 0.02, 0.98).tolist()
    return Material((red, green, blue), float(rng.uniform(*kind.reflectance)), kind.scatter, kind.porosity, windows)
