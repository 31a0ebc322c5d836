"""What a grid of rays meets: a part is tried only in the window of the grid that its box covers, near parts first."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..vocabulary import load_vocabulary
from .ground import FARTHEST
from .materials import Material
from .shapes import CORNERS, EDGES, first_hit, rotation_matrix, unit_normals
from .town import Town


NEAREST = 0.05  # metres in front of a camera


@dataclass(frozen=True, eq=False)
class Surfaces:
    """
    All parts of all things of a town, then its ground patches, as arrays: row = surface.

    Args:
        town (`Town`): whose surfaces they are; its last thing here is the ego car.
    """

    town: Town

    @cached_property
    def things(self):
        return [*self.town.things, self.town.ego]

    @cached_property
    def parts(self):
        return [part for thing in self.things for part in thing.model.parts]

    @cached_property
    def thing(self) -> np.ndarray:
        """Thing of each part."""
        return np.repeat(np.arange(len(self.things)), [len(thing.model.parts) for thing in self.things])

    @cached_property
    def shape(self) -> np.ndarray:
        return np.array([part.shape for part in self.parts])

    @cached_property
    def taper(self) -> np.ndarray:
        return np.array([part.taper for part in self.parts])

    @cached_property
    def half_size(self) -> np.ndarray:
        return np.array([part.size for part in self.parts]) / 2

    @cached_property
    def local_axes(self) -> np.ndarray:
        return np.array([rotation_matrix(*part.turn) for part in self.parts])

    @cached_property
    def local_center(self) -> np.ndarray:
        return np.array([part.center for part in self.parts])

    @cached_property
    def materials(self) -> list[Material]:
        return [part.material for part in self.parts] + [patch.material for patch in self.town.ground.patches]

    def material(self, name: str) -> np.ndarray:
        """One property of the material of every surface."""
        return self._material_table[name]

    @cached_property
    def _material_table(self):
        columns = zip(*self.materials, strict=True)
        return {
            name: np.array(column, dtype=np.float32) for name, column in zip(Material._fields, columns, strict=True)
        }

    @cached_property
    def segment(self) -> np.ndarray:
        """Id of every surface in the true segmentation: a thing or a kind of ground; 0 is the sky."""
        patches = np.arange(len(self.town.ground.patches))
        return np.concatenate([self.thing, len(self.things) + patches]).astype(np.uint16) + 1

    def segment_of(self, things: list[int]) -> np.ndarray:
        """Segment ids of things."""
        return np.asarray(things) + 1

    @cached_property
    def raw_class(self) -> np.ndarray:
        """Raw nuScenes-lidarseg class (uint8) of every segment id; that of the sky is 0, noise."""
        names = load_vocabulary("nuscenes").raw_names
        return np.array([0, *map(names.index, self.categories)], dtype=np.uint8)

    @cached_property
    def categories(self) -> list[str]:
        """Raw class of every segment id, from id 1."""
        return [thing.model.category for thing in self.things] + [p.category for p in self.town.ground.patches]

    def at(self, time: float) -> "Snapshot":
        poses = np.concatenate([self.town.poses(time), self.town.ego_pose(time)[None]])
        rotation, translation = poses[self.thing, :3, :3], poses[self.thing, :3, 3]
        centers = np.einsum("pij,pj->pi", rotation, self.local_center) + translation
        return Snapshot(self, poses, centers, np.einsum("pij,pjk->pik", rotation, self.local_axes))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The surfaces at one time: poses (T, 4, 4) of the things, centres (P, 3) and axes (P, 3, 3; in columns) of the parts."""

    surfaces: Surfaces
    poses: np.ndarray
    centers: np.ndarray
    axes: np.ndarray

    @cached_property
    def corners(self) -> np.ndarray:
        """Corners (P, 8, 3) of the parts' boxes, global frame."""
        stretched = CORNERS * self.surfaces.half_size[:, None]
        return np.einsum("pij,pcj->pci", self.axes, stretched) + self.centers[:, None]

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Axes, centres and half sizes in the precision of rays."""
        return tuple(array.astype(np.float32) for array in (self.axes, self.centers, self.surfaces.half_size))

    def normals(self, surface: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (N, 3) of surfaces (N,) at points (N, 3), global frame, float32."""
        normals = np.empty(points.shape, dtype=np.float32)
        on_ground = surface >= len(self.centers)
        normals[on_ground] = self.surfaces.town.ground.normals(points[on_ground, 0], points[on_ground, 1])
        on_part = np.flatnonzero(~on_ground)
        part = surface[on_part]
        axes, half = self._parts[0][part], self._parts[2][part]
        position = np.einsum("nji,nj->ni", axes, points[on_part] - self._parts[1][part]) / half
        gradient = unit_normals(self.surfaces.shape[part], self.surfaces.taper[part], position) / half
        gradient = np.einsum("nij,nj->ni", axes, gradient)
        normals[on_part] = gradient / np.sqrt(np.einsum("ni,ni->n", gradient, gradient))[:, None]
        return normals

    def local(self, part: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the global frame in the frames of parts (N,): metres along their axes."""
        return np.einsum("nji,nj->ni", self._parts[0][part], points - self._parts[1][part])


@dataclass(frozen=True)
class Windows:
    """Rectangles of a ray grid, one per row: `top` <= row < `bottom`, `left` <= column < `right` may meet `part`."""

    part: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class PinholeView:
    """Rays through the pixel centres of a camera at `pose` (4, 4; x right, y down, z forward) in the global frame."""

    pose: np.ndarray
    intrinsics: np.ndarray
    image_size: tuple[int, int]

    @cached_property
    def directions(self) -> np.ndarray:
        """Unit length, (3, height, width), global frame."""
        height, width = self.image_size
        x = (np.arange(width) - self.intrinsics[0, 2]) / self.intrinsics[0, 0]
        y = (np.arange(height) - self.intrinsics[1, 2]) / self.intrinsics[1, 1]
        rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0))
        rays = np.einsum("ij,jhw->ihw", self.pose[:3, :3], rays / np.linalg.norm(rays, axis=0))
        return rays.astype(np.float32)

    def windows(self, corners: np.ndarray) -> Windows:
        """The pixels that boxes with these corners (P, 8, 3; camera frame) cover, cut off at the near plane."""
        part = np.flatnonzero(corners[..., 2].max(axis=1) > NEAREST)
        corners = corners[part]
        start, end = corners[:, EDGES[:, 0]], corners[:, EDGES[:, 1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (NEAREST - start[..., 2]) / (end[..., 2] - start[..., 2])
            cut = start + np.where((share > 0) & (share < 1), share, np.nan)[..., None] * (end - start)
        points = np.concatenate([corners, cut], axis=1)
        x, y, z = np.moveaxis(points, 2, 0)
        in_front = z >= NEAREST * 0.999  # NaN is not
        z = np.where(in_front, z, 1.0)
        height, width = self.image_size
        column = x / z * self.intrinsics[0, 0] + self.intrinsics[0, 2]
        row = y / z * self.intrinsics[1, 1] + self.intrinsics[1, 2]
        top, bottom = _span(row, in_front, height)
        left, right = _span(column, in_front, width)
        seen = (top < bottom) & (left < right)
        return Windows(part[seen], top[seen], bottom[seen], left[seen], right[seen])


def _span(value, valid, size):
    """First and past-the-last grid index between the smallest and the largest valid value of each row."""
    low = np.where(valid, value, np.inf).min(axis=1)
    high = np.where(valid, value, -np.inf).max(axis=1)
    return np.ceil(np.clip(low, 0, size)).astype(int), (np.floor(np.clip(high, -1, size - 1)) + 1).astype(int)


@dataclass(frozen=True, eq=False)
class SpinningView:
    """
    Rays of a spinning lidar at `pose` (4, 4; x right, y forward, z up) in the global frame.

    A row is a beam, a column a firing.

    Args:
        elevations (`np.ndarray` of shape `(beams,)`): radians, evenly spaced from the lowest.
        azimuths (`np.ndarray` of shape `(columns,)`): radians from x towards y, evenly spaced, one turn.
    """

    pose: np.ndarray
    elevations: np.ndarray
    azimuths: np.ndarray

    @cached_property
    def directions(self) -> np.ndarray:
        """Unit length, (3, beams, columns), global frame."""
        elevation, azimuth = self.elevations[:, None], self.azimuths[None, :]
        rays = np.stack(
            np.broadcast_arrays(
                np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
            )
        )
        return np.einsum("ij,jhw->ihw", self.pose[:3, :3], rays).astype(np.float32)

    def windows(self, corners: np.ndarray) -> Windows:
        """The rays that boxes with these corners (P, 8, 3; lidar frame) may meet; across the seam there are two windows."""
        part = np.arange(len(corners))
        center = corners.mean(axis=1)
        radius = np.linalg.norm(corners[..., :2] - center[:, None, :2], axis=2).max(axis=1)
        distance = np.linalg.norm(center[:, :2], axis=1)
        near = np.maximum(distance - radius, 1e-3)
        lowest, highest = corners[..., 2].min(axis=1), corners[..., 2].max(axis=1)
        low = np.arctan2(lowest, np.where(lowest > 0, distance + radius, near))
        high = np.arctan2(highest, np.where(highest > 0, near, distance + radius))
        step = self.elevations[1] - self.elevations[0]
        top = np.clip(np.ceil((low - self.elevations[0]) / step), 0, len(self.elevations)).astype(int)
        bottom = np.clip(np.floor((high - self.elevations[0]) / step) + 1, 0, len(self.elevations)).astype(int)
        middle = np.arctan2(center[:, 1], center[:, 0])
        sideways = np.arctan2(corners[..., 1], corners[..., 0]) - middle[:, None]
        sideways = (sideways + np.pi) % (2 * np.pi) - np.pi
        around = distance <= radius
        first, last = (
            np.where(around, sign * np.pi, extreme)
            for sign, extreme in ((-1, sideways.min(axis=1)), (1, sideways.max(axis=1)))
        )
        columns, step = len(self.azimuths), 2 * np.pi / len(self.azimuths)
        start = (middle + first - self.azimuths[0]) / step
        left = np.ceil(start % columns).astype(int)
        right = left + np.minimum(np.floor(start + (last - first) / step) - np.ceil(start) + 1, columns).astype(int)
        windows = [
            (part, top, bottom, left, np.minimum(right, columns)),
            (part, top, bottom, np.zeros_like(left), right - columns),
        ]
        table = np.concatenate([np.stack(window) for window in windows], axis=1)
        return Windows(*table[:, (table[1] < table[2]) & (table[3] < table[4])])


@dataclass(frozen=True, eq=False)
class Hits:
    """What each ray of a grid met: metres along the ray, and the surface; infinite and -1 for the sky."""

    distance: np.ndarray
    surface: np.ndarray


def cast(view: PinholeView | SpinningView, snapshot: Snapshot, see_ego=False, luck=None) -> Hits:
    """
    The first surface on each ray of a view.

    Args:
        view: the rays.
        snapshot: the surfaces, where they are at that time.
        see_ego: whether the ego car's own body is met.
        luck (`np.ndarray` of shape `(rows, columns)`, *optional*):
            Uniform in 0…1: a ray whose luck is below a material's porosity passes through it.
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


def _cast_parts(view, snapshot, hits, see_ego, luck):
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
