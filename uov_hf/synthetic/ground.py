"""The ground: a gently curved surface with patches at different levels."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uov_hf.synthetic.materials import Material
from uov_hf.synthetic.shapes import Floats, Ints


CELL = 0.1  # metres per cell of the painting, as in nuScenes's map masks
FARTHEST = 120.0  # metres
KERB_STEPS = 6  # bisections to find the face of a kerb


@dataclass(frozen=True)
class Patch:
    """A kind of ground: raw nuScenes-lidarseg class, material, and metres above the curved surface."""

    category: str
    material: Material
    level: float


@dataclass(frozen=True, eq=False)
class Ground:
    """z = slope · r + curvature · r², r = (x, y) - middle, plus the level of the patch painted there; metres."""

    patches: list[Patch]
    painting: NDArray[np.uint8]  # (rows, columns): patch of each cell, at y / CELL and x / CELL
    middle: NDArray[np.float64]  # (2,)
    slope: NDArray[np.float64]  # (2,)
    curvature: NDArray[np.float64]  # (2,)

    @cached_property
    def levels(self) -> NDArray[np.float32]:
        return np.array([patch.level for patch in self.patches], dtype=np.float32)

    def patch_at(self, x: Floats, y: Floats) -> NDArray[np.uint8]:
        """Index of the patch under points (N,); the border of the painting extends outwards."""
        rows, columns = self.painting.shape
        column = np.clip(x * (1 / CELL), 0, columns - 1).astype(np.int32)
        row = np.clip(y * (1 / CELL), 0, rows - 1).astype(np.int32)
        return self.painting.reshape(-1).take(row * columns + column)

    def height(self, x: Floats, y: Floats) -> Floats:
        """z of the ground under points (N,), including the patch's level."""
        return self._surface(x, y) + self.levels[self.patch_at(x, y)]

    def normals(self, x: Floats, y: Floats) -> Floats:
        """Upward unit normals (N, 3), in the precision of `x`."""
        slope, curvature = self.slope.astype(x.dtype), self.curvature.astype(x.dtype)
        across = slope[0] + 2 * curvature[0] * (x - x.dtype.type(self.middle[0]))
        along = slope[1] + 2 * curvature[1] * (y - y.dtype.type(self.middle[1]))
        up = 1 / np.sqrt(1 + across * across + along * along)
        return np.stack([-across * up, -along * up, up], axis=-1)

    def _surface(self, x: Any, y: Any) -> Any:
        """z without the levels, for arrays or numbers."""
        x, y = x - self.middle[0], y - self.middle[1]
        return self.slope[0] * x + self.slope[1] * y + self.curvature[0] * x * x + self.curvature[1] * y * y

    def first_hit(self, origin: Floats, directions: Floats) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The first hit of rays from above, kerbs included.

        The levels are tried from the highest down. If a ray passes above one level and ends below higher ground at the
        next, it has hit the face of a kerb in between.

        Args:
            origin (`np.ndarray` of shape `(3,)`), directions (`np.ndarray` of shape `(3, N)`): Global frame, metres.

        Returns:
            t (N,) of origin + t · direction, infinite for the sky, and the index of the patch (N,).
        """
        nearest = np.full(directions.shape[1], np.inf, dtype=np.float32)
        patch = np.zeros(directions.shape[1], dtype=np.uint8)
        a, b = self._equation(origin, directions)
        above = self._surface(origin[0], origin[1]) - origin[2]
        before = _smaller_root(a, b, above + self.levels.max())
        open_rays = np.flatnonzero(before < FARTHEST)
        a, b, before, flat = a[open_rays], b[open_rays], before[open_rays], directions[:2, open_rays]
        for level in np.unique(self.levels)[::-1]:
            t = np.minimum(_smaller_root(a, b, above + level), FARTHEST)
            here = self._patch_along(origin, flat, t)
            high = self.levels[here]
            kerb = np.flatnonzero(high > level)
            t[kerb], here[kerb] = self._kerb_face(origin, flat[:, kerb], before[kerb], t[kerb], here[kerb], level)
            found = high >= level
            nearest[open_rays[found]] = t[found]
            patch[open_rays[found]] = here[found]
            left = ~found
            open_rays, a, b, before, flat = open_rays[left], a[left], b[left], t[left], flat[:, left]
        return nearest, patch

    def _equation(self, origin: Floats, directions: Floats) -> tuple[Floats, Floats]:
        """a and b of a t² + b t + c = 0, the surface along rays; c is the surface's height above the origin."""
        dx, dy, dz = directions
        slope, curvature = self.slope.astype(np.float32), self.curvature.astype(np.float32)
        slope_here = slope + 2 * curvature * (origin[:2] - self.middle).astype(np.float32)
        a = curvature[0] * dx * dx + curvature[1] * dy * dy
        return a, slope_here[0] * dx + slope_here[1] * dy - dz

    def _patch_along(self, origin: Floats, directions: Floats, t: Floats) -> NDArray[np.uint8]:
        return self.patch_at(np.float32(origin[0]) + t * directions[0], np.float32(origin[1]) + t * directions[1])

    def _kerb_face(
        self, origin: Floats, directions: Floats, near: Floats, far: Floats, patch: Ints, level: float
    ) -> tuple[Floats, Ints]:
        """Where rays between `near` and `far` rise above `level`, by bisection; t and patch, (N,) each."""
        for _ in range(KERB_STEPS):
            middle = (near + far) / 2
            here = self._patch_along(origin, directions, middle)
            raised = self.levels[here] > level
            far, patch = np.where(raised, middle, far), np.where(raised, here, patch)
            near = np.where(raised, near, middle)
        return far, patch


def _smaller_root(a: Floats, b: Floats, c: Any) -> Floats:
    """Smaller positive root of a t² + b t + c = 0 for c < 0, in a form that is valid for a = 0; infinite if none."""
    discriminant = b * b - np.float32(4 * c) * a
    denominator = b + np.sqrt(np.maximum(discriminant, 0))
    positive = (discriminant >= 0) & (denominator > 0)
    return np.where(positive, np.float32(-2 * c) / np.where(positive, denominator, 1), np.float32(np.inf))
