"""Casts a grid of rays: each part is tested only in the window of the grid that its box covers, near parts first."""

from dataclasses import dataclass

import numpy as np

from uov_hf.synthetic.ground import FARTHEST
from uov_hf.synthetic.shapes import Floats, Ints, first_hit
from uov_hf.synthetic.surfaces import Snapshot
from uov_hf.synthetic.views import PinholeView, SpinningView


View = PinholeView | SpinningView


@dataclass(frozen=True, eq=False)
class Hits:
    """The hit of each ray of a grid: metres along the ray, and the surface; infinite and -1 for the sky."""

    distance: Floats
    surface: Ints


def cast(view: View, snapshot: Snapshot, see_ego: bool = False, luck: Floats | None = None) -> Hits:
    """The first surface on each ray of a view.

    Args:
        view (`View`): The rays.
        snapshot (`Snapshot`): The surfaces at one time.
        see_ego (`bool`, *optional*, defaults to `False`): Whether rays hit the ego car.
        luck (`np.ndarray` of shape `(rows, columns)`, *optional*):
            Uniform random numbers: a ray passes through a material whose porosity is above its number.
    """
    origin, surfaces = view.pose[:3, 3], snapshot.surfaces
    directions = view.directions
    _, rows, columns = directions.shape
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        distance, patch = surfaces.town.ground.first_hit(origin, directions.reshape(3, -1))
        surface = np.where(np.isfinite(distance), patch.astype(np.int32) + len(snapshot.centers), -1)
        hits = Hits(distance.reshape(rows, columns), surface.reshape(rows, columns))
        _cast_parts(view, snapshot, hits, see_ego, luck)
    return hits


def _cast_parts(view: View, snapshot: Snapshot, hits: Hits, see_ego: bool, luck: Floats | None) -> None:
    """Replace hits in place by those of nearer parts."""
    origin, surfaces = view.pose[:3, 3], snapshot.surfaces
    radius = np.linalg.norm(surfaces.half_size, axis=1)
    nearest = np.linalg.norm(snapshot.centers - origin, axis=1) - radius
    candidates = np.flatnonzero((nearest < FARTHEST) & (see_ego | (surfaces.thing < len(surfaces.things) - 1)))
    candidates = candidates[np.argsort(nearest[candidates], kind="stable")]
    windows = view.windows((snapshot.corners[candidates] - origin) @ view.pose[:3, :3])
    to_unit = np.swapaxes(snapshot.axes, 1, 2) / surfaces.half_size[..., None]
    origins = np.einsum("pij,pj->pi", to_unit, origin - snapshot.centers).astype(np.float32)
    to_unit = to_unit.astype(np.float32)
    porosity = surfaces.material("porosity")
    order = np.argsort(windows.part, kind="stable")
    rectangles = np.stack([windows.top, windows.bottom, windows.left, windows.right], axis=1)[order].tolist()
    for part, (top, bottom, left, right) in zip(candidates[windows.part[order]], rectangles, strict=True):
        distance = hits.distance[top:bottom, left:right]
        if nearest[part] > distance.max():
            continue
        rays = np.einsum("ij,jhw->ihw", to_unit[part], view.directions[:, top:bottom, left:right])
        t = first_hit(surfaces.shape[part], surfaces.taper[part], origins[part], rays)
        closer = t < distance
        if luck is not None and porosity[part] > 0:
            closer &= luck[top:bottom, left:right] >= porosity[part]
        np.copyto(distance, t, where=closer)
        np.copyto(hits.surface[top:bottom, left:right], part, where=closer)
