"""Three unit shapes, stretched, turned and moved: everything that stands on the street is made of them."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from uov_hf.synthetic.materials import Material


BOX, ELLIPSOID, TUBE = 0, 1, 2


@dataclass(frozen=True)
class Part:
    """One stretched, turned and moved unit shape of a model.

    Args:
        shape (`int`):
            `BOX` (the cube of side 2), `ELLIPSOID` (the ball of radius 1), `TUBE` (from z = -1 to 1).
        center, size (`tuple[float, float, float]`):
            Metres in the model's frame (x forward, y left, z up); `size` is the full extent before turning.
        material (`Material`):
            What camera and lidar see of it.
        turn (`tuple[float, float, float]`, *optional*):
            Roll, pitch and yaw in radians.
        taper (`float`, *optional*, defaults to 1.0):
            Radius of a tube's top; that of its foot is 1. So 1 is a cylinder, 0 a cone.
    """

    shape: int
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    material: Material
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    taper: float = 1.0


def box(material, size, center, turn=(0.0, 0.0, 0.0)) -> Part:
    return Part(BOX, center, size, material, turn)


def ellipsoid(material, size, center) -> Part:
    return Part(ELLIPSOID, center, size, material)


def post(material, radius, foot, height, taper=1.0) -> Part:
    """An upright tube that starts at `foot`."""
    x, y, z = foot
    return Part(TUBE, (x, y, z + height / 2), (2 * radius, 2 * radius, height), material, taper=taper)


def wheel(material, radius, width, center) -> Part:
    """A tube whose axis points to the left."""
    return Part(TUBE, center, (2 * radius, 2 * radius, width), material, turn=(np.pi / 2, 0.0, 0.0))


@cache
def rotation_matrix(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Rotation about x, then y, then z."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
EDGES = np.array([[a, b] for a in range(8) for b in range(a + 1, 8) if np.abs(CORNERS[a] - CORNERS[b]).sum() == 2])


def part_corners(part: Part) -> np.ndarray:
    """The corners (8, 3) of a part's box, in the model's frame."""
    return (CORNERS * np.array(part.size) / 2) @ rotation_matrix(*part.turn).T + np.array(part.center)


def first_hit(shape: int, taper: float, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Where rays first meet a unit shape: the t of origin + t · direction, infinite where they miss.

    Args:
        shape, taper: as in `Part`.
        origin (`np.ndarray` of shape `(3,)`): outside the shape, in its own frame.
        directions (`np.ndarray` of shape `(3, ...)`): in the same frame; t keeps their scale.
    """
    if shape == BOX:
        return _hit_box(origin, directions)
    if shape == ELLIPSOID:
        return _hit_ball(origin, directions)
    return _hit_tube(taper, origin, directions)


def _hit_box(origin, directions):
    inverse = 1.0 / directions
    low, high = ((side - origin[:, None, None]) * inverse for side in (np.float32(-1), np.float32(1)))
    enter = np.minimum(low, high).max(axis=0)
    leave = np.maximum(low, high).min(axis=0)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


def _hit_ball(origin, directions):
    a = np.einsum("i...,i...->...", directions, directions)
    b = np.einsum("i,i...->...", origin, directions)
    discriminant = b * b - a * (origin @ origin - 1)
    t = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    return np.where((discriminant > 0) & (t > 0), t, np.inf)


def _hit_tube(taper, origin, directions):
    """x² + y² = (p + q z)² between z = -1 and 1, and the lid that faces the origin."""
    p, q = np.float32((1 + taper) / 2), np.float32((taper - 1) / 2)
    (ox, oy, oz), (dx, dy, dz) = origin, directions
    radius, slope = p + q * oz, q * dz
    a = dx * dx + dy * dy - slope * slope
    b = ox * dx + oy * dy - radius * slope
    root = np.sqrt(np.maximum(b * b - a * (ox * ox + oy * oy - radius * radius), 0))
    missed = b * b < a * (ox * ox + oy * oy - radius * radius)
    t = np.full(a.shape, np.inf, dtype=a.dtype)
    for side in (-root, root):
        candidate = (side - b) / a
        z = oz + candidate * dz
        t = np.where(~missed & (np.abs(z) <= 1) & (candidate > 0) & (p + q * z >= 0), np.minimum(t, candidate), t)
    if abs(oz) > 1:
        lid = np.sign(oz)
        candidate = (lid - oz) / dz
        distance = (ox + candidate * dx) ** 2 + (oy + candidate * dy) ** 2
        t = np.where((distance <= (p + q * lid) ** 2) & (candidate > 0), np.minimum(t, candidate), t)
    return t


def unit_normals(shape: np.ndarray, taper: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Outward gradients (N, 3), not of unit length, of unit shapes (N,) at points (N, 3) of their surface."""
    x, y, z = position.T
    nearest = np.abs(position).argmax(axis=1)
    normals = position.copy()
    flat = (shape == BOX) | ((shape == TUBE) & (np.abs(z) > 0.999))
    axis = np.where(shape == TUBE, 2, nearest)[flat]
    normals[flat] = 0
    normals[flat, axis] = np.sign(position[flat, axis])
    side = (shape == TUBE) & ~flat
    normals[side, 2] = ((1 - taper) / 2 * np.hypot(x, y))[side]
    return normals
