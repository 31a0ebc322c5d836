"""Six cameras around the car, each with a clock of its own, and what they see: a shaded image and its true segmentation."""

from dataclasses import dataclass

import numpy as np

from .raycast import Hits, PinholeView, Snapshot, cast


@dataclass(frozen=True)
class CameraMount:
    """
    A camera of the rig.

    Args:
        channel (`str`): nuScenes's name.
        yaw (`float`): degrees to the left of straight ahead.
        position (`tuple[float, float, float]`): metres in the ego frame.
        focal_length (`float`): pixels at a width of 1600.
        delay (`float`): seconds from the lidar's timestamp to the exposure.
        tilt (`float`): degrees downwards.
    """

    channel: str
    yaw: float
    position: tuple[float, float, float]
    focal_length: float
    delay: float
    tilt: float

    def to_ego(self) -> np.ndarray:
        """Pose (4, 4) of the camera (x right, y down, z forward) in the ego frame."""
        yaw, tilt = np.radians([self.yaw, self.tilt])
        forward = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), -np.sin(tilt)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = self.position
        return pose

    def intrinsics(self, image_size: tuple[int, int]) -> np.ndarray:
        """K (3, 3) for images of `image_size` (height, width)."""
        height, width = image_size
        scale_x, scale_y = width / 1600, height / 900
        focal = self.focal_length
        return np.array([[focal * scale_x, 0, 812 * scale_x], [0, focal * scale_y, 484 * scale_y], [0, 0, 1.0]])


# Angles, places and focal lengths like nuScenes's; the lidar sweeps past the cameras in this order, the last at its timestamp.
CAMERAS = (
    CameraMount("CAM_FRONT", 0, (1.70, 0.02, 1.51), 1266, -0.035, 0.3),
    CameraMount("CAM_FRONT_RIGHT", -56, (1.55, -0.49, 1.50), 1261, -0.027, 0.6),
    CameraMount("CAM_BACK_RIGHT", -110, (1.01, -0.48, 1.56), 1260, -0.019, 0.5),
    CameraMount("CAM_BACK", 180, (0.03, 0.0, 1.58), 809, -0.010, 0.2),
    CameraMount("CAM_BACK_LEFT", 109, (1.04, 0.48, 1.59), 1257, -0.001, 0.6),
    CameraMount("CAM_FRONT_LEFT", 55, (1.52, 0.49, 1.51), 1272, -0.043, 0.1),
)
SUN = np.array([0.45, 0.35, 0.82])
HORIZON, ZENITH = np.array([0.84, 0.87, 0.9]), np.array([0.45, 0.62, 0.85])
HAZE = 200.0  # metres after which a third of the colour is left


@dataclass(frozen=True, eq=False)
class Picture:
    """An image (H, W, 3; uint8), the id of what each pixel shows (H, W; uint16, 0 = the sky), and how far it is (H, W; metres)."""

    image: np.ndarray
    segmentation: np.ndarray
    distance: np.ndarray


def take_picture(rng: np.random.Generator, snapshot: Snapshot, view: PinholeView) -> Picture:
    """What a camera sees of the surfaces as they are in `snapshot`."""
    hits = cast(view, snapshot)
    color = _sky(view.directions[2])
    seen = hits.surface >= 0
    color[seen] = _shade(snapshot, view, hits, seen, color[seen])
    grain = rng.standard_normal(seen.shape, dtype=np.float32)[..., None]
    image = np.clip(255 * color + 3 * grain, 0, 255).astype(np.uint8)
    segmentation = np.where(seen, snapshot.surfaces.segment[hits.surface], 0).astype(np.uint16)
    return Picture(image, segmentation, hits.distance)


def _sky(upwards):
    share = np.clip(upwards * 2, 0, 1)[..., None]
    return ((1 - share) * HORIZON + share * ZENITH).astype(np.float32)


def _shade(snapshot: Snapshot, view: PinholeView, hits: Hits, seen, background):
    """Colour under a sun and a bright sky, with a texture, windows, and haze."""
    surface, distance = hits.surface[seen], hits.distance[seen]
    points = view.pose[:3, 3] + distance[:, None] * view.directions[:, seen].T
    normals = snapshot.normals(surface, points)
    light = 0.55 + 0.1 * normals[:, 2] + 0.4 * np.maximum(normals @ SUN.astype(np.float32), 0)
    color = snapshot.surfaces.material("color")[surface] * (light * _texture(points))[:, None]
    color[_is_window(snapshot, surface, points, normals)] *= (0.35, 0.4, 0.45)
    share = np.exp(-distance / HAZE).astype(np.float32)[:, None]
    return share * color + (1 - share) * background


_TEXTURE = np.random.default_rng(0).uniform(0.88, 1.12, (256, 256)).astype(np.float32)


def _texture(points):
    """Two octaves of noise that sticks to the world."""
    x, y, z = points.T
    u, v = x + 0.7 * z, y + 0.7 * z
    fine = _TEXTURE[(u * 12).astype(np.int32) & 255, (v * 12).astype(np.int32) & 255]
    coarse = _TEXTURE[(u * 1.5).astype(np.int32) & 255, (v * 1.5).astype(np.int32) & 255]
    return fine * coarse


def _is_window(snapshot: Snapshot, surface, points, normals):
    """Rows of windows on upright walls, every 2.6 m, one row per storey of 3 m."""
    window = np.zeros(len(surface), dtype=bool)
    candidates = np.flatnonzero(snapshot.surfaces.material("windows")[surface] * (np.abs(normals[:, 2]) < 0.5))
    part, at = surface[candidates], points[candidates]
    local = np.einsum("nji,nj->ni", snapshot.axes[part], at - snapshot.centers[part])
    along = np.where(np.abs(np.einsum("ni,ni->n", snapshot.axes[part][:, :, 0], normals[candidates])) < 0.5, 0, 1)
    across = local[np.arange(len(local)), along] / 2.6 % 1
    up = (local[:, 2] + snapshot.surfaces.half_size[part][:, 2]) / 3.0 % 1
    window[candidates] = (np.abs(across - 0.5) < 0.27) & (np.abs(up - 0.62) < 0.25)
    return window
