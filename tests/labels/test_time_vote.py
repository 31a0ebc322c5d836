"""The vote over time: scans of one street, seen from a car that drives."""

import numpy as np
import pytest

from uov_hf.labels.time_vote import KEY_BITS, TimeVoteConfig, gather_in_voxels, vote_over_time, voxel_keys
from uov_hf.labels.votes import count_votes, decide


CAR, ROAD = 0, 1
IS_THING = np.array([True, False])
CONFIG = TimeVoteConfig(reach=0.3, relative_reach=0)


def scan(positions, classes, has_vote=None):
    """The voxels of a scan whose points have a vote with a score of 0.5 each, or some of them."""
    positions, classes = np.asarray(positions, float), np.asarray(classes)
    point = np.flatnonzero(np.ones(len(positions), bool) if has_vote is None else has_vote)
    votes = count_votes(point, classes[point], np.full(len(point), 0.5), len(positions), num_classes=2)
    return gather_in_voxels(votes, positions, CONFIG)


def label(positions, own, others, config=CONFIG, distance=5.0):
    positions = np.asarray(positions, float)
    votes = vote_over_time(positions, np.full(len(positions), distance), own, others, IS_THING, config)
    return decide(votes)[0].tolist()


def test_other_scans_outvote_one_mistake_and_label_points_without_votes():
    places = [[0, 0, 0], [5, 0, 0]]
    wrong = scan(places, [CAR, ROAD], has_vote=[True, False])
    right = [scan(places, [ROAD, ROAD]), scan(places, [ROAD, ROAD])]
    assert label(places, wrong, []) == [CAR, 255]
    assert label(places, wrong, right) == [ROAD, ROAD]


def test_a_vote_fades_with_distance():
    own, other = scan([[0, 0, 0]], [ROAD], has_vote=[False]), scan([[0.3, 0, 0]], [ROAD])
    votes = vote_over_time(np.zeros((1, 3)), np.ones(1), own, [other], IS_THING, CONFIG)
    weight = np.exp(-0.5)
    assert votes.weights[0] == pytest.approx([0, weight, 0]) and votes.scores[0] == pytest.approx([0, weight / 2, 0])
    assert label([[0.91, 0, 0]], own, [other]) == [ROAD] and label([[1.21, 0, 0]], own, [other]) == [255]


def test_a_thing_that_has_left_a_place_leaves_no_label_behind():
    """A car stood where the road is seen now: this scan has no point where the car's upper half was."""
    road = [[0, 0, 0]]
    now, car = scan(road, [ROAD], has_vote=[False]), scan([[0.25, 0, 0.61]], [CAR])
    assert label(road, now, [car]) == [255]
    assert label(road, now, [car, car]) == [255]  # it stood there, or moved slowly, before it left
    assert label(road, now, [scan([[0.25, 0, 0.61]], [ROAD])]) == [ROAD]  # stuff does not move
    still = [*road, [0.25, 0, 0.4]]  # a point of this scan is near to where the car was
    assert label(still, scan(still, [ROAD, CAR], has_vote=[False, False]), [car]) == [CAR, CAR]


def test_a_thing_votes_in_its_own_scan_wherever_it_is():
    assert label([[0.5, 0, 0]], scan([[0, 0, 0]], [CAR]), []) == [CAR]


def test_the_points_of_a_far_thing_may_be_farther_from_where_it_was():
    point, car = [[40, 0, 0.3]], scan([[40, 0.8, 0.3]], [CAR])
    no_votes, relative = scan(point, [CAR], has_vote=[False]), TimeVoteConfig(reach=0.3, relative_reach=0.03)
    assert label(point, no_votes, [car], CONFIG, distance=40) == [255]
    assert label(point, no_votes, [car], relative, distance=40) == [CAR]
    assert label(point, no_votes, [car], relative, distance=5) == [255]


def loop_over_time(positions, ranges, own, others, config):
    """The scores and weights of each point, voxel by voxel in float64."""
    voxels = [
        (center, weights, scores, scan is own)
        for scan in (own, *others)
        for center, weights, scores in zip(scan.centers, scan.votes.weights, scan.votes.scores, strict=True)
    ]
    sigma = [max(config.reach, config.relative_reach * distance) for distance in ranges]
    weights, scores = np.zeros((2, len(positions), 3))
    for place, position in enumerate(positions):
        nearest = sorted(voxels, key=lambda voxel: np.linalg.norm(voxel[0] - position))[: config.num_neighbors]
        for center, voxel_weights, voxel_scores, is_own in nearest:
            distance = np.linalg.norm(center - position)
            to_points = np.linalg.norm(positions - center, axis=1)
            counts = is_own or to_points.min() < sigma[to_points.argmin()]
            kept = ~np.append(IS_THING, False) | counts
            falloff = np.exp(-(distance**2) / (2 * sigma[place] ** 2)) * (distance < 3 * sigma[place])
            weights[place] += falloff * kept * voxel_weights.astype(float)
            scores[place] += falloff * kept * voxel_scores.astype(float)
    return weights, scores


def test_the_votes_are_those_of_a_loop_over_points_and_voxels():
    rng = np.random.default_rng(0)
    config = TimeVoteConfig(num_neighbors=5, reach=0.3, relative_reach=0.03)
    clouds = [rng.uniform(0, 2.5, (60, 3)) for _ in range(3)]
    own, *others = [scan(cloud, rng.integers(0, 2, 60), rng.random(60) < 0.7) for cloud in clouds]
    ranges = rng.uniform(1, 20, 60)
    votes = vote_over_time(clouds[0], ranges, own, others, IS_THING, config)
    weights, scores = loop_over_time(clouds[0], ranges, own, others, config)
    assert votes.scores == pytest.approx(scores, rel=1e-5, abs=1e-6)
    assert votes.weights == pytest.approx(weights, rel=1e-5, abs=1e-6)


def test_a_near_surface_does_not_count_more_by_its_points():
    many = scan(np.zeros((100, 3)), [CAR] * 100)
    assert many.votes.weights[0].tolist() == pytest.approx([10, 0, 0]) and len(many.centers) == 1


def test_far_coordinates_are_as_good_as_near_ones():
    offset = np.array([500_000.0, 5_800_000.0, -40.0])
    places = np.array([[0, 0, 0], [3, 0, 0], [0, -3, 0]], float)
    assert len(scan(places + offset, [ROAD] * 3).centers) == 3
    assert label(places + offset, scan(places + offset, [ROAD] * 3), []) == [ROAD] * 3


@pytest.mark.parametrize("along", [range(-70, 71, 7), [-(2 ** (KEY_BITS - 1)), -1, 0, 1, 2 ** (KEY_BITS - 1) - 1]])
def test_every_voxel_in_the_range_of_a_scan_has_a_key_of_its_own(along):
    voxels = np.stack(np.meshgrid(along, along, along), axis=-1).reshape(-1, 3)
    assert len(np.unique(voxel_keys(0.3 * (voxels + 0.5), 0.3))) == len(voxels)


@pytest.mark.parametrize("num_points", [0, 1])
def test_scans_without_votes_give_no_labels(num_points):
    empty = scan(np.zeros((num_points, 3)), np.zeros(num_points, int), has_vote=[False] * num_points)
    assert label(np.zeros((num_points, 3)), empty, [empty]) == [255] * num_points


def test_points_without_votes_make_no_voxels():
    """They would count among the nearest voxels."""
    assert scan([[0, 0, 0], [9, 0, 0]], [ROAD, ROAD], has_vote=[False, True]).centers.tolist() == [[9, 0, 0]]


@pytest.mark.parametrize("name, least", [("voxel_size", 0), ("num_neighbors", 0), ("reach", 0), ("window", -1)])
def test_a_setting_of_the_vote_over_time_that_is_out_of_range_is_named(name, least):
    with pytest.raises(ValueError, match=f"`{name}` must be .*, got {least}"):
        TimeVoteConfig(**{name: least})
    assert TimeVoteConfig(**{name: least + 1})
    assert TimeVoteConfig(relative_reach=0, reach=1e-3)


def test_the_centre_of_a_voxel_is_the_mean_of_its_points():
    voxels = scan([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1], [0.2, 0.1, 0.25], [5, 5, 5]], [ROAD] * 4)
    assert voxels.centers == pytest.approx(np.array([[0.5 / 3, 0.1, 0.15], [5, 5, 5]]))


def test_the_background_that_another_scan_saw_counts_wherever_it_is():
    """It cannot move: no point of this scan is near, and the vote counts all the same."""
    votes = vote_over_time(
        np.zeros((1, 3)), np.ones(1), scan([[9, 0, 0]], [ROAD]), [scan([[0.6, 0, 0]], [255])], IS_THING, CONFIG
    )
    assert votes.weights[0] == pytest.approx([0, 0, np.exp(-2)])


def test_without_a_voxel_all_sums_are_zero():
    empty = scan(np.zeros((1, 3)), [ROAD], has_vote=[False])
    votes = vote_over_time(np.zeros((4, 3)), np.ones(4), empty, [], IS_THING, CONFIG)
    assert votes.weights.shape == votes.scores.shape == (4, 3) and not votes.weights.any()
    assert votes.weights.dtype == votes.scores.dtype == np.float32
