"""Superpoints: patches one can draw, and the vote in them."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from uov_hf.labels import superpoints as superpoints_module
from uov_hf.labels.superpoints import SuperpointConfig, find_superpoints, vote_in_superpoints
from uov_hf.labels.votes import count_votes


def grid(across, along):
    return np.stack(np.meshgrid(across, along, indexing="ij"), axis=-1).reshape(-1, 2)


def floor_and_wall():
    """A floor at z = −1.9 and a wall at x = 5.9, 0.1 m between points, in one cell of 2 m; 16 x 16 points each."""
    floor = np.column_stack([grid(4.1 + np.arange(16) / 10, 0.1 + np.arange(16) / 10), np.full(256, -1.9)])
    wall = np.column_stack([np.full(256, 5.95), grid(0.1 + np.arange(16) / 10, -1.85 + np.arange(16) / 10)])
    return floor, wall


def test_a_floor_and_the_wall_on_it_are_two_superpoints():
    floor, wall = floor_and_wall()
    superpoints = find_superpoints(np.concatenate([floor, wall]), SuperpointConfig(num_neighbors=4))
    largest = [np.bincount(part).max() for part in (superpoints[:256], superpoints[256:])]
    assert min(largest) > 200
    assert np.bincount(superpoints[:256]).argmax() != np.bincount(superpoints[256:]).argmax()


def test_a_superpoint_ends_at_a_gap_and_at_the_border_of_a_cell():
    floor = floor_and_wall()[0]
    gap = np.where(floor[:, :1] > 4.85, 0.9, 0.0) * [[0, 1, 0]]  # half of the floor is moved aside, by 0.9 m
    config = SuperpointConfig(reach=0.3, relative_reach=0.01)
    assert len(np.unique(find_superpoints(floor, config))) == 1
    assert len(np.unique(find_superpoints(floor + [[0, 0.3, 0]], config))) == 1
    assert len(np.unique(find_superpoints(floor + 3 * gap, config))) > 1
    assert len(np.unique(find_superpoints(floor + [[1, 0, 0]], config))) == 2  # x = 5.1 … 6.6


def test_the_majority_of_a_superpoint_labels_its_points_without_votes():
    votes = count_votes(np.array([0, 1, 2]), np.array([0, 0, 1]), np.array([0.9, 0.9, 0.5]), 5, num_classes=2)
    together = vote_in_superpoints(votes, np.array([0, 0, 0, 0, 1]))
    own = np.array([[0.9, 0], [0.9, 0], [0, 0.5], [0, 0], [0, 0]])
    mean = np.array([[1.8 / 4, 0.5 / 4]] * 4 + [[0, 0]])
    assert together.scores[:, :2] == pytest.approx(own + mean)
    assert together.weights.sum(axis=1) == pytest.approx([1.75, 1.75, 1.75, 0.75, 0])


def test_thousands_of_points_at_one_position_cost_as_much_as_one(monkeypatch):
    """A scan whose driver writes (0, 0, 0) for each beam without an echo."""
    floor, searched = floor_and_wall()[0], []

    def find(positions):
        searched.append(len(positions))
        return cKDTree(positions)

    monkeypatch.setattr("uov_hf.labels.superpoints.cKDTree", find)
    superpoints = find_superpoints(np.concatenate([floor, np.zeros((2000, 3))]), SuperpointConfig())
    assert searched == [len(floor) + 1]
    assert len(set(superpoints[:256])) == 1 and len(set(superpoints[256:])) == 1
    assert superpoints[0] != superpoints[-1]


@pytest.mark.parametrize("num_points", [0, 1, 2])
def test_few_points_have_superpoints_too(num_points):
    superpoints = find_superpoints(np.zeros((num_points, 3)) + 1, SuperpointConfig())
    assert superpoints.tolist() in ([], [0], [0, 0], [0, 1])
    votes = count_votes(np.arange(num_points), np.zeros(num_points, int), np.ones(num_points), num_points, 2)
    assert len(vote_in_superpoints(votes, superpoints)) == num_points


@pytest.mark.parametrize("x, superpoints", [(1.2, [0, 0]), (1.9, [0, 1])])
def test_two_points_are_one_superpoint_if_they_are_near(x, superpoints):
    assert find_superpoints(np.array([[1.0, 1, 1], [x, 1, 1]]), SuperpointConfig()).tolist() == superpoints


def test_a_wall_that_touches_the_floor_is_another_superpoint_unless_any_angle_is_allowed():
    floor = np.column_stack([grid(4.05 + np.arange(19) / 10, 0.1 + np.arange(16) / 10), np.full(304, -1.95)])
    wall = np.column_stack([np.full(256, 5.95), grid(0.1 + np.arange(16) / 10, -1.85 + np.arange(16) / 10)])
    positions = np.concatenate([floor, wall])
    superpoints = find_superpoints(positions, SuperpointConfig())
    of_floor, of_wall = (np.bincount(part) for part in (superpoints[:304], superpoints[304:]))
    assert of_floor.argmax() != of_wall.argmax() and min(of_floor.max(), of_wall.max()) > 200
    assert len(np.unique(find_superpoints(positions, SuperpointConfig(max_angle=90.0)))) == 1


@pytest.mark.parametrize("reach, relative_reach, num_superpoints", [(0.3, 0.001, 2), (0.55, 0.001, 1), (0.3, 0.3, 1)])
def test_patches_of_one_plane_are_joined_up_to_the_reach(reach, relative_reach, num_superpoints):
    """Two patches of six points, half a metre apart: the neighbours of each point are in both."""
    patch = np.column_stack([grid([2.1, 2.2], [0.1, 0.2, 0.3]), np.full(6, 0.5)])
    positions = np.concatenate([patch, patch + [0, 0.7, 0]])
    config = SuperpointConfig(num_neighbors=8, reach=reach, relative_reach=relative_reach)
    assert len(np.unique(find_superpoints(positions, config))) == num_superpoints


@pytest.mark.parametrize("name", ["num_neighbors", "reach", "relative_reach", "max_angle", "cell_size"])
def test_a_setting_of_superpoints_that_is_not_positive_is_named(name):
    with pytest.raises(ValueError, match=f"`{name}` must be more than 0, got 0"):
        SuperpointConfig(**{name: 0})
    assert SuperpointConfig(**{name: 1})


def test_crowded_points_are_compared_with_their_nearest_only(monkeypatch):
    """Thousands of points in two centimetres: all lie within the reach of all."""
    compared, coo_array = [], superpoints_module.coo_array
    monkeypatch.setattr(
        superpoints_module,
        "coo_array",
        lambda own, **options: compared.append(len(own[0])) or coo_array(own, **options),
    )
    points = np.random.default_rng(0).uniform(5, 5.02, (3000, 3))
    assert len(find_superpoints(points, SuperpointConfig(num_neighbors=8))) == 3000
    assert compared[0] <= 3000 * 8
