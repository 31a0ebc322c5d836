"""Three unit shapes, stretched, turned and moved: every object on the street consists of them."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from uov_hf.geometry.rotation import euler_to_matrix
from uov_hf.synthetic.materials import Material


Vector = tuple[float, float, float]
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
rotation_matrix = cache(euler_to_matrix)  # thousands of parts have the same few turns
BOX, ELLIPSOID, TUBE = 0, 1, 2


@dataclass(frozen=True)
class Part:
    """A unit shape of a model, stretched, turned and moved in the model's frame (x forward, y left, z up)."""

    shape: int  # BOX (the cube of side 2), ELLIPSOID (the ball of radius 1) or TUBE (from z = -1 to 1)
    center: Vector  # metres
    size: Vector  # metres: the full extent before turning
    material: Material
    turn: Vector = (0.0, 0.0, 0.0)  # roll, pitch and yaw in radians
    taper: float = 1.0  # radius of a tube's top relative to its foot: 1 is a cylinder, 0 a cone


def box(material: Material, size: Vector, center: Vector, turn: Vector = (0.0, 0.0, 0.0)) -> Part:
    return Part(BOX, center, size, material, turn)


def ellipsoid(material: Material, size: Vector, center: Vector) -> Part:
    return Part(ELLIPSOID, center, size, material)


def post(material: Material, radius: float, foot: Vector, height: float, taper: float = 1.0) -> Part:
    """An upright tube that starts at `foot`."""
    x, y, z = foot
    return Part(TUBE, (x, y, z + height / 2), (2 * radius, 2 * radius, height), material, taper=taper)


def wheel(material: Material, radius: float, width: float, center: Vector) -> Part:
    """A tube whose axis points to the left."""
    return Part(TUBE, center, (2 * radius, 2 * radius, width), material, turn=(np.pi / 2, 0.0, 0.0))


CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
EDGES = np.array([[a, b] for a in range(8) for b in range(a + 1, 8) if np.abs(CORNERS[a] - CORNERS[b]).sum() == 2])


def part_corners(part: Part) -> Floats:
    """The corners (8, 3) of a part's box, in the model's frame."""
    return (CORNERS * np.array(part.size) / 2) @ rotation_matrix(*part.turn).T + np.array(part.center)


def first_hit(shape: int, taper: float, origin: Floats, directions: Floats) -> Floats:
    """Where rays first meet a unit shape: the t of origin + t · direction, infinite where they miss.

    Args:
        shape (`int`), taper (`float`): As in `Part`.
        origin (`np.ndarray` of shape `(3,)`): Outside the shape, in the shape's frame.
        directions (`np.ndarray` of shape `(3, ...)`): In the same frame, of any length.
    """
    if shape == BOX:
        return _hit_box(origin, directions)
    if shape == ELLIPSOID:
        return _hit_ball(origin, directions)
    return _hit_tube(taper, origin, directions)


def _hit_box(origin: Floats, directions: Floats) -> Floats:
    inverse = 1.0 / directions
    low, high = ((side - origin[:, None, None]) * inverse for side in (np.float32(-1), np.float32(1)))
    enter = np.minimum(low, high).max(axis=0)
    leave = np.maximum(low, high).min(axis=0)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


def _hit_ball(origin: Floats, directions: Floats) -> Floats:
    a = np.einsum("i...,i...->...", directions, directions)
    b = np.einsum("i,i...->...", origin, directions)
    discriminant = b * b - a * (origin @ origin - 1)
    t = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    return np.where((discriminant > 0) & (t > 0), t, np.inf)


def _hit_tube(taper: float, origin: Floats, directions: Floats) -> Floats:
    """x² + y² = (p + q z)² between z = -1 and 1, and the end that faces the origin."""
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
        end = np.sign(oz)
        candidate = (end - oz) / dz
        distance = (ox + candidate * dx) ** 2 + (oy + candidate * dy) ** 2
        t = np.where((distance <= (p + q * end) ** 2) & (candidate > 0), np.minimum(t, candidate), t)
    return t


def unit_normals(shape: Ints, taper: Floats, position: Floats) -> Floats:
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
