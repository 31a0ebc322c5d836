"""The vote over time: scans of one street, seen from a car that drives."""

import numpy as np
import pytest

from uov_hf.labels.time_vote import TimeVoteConfig, gather_in_voxels, vote_over_time
from uov_hf.labels.votes import count_votes, decide


CAR, ROAD = 0, 1
IS_THING = np.array([True, False])
CONFIG = TimeVoteConfig(reach=0.3, relative_reach=0)


def scan(positions, classes, spoken=None):
    """The voxels of a scan whose points are named with a score of 0.5, where they are spoken about."""
    positions, classes = np.asarray(positions, float), np.asarray(classes)
    point = np.flatnonzero(np.ones(len(positions), bool) if spoken is None else spoken)
    votes = count_votes(point, classes[point], np.full(len(point), 0.5), len(positions), num_classes=2)
    return gather_in_voxels(votes, positions, CONFIG)


def hear(positions, own, others, config=CONFIG):
    positions = np.asarray(positions, float)
    votes = vote_over_time(positions, np.full(len(positions), 5.0), own, others, IS_THING, config)
    return decide(votes)[0].tolist()


def test_other_scans_outvote_one_mistake_and_name_what_was_not_named():
    places = [[0, 0, 0], [5, 0, 0]]
    wrong = scan(places, [CAR, ROAD], spoken=[True, False])
    right = [scan(places, [ROAD, ROAD]), scan(places, [ROAD, ROAD])]
    assert hear(places, wrong, []) == [CAR, 255]
    assert hear(places, wrong, right) == [ROAD, ROAD]


def test_a_vote_fades_with_distance():
    own, other = scan([[0, 0, 0]], [ROAD], spoken=[False]), scan([[0.3, 0, 0]], [ROAD])
    votes = vote_over_time(np.zeros((1, 3)), np.ones(1), own, [other], IS_THING, CONFIG)
    assert votes.weights == pytest.approx([np.exp(-0.5)]) and votes.scores[0, ROAD] == pytest.approx(
        0.5 * np.exp(-0.5)
    )
    assert hear([[0.91, 0, 0]], own, [other]) == [ROAD] and hear([[1.21, 0, 0]], own, [other]) == [255]


def test_what_only_one_scan_met_leaves_no_label_behind():
    """A car stood where the road is seen now: its upper voxels are empty in every other scan."""
    now = scan([[0, 0, 0]], [ROAD], spoken=[False])
    car = scan([[0.25, 0, 0.61]], [CAR])
    assert hear([[0, 0, 0]], now, [car]) == [255]
    assert hear([[0, 0, 0]], now, [car, car]) == [CAR]  # it was there twice
    assert hear([[0, 0, 0]], now, [scan([[0.25, 0, 0.61]], [ROAD])]) == [ROAD]  # stuff does not move


def test_a_near_surface_does_not_speak_louder_by_its_points():
    many = scan(np.zeros((100, 3)), [CAR] * 100)
    assert many.votes.weights == pytest.approx([10]) and len(many.centers) == 1


def test_far_coordinates_are_as_good_as_near_ones():
    offset = np.array([500_000.0, 5_800_000.0, -40.0])
    places = np.array([[0, 0, 0], [3, 0, 0], [0, -3, 0]], float)
    assert len(scan(places + offset, [ROAD] * 3).centers) == 3
    assert hear(places + offset, scan(places + offset, [ROAD] * 3), []) == [ROAD] * 3


@pytest.mark.parametrize("num_points", [0, 1])
def test_scans_without_votes_are_heard_as_silence(num_points):
    silent = scan(np.zeros((num_points, 3)), np.zeros(num_points, int), spoken=[False] * num_points)
    assert hear(np.zeros((num_points, 3)), silent, [silent]) == [255] * num_points
