"""Points have the pixels of the pinhole equations, written out step by step."""

import pickle

import numpy as np
import pytest
import torch

from uov_hf.geometry.projection import Camera, pair_points_with_pixels, project_points, round_to_pixels


# The lidar frame has x forward, y left, z up; the camera frame x right, y down, z forward.
FORWARD = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
BACKWARD = [[0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]]


def camera(lidar2cam=FORWARD, size=(100, 200)) -> Camera:
    height, width = size
    return Camera(lidar2cam, [[100, 0, width / 2], [0, 100, height / 2], [0, 0, 1]], size)


def test_a_point_lands_on_its_pixel():
    pixel_coords, in_view = project_points([[5, 0, 0], [10, 1, 2]], camera())  # a list is an array, too
    assert pixel_coords.tolist() == [[100, 50], [90, 30]]  # left of the middle, and above it
    assert in_view.tolist() == [True, True]


def test_a_point_behind_or_too_near_is_not_seen():
    points = np.array([[-5.0, 0, 0], [1.0, 0, 0], [1.01, 0, 0]])
    pixel_coords, in_view = project_points(points, camera())
    assert in_view.tolist() == [False, False, True]
    assert np.isnan(pixel_coords[:2]).all()
    for min_depth in (0, 0.5):
        assert project_points(points, camera(), min_depth)[1].tolist() == [False, True, True]


def test_the_border_of_the_image_is_not_in_view():
    columns = np.array([0, 0.5, 198.5, 199])
    points = np.stack([np.full(4, 10.0), (100 - columns) / 10, np.zeros(4)], axis=1)
    pixel_coords, in_view = project_points(points, camera())
    np.testing.assert_allclose(pixel_coords[:, 0], columns)
    assert in_view.tolist() == [False, True, True, False]


@pytest.mark.filterwarnings("error")
def test_points_that_are_not_finite_are_not_seen():
    points = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [5, np.inf, 0], [5, 0, 0]], dtype=np.float32)
    points.setflags(write=False)  # as they come from a memory-mapped file
    assert project_points(points, camera())[1].tolist() == [False, False, False, True]


def test_torch_in_torch_out_and_the_same_numbers():
    points = np.random.default_rng(0).normal(0, 20, (1000, 4)).astype(np.float32)
    pixel_coords, in_view = project_points(points, camera())
    torch_coords, torch_in_view = project_points(torch.from_numpy(points), camera())
    assert torch_coords.dtype == torch.float64 and torch_in_view.dtype == torch.bool
    np.testing.assert_array_equal(torch_coords.numpy(), pixel_coords)
    np.testing.assert_array_equal(torch_in_view.numpy(), in_view)


def test_a_point_seen_by_two_cameras_has_two_pairs():
    points = np.array([[5.0, 0, 0], [-5.0, 0, 0], [0, 0, 9.0]])
    pairs = pair_points_with_pixels(points, [camera(), camera(BACKWARD), camera()])
    assert pairs.point_index.tolist() == [0, 1, 0]
    assert pairs.camera_index.tolist() == [0, 1, 2]
    assert pairs.pixel_coords.tolist() == [[100, 50]] * 3
    assert len(pair_points_with_pixels(points, []).point_index) == 0


def test_halves_round_to_even_and_rows_come_first():
    rows, columns = round_to_pixels(np.array([[0.5, 1.5], [2.5, 3.49]]))
    assert columns.tolist() == [0, 2] and rows.tolist() == [2, 3]
    image = np.arange(20).reshape(4, 5)
    assert image[round_to_pixels(np.array([[4.0, 1.0]]))].tolist() == [9]


def test_an_image_size_may_be_any_pair_and_a_camera_that_is_none_is_refused():
    for image_size in ([100, 200], np.array([100, 200], np.int32), torch.tensor([100, 200]), (100.0, 200.0)):
        assert Camera(FORWARD, np.eye(3), image_size).image_size == (100, 200)
    with pytest.raises(ValueError, match="4 x 4"):
        camera(np.eye(3))
    with pytest.raises(ValueError, match="rotate and translate"):
        camera(np.diag([2.0, 1, 1, 1]))
    for image_size in ((0, 5), (5,), (5, 5, 3), 5, (899.5, 5), (np.nan, 5)):
        with pytest.raises(ValueError, match=r"`image_size` must be \(height, width\), two positive whole numbers"):
            Camera(FORWARD, np.eye(3), image_size)
    with pytest.raises(ValueError, match="`image_size` must be numbers, got"):
        Camera(FORWARD, np.eye(3), ("high", "wide"))
    with pytest.raises(ValueError, match=r"\(num_points, 3 or more\).*\(3,\)"):
        project_points(np.ones(3), camera())


def test_a_camera_does_not_change_under_its_user():
    lidar2cam = np.array(FORWARD, dtype=np.float64)
    seen_by = camera(lidar2cam)
    lidar2cam[0, 3] = 7
    assert seen_by.lidar2cam[0, 3] == 0
    for same in (seen_by, pickle.loads(pickle.dumps(seen_by))):  # as a loader's workers hand it on
        assert same.image_size == (100, 200)
        with pytest.raises(ValueError, match="read-only"):
            same.lidar2cam[0, 3] = 7


def test_depth_and_pixel_are_those_of_the_camera_where_it_is():
    """A camera 0.8 m ahead of the lidar and 0.4 m above it."""
    lidar2cam = np.array(FORWARD, float)
    lidar2cam[:3, 3] = 0, 0.4, -0.8
    pixel_coords, in_view = project_points([[1.7, 0, 0], [2.8, 0, 0]], camera(lidar2cam))
    assert in_view.tolist() == [False, True] and pixel_coords[1] == pytest.approx([100, 50 + 100 * 0.4 / 2])


def test_the_upper_and_lower_border_of_the_image_are_not_in_view():
    rows = np.array([0, 0.5, 98.5, 99])
    points = np.stack([np.full(4, 10.0), np.zeros(4), (50 - rows) / 10], axis=1)
    pixel_coords, in_view = project_points(points, camera())
    np.testing.assert_allclose(pixel_coords[:, 1], rows)
    assert in_view.tolist() == [False, True, True, False]


def test_a_matrix_that_makes_no_camera_is_named():
    with pytest.raises(ValueError, match="`lidar2cam` must be 4 x 4 finite numbers"):
        camera(np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="`intrinsics` must be 3 x 3 finite numbers"):
        Camera(FORWARD, np.eye(4), (1, 3))
    with pytest.raises(ValueError, match=r"The last row of `intrinsics` must be \(0, 0, 1\), got \[0.0, 0.0, 1.5\]"):
        Camera(FORWARD, np.diag([1, 1, 1.5]), (1, 3))
    assert Camera(FORWARD, np.eye(3), (1, 3)).image_size == (1, 3)


@pytest.mark.parametrize("min_depth", [-1.0, np.nan, np.inf])
def test_a_depth_that_is_not_before_the_camera_is_refused(min_depth):
    """With -6 a point five metres behind the camera was in view, mirrored."""
    with pytest.raises(ValueError, match="`min_depth` must be a finite number of metres from 0"):
        project_points(np.array([[-5.0, 0, 0]]), camera(), min_depth)


def test_pixels_of_points_that_are_not_in_view_are_not_rounded_to_some_number():
    pixel_coords, _ = project_points(np.array([[-5.0, 0, 0], [5, 0, 0]]), camera())
    with pytest.raises(ValueError, match="`pixel_coords` must be finite, got 1 of 2"):
        round_to_pixels(pixel_coords)
    for number in (2.0**62, -(2.0**62)):
        with pytest.raises(ValueError, match="or too large numbers"):
            round_to_pixels(np.array([[number, 0]]))
    assert [side.tolist() for side in round_to_pixels(np.array([[2.0**61, -(2.0**61)]]))] == [[-(2**61)], [2**61]]


@pytest.mark.parametrize("dtype", [bool, complex, "U3", object])
def test_points_that_are_no_numbers_are_refused_by_name(dtype):
    with pytest.raises(ValueError, match="`points` must be numbers, got"):
        project_points(np.ones((2, 3), dtype), camera())
    with pytest.raises(ValueError, match="`lidar2cam` must be numbers, got"):
        camera(np.eye(4).astype(dtype))


def test_points_in_another_byte_order_have_the_same_pixels():
    points = np.random.default_rng(0).normal(0, 20, (50, 3))
    assert (project_points(points.astype(">f8"), camera())[1] == project_points(points, camera())[1]).all()


def test_pixels_have_a_gradient_to_the_points():
    """An own calibration can be optimised."""
    points = torch.tensor([[0.5, 0.2, 4.0], [1.0, -0.5, 8.0]], requires_grad=True)
    pixels, _ = project_points(points, Camera(np.eye(4), np.diag([100.0, 100, 1]), (200, 200)))
    pixels[0, 0].backward()
    assert points.grad[0].tolist() == pytest.approx([100 / 4, 0, -100 * 0.5 / 16]) and not points.grad[1].any()
