"""The town of one scene: all objects on its street, and the recording car."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from uov_hf.geometry.rotation import rigid_motion
from uov_hf.synthetic import models, surroundings
from uov_hf.synthetic.ground import Ground
from uov_hf.synthetic.layout import Street, draw_ground, draw_street
from uov_hf.synthetic.materials import Rng
from uov_hf.synthetic.models import Model


MARGIN = 75.0  # metres of street before the first and after the last position of the ego car

Draw = Callable[[Rng], Model]
Span = tuple[float, float]  # low and high; a block is the x of a stretch between side streets


@dataclass(frozen=True)
class Thing:
    """An object and its motion along the street."""

    model: Model
    x: float  # metres at time 0
    offset: float  # metres from the street's middle line
    heading: float = 0.0  # yaw on the street, radians
    speed: float = 0.0  # metres per second


@dataclass(frozen=True, eq=False)
class Town:
    """One scene's world. x runs along the street, z up; metres, seconds."""

    street: Street
    ground: Ground
    things: list[Thing]  # all objects without the ego car
    ego: Thing

    def ego_pose(self, time: float) -> NDArray[np.float64]:
        """Pose (4, 4) of the ego car's frame (rear axle, on the ground) in the global frame."""
        return self._poses(_placement([self.ego]), time)[0]

    def poses(self, time: float) -> NDArray[np.float64]:
        """Poses (num_things, 4, 4) of the objects in the global frame."""
        return self._poses(self._placement, time)

    @cached_property
    def _placement(self) -> NDArray[np.float64]:
        return _placement(self.things)

    def _poses(self, placement: NDArray[np.float64], time: float) -> NDArray[np.float64]:
        x, offset, heading, speed = placement
        x = x + speed * time
        y = self.street.middle_line(x) + offset
        yaw = self.street.direction(x) + heading
        up = self.ground.normals(x, y)
        forward = np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], axis=-1)
        left = np.cross(up, forward)
        left /= np.linalg.norm(left, axis=-1, keepdims=True)
        rotation = np.stack([np.cross(left, up), left, up], axis=-1)
        return rigid_motion(rotation, np.stack([x, y, self.ground.height(x, y)], axis=-1))


def _placement(things: list[Thing]) -> NDArray[np.float64]:
    """x, offset, heading and speed of objects, (4, num_things)."""
    return np.array([(thing.x, thing.offset, thing.heading, thing.speed) for thing in things]).T


def build_town(rng: Rng, duration: float) -> Town:
    """A town in which the ego car can drive for `duration` seconds."""
    speed = rng.uniform(5.0, 9.0)
    street = draw_street(rng, length=speed * duration + 2 * MARGIN)
    ground = draw_ground(rng, street)
    ego = Thing(models.ego_car(rng), MARGIN, -street.lane_middle, 0.0, speed)
    things = _traffic(rng, street, ego, duration)
    for block in street.blocks():
        things += _line_up(rng, block, 0.0, ON_ISLAND, (3.0, 10.0), turn=1.5)
        for side in (-1, 1):
            things += _kerbside(rng, street, block, side)
            things += _sidewalk(rng, street, block, side)
            things += _lots(rng, street, block, side)
    things += _side_streets(rng, street)
    return Town(street, ground, things, ego)


def _line_up(
    rng: Rng, block: Span, offset: float, draw: Draw, gap: Span, heading: float = 0.0, turn: float = 0.0
) -> list[Thing]:
    """Objects one after another in a block, with a random gap in metres, turned by up to `turn`."""
    things: list[Thing] = []
    x = block[0] + rng.uniform(0, gap[1])
    while True:
        model = draw(rng)
        if x + model.length > block[1]:
            return things
        yaw = heading + rng.uniform(-turn, turn)
        back = -model.bounds[0, 0] if np.cos(heading) > 0 else model.bounds[1, 0]
        things.append(Thing(model, float(x + back), offset + rng.uniform(-0.12, 0.12), yaw))
        x += model.length + rng.uniform(*gap)


def _mixture(weights: dict[Draw, float]) -> Draw:
    """A random draw among models with these weights."""
    shares = np.array(list(weights.values())) / sum(weights.values())
    draws = list(weights)
    return lambda rng: draws[rng.choice(len(draws), p=shares)](rng)


# Classes that are rare on real streets are common here: each of the 16 has points in nearly every frame.
PARKED = _mixture({models.car: 3, models.truck: 2, models.bus: 1.5, models.trailer: 5, models.construction_vehicle: 2})
AT_WORK = _mixture({models.construction_vehicle: 2, models.pedestrian: 3, models.traffic_cone: 2, models.clutter: 1})
WORKS = _mixture({models.barrier: 6, models.traffic_cone: 7})
DRIVING = _mixture({models.car: 6, models.truck: 2.5, models.bus: 1.5, models.construction_vehicle: 0.7})
RIDING = _mixture({lambda rng: models.bicycle(rng, True): 1, lambda rng: models.motorcycle(rng, True): 1})
FURNITURE = _mixture(
    {
        surroundings.lamp: 2,
        surroundings.sign: 2,
        surroundings.tree: 2,
        surroundings.bush: 1.5,
        surroundings.furniture: 1,
        surroundings.shelter: 0.4,
        models.bicycle: 6,
        models.motorcycle: 4,
        models.traffic_cone: 5,
        models.barrier: 2,
        models.clutter: 0.7,
    }
)
FRONTS = {
    draw: _mixture({draw: 5, surroundings.tree: 0.5, surroundings.sign: 0.3})
    for draw in (surroundings.wall, surroundings.fence, surroundings.hedge, surroundings.guard_rail, surroundings.bush)
}
ON_ISLAND = _mixture({models.pedestrian: 4, models.traffic_cone: 2, surroundings.sign: 1, surroundings.lamp: 0.5})
STORED = _mixture({models.trailer: 3, models.truck: 2, models.construction_vehicle: 3, models.bus: 1, models.car: 2})
PLANTED = _mixture({surroundings.tree: 3, surroundings.bush: 3})


def _kerbside(rng: Rng, street: Street, block: Span, side: int) -> list[Thing]:
    """Parked vehicles, and road works of barriers and cones around a machine."""
    start, end = block
    heading = 0.0 if side < 0 else np.pi
    offset = side * (street.kerb - street.parking / 2 - 0.05)
    length = rng.uniform(0.3, 0.5) * (end - start)
    works_start = rng.uniform(start, end - length)
    works = works_start, works_start + length
    edge = side * (street.kerb - street.parking + 0.1)
    marking = side * (street.median + street.lane + 0.1)
    things = _line_up(rng, works, edge, WORKS, (0.2, 1.2), heading, 0.1)
    things += _line_up(rng, works, offset + 0.5 * side, AT_WORK, (1.0, 3.0), heading, 0.15)
    things += _line_up(rng, works, marking, models.traffic_cone, (1.0, 3.0))
    for parking in ((start, works[0]), (works[1], end)):
        things += _line_up(rng, parking, offset, PARKED, (1.0, 8.0), heading, 0.03)
    return things


def _sidewalk(rng: Rng, street: Street, block: Span, side: int) -> list[Thing]:
    """Furniture along the kerb, people in the middle."""
    heading = 0.0 if side < 0 else np.pi
    things = _line_up(rng, block, side * (street.kerb + 0.75), FURNITURE, (0.3, 2.2), heading, 0.3)
    x = block[0]
    while (x := x + rng.uniform(1.5, 6.0)) < block[1]:
        offset = side * rng.uniform(street.kerb + 1.8, street.kerb + street.walk - 0.5)
        forwards = rng.random() < 0.5
        speed = rng.uniform(0.7, 1.6) * (1 if forwards else -1) * (rng.random() < 0.6)
        things.append(Thing(models.pedestrian(rng), float(x), float(offset), 0.0 if forwards else np.pi, float(speed)))
    return things


def _lots(rng: Rng, street: Street, block: Span, side: int) -> list[Thing]:
    """A fence or hedge in front; behind it houses, or a park or a yard with houses at the far end."""
    heading = 0.0 if side < 0 else np.pi
    front = FRONTS[list(FRONTS)[rng.integers(len(FRONTS))]]
    things = _line_up(rng, block, side * (street.front + 0.6), front, (0.2, 5.0), heading, 0.03)
    kind = rng.integers(3)
    if kind == 0:
        return things + _line_up(rng, block, side * (street.front + 8.5), surroundings.building, (1.0, 4.0), heading)
    if kind == 1:
        for row in (3.0, 7.0, 12.0):
            things += _line_up(rng, block, side * (street.front + row), PLANTED, (0.5, 6.0), heading, 1.5)
    else:
        things += _line_up(rng, block, side * (street.front + 4.0), STORED, (0.8, 4.0), heading, 0.1)
        things += _line_up(rng, block, side * (street.front + 9.0), STORED, (1.0, 6.0), heading, 0.1)
    return things + _line_up(rng, block, side * (street.front + 20), surroundings.building, (1.0, 8.0), heading)


def _side_streets(rng: Rng, street: Street) -> list[Thing]:
    """Vehicles waiting at the junctions."""
    things = []
    for crossing in street.crossings:
        for side in (-1, 1):
            model = DRIVING(rng)
            offset = side * (street.kerb + 4 + model.length / 2)
            things.append(Thing(model, crossing + side * 1.8, offset, -side * np.pi / 2))
    return things


def _traffic(rng: Rng, street: Street, ego: Thing, duration: float) -> list[Thing]:
    """Each lane and each bicycle lane has one speed, so that no two vehicles collide."""
    oncoming = rng.uniform(4.0, 9.0)
    reach = oncoming * duration
    lane = street.lane_middle
    columns = [
        ((0.0, street.length + reach), lane, np.pi, -oncoming, DRIVING, (5.0, 16.0)),
        ((ego.x + 11, street.length), -lane, 0.0, ego.speed * rng.uniform(1.0, 1.1), DRIVING, (6.0, 16.0)),
        ((0.0, ego.x - 9), -lane, 0.0, ego.speed * rng.uniform(0.85, 1.0), DRIVING, (6.0, 16.0)),
    ]
    for side in (-1, 1):
        speed, heading = -side * rng.uniform(3.0, 6.0), 0.0 if side < 0 else np.pi
        offset = side * (street.median + street.lane + street.bike / 2)
        start, end = -max(speed, 0) * duration, street.length - min(speed, 0) * duration
        columns.append(((start, end), offset, heading, speed, RIDING, (4.0, 12.0)))
    things = []
    for block, offset, heading, speed, draw, gap in columns:
        for thing in _line_up(rng, block, offset, draw, gap, heading):
            things.append(Thing(thing.model, thing.x, thing.offset, heading, float(speed)))
    return things
