"""Rotations agree with scipy's, and motions with what they do to points."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from uov_hf.geometry.rotation import (
    euler_to_matrix,
    inverse_motion,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rigid_motion,
)


@pytest.mark.parametrize("seed", range(5))
def test_quaternions_and_angles_are_those_of_scipy(seed):
    turn = Rotation.random(random_state=seed)
    w_first = np.roll(turn.as_quat(), 1)
    np.testing.assert_allclose(quaternion_to_matrix(3 * w_first), turn.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(matrix_to_quaternion(turn.as_matrix()), w_first * np.sign(w_first[0]), atol=1e-12)
    roll, pitch, yaw = turn.as_euler("xyz")
    np.testing.assert_allclose(euler_to_matrix(roll, pitch, yaw), turn.as_matrix(), atol=1e-12)


def test_motions_rotate_then_translate_and_their_inverses_undo_it():
    quarter = euler_to_matrix(0, 0, np.pi / 2)
    motions = rigid_motion([quarter, np.eye(3)], [[5, 0, 0], [0, 7, 0]])
    np.testing.assert_allclose(motions @ [1, 0, 0, 1], [[5, 1, 0, 1], [1, 7, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(inverse_motion(motions[0]) @ motions[0], np.eye(4), atol=1e-12)
