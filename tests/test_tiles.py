"""A cloud larger than a scan is segmented in tiles, each in the frame of a sensor at its origin."""

import numpy as np
import pytest

from uov_hf.point_files import PointCloud
from uov_hf.tiles import is_larger_than_a_scan, segment_in_tiles


UTM = np.array([512_345.0, 5_412_345.0, 210.0])


@pytest.fixture
def cloud():
    """300 m by 100 m, flat ground at 0 but for a box."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-150, 150, 3000), rng.uniform(-50, 50, 3000), np.zeros(3000), np.ones(3000)])
    points[:20, 2] = rng.uniform(0, 3, 20)
    return PointCloud(points.astype(np.float32), UTM)


class Segmenter:
    """Labels a point by the number of the tile, and keeps the tiles."""

    def __init__(self):
        self.tiles = []

    def __call__(self, points):
        self.tiles.append(points)
        labels = np.full(len(points), len(self.tiles) - 1)
        return {"segmentation": labels, "scores": np.hypot(*points[:, :2].T), "labels": ["a"]}


def test_a_point_takes_the_prediction_of_the_tile_whose_origin_is_nearest(cloud):
    segmenter, origins = Segmenter(), UTM + [[-100, 0, 2], [0, 10, 2], [100, 0, 2]]
    result = segment_in_tiles(cloud, segmenter, origins, radius=40)
    distances = np.linalg.norm(cloud.file_points[:, None, :2] - origins[None, :, :2], axis=2)
    np.testing.assert_array_equal(result["segmentation"], distances.argmin(axis=1))
    # In the frame of the tile the distance to the origin is the distance to the sensor.
    np.testing.assert_allclose(result["scores"], distances.min(axis=1), atol=1e-4)
    assert result["scores"].dtype == np.float32 and result["labels"] == ["a"]
    assert all(tile[:, 2].min() == -2 and (tile[:, 3] == 1).all() for tile in segmenter.tiles)


def test_tiles_overlap_and_have_every_point_within_their_radius(cloud):
    segmenter = Segmenter()
    result = segment_in_tiles(cloud, segmenter, radius=60)
    assert (result["segmentation"] != 255).all() and (result["scores"] < 0.71 * 60).all()
    for row, tile in enumerate(segmenter.tiles):
        own = np.flatnonzero(result["segmentation"] == row)
        assert np.abs(tile[:, :2]).max() <= 60 and len(tile) > 1.5 * len(own)
        assert abs(np.percentile(tile[:, 2], 50) + 1.8) < 1e-6  # the sensor is above the ground
    assert sum(map(len, segmenter.tiles)) > 2 * len(cloud.points)


def test_points_that_are_not_finite_are_in_no_tile(cloud):
    cloud.points[7] = np.nan
    segmenter = Segmenter()
    result = segment_in_tiles(cloud, segmenter, UTM[None, :2])
    assert result["segmentation"][7] == 255 and result["scores"][7] == 0
    assert len(segmenter.tiles) == 1 and len(segmenter.tiles[0]) == 2999


def test_a_scan_is_not_larger_than_a_scan():
    rng = np.random.default_rng(0)
    scan = rng.normal(0, 40, (5000, 3))
    scan[:9] = 1e5  # stray returns
    assert not is_larger_than_a_scan(scan) and is_larger_than_a_scan(rng.uniform(-400, 400, (5000, 3)))


@pytest.mark.parametrize("origins", [np.zeros(3), np.zeros((0, 3)), np.zeros((2, 4)), np.full((1, 3), np.nan)])
def test_origins_of_another_form_are_refused(cloud, origins):
    with pytest.raises(ValueError, match=r"`origins` must be finite, of shape \(num_tiles, 2 or 3\)"):
        segment_in_tiles(cloud, Segmenter(), origins)
    with pytest.raises(ValueError, match="`radius` must be positive"):
        segment_in_tiles(cloud, Segmenter(), radius=0)


def test_points_whose_squares_overflow_are_in_the_tile_of_their_nearest_origin():
    far = np.array([[0, 0, 0], [3e19, 0, 0]], np.float32)
    seen = []

    def segment(points):
        seen.append(points[:, :2].tolist())
        return {"segmentation": np.zeros(len(points), int), "scores": np.ones(len(points)), "labels": ["a"]}

    segment_in_tiles(PointCloud(far, np.zeros(3)), segment, np.array([[0, 0, 0], [3e19, 0, 0]]))
    assert [len(own) for own in seen] == [1, 1]


def test_an_infinite_radius_is_refused():
    """All points were without a label."""
    with pytest.raises(ValueError, match="`radius` must be positive and finite, got inf"):
        segment_in_tiles(PointCloud(np.ones((2, 3), np.float32), np.zeros(3)), len, radius=np.inf)
