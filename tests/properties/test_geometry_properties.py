"""Properties of cameras, projection, occlusion and motion compensation."""

import math

import numpy as np
from hostile_arrays import FLOATS, anything, as_tensor, clouds, generators, result_or_error, same_bits
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from uov_hf.geometry.projection import (
    Camera,
    OcclusionConfig,
    pair_points_with_pixels,
    project_points,
    round_to_pixels,
    visible_points,
)
from uov_hf.geometry.rotation import inverse_motion, matrix_to_quaternion, quaternion_to_matrix, rigid_motion
from uov_hf.geometry.trajectory import Trajectory, move_points


SCALES = (0.01, 1.0, 30.0, 1e6)
TURNED = rigid_motion(Rotation.from_euler("xyz", [100, 20, -70], degrees=True).as_matrix(), [0.3, -0.2, 1.5])
FORWARD = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.3], [1, 0, 0, -0.8], [0, 0, 0, 1.0]])


def make_camera(lidar2cam=FORWARD, size=(90, 160), focal=70.0) -> Camera:
    return Camera(lidar2cam, [[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]], size)


CAMERAS = st.builds(
    make_camera,
    st.sampled_from([FORWARD, TURNED]),
    st.sampled_from([(90, 160), (1, 1), (3, 500)]),
    st.sampled_from([5.0, 70.0, 900.0]),
)


@given(clouds(dtypes=FLOATS + ["i4"], scales=SCALES), CAMERAS, st.sampled_from([0.0, 1e-3, 1.0, 30.0]), st.data())
def test_every_point_has_the_pixel_of_the_pinhole_equations(points, camera, min_depth, data):
    pixels, in_view = result_or_error([], project_points, points, camera, min_depth)
    assert (pixels.dtype, pixels.shape, in_view.dtype, in_view.shape) == ("f8", (len(points), 2), bool, (len(points),))
    height, width = camera.image_size
    for point, pixel, is_in_view in zip(points[:, :3].astype(float), pixels, in_view, strict=True):
        with np.errstate(all="ignore"):
            x, y, z = camera.lidar2cam[:3, :3] @ point + camera.lidar2cam[:3, 3]
            column, row, _ = camera.intrinsics @ np.array([x / z, y / z, 1])
        if not (np.isfinite(point).all() and min_depth < z < math.inf):
            assert (
                np.isnan(pixel).all() or not np.isfinite(point).all() or abs(z - min_depth) < 1e-6 * abs(point).max()
            )
            assert not is_in_view or abs(z - min_depth) < 1e-6 * abs(point).max()
        elif abs(z - min_depth) > 1e-6 * abs(point).max() and np.isfinite([column, row]).all():
            np.testing.assert_allclose(pixel, [column, row], rtol=1e-6, atol=1e-6)
            margin = min(abs(column), abs(row), abs(column - width + 1), abs(row - height + 1))
            assert is_in_view == (0 < column < width - 1 and 0 < row < height - 1) or margin < 1e-6 * (
                1 + abs(column) + abs(row)
            )
    assert np.isfinite(pixels[in_view]).all()
    of_tensor = project_points(as_tensor(points), camera, min_depth)
    assert same_bits(of_tensor[0].numpy(), pixels) and same_bits(of_tensor[1].numpy(), in_view)
    order = data.draw(generators()).permutation(len(points))
    assert same_bits(project_points(points[order], camera, min_depth)[1], in_view[order])


@given(
    anything([(5, 3), (4, 4), (0, 3)]), st.booleans(), st.sampled_from([1.0, 0, -1, math.nan, math.inf]), st.booleans()
)
def test_any_points_have_pixels_or_an_error_names_them(points, as_torch, min_depth, with_occlusion):
    points, camera = as_tensor(points) if as_torch else points, make_camera()
    names = ["points", "min_depth"]
    found = result_or_error(names, project_points, points, camera, min_depth)
    assert found is None or len(found[0]) == len(found[1]) == len(points)
    if not as_torch:
        pairs = result_or_error(
            names,
            pair_points_with_pixels,
            points,
            [camera, camera],
            min_depth,
            OcclusionConfig() if with_occlusion else None,
        )
        assert (pairs is None) == (found is None)
        if pairs is not None:
            rows, columns = round_to_pixels(pairs.pixel_coords)
            assert ((rows >= 0) & (rows < 90) & (columns >= 0) & (columns < 160)).all()
            assert ((pairs.point_index >= 0) & (pairs.point_index < len(points))).all()


@given(clouds(scales=(0.001, 1.0, 30.0), dtypes=["f4", "f8"]), CAMERAS, st.sampled_from([None, 0.1, 3.0]), st.data())
def test_visible_points_are_in_view_in_any_order(points, camera, beam_spacing, data):
    config = OcclusionConfig(beam_spacing=beam_spacing)
    visible = result_or_error([], visible_points, points, camera, config)
    assert visible.shape == (len(points),) and not (visible & ~project_points(points, camera)[1]).any()
    order = data.draw(generators()).permutation(len(points))
    assert same_bits(visible_points(points[order], camera, config), visible[order])
    assert same_bits(visible_points(as_tensor(points), camera, config).numpy(), visible)
    nearest = np.linalg.norm(
        points[:, :3].astype(float) @ camera.lidar2cam[:3, :3].T + camera.lidar2cam[:3, 3], axis=1
    )
    in_view = project_points(points, camera)[1]
    if in_view.any():  # nothing is before the nearest of all
        first = np.flatnonzero(in_view)[nearest[in_view].argmin()]
        depth = points[:, :3].astype(float) @ camera.lidar2cam[2, :3] + camera.lidar2cam[2, 3]
        if not (depth > 1)[nearest < nearest[first]].any():
            assert visible[first]


@given(
    anything([(4, 4), (4, 4), (3, 4)], [*FLOATS, "O", "c8", "U2"]),
    anything([(3, 3), (3, 3), (4, 4)], [*FLOATS, "?", "M8[s]"]),
    st.one_of(
        st.sampled_from([(90, 160), (0, 5), (2.5, 3), "ab", None, (math.nan, 1), (math.inf, 1), [1, 2, 3]]),
        anything([(2,)]),
    ),
    st.booleans(),
)
def test_any_arrays_make_a_camera_or_an_error_names_them(lidar2cam, intrinsics, size, valid):
    if valid:
        lidar2cam, intrinsics = TURNED, np.diag([3.0, 3.0, 1.0])
    camera = result_or_error(["lidar2cam", "intrinsics", "image_size"], Camera, lidar2cam, intrinsics, size)
    if camera is not None:
        assert np.isfinite(camera.lidar2cam).all() and min(camera.image_size) >= 1
        assert not camera.lidar2cam.flags.writeable


@given(anything([(5, 2), (0, 2), (3, 3)]))
def test_any_pixels_are_rounded_or_an_error_names_them(pixels):
    found = result_or_error(["pixel_coords"], round_to_pixels, pixels)
    if found is not None:
        rows, columns = found
        assert rows.dtype == columns.dtype == np.int64
        np.testing.assert_allclose(np.stack([columns, rows], axis=1), pixels.astype(float), atol=0.5, rtol=1e-6)


def make_trajectory(generator: np.random.Generator, num_poses: int) -> Trajectory:
    times = np.cumsum(generator.integers(1, 100_000, num_poses))
    rotations = Rotation.from_euler("xyz", generator.normal(0, 0.05, (num_poses, 3))).as_matrix()
    return Trajectory("poses", times, rigid_motion(rotations, generator.normal(0, 3, (num_poses, 3))))


@given(generators(), st.integers(1, 5), clouds(max_points=12, dtypes=["f4", "f8"], scales=(1.0, 30.0)))
def test_moved_points_are_those_of_the_poses_of_their_times(generator, num_poses, points):
    trajectory = make_trajectory(generator, num_poses)
    times = trajectory.times[generator.integers(0, num_poses, len(points))].astype(float)
    moved = result_or_error([], move_points, points, times, trajectory, TURNED, inverse_motion(FORWARD))
    assert moved.shape == points.shape and moved.dtype == points.dtype
    poses = trajectory.at_times(times)
    for point, new, pose in zip(points, moved, poses, strict=True):
        if np.isfinite(point[:3]).all():
            expected = inverse_motion(FORWARD) @ pose @ TURNED @ np.append(point[:3].astype(float), 1)
            with np.errstate(over="ignore"):
                np.testing.assert_allclose(
                    new[:3].astype("f4"),
                    expected[:3].astype("f4"),
                    rtol=1e-4,
                    atol=1e-5 * np.abs(point[:3]).max() + 1e-4,
                )
        else:
            assert same_bits(new, point)
        assert same_bits(new[3:], point[3:])


@given(
    anything([(5, 3), (5, 4)]),
    anything([(5,), (4,)], ["f8", "f8", "i8", "O", "f4"]),
    anything([(4, 4), (3, 3)]),
    generators(),
    st.booleans(),
)
def test_any_arrays_are_moved_or_an_error_names_them(points, times, mount, generator, valid):
    if valid:
        points, mount = np.ones((5, 4), "f4"), np.eye(4)
    trajectory = make_trajectory(generator, 3)
    names = ["points", "times", "lidar2body", "poses"]
    try:
        moved = result_or_error(names, move_points, points, times, trajectory, mount, np.eye(4))
    except AssertionError as error:  # times far from the poses name the file
        assert "expected poses around" in str(error)
        return
    assert moved is None or moved.shape == points.shape


@given(anything([(4,), (0,)], ["i8", "i8", "f8", "u4"]), anything([(4, 4, 4), (3, 4, 4)], ["f8"]))
def test_any_arrays_make_a_trajectory_or_an_error_names_them(times, poses):
    trajectory = result_or_error(["times", "poses"], Trajectory, "poses", times, poses)
    assert trajectory is None or (np.diff(trajectory.times) > 0).all()


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4).filter(lambda q: sum(abs(part) for part in q) > 1e-3))
def test_a_quaternion_comes_back_from_its_matrix(quaternion):
    rotation = quaternion_to_matrix(quaternion)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    unit = np.array(quaternion) / np.linalg.norm(quaternion)
    assert abs(matrix_to_quaternion(rotation) @ unit) > 1 - 1e-9
    motion = rigid_motion(rotation, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(inverse_motion(motion) @ motion, np.eye(4), atol=1e-9)
