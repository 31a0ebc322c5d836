"""Rotations and rigid motions as matrices: quaternions, Euler angles, composition, inversion."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rigid_motion(rotation: ArrayLike, translation: ArrayLike) -> NDArray[np.float64]:
    """The motions (..., 4, 4) with rotation matrices (..., 3, 3) and translations (..., 3)."""
    motion = np.zeros((*np.shape(translation)[:-1], 4, 4))
    motion[..., :3, :3] = rotation
    motion[..., :3, 3] = translation
    motion[..., 3, 3] = 1
    return motion


def is_rigid(motion: NDArray[np.float64]) -> bool:
    """Whether a matrix (4, 4) only rotates and translates; calibration files have few digits, hence 1e-4."""
    rotation = motion[:3, :3]
    if not np.abs(rotation).max() < 2:  # also NaN; the product of large numbers would overflow, with a warning
        return False
    is_rotation = np.abs(rotation @ rotation.T - np.eye(3)).max() <= 1e-4 and np.linalg.det(rotation) >= 0
    return bool(is_rotation and np.abs(motion[3] - [0, 0, 0, 1]).max() <= 1e-8)


def inverse_motion(motion: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a rigid motion (4, 4)."""
    back = motion[:3, :3].T
    return rigid_motion(back, -back @ motion[:3, 3])


def quaternion_to_matrix(quaternion: ArrayLike) -> NDArray[np.float64]:
    """The rotation matrix (3, 3) of a quaternion (w, x, y, z) of any length but 0."""
    w, x, y, z = np.array(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The unit quaternion (w, x, y, z), w >= 0, of a rotation matrix: the main eigenvector of Bar-Itzhack's matrix."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    vector = np.linalg.eigh(matrix)[1][:, -1]
    return vector * (1 if vector[0] >= 0 else -1)


def euler_to_matrix(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """The rotation matrix (3, 3) about x, then y, then z; radians."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
