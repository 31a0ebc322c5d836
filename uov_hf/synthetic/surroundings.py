"""The fixed objects of the street: manmade ones and vegetation."""

import numpy as np

from uov_hf.synthetic.materials import Rng, draw_material
from uov_hf.synthetic.models import Model
from uov_hf.synthetic.shapes import TUBE, Part, box, ellipsoid, post


MANMADE, VEGETATION = "static.manmade", "static.vegetation"
FOUNDATION = 1.5  # metres below the ground, so that no building floats on a slope


def building(rng: Rng) -> Model:
    """A block with windows, a base or a porch in front, and a flat roof with a superstructure."""
    length, depth, height = rng.uniform(9, 20), rng.uniform(7, 11), rng.uniform(3.5, 14)
    facade, base = draw_material(rng, "facade", windows=True), draw_material(rng, "concrete")
    parts = [
        box(facade, (length, depth, height + FOUNDATION), (0, 0, (height - FOUNDATION) / 2)),
        box(base, (length + 0.3, depth + 0.3, 0.8 + FOUNDATION), (0, 0, (0.8 - FOUNDATION) / 2)),
        box(base, (length + 0.6, depth + 0.6, 0.3), (0, 0, height)),
        box(base, (0.3 * length, 0.4 * depth, 1.5), (rng.uniform(-0.3, 0.3) * length, 0, height + 0.8)),
    ]
    if rng.random() < 0.6:  # a porch or bay on the street side
        parts.append(
            box(facade, (rng.uniform(2, 4), 1.6, 3.0), (rng.uniform(-0.3, 0.3) * length, depth / 2 + 0.6, 1.5))
        )
    return Model(MANMADE, parts)


def wall(rng: Rng) -> Model:
    height = rng.uniform(0.7, 2.4)
    size = (rng.uniform(3.5, 5.5), rng.uniform(0.2, 0.4), height + 0.5)
    return Model(MANMADE, (box(draw_material(rng, "facade"), size, (0, 0, height / 2 - 0.25)),))


def fence(rng: Rng) -> Model:
    """Posts with rails or wire between them."""
    length, height, metal = rng.uniform(3.5, 5.0), rng.uniform(0.9, 2.2), draw_material(rng, "metal")
    parts = [box(metal, (0.1, 0.1, height + 0.4), (x * length, 0, height / 2 - 0.2)) for x in (-0.5, 0.0, 0.5)]
    if rng.random() < 0.5:
        parts += [box(metal, (length, 0.06, 0.12), (0, 0, z * height)) for z in (0.25, 0.55, 0.9)]
    else:
        parts.append(box(draw_material(rng, "mesh"), (length, 0.04, 0.95 * height), (0, 0, 0.5 * height)))
    return Model(MANMADE, parts)


def guard_rail(rng: Rng) -> Model:
    """A waist-high rail on posts: similar to a barrier, but manmade."""
    length, metal = rng.uniform(3.5, 4.5), draw_material(rng, "metal")
    parts = [box(metal, (length, 0.08, 0.32), (0, 0, 0.62))]
    parts += [box(metal, (0.1, 0.12, 1.0), (x * length, 0.08, 0.2)) for x in (-0.4, 0.0, 0.4)]
    return Model(MANMADE, parts)


def lamp(rng: Rng) -> Model:
    height, metal = rng.uniform(5, 9), draw_material(rng, "metal")
    arm = rng.uniform(0.8, 2.0)
    parts = (
        post(metal, rng.uniform(0.07, 0.14), (0, 0, -0.5), height + 0.5, taper=0.6),
        box(metal, (0.1, arm, 0.1), (0, arm / 2, height)),
        box(metal, (0.22, 0.6, 0.12), (0, arm, height)),
    )
    return Model(MANMADE, parts)


def sign(rng: Rng) -> Model:
    """A plate on a pole: round, square or a wide board on two."""
    height, metal, plate = rng.uniform(2.1, 3.2), draw_material(rng, "metal"), draw_material(rng, "sign")
    if rng.random() < 0.3:
        width = rng.uniform(1.5, 2.8)
        posts = [post(metal, 0.05, (0, side * 0.4 * width, -0.5), height + 0.5) for side in (-1, 1)]
        return Model(MANMADE, (*posts, box(plate, (0.08, width, 1.1), (0.08, 0, height - 0.2))))
    size = rng.uniform(0.6, 0.9)
    flat = Part(TUBE, (0.08, 0, height), (size, size, 0.05), plate, turn=(0, np.pi / 2, 0))
    plate_part = flat if rng.random() < 0.5 else box(plate, (0.05, size, size), (0.08, 0, height))
    return Model(MANMADE, (post(metal, 0.045, (0, 0, -0.5), height + 0.5), plate_part))


def shelter(rng: Rng) -> Model:
    """A bus shelter: a roof, a back of glass, a bench."""
    metal, glass, length = draw_material(rng, "metal"), draw_material(rng, "glass"), rng.uniform(3.0, 4.5)
    parts = [box(metal, (length, 1.5, 0.12), (0, 0, 2.5)), box(glass, (length, 0.06, 2.0), (0, 0.7, 1.3))]
    parts += [post(metal, 0.05, (x * length, -0.65, 0), 2.5) for x in (-0.48, 0.48)]
    return Model(MANMADE, (*parts, box(metal, (0.7 * length, 0.4, 0.1), (0, 0.35, 0.5))))


def furniture(rng: Rng) -> Model:
    """Street furniture: a hydrant, a cabinet, a bench, bollards."""
    kind = rng.integers(4)
    if kind == 0:
        paint = draw_material(rng, "plastic")
        return Model(MANMADE, (post(paint, 0.14, (0, 0, 0), 0.7), ellipsoid(paint, (0.32, 0.32, 0.3), (0, 0, 0.7))))
    if kind == 1:
        return Model(MANMADE, (box(draw_material(rng, "metal"), (1.1, 0.5, 1.3), (0, 0, 0.65)),))
    if kind == 2:
        wood, legs = draw_material(rng, "bark"), draw_material(rng, "concrete")
        seat = [box(wood, (1.7, 0.45, 0.07), (0, 0, 0.45)), box(wood, (1.7, 0.07, 0.4), (0, 0.22, 0.75))]
        return Model(MANMADE, (*seat, *[box(legs, (0.12, 0.4, 0.45), (x, 0, 0.22)) for x in (-0.7, 0.7)]))
    stone = draw_material(rng, "concrete")
    return Model(MANMADE, [post(stone, 0.12, (x, 0, 0), 0.9) for x in (-1.2, 0.0, 1.2)])


def tree(rng: Rng) -> Model:
    """A trunk with a crown of a few ragged balls, or a conifer's cone."""
    height, bark, leaves = rng.uniform(4, 9), draw_material(rng, "bark"), draw_material(rng, "leaves")
    radius, bare = rng.uniform(0.12, 0.3), rng.uniform(0.22, 0.4) * height
    parts = [post(bark, radius, (0, 0, -0.5), bare + 1.5, taper=0.7)]
    spread = rng.uniform(0.42, 0.65) * (height - bare)
    if rng.random() < 0.3:
        return Model(VEGETATION, (*parts, post(leaves, 0.6 * spread, (0, 0, bare), height - bare, taper=0.08)))
    for _ in range(3):
        shift = rng.uniform(-0.25, 0.25, 3) * spread
        length, width, thickness = rng.uniform(0.8, 1.2, 3) * (2 * spread, 2 * spread, 0.8 * (height - bare))
        center = (shift[0], shift[1], (height + bare) / 2 + shift[2])
        parts.append(ellipsoid(leaves, (float(length), float(width), float(thickness)), center))
    return Model(VEGETATION, parts)


def bush(rng: Rng) -> Model:
    leaves, size = draw_material(rng, "leaves"), rng.uniform(0.7, 2.0)
    balls = []
    for _ in range(3):
        x, y = rng.uniform(-0.4, 0.4, 2) * size
        height = rng.uniform(0.6, 1.0) * size
        balls.append(ellipsoid(leaves, (size, size, height), (x, y, 0.35 * height)))
    return Model(VEGETATION, balls)


def hedge(rng: Rng) -> Model:
    height = rng.uniform(0.7, 2.0)
    size = (rng.uniform(3, 5), rng.uniform(0.6, 1.1), height + 0.4)
    return Model(VEGETATION, (box(draw_material(rng, "hedge"), size, (0, 0, height / 2 - 0.2)),))
