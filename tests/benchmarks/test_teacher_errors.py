"""The benchmark of a teacher's errors: what lasts, and what an object is, on scans one can draw."""

import numpy as np
import pytest
import teacher_errors
from teacher_errors import LabelledScan


CAR, ROAD = 0, 1
IS_THING = np.array([True, False])


def make_scan(truth, labels, shift=0.0, sequence="one"):
    """Points in a row, 1 m apart."""
    positions = np.arange(len(truth))[:, None] * [1.0, 0, 0] + [shift, 0, 0]
    border = np.zeros(len(truth))
    return LabelledScan(sequence, 0, positions, np.array(truth), np.array(labels), border, len(truth))


def test_an_error_lasts_where_the_same_place_is_wrong_in_the_next_scan():
    truth = [ROAD] * 8
    first = make_scan(truth, [CAR] * 4 + [ROAD] * 4)
    later = make_scan(truth, [CAR] * 3 + [ROAD] * 4 + [CAR], shift=0.05)
    rows = teacher_errors.measure_persistence([first, later], lag=1)
    assert rows["lag of 1: wrong where it was wrong"] == rows["lag of 1: the same wrong label"] == "75.0"
    assert rows["lag of 1: wrong where it was right"] == rows["lag of 1: another label"] == "25.0"


def test_only_points_at_one_place_and_of_one_class_in_one_sequence_are_compared():
    first = make_scan([ROAD, ROAD], [CAR, ROAD])
    same, moved = make_scan([ROAD, CAR], [CAR, CAR]), make_scan([ROAD, ROAD], [ROAD, ROAD], shift=0.5)
    assert [rows.tolist() for rows in teacher_errors.match_places(first, same)] == [[0], [0]]
    assert [rows.tolist() for rows in teacher_errors.match_places(first, moved)] == [[], []]
    other = make_scan([ROAD] * 2, [ROAD] * 2, sequence="two")
    rows = teacher_errors.measure_persistence([first, same, other], lag=1)
    assert rows["lag of 1: wrong where it was wrong"] == "100.0"


def test_an_object_is_a_cluster_of_points_of_a_thing(monkeypatch):
    monkeypatch.setattr(teacher_errors, "OBJECT_GAP", 1.5)
    monkeypatch.setattr(teacher_errors, "OBJECT_POINTS", 3)
    truth = [CAR] * 4 + [ROAD] * 2 + [CAR] * 3 + [ROAD] * 2 + [CAR] * 2
    scan = make_scan(truth, [CAR, ROAD, ROAD, ROAD] + [ROAD] * 2 + [CAR] * 3 + [ROAD] * 4)
    assert teacher_errors.shares_right(scan, CAR) == pytest.approx([0.25, 1])
    rows = teacher_errors.measure_objects([scan], IS_THING)
    assert rows["objects mostly wrong"] == rows["objects with more than 90 % right"] == "50.0"
