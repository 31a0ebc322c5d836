"""The plan of a town: the course and the cross-section of its street, and the painted ground."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uov_hf.synthetic.ground import CELL, Ground, Patch
from uov_hf.synthetic.materials import Rng, draw_material
from uov_hf.synthetic.shapes import Floats


HALF_WIDTH = 60.0  # metres from the middle of the street to the edge: the devkit draws 57 m of map around the car


@dataclass(frozen=True)
class Street:
    """The street's course and its cross-section, as distances from the middle line in metres."""

    length: float
    bend: float  # of the middle line, whose y is a sine of x
    wavelength: float
    phase: float
    median: float  # half its width; then the widths outwards
    lane: float
    bike: float
    parking: float
    walk: float
    strip: float
    crossings: tuple[float, ...]  # x of the side streets
    crossing: float  # half their width

    def middle_line(self, x: Floats) -> Floats:
        """y of the street's middle, metres."""
        return HALF_WIDTH + self.bend * (1 + np.sin(2 * np.pi * x / self.wavelength + self.phase))

    def direction(self, x: Floats) -> Floats:
        """Yaw of the street, radians."""
        wave = 2 * np.pi / self.wavelength
        return np.arctan(self.bend * wave * np.cos(wave * x + self.phase))

    @property
    def width(self) -> float:
        return 2 * HALF_WIDTH + 2 * self.bend

    @property
    def lane_middle(self) -> float:
        return self.median + self.lane / 2

    @property
    def kerb(self) -> float:
        return self.median + self.lane + self.bike + self.parking

    @property
    def front(self) -> float:
        """Distance of the lots."""
        return self.kerb + self.walk + self.strip

    def blocks(self) -> list[tuple[float, float]]:
        """Start and end of the stretches between the side streets and their sidewalks; a short one is left out."""
        edges = [0.0, *self.crossings, self.length]
        gap = self.crossing + 3.0
        return [(a + gap, b - gap) for a, b in zip(edges, edges[1:], strict=False) if b - a > 2 * gap]


def draw_street(rng: Rng, length: float) -> Street:
    crossings: list[float] = []
    x = rng.uniform(15, 50)
    while x < length - 15:
        crossings.append(float(x))
        x += rng.uniform(42, 62)
    return Street(
        length=length,
        bend=rng.uniform(0, 7),
        wavelength=rng.uniform(150, 300),
        phase=rng.uniform(0, 2 * np.pi),
        median=rng.uniform(0.6, 1.5),
        lane=rng.uniform(3.0, 3.5),
        bike=rng.uniform(1.4, 1.8),
        parking=rng.uniform(2.5, 2.8),
        walk=rng.uniform(3.0, 4.5),
        strip=rng.uniform(1.5, 3.5),
        crossings=tuple(crossings),
        crossing=rng.uniform(3.5, 5.0),
    )


def draw_ground(rng: Rng, street: Street) -> Ground:
    patches = _draw_patches(rng)
    painting = _paint(rng, street, {patch: index for index, patch in enumerate(patches)})
    middle = np.array([street.length, street.width]) / 2
    return Ground(
        patches=list(patches.values()),
        painting=painting,
        middle=middle,
        slope=rng.uniform(-0.02, 0.02, 2),
        curvature=rng.uniform(-1, 1, 2) * (2.5e-4, 6e-4),
    )


def _draw_patches(rng: Rng) -> dict[str, Patch]:
    """Kerbs, verges and islands have different heights in every town: height alone must not determine the class."""
    kerb, verge, island = rng.uniform(0.07, 0.2), rng.uniform(-0.05, 0.25), rng.uniform(0.06, 0.2)

    def patch(category: str, kind: str, level: float) -> Patch:
        return Patch(f"flat.{category}", draw_material(rng, kind), round(float(level), 3))

    return {
        "road": patch("driveable_surface", "asphalt", 0.0),
        "side street": patch("driveable_surface", "asphalt", 0.0),
        "marking": patch("driveable_surface", "marking", 0.0),
        "yard": patch("driveable_surface", "asphalt", kerb),
        "walk right": patch("sidewalk", "paving", kerb),
        "walk left": patch("sidewalk", "paving", kerb),
        "grass": patch("terrain", "grass", verge),
        "soil": patch("terrain", "soil", verge),
        "island": patch("other", "slab", island),
        "rails": patch("other", "ballast", verge),
        "water": patch("other", "water", -0.35),
    }


def _paint(rng: Rng, street: Street, index: dict[str, int]) -> NDArray[np.uint8]:
    """From the lots inwards; a later patch covers an earlier one."""
    x = (np.arange(int(street.length / CELL)) + 0.5) * CELL
    y = (np.arange(int(street.width / CELL), dtype=np.float32) + np.float32(0.5)) * np.float32(CELL)
    offset = y[:, None] - street.middle_line(x).astype(np.float32)
    distance = np.abs(offset)
    painting = np.full(offset.shape, index["grass"], dtype=np.uint8)
    right, left = offset < 0, offset > 0
    for start, end in street.blocks():
        columns = slice(max(int((start - 3) / CELL), 0), int((end + 3) / CELL))
        for side, walk in ((right, "walk right"), (left, "walk left")):
            for reach, patch in _draw_coats(rng, street, walk):
                painting[:, columns][side[:, columns] & (distance[:, columns] < reach)] = index[patch]
    painting[distance < street.kerb] = index["road"]
    painting[np.abs(distance - street.median - street.lane) < 0.08] = index["marking"]
    painting[distance < street.median] = index[str(rng.choice(["island", "rails"]))]
    for crossing in street.crossings:
        columns = slice(int((crossing - street.crossing - 3) / CELL), int((crossing + street.crossing + 3) / CELL))
        _paint_crossing(painting[:, columns], distance[:, columns], np.abs(x[columns] - crossing), street, index)
    return painting


def _draw_coats(rng: Rng, street: Street, walk: str) -> list[tuple[float, str]]:
    """The patches of one side of a block, from the houses to the kerb, and the outer limit of each in metres."""
    coats = [
        (np.inf, str(rng.choice(["grass", "soil", "yard"]))),
        (street.front, str(rng.choice(["rails", "island", "water", "grass", "soil"], p=[0.15, 0.1, 0.1, 0.35, 0.3]))),
        (street.kerb + street.walk, walk),
    ]
    return [*coats, (street.kerb + 1.3, "grass")] if rng.random() < 0.4 else coats


def _paint_crossing(
    painting: NDArray[np.uint8], distance: Floats, along: Floats, street: Street, index: dict[str, int]
) -> None:
    """A side street with its sidewalks and zebra crossings; `along` is the distance from its middle line."""
    painting[(distance > street.kerb) & (along < street.crossing + 2.5)] = index["walk left"]
    painting[:, along < street.crossing] = index["side street"]
    zebra = (np.abs(along - street.crossing - 1.2) < 0.9) & (distance < street.kerb) & (np.mod(distance, 1.2) < 0.6)
    painting[zebra] = index["marking"]
