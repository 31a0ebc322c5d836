"""Rays meet what they should: unit shapes, kerbs and hills, and no window is too small."""

import numpy as np
import pytest

from uov_hf.synthetic.cameras import CAMERAS
from uov_hf.synthetic.ground import CELL, Ground, Patch
from uov_hf.synthetic.lidar import ELEVATIONS, LIDAR_TO_EGO
from uov_hf.synthetic.materials import Material
from uov_hf.synthetic.raycast import cast
from uov_hf.synthetic.shapes import BOX, ELLIPSOID, TUBE, first_hit, unit_normals
from uov_hf.synthetic.surfaces import Surfaces
from uov_hf.synthetic.town import build_town
from uov_hf.synthetic.views import PinholeView, SpinningView, Windows


GREY = Material((0.5, 0.5, 0.5), 0.3)


def shoot(shape, origin, direction, taper=1.0):
    rays = np.array(direction, dtype=np.float32).reshape(3, 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(first_hit(shape, taper, np.array(origin, dtype=np.float32), rays)[0, 0])


@pytest.mark.parametrize(
    ("shape", "origin", "direction", "expected"),
    [
        (BOX, (-3, 0.5, 0.5), (1, 0, 0), 2),
        (BOX, (-3, 0.5, 0.5), (2, 0, 0), 1),
        (BOX, (-3, 1.5, 0), (1, 0, 0), np.inf),
        (BOX, (-3, 0, 0), (-1, 0, 0), np.inf),
        (ELLIPSOID, (0, 0, 4), (0, 0, -1), 3),
        (ELLIPSOID, (1.1, 0, 4), (0, 0, -1), np.inf),
        (TUBE, (-3, 0, 0), (1, 0, 0), 2),
        (TUBE, (0.5, 0, 4), (0, 0, -1), 3),
        (TUBE, (0, 0, -4), (0, 0, 1), 3),
        (TUBE, (-3, 0, 1.1), (1, 0, 0), np.inf),
    ],
)
def test_a_ray_meets_a_unit_shape_where_geometry_says(shape, origin, direction, expected):
    assert shoot(shape, origin, direction) == pytest.approx(expected)


def test_a_cone_is_half_as_wide_at_half_its_height():
    assert shoot(TUBE, (-3, 0, 0), (1, 0, 0), taper=0.0) == pytest.approx(2.5)
    assert shoot(TUBE, (0.5, 0, 4), (0, 0, -1), taper=0.0) == pytest.approx(4.0)  # radius 0.5 is at z = 0


def test_normals_point_outwards():
    points = np.array([[1.0, 0.2, -0.3], [0.0, 0.6, 0.8], [0.6, 0.8, 0.1], [0.2, 0.1, -1.0], [0.3, 0.4, 0.0]])
    shapes, tapers = np.array([BOX, ELLIPSOID, TUBE, TUBE, TUBE]), np.array([1, 1, 1, 1, 0.0])
    expected = [[1, 0, 0], [0, 0.6, 0.8], [0.6, 0.8, 0], [0, 0, -1], [0.3, 0.4, 0.25]]
    np.testing.assert_allclose(unit_normals(shapes, tapers, points), expected, atol=1e-12)


def kerb_at_ten_metres(slope=(0.0, 0.0), curvature=(0.0, 0.0)):
    painting = np.zeros((200, 200), dtype=np.uint8)
    painting[:, int(10 / CELL) :] = 1
    patches = [Patch("flat.driveable_surface", GREY, 0.0), Patch("flat.sidewalk", GREY, 0.2)]
    return Ground(patches, painting, np.zeros(2), np.array(slope), np.array(curvature))


def aim(ground, target, origin=(5.0, 5.0, 2.0)):
    direction = np.array(target) - origin
    direction /= np.linalg.norm(direction)
    t, patch = ground.first_hit(np.array(origin), direction.astype(np.float32)[:, None])
    return np.array(origin) + t[0] * direction, int(patch[0])


def test_a_kerb_is_met_at_its_face_and_on_its_top():
    ground = kerb_at_ten_metres()
    point, patch = aim(ground, (8, 5, 0))
    assert patch == 0 and point[2] == pytest.approx(0, abs=1e-5)
    point, patch = aim(ground, (12, 5, 0.2))
    assert patch == 1 and point == pytest.approx((12, 5, 0.2), abs=1e-5)
    point, patch = aim(ground, (10, 5, 0.1))
    assert patch == 1 and point == pytest.approx((10, 5, 0.1), abs=0.05)


def test_on_a_hill_rays_meet_the_surface_itself():
    ground = kerb_at_ten_metres(slope=(0.03, -0.02), curvature=(1e-3, -2e-3))
    for x, y in ((3.0, 8.0), (14.0, 2.0), (18.0, 17.0)):
        z = float(ground.height(np.array([x]), np.array([y]))[0])
        point, _ = aim(ground, (x, y, z))
        assert point == pytest.approx((x, y, z), abs=1e-3)


def test_rays_upwards_meet_the_sky():
    t, _ = kerb_at_ten_metres().first_hit(np.array([5.0, 5.0, 2.0]), np.array([[0.6], [0.1], [0.8]], np.float32))
    assert np.isinf(t[0])


class WholeGrid:
    """A view that tries every part on every ray."""

    def __init__(self, view):
        self.pose, self.directions = view.pose, view.directions

    def windows(self, corners):
        part, (_, rows, columns) = np.arange(len(corners)), self.directions.shape
        zero = np.zeros_like(part)
        return Windows(part, zero, zero + rows, zero, zero + columns)


@pytest.mark.parametrize("sensor", ["lidar", "CAM_FRONT", "CAM_BACK_LEFT"])
def test_no_window_is_too_small(sensor):
    town = build_town(np.random.default_rng(3), 1.0)
    snapshot, ego = Surfaces(town).at(0.5), town.ego_pose(0.5)
    if sensor == "lidar":
        view = SpinningView(ego @ LIDAR_TO_EGO, ELEVATIONS, 0.01 + 2 * np.pi / 48 * np.arange(48) - np.pi)
    else:
        camera = next(camera for camera in CAMERAS if camera.channel == sensor)
        view = PinholeView(ego @ camera.to_ego(), camera.intrinsics((27, 48)), (27, 48))
    by_windows, by_force = cast(view, snapshot, see_ego=True), cast(WholeGrid(view), snapshot, see_ego=True)
    np.testing.assert_array_equal(by_windows.surface, by_force.surface)
    np.testing.assert_array_equal(by_windows.distance, by_force.distance)
    assert (by_windows.surface >= 0).mean() > 0.5
