"""Corruptions of a drawn scan: what each severity changes, by loops in float64, and what no corruption may change."""

import math
from dataclasses import replace

import numpy as np
import pytest

from uov_hf.evaluation.corruptions import CORRUPTIONS, GROUND, SEVERITIES, VEHICLES, Corruption, weather
from uov_hf.evaluation.corruptions.beams import find_beams
from uov_hf.evaluation.corruptions.weather import below_water, draw_flakes, fog_response
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.vocabulary import load_vocabulary


CLASSES = load_vocabulary("nuscenes").class_names
ROAD, CAR, MANMADE = (CLASSES.index(name) for name in ("driveable_surface", "car", "manmade"))
NUM_BEAMS, NUM_COLUMNS, HEIGHT = 32, 90, 1.8


def drawn_scan(frame_id="a"):
    """A sensor of 32 beams, 1.8 m above a road, in a ring of walls at 40 m, with a car at 8 m in front of it."""
    elevation, azimuth = np.meshgrid(
        np.radians(np.linspace(-30, 10, NUM_BEAMS)), np.radians(np.arange(NUM_COLUMNS) * 4.0 - 180), indexing="ij"
    )
    elevation, azimuth = elevation.ravel(), azimuth.ravel()
    wall = 40 / np.cos(elevation)
    ground = np.where(elevation < 0, HEIGHT / np.sin(np.maximum(-elevation, 1e-9)), np.inf)
    distance, labels = np.minimum(wall, ground), np.where(ground < wall, ROAD, MANMADE)
    on_car = (np.abs(azimuth) < 0.3) & (distance > 8 / np.cos(elevation)) & (elevation < 0)
    distance, labels = np.where(on_car, 8 / np.cos(elevation), distance), np.where(on_car, CAR, labels)
    direction = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=1
    )
    intensity = np.choose(np.searchsorted([CAR, ROAD, MANMADE], labels), [60, 12, 30])
    points = np.concatenate([direction * distance[:, None], intensity[:, None]], axis=1).astype(np.float32)
    everywhere = np.ones(len(points), dtype=bool)
    seen = points[:, 0] > 0
    regions = {"all_points": everywhere, "seen_points": seen, "unseen_points": ~seen}
    return LabelledScan(
        frame_id, points, {}, labels.astype(np.uint8), regions, np.arange(len(points)) % 16, np.arange(len(points))
    )


def corrupt(name, severity="heavy", scan=None, seed=0):
    return Corruption(name, severity, CLASSES, seed)(drawn_scan() if scan is None else scan, 255.0)


def rows_of(scan):
    """The points of the clean scan: its instances count them."""
    return np.asarray(scan.instances)


def displacement(scan):
    return np.linalg.norm(scan.points[:, :3] - drawn_scan().points[rows_of(scan), :3], axis=1)


def same(first, second):
    return np.array_equal(first.points, second.points) and np.array_equal(first.labels, second.labels)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_a_function_of_seed_frame_corruption_and_severity(name, severity):
    clean, result = drawn_scan(), corrupt(name, severity)
    assert not same(clean, result)
    assert same(clean, drawn_scan())  # the clean scan is not changed in place
    assert same(result, corrupt(name, severity))
    if name not in ("wet_ground", "cross_sensor"):  # which leave nothing to chance
        # Fog draws one of six attenuations for a frame, so two frames may share it, but not the spread.
        assert not same(result, corrupt(name, severity, seed=1))
        assert not same(result, corrupt(name, severity, drawn_scan("b")))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_labels_go_with_their_points_and_only_noise_loses_its_label(name, severity):
    clean, result = drawn_scan(), corrupt(name, severity)
    rows = rows_of(result)
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(result.teacher_labels, clean.teacher_labels[rows])
    assert all(np.array_equal(result.regions[part], clean.regions[part][rows]) for part in clean.regions)
    is_noise = result.labels == 255
    assert np.array_equal(result.labels[~is_noise], clean.labels[rows][~is_noise])
    assert is_noise.any() == (name in ("fog", "snow", "crosstalk"))
    if name != "motion_blur":
        assert np.array_equal(result.points[~is_noise, :3], clean.points[rows][~is_noise, :3])
    if name in ("beam_missing", "incomplete_echo", "cross_sensor"):
        assert np.array_equal(result.points, clean.points[rows])  # also the intensities, to the last digit
    assert result.points.dtype == np.float32 and len(result.points) <= len(clean.points)
    assert (result.points[:, 3] >= 0).all() and (result.points[:, 3] <= 255).all()


@pytest.mark.parametrize("name", ["wet_ground", "beam_missing", "incomplete_echo", "cross_sensor"])
def test_a_heavier_severity_loses_all_points_that_a_lighter_one_loses(name):
    light, moderate, heavy = (set(rows_of(corrupt(name, severity))) for severity in SEVERITIES)
    assert heavy < moderate <= light <= set(rows_of(drawn_scan()))


@pytest.mark.parametrize("name", ["fog", "crosstalk"])
def test_a_heavier_severity_has_all_noise_of_a_lighter_one(name):
    light, moderate, heavy = (
        set(rows_of(scan)[scan.labels == 255]) for scan in (corrupt(name, severity) for severity in SEVERITIES)
    )
    assert light <= moderate < heavy


def test_motion_blur_shifts_the_whole_scan_and_jitters_its_points():
    for severity, std in zip(SEVERITIES, (0.2, 0.25, 0.3), strict=True):
        shifts = []
        for seed in range(60):
            offset = corrupt("motion_blur", severity, seed=seed).points - drawn_scan().points
            shifts.append(offset[:, :3].mean(axis=0))
            jitter = (offset[:, :3] - shifts[-1]).std(axis=0)
            np.testing.assert_allclose(jitter, [0.1 * std, 0.1 * std, 0.05 * std], rtol=0.1)
            assert not offset[:, 3].any()
        assert np.std(shifts) == pytest.approx(std, rel=0.2)


def test_missing_beams_are_whole_and_not_the_outermost():
    beams = np.repeat(np.arange(NUM_BEAMS), NUM_COLUMNS)
    for severity, num_lost in zip(SEVERITIES, (8, 16, 24), strict=True):
        left = np.bincount(beams[rows_of(corrupt("beam_missing", severity))], minlength=NUM_BEAMS)
        assert set(left) == {0, NUM_COLUMNS} and (left == 0).sum() == num_lost
        assert left[[0, 1, -2, -1]].all()


def test_another_sensor_has_every_second_point_of_regularly_spaced_beams():
    beams, columns = np.divmod(np.arange(NUM_BEAMS * NUM_COLUMNS), NUM_COLUMNS)
    for severity, lost in zip(SEVERITIES, ([1], [1, 3], [1, 2, 3]), strict=True):
        expected = [row for row in range(len(beams)) if beams[row] % 4 not in lost and columns[row] % 2 == 0]
        assert rows_of(corrupt("cross_sensor", severity)).tolist() == expected


def test_the_order_of_the_points_does_not_matter_to_the_beams():
    clean = drawn_scan()
    order = np.random.default_rng(0).permutation(len(clean.points))
    assert np.array_equal(find_beams(clean.points[:, :3])[order], find_beams(clean.points[order, :3]))
    assert np.array_equal(find_beams(clean.points[:, :3]), np.repeat(np.arange(NUM_BEAMS), NUM_COLUMNS))


def test_the_beams_of_a_real_sensor_are_mostly_its_rings(shared_data):
    (file,) = (shared_data / "nuscenes" / "samples" / "LIDAR_TOP").glob("*.bin")
    points = np.fromfile(file, np.float32).reshape(-1, 5)
    points = points[np.linalg.norm(points[:, :3], axis=1) > 2]
    counts = np.zeros((128, 32), dtype=int)
    np.add.at(counts, (find_beams(points[:, :3]), points[:, 4].astype(int)), 1)
    assert counts.max(axis=1).sum() / len(points) > 0.85


def test_incomplete_echoes_are_those_of_vehicles():
    clean = drawn_scan()
    num_cars = int((clean.labels == CAR).sum())
    for severity, share in zip(SEVERITIES, (0.75, 0.85, 0.95), strict=True):
        result = corrupt("incomplete_echo", severity)
        assert (result.labels == CAR).sum() == num_cars - int(share * num_cars)
        assert (result.labels != CAR).sum() == (clean.labels != CAR).sum()
    few = replace(clean, labels=np.where(np.cumsum(clean.labels == CAR) > 10, 255, clean.labels))
    assert same(few, corrupt("incomplete_echo", scan=few))  # ten points are too few


def test_crosstalk_displaces_a_share_of_the_points_by_metres():
    for severity, share in zip(SEVERITIES, (0.03, 0.07, 0.12), strict=True):
        result = corrupt("crosstalk", severity)
        is_noise = result.labels == 255
        assert is_noise.sum() == int(share * len(result.points))
        assert not displacement(result)[~is_noise].any()
        assert np.sqrt((displacement(result)[is_noise] ** 2).mean() / 3) == pytest.approx(3, rel=0.25)


def response_by_loops(attenuation, target, step):
    """Hahner et al. 2021: the largest integral over the pulse of all ranges up to the target, by the midpoint rule."""
    best = (0.0, 0.0)
    for index in range(round(target / 0.1) + 1):
        total, reach = 0.0, index * 0.1
        for slot in range(int(40e-9 / step)):
            time = (slot + 0.5) * step
            r = reach - 299_792_458.0 * time / 2
            if r > 0.9:
                overlap = min((r - 0.9) / 0.1, 1.0)
                pulse = math.sin(math.pi * time / 40e-9) ** 2
                total += pulse * math.exp(-2 * attenuation * r) * overlap / r**2 * step
        best = max(best, (total, reach))
    return best


@pytest.mark.parametrize("attenuation", [0.0, 0.06])
def test_the_response_of_fog_is_the_integral_of_its_definition(attenuation):
    ranges, responses = fog_response(attenuation)
    for target in (0.5, 2.0, 4.0, 12.0):
        strength, reach = response_by_loops(attenuation, target, 0.05e-9)
        cell = round(target / 0.1)
        assert responses[cell] == pytest.approx(strength, rel=0.01, abs=1e-15)
        assert ranges[cell] == pytest.approx(reach, abs=0.11)
    assert (np.diff(responses) >= 0).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_dims_targets_and_hides_those_that_it_outshines(severity):
    clean = drawn_scan()
    beta = dict(zip(SEVERITIES, (0.008, 0.05, 0.2), strict=True))[severity]
    attenuations = set()
    for seed in range(12):
        result = corrupt("fog", severity, seed=seed)
        distance = np.linalg.norm(clean.points[:, :3].astype(np.float64), axis=1)
        matching = []
        for attenuation in (0.0, 0.005, 0.01, 0.02, 0.03, 0.06):
            responses = fog_response(attenuation)[1]
            expected = []
            for d, intensity in zip(distance, clean.points[:, 3] / 255, strict=True):
                target = round(255 * intensity * math.exp(-2 * attenuation * d)) / 255
                fog = intensity * d**2 * beta / (1e-6 / math.pi) * responses[min(round(d / 0.1), 2000)]
                expected.append((255 * min(max(target, fog), 1), fog > target))
            intensities, is_noise = (np.array(column) for column in zip(*expected, strict=True))
            if np.array_equal(is_noise, result.labels == 255) and np.allclose(intensities, result.points[:, 3], 1e-5):
                matching.append(attenuation)
        assert len(matching) == 1
        attenuations.add(matching[0])
        nearer = np.linalg.norm(result.points[:, :3], axis=1)
        assert (nearer <= distance + 1e-4).all()  # no echo from behind the target
    assert len(attenuations) > 1


def test_light_below_water_follows_fresnel():
    for angle in (0.0, 0.5, 1.2, 1.5):
        inside = math.asin(math.sin(angle) * 1.0003 / 1.33)
        parallel = (1.33 * math.cos(angle) - 1.0003 * math.cos(inside)) / (
            1.33 * math.cos(angle) + 1.0003 * math.cos(inside)
        )
        crossed = (1.0003 * math.cos(angle) - 1.33 * math.cos(inside)) / (
            1.0003 * math.cos(angle) + 1.33 * math.cos(inside)
        )
        for rho in (0.05, 0.5):
            # The light that is reflected inside the water again and again, up to the 200th time.
            expected = max(
                sum((1 - r**2) ** 2 * rho * (rho * r**2) ** n for n in range(200)) for r in (parallel, crossed)
            )
            assert below_water(np.array([angle]), np.array([rho]))[0] == pytest.approx(expected, rel=1e-9)


def test_wet_ground_is_darker_and_lost_in_the_distance_and_nothing_else_changes():
    clean = drawn_scan()
    for severity in SEVERITIES:
        result = corrupt("wet_ground", severity)
        rows = rows_of(result)
        others = np.flatnonzero(clean.labels != ROAD)
        assert np.array_equal(result.points[np.isin(rows, others)], clean.points[others])
        assert (result.points[:, 3] <= clean.points[rows, 3]).all()
    distance = np.linalg.norm(clean.points[:, :3], axis=1)
    road = clean.labels == ROAD
    lost = road & ~np.isin(np.arange(len(road)), rows)
    assert lost.any() and distance[lost].min() > distance[road & ~lost].max() - 1e-3
    few = replace(clean, labels=np.where(np.cumsum(road) >= 100, 255, clean.labels))
    assert same(few, corrupt("wet_ground", scan=few))  # 99 points of ground are too few for a line


def test_flakes_lie_before_their_targets_as_densely_as_the_snowfall_has_it():
    beam, distance, share = draw_flakes(np.full(40_000, 20.0), 1.0, 1.6, np.random.default_rng(0))
    assert (np.diff(beam) >= 0).all() and (distance <= 20).all() and (share > 0).all() and (share < 1).all()
    assert all((np.diff(distance[beam == index]) >= 0).all() for index in range(100))
    # The disks of the flakes fill the share of the plane that the definition names; their width is share · 3 mrad · d.
    area = (np.pi / 4 * (share * 3e-3 * distance) ** 2).sum()
    assert area / (40_000 * 3e-3 / 2 * 20**2) == pytest.approx(1.0 / (3.6e6 * 0.1 * 1.6), rel=0.05)


def test_snow_shadows_targets_more_the_more_it_snows_and_hides_the_darkest():
    targets = np.full(5000, 30.0)
    passed = [
        np.log1p(-draw_flakes(targets, *fall, np.random.default_rng(1))[2]).sum()
        for fall in ((0.5, 2.0), (1.0, 1.6), (2.5, 1.6))
    ]
    assert passed[0] > passed[1] > passed[2]
    clean = drawn_scan()
    dark = replace(clean, points=clean.points * np.array([1, 1, 1, 0.1], dtype=np.float32))
    result = corrupt("snow", scan=dark)
    is_noise = result.labels == 255
    assert is_noise.sum() > (corrupt("snow").labels == 255).sum() > 0
    assert (result.points[is_noise, 3] >= 1).all()  # an echo of less than a step of the sensor is none
    before = np.linalg.norm(dark.points[rows_of(result), :3], axis=1)
    assert (np.linalg.norm(result.points[is_noise, :3], axis=1) < before[is_noise]).all()
    assert (result.points[~is_noise, 3] <= dark.points[rows_of(result), 3][~is_noise]).all()


def test_an_echo_that_snow_weakens_below_the_noise_is_lost(monkeypatch):
    clean = drawn_scan()
    flakes = np.arange(0, len(clean.points), 3)
    drawn = (flakes, np.full(len(flakes), 2.0), np.full(len(flakes), 0.5))
    monkeypatch.setattr(weather, "draw_flakes", lambda *_: drawn)
    monkeypatch.setattr(weather, "FLAKE_INTENSITY", 0.0)
    # Half of the light of the wall is more than 0.7 of the road; half of the road is less.
    lost = np.setdiff1d(np.arange(len(clean.points)), rows_of(corrupt("snow")))
    assert np.array_equal(lost, flakes[clean.labels[flakes] == ROAD])


@pytest.mark.parametrize("num_points", [0, 1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_scans_of_few_points_are_corrupted_too(name, num_points):
    clean = drawn_scan()
    parts = {part: region[:num_points] for part, region in clean.regions.items()}
    few = LabelledScan("a", clean.points[:num_points], {}, clean.labels[:num_points], parts)
    for severity in SEVERITIES:
        result = corrupt(name, severity, few)
        assert result.teacher_labels is None and result.instances is None
        assert len(result.points) == len(result.labels) <= num_points and np.isfinite(result.points).all()
        assert (num_points == 0) == (len(result.points) == 0)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_points_without_an_echo_stay_as_they_are(name):
    clean = drawn_scan()
    points = clean.points.copy()
    points[::7] = [np.nan, 1, 2, 3]
    points[1::7] = 0
    result = corrupt(name, scan=replace(clean, points=points))
    own = np.isin(rows_of(result) % 7, (0, 1))
    assert np.array_equal(rows_of(result)[own], np.flatnonzero(np.isin(np.arange(len(points)) % 7, (0, 1))))
    assert np.array_equal(result.points[own], points[rows_of(result)[own]], equal_nan=True)
    assert np.isfinite(result.points[~own]).all()


def test_a_corruption_that_cannot_change_anything_is_refused():
    with pytest.raises(ValueError, match="corruption wet_ground changes only points of the classes .*road.*Leave it"):
        Corruption("wet_ground", "light", ["car", "wall"])
    with pytest.raises(ValueError, match="incomplete_echo .* and the ground truth has none of them: road"):
        Corruption("incomplete_echo", "light", ["road"])
    with pytest.raises(ValueError, match="The corruptions are fog, wet_ground.*; got rain"):
        Corruption("rain", "light", CLASSES)
    with pytest.raises(ValueError, match="must be one of light, moderate, heavy, got 'worst'"):
        Corruption("fog", "worst", CLASSES)


@pytest.mark.parametrize("taxonomy", ["nuscenes", "semantic_kitti", "pandaset", "cityscapes"])
def test_every_vocabulary_has_ground_and_vehicles(taxonomy):
    names = set(load_vocabulary(taxonomy).class_names)
    assert names & GROUND and names & VEHICLES
