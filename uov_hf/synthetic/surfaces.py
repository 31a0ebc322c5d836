"""All surfaces of a town as arrays, and their places at a given time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from uov_hf.synthetic.materials import Material
from uov_hf.synthetic.shapes import CORNERS, rotation_matrix, unit_normals
from uov_hf.synthetic.town import Town
from uov_hf.vocabulary import load_vocabulary


class Surfaces:
    """All parts of all objects of a town, then its ground patches, as arrays: row = surface."""

    def __init__(self, town: Town):
        self.town = town
        self.things = [*town.things, town.ego]  # the last one is the ego car
        parts, patches = [part for thing in self.things for part in thing.model.parts], town.ground.patches
        fixed = ("flat.", "static.", "vehicle.ego")
        # Numbers of the objects with a box: all that can move or be moved.
        self.movable = [n for n, thing in enumerate(self.things) if not thing.model.category.startswith(fixed)]
        # Of each part: its object, shape and taper, and half size, centre and axes in the object's frame.
        self.thing = np.repeat(np.arange(len(self.things)), [len(thing.model.parts) for thing in self.things])
        self.shape = np.array([part.shape for part in parts])
        self.taper = np.array([part.taper for part in parts])
        self.half_size = np.array([part.size for part in parts]) / 2
        self.local_center = np.array([part.center for part in parts])
        self.local_axes = np.array([rotation_matrix(*part.turn) for part in parts])
        # Of each surface: its id in the true segmentation, for an object or a kind of ground; 0 is the sky.
        self.segment = np.concatenate([self.thing, len(self.things) + np.arange(len(patches))]).astype(np.uint16) + 1
        # Of each segment: its raw class from id 1 on, and its raw nuScenes-lidarseg id; that of the sky is 0, noise.
        self.categories = [thing.model.category for thing in self.things] + [patch.category for patch in patches]
        raw_names = load_vocabulary("nuscenes").raw_names
        self.raw_class = np.array([0, *map(raw_names.index, self.categories)], dtype=np.uint8)
        materials = [part.material for part in parts] + [patch.material for patch in patches]
        self._materials = {
            name: np.array(column, dtype=np.float32)
            for name, column in zip(Material._fields, zip(*materials, strict=True), strict=True)
        }

    def material(self, name: str) -> NDArray[np.float32]:
        """One property of the material of every surface."""
        return self._materials[name]

    def at(self, time: float) -> "Snapshot":
        poses = np.concatenate([self.town.poses(time), self.town.ego_pose(time)[None]])
        rotation, translation = poses[self.thing, :3, :3], poses[self.thing, :3, 3]
        centers = np.einsum("pij,pj->pi", rotation, self.local_center) + translation
        return Snapshot(self, poses, centers, np.einsum("pij,pjk->pik", rotation, self.local_axes))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The surfaces at one time, in the global frame."""

    surfaces: Surfaces
    poses: NDArray[np.float64]  # (num_things, 4, 4): of the objects
    centers: NDArray[np.float64]  # (num_parts, 3)
    axes: NDArray[np.float64]  # (num_parts, 3, 3): an axis is a column

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """Corners (P, 8, 3) of the parts' boxes, global frame."""
        stretched = CORNERS * self.surfaces.half_size[:, None]
        return np.einsum("pij,pcj->pci", self.axes, stretched) + self.centers[:, None]

    @cached_property
    def _parts(self) -> list[NDArray[np.float32]]:
        """Axes, centres and half sizes in the precision of rays."""
        return [array.astype(np.float32) for array in (self.axes, self.centers, self.surfaces.half_size)]

    def normals(self, surface: NDArray[np.integer], points: NDArray[np.float32]) -> NDArray[np.float32]:
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

    def local(self, part: NDArray[np.integer], points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (N, 3) of the global frame in the frames of parts (N,): metres along their axes."""
        return np.einsum("nji,nj->ni", self._parts[0][part], points - self._parts[1][part])
