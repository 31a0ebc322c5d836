"""Models of the ten movable classes and of clutter, each made of a few parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uov_hf.synthetic.materials import Rng, draw_material
from uov_hf.synthetic.shapes import BOX, Floats, Part, box, ellipsoid, part_corners, post, wheel


@dataclass(frozen=True)
class Model:
    """An object on the street, in its own frame: x forward, y left, z up, z = 0 the ground."""

    category: str  # raw nuScenes-lidarseg class, such as `vehicle.car`
    parts: Sequence[Part]

    @cached_property
    def bounds(self) -> Floats:
        """Lowest and highest corner (2, 3) of the box around all parts, metres."""
        corners = np.concatenate([part_corners(part) for part in self.parts])
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    @property
    def length(self) -> float:
        return float(self.bounds[1, 0] - self.bounds[0, 0])


def _wheels(rng: Rng, axles: Sequence[float], track: float, radius: float, width: float = 0.25) -> list[Part]:
    """Two wheels at the x of each axle."""
    parts, y = [], (track - width) / 2 + 0.03
    for x in axles:
        rubber = draw_material(rng, "rubber")
        parts += [wheel(rubber, radius, width, (x, side * y, radius)) for side in (-1, 1)]
    return parts


def car(rng: Rng) -> Model:
    """A low body with a narrower cabin of glass; hatchbacks, saloons, estates and off-roaders."""
    length, width, height = rng.uniform(3.7, 5.0), rng.uniform(1.65, 1.95), rng.uniform(1.4, 1.85)
    clearance, belt = rng.uniform(0.2, 0.35), rng.uniform(0.52, 0.6) * height
    cabin_length, cabin_shift = rng.uniform(0.48, 0.72) * length, rng.uniform(-0.12, -0.02) * length
    paint, glass = draw_material(rng, "paint"), draw_material(rng, "glass")
    parts = [
        box(paint, (length, width, belt - clearance), (0, 0, (belt + clearance) / 2)),
        box(glass, (cabin_length, 0.86 * width, height - belt), (cabin_shift, 0, (height + belt) / 2)),
        box(paint, (0.85 * cabin_length, 0.8 * width, 0.06), (cabin_shift, 0, height)),
    ]
    parts += _wheels(rng, (0.31 * length, -0.3 * length), width, 0.33)
    return Model("vehicle.car", parts)


def truck(rng: Rng) -> Model:
    """A cab, a gap, and a load that is higher than the cab; or a pickup with an open bed."""
    if rng.random() < 0.25:
        return _pickup(rng)
    length, width, height = rng.uniform(6.5, 10.0), rng.uniform(2.2, 2.6), rng.uniform(2.9, 3.8)
    cab_length, cab_height = rng.uniform(1.7, 2.2), rng.uniform(0.68, 0.9) * height
    paint, load, glass = draw_material(rng, "paint"), draw_material(rng, "paint"), draw_material(rng, "glass")
    load_length = length - cab_length - 0.5
    load_x, cab_x = -length / 2 + load_length / 2, length / 2 - cab_length / 2
    parts = [
        box(paint, (cab_length, width, cab_height - 0.6), (cab_x, 0, (cab_height + 0.6) / 2)),
        box(glass, (0.08, 0.85 * width, 0.3 * cab_height), (length / 2 + 0.02, 0, 0.75 * cab_height)),
        box(draw_material(rng, "metal"), (length, 0.5 * width, 0.25), (0, 0, 0.75)),
        box(load, (load_length, width, height - 1.0), (load_x, 0, (height + 1.0) / 2)),
    ]
    parts += _wheels(rng, (0.36 * length, -0.2 * length, -0.34 * length), width, 0.48, 0.3)
    return Model("vehicle.truck", parts)


def _pickup(rng: Rng) -> Model:
    length, width, height = rng.uniform(5.2, 6.0), rng.uniform(1.9, 2.1), rng.uniform(1.8, 2.1)
    paint, glass = draw_material(rng, "paint"), draw_material(rng, "glass")
    parts = [
        box(paint, (length, width, 0.3), (0, 0, 0.6)),
        box(paint, (0.25 * length, width, 0.45), (0.37 * length, 0, 0.95)),
        box(paint, (0.3 * length, width, 0.35), (0.1 * length, 0, 0.9)),
        box(glass, (0.26 * length, 0.9 * width, height - 1.1), (0.1 * length, 0, (height + 1.1) / 2)),
        box(paint, (0.43 * length, 0.08, 0.5), (-0.28 * length, width / 2 - 0.04, 1.0)),
        box(paint, (0.43 * length, 0.08, 0.5), (-0.28 * length, 0.04 - width / 2, 1.0)),
        box(paint, (0.08, width, 0.5), (0.04 - length / 2, 0, 1.0)),
    ]
    parts += _wheels(rng, (0.32 * length, -0.3 * length), width, 0.4)
    return Model("vehicle.truck", parts)


def bus(rng: Rng) -> Model:
    """One long low-floored box with a band of windows; articulated ones have two and bellows."""
    bendy = rng.random() < 0.3
    length, width, height = rng.uniform(9.5, 12.5), 2.55, rng.uniform(2.9, 3.4)
    paint, glass = draw_material(rng, "paint"), draw_material(rng, "glass")
    sections = [(-0.26 * length, 0.45 * length), (0.26 * length, 0.45 * length)] if bendy else [(0.0, length)]
    parts = []
    for x, section in sections:
        parts += [
            box(paint, (section, width, 1.1), (x, 0, 0.9)),
            box(glass, (section - 0.05, width - 0.1, 1.0), (x, 0, 1.95)),
            box(paint, (section, width, height - 2.4), (x, 0, (height + 2.4) / 2)),
        ]
        parts += _wheels(rng, (x + 0.3 * section, x - 0.28 * section), width, 0.48, 0.3)
    if bendy:
        bellows = draw_material(rng, "rubber")
        parts.append(box(bellows, (0.1 * length, width - 0.3, height - 0.6), (0, 0, (height + 0.4) / 2)))
    return Model("vehicle.bus.bendy" if bendy else "vehicle.bus.rigid", parts)


def trailer(rng: Rng) -> Model:
    """A load without a cab: axles behind, landing legs and a drawbar in front; a box, a tank or a flat bed."""
    length, width, deck = rng.uniform(6.5, 11.0), rng.uniform(2.3, 2.55), rng.uniform(1.0, 1.3)
    metal, load = draw_material(rng, "metal"), draw_material(rng, "paint")
    parts = [box(metal, (length, width, 0.2), (0, 0, deck))]
    parts += [post(metal, 0.09, (0.33 * length, side * 0.35 * width, 0), deck) for side in (-1, 1)]
    parts.append(box(metal, (1.4, 0.2, 0.2), (length / 2 + 0.6, 0, deck - 0.25)))
    height = rng.uniform(1.6, 2.5)
    kind = rng.integers(3)
    if kind == 0:
        parts.append(box(load, (length, width, height), (0, 0, deck + 0.1 + height / 2)))
    elif kind == 1:
        tank = Part(2, (0, 0, deck + 0.1 + width / 2), (width, width, 0.95 * length), load, turn=(0, np.pi / 2, 0))
        parts.append(tank)
    else:
        for x in (-0.3, 0.0, 0.3):
            size = (0.22 * length, 0.85 * width, rng.uniform(0.4, 1.1))
            parts.append(box(draw_material(rng, "paint"), size, (x * length, 0, deck + 0.1 + size[2] / 2)))
    parts += _wheels(rng, [x * length for x in (-0.2, -0.31, -0.42)], width, 0.46, 0.3)
    return Model("vehicle.trailer", parts)


def construction_vehicle(rng: Rng) -> Model:
    """An excavator on tracks with a bent arm, or a loader on four high wheels with a shovel."""
    paint, metal, glass = draw_material(rng, "machine"), draw_material(rng, "metal"), draw_material(rng, "glass")
    if rng.random() < 0.55:
        reach = rng.uniform(2.2, 3.0)
        parts = [box(draw_material(rng, "rubber"), (3.6, 0.6, 0.85), (0, side * 1.0, 0.43)) for side in (-1, 1)]
        parts += [
            box(paint, (2.6, 2.3, 1.1), (-0.5, 0, 1.5)),
            box(glass, (1.2, 0.95, 1.2), (0.5, 0.6, 2.2)),
            box(paint, (reach, 0.4, 0.45), (0.6 + 0.38 * reach, -0.3, 2.9), (0, -0.75, 0)),
            box(paint, (reach, 0.35, 0.4), (0.6 + 1.0 * reach, -0.3, 2.75), (0, 1.0, 0)),
            box(metal, (0.8, 1.0, 0.7), (0.6 + 1.25 * reach, -0.3, 1.2), (0, 0.4, 0)),
        ]
        return Model("vehicle.construction", parts)
    parts = [
        box(paint, (2.4, 1.5, 1.0), (-1.2, 0, 1.5)),
        box(paint, (1.6, 1.1, 0.7), (0.8, 0, 1.15)),
        box(glass, (1.3, 1.3, 1.3), (-0.4, 0, 2.6)),
        box(metal, (2.2, 0.9, 0.25), (1.9, 0, 1.2), (0, 0.35, 0)),
        box(metal, (0.9, 2.6, 0.9), (3.0, 0, 0.65), (0, rng.uniform(-0.3, 0.3), 0)),
    ]
    parts += _wheels(rng, (1.1, -1.5), 2.4, 0.75, 0.6)
    return Model("vehicle.construction", parts)


def _rider(rng: Rng, seat: float) -> list[Part]:
    cloth, trousers = draw_material(rng, "cloth"), draw_material(rng, "cloth")
    return [
        ellipsoid(cloth, (0.42, 0.46, 0.75), (-0.05, 0, seat + 0.38)),
        ellipsoid(draw_material(rng, "plastic"), (0.27, 0.25, 0.28), (0.06, 0, seat + 0.88)),
        *[box(trousers, (0.5, 0.15, 0.18), (0.12, s * 0.14, seat - 0.1), (0, 0.6, 0)) for s in (-1, 1)],
        *[box(cloth, (0.55, 0.1, 0.1), (0.3, s * 0.2, seat + 0.42), (0, 0.35, 0)) for s in (-1, 1)],
    ]


def bicycle(rng: Rng, ridden: bool = False) -> Model:
    """Two large thin wheels that beams pass through, a thin frame, a handlebar."""
    frame, spokes, radius = draw_material(rng, "paint"), draw_material(rng, "spokes"), rng.uniform(0.32, 0.36)
    parts = [wheel(spokes, radius, 0.05, (x, 0, radius)) for x in (-0.53, 0.53)]
    parts += [
        box(frame, (0.75, 0.06, 0.08), (0.05, 0, 0.72), (0, -0.1, 0)),
        box(frame, (0.75, 0.06, 0.07), (0.12, 0, 0.52), (0, -0.65, 0)),
        box(frame, (0.07, 0.06, 0.75), (-0.2, 0, 0.6), (0, -0.25, 0)),
        box(frame, (0.07, 0.08, 0.75), (0.46, 0, 0.65), (0, -0.3, 0)),
        box(draw_material(rng, "rubber"), (0.08, 0.58, 0.07), (0.36, 0, 1.03)),
        box(draw_material(rng, "rubber"), (0.26, 0.16, 0.08), (-0.28, 0, 0.97)),
    ]
    return Model("vehicle.bicycle", parts + (_rider(rng, 0.95) if ridden else []))


def motorcycle(rng: Rng, ridden: bool = False) -> Model:
    """Two thick wheels with a full body between them; scooters have a shield and a footboard."""
    paint, metal, radius = draw_material(rng, "paint"), draw_material(rng, "metal"), rng.uniform(0.27, 0.33)
    rubber = draw_material(rng, "rubber")
    parts = [wheel(rubber, radius, 0.17, (x, 0, radius)) for x in (-0.68, 0.7)]
    parts += [
        ellipsoid(paint, (0.75, 0.42, 0.42), (0.12, 0, 0.78)),
        box(metal, (0.6, 0.4, 0.42), (0.02, 0, 0.42)),
        box(rubber, (0.75, 0.32, 0.16), (-0.42, 0, 0.82)),
        box(paint, (0.45, 0.28, 0.2), (-0.72, 0, 0.68)),
        box(metal, (0.1, 0.2, 0.75), (0.55, 0, 0.7), (0, -0.45, 0)),
        box(metal, (0.08, 0.75, 0.07), (0.4, 0, 1.05)),
        box(draw_material(rng, "glass"), (0.1, 0.34, 0.4), (0.55, 0, 1.02), (0, -0.5, 0)),
    ]
    return Model("vehicle.motorcycle", parts + (_rider(rng, 0.88) if ridden else []))


def pedestrian(rng: Rng) -> Model:
    """Two legs, a trunk, two arms and a head; children are smaller, workers wear a helmet."""
    category = rng.choice(
        ["human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker"],
        p=[0.75, 0.12, 0.13],
    )
    height = rng.uniform(1.05, 1.4) if category.endswith("child") else rng.uniform(1.55, 1.92)
    cloth, trousers, stride = draw_material(rng, "cloth"), draw_material(rng, "cloth"), rng.uniform(0.0, 0.4)
    head = draw_material(rng, "plastic" if category.endswith("worker") else "skin")
    h = height / 1.75
    parts = [
        box(trousers, (0.16 * h, 0.15 * h, 0.88 * h), (0, side * 0.1 * h, 0.43 * h), (0, side * stride, 0))
        for side in (-1, 1)
    ]
    parts += [
        ellipsoid(cloth, (0.3 * h, 0.5 * h, 0.78 * h), (0, 0, 1.13 * h)),
        ellipsoid(head, (0.23 * h, 0.2 * h, 0.27 * h), (0, 0, 1.615 * h)),
        *[
            box(cloth, (0.11 * h, 0.1 * h, 0.62 * h), (0, side * 0.28 * h, 1.08 * h), (0, -side * stride, 0))
            for side in (-1, 1)
        ],
    ]
    return Model(str(category), parts)


def traffic_cone(rng: Rng) -> Model:
    """A cone on a square plate."""
    height, radius = rng.uniform(0.65, 1.0), rng.uniform(0.17, 0.24)
    plastic = draw_material(rng, "plastic")
    parts = (
        box(draw_material(rng, "rubber"), (2.3 * radius, 2.3 * radius, 0.06), (0, 0, 0.03)),
        post(plastic, radius, (0, 0, 0.06), height - 0.06, taper=0.18),
    )
    return Model("movable_object.trafficcone", parts)


def barrier(rng: Rng) -> Model:
    """A concrete or plastic block with a wide foot, or a board on two legs."""
    length, height = rng.uniform(1.6, 2.3), rng.uniform(0.8, 1.1)
    material = draw_material(rng, "plastic" if rng.random() < 0.5 else "concrete")
    if rng.random() < 0.65:
        foot, top = rng.uniform(0.5, 0.65), rng.uniform(0.18, 0.28)
        parts = [
            box(material, (length, foot, 0.3 * height), (0, 0, 0.15 * height)),
            box(material, (length, (foot + top) / 2, 0.3 * height), (0, 0, 0.4 * height)),
            box(material, (length, top, 0.5 * height), (0, 0, 0.75 * height)),
        ]
    else:
        legs = draw_material(rng, "metal")
        parts = [box(material, (length, 0.06, 0.3), (0, 0, z * height)) for z in (0.5, 0.85)]
        parts += [box(legs, (0.08, 0.6, 0.08), (x * length, 0, 0.04)) for x in (-0.4, 0.4)]
        parts += [box(legs, (0.08, 0.08, height), (x * length, 0, height / 2)) for x in (-0.4, 0.4)]
    return Model("movable_object.barrier", parts)


def clutter(rng: Rng) -> Model:
    """Classes that the challenge ignores: rubbish, wheeled bins, a dog."""
    kind = rng.integers(3)
    if kind == 0:
        bag = draw_material(rng, "rubber")
        bags = [ellipsoid(bag, (0.6, 0.5, 0.5), (x, y, 0.22)) for x, y in rng.uniform(-0.4, 0.4, (3, 2))]
        return Model("movable_object.debris", bags)
    if kind == 1:
        plastic = draw_material(rng, "machine")
        parts = (box(plastic, (0.55, 0.6, 0.9), (0, 0, 0.6)), box(plastic, (0.62, 0.66, 0.08), (0, 0, 1.08)))
        return Model("movable_object.pushable_pullable", parts)
    fur = draw_material(rng, "bark")
    legs = [box(fur, (0.08, 0.08, 0.35), (x, y, 0.17)) for x in (-0.25, 0.25) for y in (-0.1, 0.1)]
    body = [ellipsoid(fur, (0.7, 0.26, 0.3), (0, 0, 0.45)), ellipsoid(fur, (0.3, 0.18, 0.2), (0.42, 0, 0.62))]
    return Model("animal", body + legs)


def ego_car(rng: Rng) -> Model:
    """The recording car as its own lidar measures it: a bonnet and a low roof; the origin is the rear axle."""
    paint = draw_material(rng, "paint")
    parts = (
        Part(BOX, (1.35, 0, 0.55), (4.1, 1.73, 0.6), paint),
        Part(BOX, (0.95, 0, 1.0), (2.2, 1.4, 0.4), draw_material(rng, "glass")),
    )
    return Model("vehicle.ego", parts)
