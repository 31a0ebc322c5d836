"""Approximate flat interaction where scans are not regular, on the ground around the vehicle, and on bad input."""

import itertools

import numpy as np
import pytest
import torch
from afi_oracle import SMALL, farthest_points, nearest, oracle, scene, street

from uov_hf import point_neighbors
from uov_hf.afi import AFIConfig, approximate_flat_interaction, labels_to_scores
from uov_hf.ground_ring import GroundRing, find_ground


RING = GroundRing(classes=(0, 4))


# --- where scans are not regular ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_points", [1, 2, 5, 19, 49, 200])
def test_scans_smaller_than_a_level_are_refined_with_smaller_levels(num_points):
    points, scores = scene(num_points, seed=4)
    ours = approximate_flat_interaction(points, scores)
    assert np.abs(ours - oracle(points, scores)).max() < 1e-9
    assert num_points > 1 or np.array_equal(ours.argmax(1), scores.argmax(1))


def test_an_empty_scan_gives_an_empty_answer():
    assert approximate_flat_interaction(np.empty((0, 3)), np.empty((0, 4))).shape == (0, 4)
    assert approximate_flat_interaction(torch.empty(0, 3), torch.empty(0, 4), num_points=[]).shape == (0, 4)


def test_one_class_stays_one_class_and_no_evidence_none():
    points, _ = scene(500)
    assert np.allclose(approximate_flat_interaction(points, np.ones((500, 1)), SMALL), 1, atol=1e-6)
    assert not approximate_flat_interaction(points, np.zeros((500, 5)), SMALL).any()


def test_points_that_are_not_finite_keep_their_label_and_change_nothing():
    points, scores = scene()
    broken = np.arange(1500) % 10 == 0
    dirty = points.copy()
    dirty[broken, np.arange(1500)[broken] % 3] = np.where(np.arange(150) % 2, np.nan, np.inf)
    refined = approximate_flat_interaction(dirty, 2 * scores, SMALL)
    assert np.allclose(refined[broken], scores[broken])
    alone = approximate_flat_interaction(points[~broken], 2 * scores[~broken], SMALL)
    assert np.array_equal(refined[~broken], alone)
    assert np.allclose(approximate_flat_interaction(np.full_like(points, np.nan), scores, SMALL), scores)


@pytest.mark.parametrize("far", [2e19, -3e38, 1e12])
def test_a_point_that_is_nowhere_leaves_the_others_as_they_are(far):
    """A driver's mark of an invalid echo: its square is infinite in float32."""
    points, scores = scene(300)
    points = points.astype(np.float32)
    alone = approximate_flat_interaction(points[1:], scores[1:])
    points[0, 1] = far
    refined = approximate_flat_interaction(points, scores)
    assert np.array_equal(refined[1:], alone) and np.array_equal(refined[0], scores[0])


@pytest.mark.parametrize("num_points", [1, 2, 3, 5, 60, 3000])
@pytest.mark.parametrize("ring", [None, RING], ids=["no ring", "ring"])
def test_every_row_sums_to_one_or_to_zero(num_points, ring):
    """By the paper's constants, on all points at one place, few places, and places of their own."""
    rng = np.random.default_rng(num_points)
    scores = labels_to_scores(rng.choice([0, 1, 4, 255], num_points), 5) * rng.uniform(1e-12, 1, (num_points, 1))
    for num_places in {1, 2, num_points}:
        points = rng.uniform(-6, 6, (num_places, 3))[rng.integers(0, num_places, num_points)]
        sums = approximate_flat_interaction(points, scores, AFIConfig(ground_ring=ring)).sum(axis=1)
        assert np.all((sums == 0) | (np.abs(sums - 1) < 1e-12))


def test_fewer_places_than_a_level_has_points_are_picked_again():
    """Ten places of thirty points each: distances are zero, and ties everywhere."""
    points, scores = (np.repeat(values, 30, axis=0) for values in scene(10, seed=5))
    expected = oracle(points, scores, (60, 20, 6))
    assert np.abs(approximate_flat_interaction(points, scores, SMALL) - expected).max() < 1e-9
    assert np.isfinite(approximate_flat_interaction(np.zeros((40, 3)), scores[:40], SMALL)).all()


def test_among_equally_far_and_equally_near_points_the_first_counts():
    """On a grid nearly every distance is there several times."""
    points = np.stack(np.meshgrid(np.arange(16.0), np.arange(12.0), [1.0, 2.0]), -1).reshape(-1, 3)
    points = points[np.random.default_rng(0).permutation(len(points))]
    cloud = torch.from_numpy(points)
    assert np.array_equal(point_neighbors.farthest_points(cloud, 200), farthest_points(points, 200))
    expected = [sorted(nearest(points, query, 7)) for query in points]
    assert point_neighbors.nearest_points(cloud, cloud, 7).sort().values.tolist() == expected


def test_of_many_equally_near_points_the_first_count():
    """More than four times as many as are wanted: the tree is not searched for all of them."""
    sides = itertools.permutations((1.0, 2, 3))
    points = [np.multiply(one, signs) for one in sides for signs in itertools.product((-1, 1), repeat=3)]
    points = torch.from_numpy(np.random.default_rng(0).permutation(points))
    for k in (1, 3, 5):
        found = point_neighbors.nearest_points(points.new_zeros(2, 3), points, k)
        assert found.sort(dim=1).values.tolist() == [[*range(k)]] * 2


def test_of_two_farthest_points_the_first_is_picked():
    points = torch.tensor([[1.0, 0, 0], [5, 3, 0], [4, 4, 0]])
    assert point_neighbors.farthest_points(points, 2).tolist() == [0, 1]


def test_of_copies_of_a_point_the_first_count_whatever_the_sign_of_zero():
    points = torch.tensor([[0.0, 0, 0], [-0.0, 0, 0], [0, 0, -0.0], [0, 0, 0], [1, 0, 0]])
    assert point_neighbors._first_copies(points, 2).tolist() == [0, 1, 4]
    assert point_neighbors.nearest_points(points[:3], points[:4], 2).tolist() == [[0, 1]] * 3


def test_neighbours_and_picks_of_what_is_no_cloud_of_points_are_refused_by_name():
    points = torch.eye(3)
    for call, name in (
        (lambda: point_neighbors.farthest_points(points.long(), 1), "points"),
        (lambda: point_neighbors.nearest_points(points.long(), points, 1), "queries"),
        (lambda: point_neighbors.nearest_points(points, points.long(), 1), "points"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be floating-point numbers"):
            call()
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"`size` must lie between 1 and 3, the number of points, got {size}"):
            point_neighbors.farthest_points(points, size)
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        point_neighbors.nearest_points(points, points, 0)
    assert point_neighbors.farthest_points(points, 1).tolist() == [0]
    assert point_neighbors.nearest_points(points, points, 1).tolist() == [[0], [1], [2]]


def test_points_at_the_origin_are_never_picked_later():
    points = np.concatenate([street(50)[0], np.zeros((5, 3)), [[0.03, 0, 0]], [[0.04, 0, 0]]])
    picks = point_neighbors.farthest_points(torch.from_numpy(points), 57).tolist()
    assert not {50, 51, 52, 53, 54, 55} & set(picks) and 56 in picks


# --- the ground ring ------------------------------------------------------------------------------------------------


def test_ground_near_the_vehicle_gets_ground_classes_only():
    points, truth, _ = street(8000)
    radius = np.hypot(points[:, 0], points[:, 1])
    labels = np.where(radius < 5, 3, truth)  # all around the vehicle is called a box
    plain = approximate_flat_interaction(points, labels_to_scores(labels, 5))
    ringed = approximate_flat_interaction(points, labels_to_scores(labels, 5), AFIConfig(ground_ring=RING))
    ground = (truth == 0) & (radius > 2) & (radius < 5)
    assert (plain.argmax(1)[ground] == 0).mean() < 0.5 and (ringed.argmax(1)[ground] == 0).mean() > 0.9
    assert (ringed[ground][:, 1:4] == 0).all(axis=1).mean() > 0.9


def test_the_vehicle_itself_gives_no_evidence():
    points, truth, _ = street(8000)
    vehicle = np.hypot(points[:, 0], points[:, 1]) <= 2
    scores = [labels_to_scores(np.where(vehicle, label, truth), 5) for label in (1, 2)]
    refined = [approximate_flat_interaction(points, own, AFIConfig(ground_ring=RING)) for own in scores]
    assert vehicle.any() and np.array_equal(*refined)


def test_the_ground_is_a_plane_that_may_slope_and_have_objects_on_it():
    rng = np.random.default_rng(0)
    radius, angle = rng.uniform(0, 8, 4000), rng.uniform(0, 7, 4000)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(4000)], 1)
    points[:, 2] = -1.84 + 0.05 * points[:, 0] - 0.03 * points[:, 1]
    things = rng.random(4000) < 0.2
    points[things, 2] += 0.3
    ground, vehicle = find_ground(torch.from_numpy(points), RING)
    low = points[:, 2] < -1.4
    assert np.array_equal(ground.numpy(), ~things & low & (radius > 2) & (radius < 5))
    assert np.array_equal(vehicle.numpy(), radius <= 2)
    # A lidar on a taller vehicle: the same street, lower in its frame.
    higher = GroundRing(classes=(0,), sensor_height=2.84)
    assert torch.equal(find_ground(torch.from_numpy(points - [0, 0, 1]), higher)[0], ground)


def test_a_ring_of_fewer_than_ten_points_is_no_ground():
    points = torch.tensor([[3.0, 0.1 * row, -1.8] for row in range(9)])
    assert not find_ground(points, RING)[0].any()
    assert find_ground(torch.cat([points, points[:1] + 0.05]), RING)[0].all()
    assert not find_ground(torch.cat([points, torch.tensor([[3.0, 4, -1.8]])]), RING)[0].any()  # it ends at 5 m


def test_a_ground_point_without_evidence_for_ground_keeps_its_answer():
    points, _, _ = street(2000)
    scores = labels_to_scores(np.full(2000, 3), 5)
    assert (approximate_flat_interaction(points, scores, AFIConfig(ground_ring=RING)).argmax(1) == 3).all()


def test_ground_classes_are_found_by_name():
    label2id = {"car": 0, "road": 1, "sidewalk": 2}
    assert GroundRing.from_names(["road", "sidewalk"], label2id, sensor_height=1.73).classes == (1, 2)
    with pytest.raises(ValueError, match="grass.*among.*sidewalk"):
        GroundRing.from_names(["grass"], label2id)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "points, scores, settings, message",
    [
        (np.ones((4, 2)), np.ones((4, 2)), {}, "points.*must have shape"),
        (np.ones((4, 3)), np.ones((3, 2)), {}, r"\(4, 3\) and \(3, 2\)"),
        (np.ones((4, 3)), np.ones(4), {}, "labels_to_scores"),
        (np.ones((4, 3)), -np.ones((4, 2)), {}, "softmax"),
        (np.ones((4, 3)), np.full((4, 2), np.nan), {}, "between 0 and|finite"),
        (np.ones((4, 3)), np.full((4, 2), np.inf), {}, "between 0 and|finite"),
        (np.ones((4, 3)), np.ones((4, 2)), {"num_points": [1, 2]}, "sums to 3"),
        (np.ones((4, 3)), np.ones((4, 2)), {"config": AFIConfig(ground_ring=RING)}, "too few"),
    ],
)
def test_bad_input_is_refused(points, scores, settings, message):
    with pytest.raises(ValueError, match=message):
        approximate_flat_interaction(points, scores, **settings)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"level_sizes": sizes} for sizes in ((), (5, 0))),
        *({name: 0} for name in ("num_neighbors", "num_voters")),
        *({"num_directions": 1}, {"min_cosine": 1.0}),
        *({name: -1} for name in ("min_count", "base_vote")),
        *({"level_shares": shares} for shares in ((), (0.5, 1.5))),
        *({"own_weights": weights} for weights in ((0.1,), (0.1, 0.1, 0.1, -1))),
        {"own_weights": (0.1,) * 4, "level_shares": (0.5,)},
    ],
)
def test_a_constant_out_of_range_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AFIConfig(**wrong)


def test_a_ring_needs_classes_and_radii_in_order():
    with pytest.raises(ValueError, match="classes"):
        GroundRing(classes=())
    with pytest.raises(ValueError, match="min_radius"):
        GroundRing(classes=(0,), min_radius=5, max_radius=2)


def test_thousands_of_points_at_one_position_cost_as_much_as_the_neighbours_of_one(monkeypatch):
    """A scan whose driver writes (0, 0, 0) for each beam without an echo: 20,000 took 22 s."""
    generator, compared = np.random.default_rng(0), []
    points = np.concatenate([np.zeros((3000, 3)), generator.normal(0, 9, (300, 3))]).astype(np.float32)
    points = torch.from_numpy(generator.permutation(points))
    squares = point_neighbors._squares
    monkeypatch.setattr(
        point_neighbors, "_squares", lambda *own: compared.append(squares(*own).numel()) or squares(*own)
    )
    found = point_neighbors.nearest_points(points, points, 8)
    assert sum(compared) < 3300 * (300 + 8 * 20)
    distances = torch.cdist(points.double(), points.double())
    nearest_8 = distances.argsort(dim=1, stable=True)[:, :8]
    assert torch.equal(found.sort(dim=1).values, nearest_8.sort(dim=1).values)


@pytest.mark.parametrize("change", [lambda p: p[::-1], lambda p: p.astype(">f4"), lambda p: p.astype("f4")[:, ::1]])
def test_points_in_any_memory_layout_are_refined(change):
    points, scores = scene(60, seed=2)
    points, scores = np.asarray(points, np.float32), np.asarray(scores)
    given = change(points)
    rows = slice(None, None, -1) if given.strides[0] < 0 else slice(None)
    expected = approximate_flat_interaction(np.array(given, np.float32), scores[rows].copy())
    assert (approximate_flat_interaction(given, scores[rows]) == expected).all()
    assert (approximate_flat_interaction(given, torch.tensor(scores[rows].copy())).numpy() == expected).all()


@pytest.mark.parametrize(
    "scores, num_points, message",
    [
        (np.full((4, 2), 1e38), None, r"`scores` must lie between 0 and 1e\+09.* got values from .*1e\+38"),
        (np.full((4, 2), 1e9 + 1), None, r"`scores` must lie between 0 and 1e\+09"),
        (np.ones((4, 2)), [6, -2], r"`num_points` must be .* sum to 4, the rows of `points`, got \[6, -2\]"),
        (np.ones((4, 2)), 4, r"`num_points` must be whole numbers of shape \(num_scans,\)"),
        (np.ones((4, 2), complex), None, "`scores` must be numbers, got complex128"),
    ],
)
def test_scores_that_float32_cannot_multiply_and_wrong_sizes_are_refused(scores, num_points, message):
    with pytest.raises(ValueError, match=message):
        approximate_flat_interaction(np.zeros((4, 3)), scores, num_points=num_points)
    assert approximate_flat_interaction(np.zeros((1, 3)), np.array([[0, 1e9]])).tolist() == [[0, 1]]


def test_labels_of_16_bits_and_no_others_but_whole_numbers_become_scores():
    assert labels_to_scores(np.array([1, 0], np.uint16), 2).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="`labels` must be whole numbers .*got torch.float64"):
        labels_to_scores(np.array([0.7, 1.0]), 2)
