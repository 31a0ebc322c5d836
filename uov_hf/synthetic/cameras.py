"""Six cameras around the car, each with its own exposure time: shaded images and their true segmentation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uov_hf.geometry.rotation import rigid_motion
from uov_hf.synthetic.materials import Rng
from uov_hf.synthetic.raycast import cast
from uov_hf.synthetic.shapes import Floats, Ints
from uov_hf.synthetic.surfaces import Snapshot
from uov_hf.synthetic.views import PinholeView


@dataclass(frozen=True)
class CameraMount:
    """A camera of the rig."""

    channel: str  # nuScenes's name
    yaw: float  # degrees to the left of straight ahead
    position: tuple[float, float, float]  # metres in the ego frame
    focal_length: float  # pixels at an image width of 1600
    delay: float  # seconds from the lidar's timestamp to the exposure
    tilt: float  # degrees downwards

    def to_ego(self) -> NDArray[np.float64]:
        """Pose (4, 4) of the camera (x right, y down, z forward) in the ego frame."""
        yaw, tilt = np.radians([self.yaw, self.tilt])
        forward = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), -np.sin(tilt)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        return rigid_motion(np.stack([right, np.cross(forward, right), forward], axis=1), self.position)

    def intrinsics(self, image_size: tuple[int, int]) -> NDArray[np.float64]:
        """K (3, 3) for images of `image_size` (height, width); pixels are square, a taller image has a larger view."""
        height, width = image_size
        scale = width / 1600
        focal = self.focal_length * scale
        return np.array([[focal, 0, 812 * scale], [0, focal, height * 484 / 900], [0, 0, 1.0]])


# Angles, places and focal lengths like nuScenes's; a camera fires when the lidar faces its way, before the scan ends.
CAMERAS = (
    CameraMount("CAM_FRONT", 0, (1.70, 0.02, 1.51), 1266, -0.035, 0.3),
    CameraMount("CAM_FRONT_RIGHT", -56, (1.55, -0.49, 1.50), 1261, -0.027, 0.6),
    CameraMount("CAM_BACK_RIGHT", -110, (1.01, -0.48, 1.56), 1260, -0.019, 0.5),
    CameraMount("CAM_BACK", 180, (0.03, 0.0, 1.58), 809, -0.010, 0.2),
    CameraMount("CAM_BACK_LEFT", 109, (1.04, 0.48, 1.59), 1257, -0.001, 0.6),
    CameraMount("CAM_FRONT_LEFT", 55, (1.52, 0.49, 1.51), 1272, -0.043, 0.1),
)
SUN = np.array([0.45, 0.35, 0.82], dtype=np.float32)
HORIZON, ZENITH = np.array([[0.84, 0.87, 0.9], [0.45, 0.62, 0.85]], dtype=np.float32)
HAZE = 200.0  # metres after which a third of the colour remains
PLACE_SIZE = 4.0  # metres: side of the cubes by which `Picture.place` numbers the places of a town


@dataclass(frozen=True, eq=False)
class Picture:
    """One exposure."""

    image: NDArray[np.uint8]  # (height, width, 3): red, green, blue
    segmentation: NDArray[np.uint16]  # (height, width): segment id, 0 = the sky
    place: NDArray[np.uint16]  # (height, width): number of the cube of the town that the pixel shows
    distance: Floats  # (height, width): metres along the pixel's ray, infinite for the sky


def take_picture(rng: Rng, snapshot: Snapshot, view: PinholeView) -> Picture:
    """Render the surfaces of a snapshot."""
    hits = cast(view, snapshot)
    surface = hits.surface.reshape(-1)
    seen = np.flatnonzero(surface >= 0)
    color = _sky(view.directions[2].reshape(-1))
    distance, directions = hits.distance.reshape(-1)[seen], view.directions.reshape(3, -1)[:, seen].T
    points = view.pose[:3, 3].astype(np.float32) + distance[:, None] * directions
    color[seen] = _shade(snapshot, surface[seen], points, distance, color[seen])
    grain = rng.standard_normal(len(surface), dtype=np.float32)[:, None]
    image = np.clip(255 * color + 3 * grain, 0, 255).astype(np.uint8).reshape(*view.image_size, 3)
    segmentation, place = np.zeros((2, len(surface)), dtype=np.uint16)
    segmentation[seen], place[seen] = snapshot.surfaces.segment[surface[seen]], _places(points)
    return Picture(image, segmentation.reshape(view.image_size), place.reshape(view.image_size), hits.distance)


def _places(points: Floats) -> NDArray[np.uint16]:
    """Numbers (N,) of the cubes that points (N, 3) lie in. They repeat after 64 cubes, in height after 16."""
    column, row, layer = np.floor(points / PLACE_SIZE).astype(np.int64).T
    return ((column & 63) << 10 | (row & 63) << 4 | layer & 15).astype(np.uint16)


def _sky(upwards: Floats) -> Floats:
    """Colours (N, 3) for the z of unit rays (N,)."""
    share = np.clip(upwards * 2, 0, 1)[:, None]
    return HORIZON + share * (ZENITH - HORIZON)


def _shade(snapshot: Snapshot, surface: Ints, points: Floats, distance: Floats, background: Floats) -> Floats:
    """Colours (N, 3) under a sun and a bright sky, with texture, windows, and haze."""
    normals = snapshot.normals(surface, points)
    light = 0.55 + 0.1 * normals[:, 2] + 0.4 * np.maximum(normals @ SUN, 0)
    color = snapshot.surfaces.material("color")[surface] * (light * _texture(points))[:, None]
    color[_window_pixels(snapshot, surface, points, normals)] *= np.float32(0.4)
    share = np.exp(distance * np.float32(-1 / HAZE))[:, None]
    return background + share * (color - background)


_TEXTURE = np.random.default_rng(0).uniform(0.88, 1.12, (256, 256)).astype(np.float32)


def _texture(points: Floats) -> Floats:
    """Two octaves of noise (N,) that is fixed to the world."""
    x, y, z = points.T
    u, v = x + np.float32(0.7) * z, y + np.float32(0.7) * z
    fine, coarse = (
        _TEXTURE.take(((u * scale).astype(np.int32) & 255) * 256 + ((v * scale).astype(np.int32) & 255))
        for scale in (np.float32(12), np.float32(1.5))
    )
    return fine * coarse


def _window_pixels(snapshot: Snapshot, surface: Ints, points: Floats, normals: Floats) -> Ints:
    """Indices of the points on windows: every 2.6 m along upright walls, one row per storey of 3 m."""
    walls = np.flatnonzero((snapshot.surfaces.material("windows")[surface] > 0) & (np.abs(normals[:, 2]) < 0.5))
    part = surface[walls]
    local = snapshot.local(part, points[walls])
    forward = snapshot.axes.astype(np.float32)[part, :, 0]
    faces_sideways = np.abs(np.einsum("ni,ni->n", forward, normals[walls])) < 0.5
    across = np.where(faces_sideways, local[:, 0], local[:, 1]) / 2.6 % 1
    up = (local[:, 2] + snapshot.surfaces.half_size[part][:, 2]) / 3.0 % 1
    return walls[(np.abs(across - 0.5) < 0.27) & (np.abs(up - 0.62) < 0.25)]
