"""The grid of a scan: its limits, and the full scale of the intensities."""

import warnings

import numpy as np
import pytest

from uov_hf.voxel_grid import MAX_FLOAT32, SMALLEST_FLOAT32, VoxelGrid, guess_full_scale


def grid(**settings) -> VoxelGrid:
    """Cells of 1 m."""
    defaults = {
        "voxel_size": (1, 1, 1),
        "coordinate_system": "cartesian",
        "point_cloud_range": None,
        "voxel_reduction": "first",
        "intensity_scaling": "raw",
        "missing_intensity": 0.0,
    }
    return VoxelGrid(**defaults | settings)


def points_of(intensity) -> np.ndarray:
    """A point in a cell of its own for each intensity."""
    return np.stack([np.arange(len(intensity)), *np.zeros((2, len(intensity))), intensity], axis=1)


@pytest.mark.parametrize("axis", range(3))
def test_indices_fit_into_sixteen_bits_and_larger_ones_are_refused(axis):
    points = np.zeros((4, 3))
    points[:, axis] = -32767, 32767.5, 0, 32766
    coords, _, rows = grid().voxelize(points)
    assert coords[:, axis].tolist() == [-32767, 32767, 0, 32766] and rows.tolist() == [0, 1, 2, 3]
    for beyond in (-32767.5, 32768):
        points[2, axis] = beyond
        with pytest.raises(ValueError, match="must lie within 32768 voxels of the sensor"):
            grid().voxelize(points)


def test_the_point_farthest_out_is_named():
    points = np.array([[4e5, 0, 0, 7], [3e5, -5e6, 30, 8], [0, 0, 1e5, 9], [np.inf, 0, 0, 1]])
    with pytest.raises(ValueError, match=r"got one at \(300000, -5000000, 30\) m"):
        grid().voxelize(points)


def test_the_lower_bounds_of_the_range_are_inside_and_the_upper_ones_outside_in_float32():
    bounds = [-0.7, -0.9, 0.7, 0.7, 0.9, 5]  # of these, float32 rounds some up and some down
    points = np.zeros((7, 3), np.float32)
    points[:, 2] = 1
    points[range(6), [0, 1, 2, 0, 1, 2]] = bounds
    assert grid(point_cloud_range=bounds).voxelize(points)[2].tolist() == [0, 1, 2, -1, -1, -1, 3]


def test_a_point_without_a_voxel_has_row_minus_one():
    points = np.array([[0, 0, 0, 7], [np.nan, 0, 0, 8], [-3, 5, 9, 6], [0.5, 0, 0, 9]])
    coords, features, rows = grid().voxelize(points)
    assert coords.tolist() == [[0, 0, 0], [-3, 5, 9]] and features.tolist() == [[7], [6]]
    assert rows.tolist() == [0, -1, 1, 0]
    assert (coords.dtype, features.dtype, rows.dtype) == (np.int32, np.float32, np.int64)


@pytest.mark.parametrize("reduction", ["first", "mean"])
@pytest.mark.parametrize("columns", [3, 4])
def test_features_are_float32_with_and_without_intensities(reduction, columns):
    points = np.array([[0, 0, 0, 1], [0, 0, 0.5, 2], [5, 0, 0, 7]])[:, :columns]
    features = grid(voxel_reduction=reduction, missing_intensity=0.3).voxelize(points)[1]
    expected = [[1.5 if reduction == "mean" else 1], [7]] if columns == 4 else [[0.3], [0.3]]
    assert features.dtype == np.float32 and features.tolist() == np.float32(expected).tolist()


@pytest.mark.parametrize(
    "points, intensity_max, message",
    [
        (np.zeros((3, 4)), None, "`intensity_scaling` 'unit' needs the sensor's full scale"),
        (np.full((50, 4), 2), 1, "`intensity_max` must be the sensor's full scale"),
        (np.full((3, 4), 4e4), 1e5, "`points` must lie within"),
        (np.zeros((3, 2)), 1, "`points`: expected an array of shape"),
    ],
)
def test_the_check_refuses_what_voxelize_refuses(points, intensity_max, message):
    for function in (grid(intensity_scaling="unit").voxelize, grid(intensity_scaling="unit").check_points):
        with pytest.raises(ValueError, match=f"^{message}"):
            function(points.astype(np.float32), intensity_max)
    grid().check_points(np.ones((3, 4)), 1)


@pytest.mark.parametrize("num_wrong", [21, 22])
def test_ten_intensities_and_a_tenth_of_them_may_be_wrong(num_wrong):
    intensity = np.full(110, 0.5)
    intensity[60:], intensity[:num_wrong] = 0, 256
    if num_wrong == 22:
        with pytest.raises(ValueError, match="but 22 of 110 points have an intensity outside 0 to 255"):
            grid().voxelize(points_of(intensity), 255)
    else:
        assert grid().voxelize(points_of(intensity), 255)[1][:, 0].tolist() == [255] * 21 + [0.5] * 39 + [0] * 50
    intensity[:num_wrong] = -1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert grid().voxelize(points_of(intensity), 255)[1][:num_wrong].tolist() == [[0]] * num_wrong
    assert len(caught) == num_wrong - 21


@pytest.mark.parametrize("largest, num_warnings", [(1, 1), (2, 0)])
def test_a_full_scale_that_is_far_too_large_is_named(largest, num_warnings):
    intensity = np.linspace(0, largest, 101)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        grid(intensity_scaling="unit").voxelize(points_of(intensity), 255)
        grid(intensity_scaling="unit").voxelize(points_of(intensity[:100]), 255)  # too few to be doubtful
        grid(intensity_scaling="unit").voxelize(points_of(0 * intensity), 255)  # no intensities
    assert len(caught) == num_warnings
    assert all("got 255, but the largest of 100 intensities of a scan is 1" in str(one.message) for one in caught)


@pytest.mark.parametrize("intensity_max", [SMALLEST_FLOAT32, MAX_FLOAT32])
def test_any_full_scale_that_float32_has_is_taken(intensity_max):
    features = grid(intensity_scaling="unit").voxelize(points_of([0, intensity_max]), intensity_max)[1]
    assert features.tolist() == [[0], [1]]


@pytest.mark.parametrize(
    "intensity, full_scale",
    [
        ([0.2, 1], 1),
        ([0.2] * 9 + [3], 1),
        ([0.2] * 8 + [3, 3], 255),
        ([1] * 99 + [3] * 11, 1),
        ([1] * 98 + [3] * 12, 255),
        ([1] * 90 + [-200] * 9, 1),
        ([0] * 90 + [200] * 10, 255),
        ([np.nan, np.inf, -np.inf, 255], 255),
        ([256], 65535),
        ([65535], 65535),
        ([], 1),
    ],
)
def test_the_full_scale_is_the_smallest_that_nine_tenths_of_the_echoes_fit(intensity, full_scale):
    assert guess_full_scale(np.array(intensity, np.float32)) == full_scale


def test_intensities_beyond_all_full_scales_are_refused_with_their_range():
    with pytest.raises(ValueError, match="cannot be guessed from intensities from 0.5 to 65536"):
        guess_full_scale(np.array([0.5, 65536, 0, np.nan], np.float32))
