"""Everything a ray can meet in a town, as arrays, and where it is at a given time."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from uov_hf.synthetic.materials import Material
from uov_hf.synthetic.shapes import CORNERS, Part, rotation_matrix, unit_normals
from uov_hf.synthetic.town import Thing, Town
from uov_hf.vocabulary import load_vocabulary


@cache
def raw_names() -> list[str]:
    """nuScenes-lidarseg's raw classes; their places are the ids in label files."""
    return load_vocabulary("nuscenes").raw_names


@dataclass(frozen=True, eq=False)
class Surfaces:
    """All parts of all things of a town, then its ground patches, as arrays: row = surface.

    Args:
        town (`Town`): whose surfaces they are; its last thing here is the ego car.
    """

    town: Town

    @cached_property
    def things(self) -> list[Thing]:
        return [*self.town.things, self.town.ego]

    @cached_property
    def movable(self) -> list[int]:
        """Things that can move, or be moved; the ego car is not among them."""
        fixed = ("flat.", "static.", "vehicle.ego")
        return [number for number, thing in enumerate(self.things) if not thing.model.category.startswith(fixed)]

    @cached_property
    def parts(self) -> list[Part]:
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
        return np.array([0, *map(raw_names().index, self.categories)], dtype=np.uint8)

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
    """The surfaces at one time: poses (T, 4, 4) of things, centres (P, 3) and axes (P, 3, 3; in columns) of parts."""

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
