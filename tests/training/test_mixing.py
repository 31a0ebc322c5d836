"""Where a scan has no label, sectors with labels of other scans take its place; nothing else changes."""

import itertools
import math

import numpy as np
import pytest

from uov_hf.training.mixing import MAX_SCANS, Scan, labelled_sector, mix_sectors


def scan(frame_id, labelled_degrees, radius=10.0) -> Scan:
    """A ring of 720 points around the sensor, labelled from one azimuth to another; its id and azimuth are columns."""
    degrees = np.arange(720) / 2 + 0.25
    angle = np.radians(degrees)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), angle * 0, angle * 0 + 7], axis=1)
    start, end = labelled_degrees
    is_labelled = (degrees - start) % 360 < end - start
    columns = {"frame": np.full(720, frame_id), "degrees": degrees}
    pairs = {
        "pair_to_point": np.flatnonzero(is_labelled),
        "pair_camera": np.zeros(is_labelled.sum(), np.uint8),
        "pair_pixel": np.stack([np.flatnonzero(is_labelled)] * 2, axis=1),
        "pair_segment": np.flatnonzero(is_labelled) + 1,
    }
    return Scan(str(frame_id), points.astype(np.float32), is_labelled, columns, pairs)


def degrees_of(points):
    return np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360


def joined(parts, name):
    return np.concatenate([part.columns[name] for part in parts])


def test_four_sectors_of_a_quarter_fill_a_scan():
    parts = mix_sectors([scan(0, (0, 90)), *(scan(frame, (45, 135)) for frame in (1, 2, 3, 4))])
    assert len(parts) == 4  # the fifth scan is not needed
    assert np.concatenate([part.is_labelled for part in parts]).all()
    where = degrees_of(np.concatenate([part.points for part in parts]))
    assert np.array_equal(np.bincount((where // 1).astype(int), minlength=360), np.full(360, 2))  # no hole, no overlap


def test_the_first_scan_keeps_its_labels_and_what_no_other_replaces():
    first, *others = mix_sectors([scan(0, (10, 100)), scan(1, (200, 290))])
    assert first.is_labelled.sum() == 180
    moved = degrees_of(np.concatenate([part.points for part in others]))
    assert len(moved) == 180 and not np.isin(np.round(moved, 2), first.columns["degrees"]).any()
    assert len(first.points) == 720 - 180


def test_points_move_by_a_rotation_only_and_pairs_move_with_them():
    source = scan(1, (200, 290))
    _, part = mix_sectors([scan(0, (0, 90)), source])
    turn = (degrees_of(part.points) - part.columns["degrees"]) % 360
    np.testing.assert_allclose(turn, turn[0], atol=1e-3)
    np.testing.assert_allclose(np.hypot(part.points[:, 0], part.points[:, 1]), 10, rtol=1e-5)
    assert (part.points[:, 3] == 7).all()
    pixel = part.pairs["pair_pixel"][:, 0]  # each is the row that its point had
    assert np.array_equal(part.columns["degrees"][part.pairs["pair_to_point"]], source.columns["degrees"][pixel])
    assert len(pixel) == part.is_labelled.sum() == 180


@pytest.mark.parametrize("labelled", [(0, 360), (0, 355)])
def test_a_scan_with_labels_all_around_stays_as_it_is(labelled):
    whole = scan(0, labelled)
    read = iter([whole, scan(1, (0, 90))])
    assert mix_sectors(read) == [whole]
    assert len(list(read)) == 1  # no other scan was read


def test_a_scan_without_labels_is_filled_and_the_number_of_scans_is_limited():
    parts = mix_sectors([scan(0, (0, 0)), *(scan(frame, (45, 135)) for frame in range(1, 9))])
    assert [len(part.points) for part in parts] == [0, 180, 180, 180, 180]
    endless = (scan(frame, (0, 0)) for frame in itertools.count())
    assert len(mix_sectors(endless)) == MAX_SCANS


def test_points_that_are_not_finite_do_no_harm():
    broken = scan(0, (0, 90))
    broken.points[5, :2] = math.nan
    broken.points[300, 0] = math.inf
    assert sum(len(part.points) for part in mix_sectors([broken, scan(1, (0, 90))])) > 700


def test_a_narrow_gap_belongs_to_the_sector():
    assert labelled_sector(np.array([350, 355, 5, 20])).nonzero()[0].tolist() == [*range(21), *range(350, 360)]
    assert labelled_sector(np.array([0, 30])).nonzero()[0].tolist() == [0, 30]


def test_no_scan_cannot_be_mixed_and_labels_of_other_points_make_no_scan():
    with pytest.raises(ValueError, match="`scans` must have one scan or more"):
        mix_sectors(iter([]))
    with pytest.raises(ValueError, match=r"`is_labelled` must be bool of shape \(2,\), got .* \(3,\)"):
        Scan("frame", np.zeros((2, 4), np.float32), np.ones(3, bool))
