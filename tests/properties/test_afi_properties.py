"""Properties of approximate flat interaction, its neighbours, its picks and the ground ring."""

import numpy as np
import torch
from hostile_arrays import FLOATS, INTEGERS, anything, as_tensor, clouds, generators, ids, result_or_error, same_bits
from hypothesis import given
from hypothesis import strategies as st

from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores
from uov_hf.ground_ring import GroundRing, find_ground
from uov_hf.point_neighbors import farthest_points, nearest_points


RING = GroundRing(classes=(0,))
CONFIGS = st.sampled_from(
    [
        DENSE,
        AFIConfig(),
        AFIConfig(level_sizes=(9, 3), num_neighbors=4, base_vote=0.01),
        AFIConfig(level_sizes=(20,), ground_ring=RING),
        AFIConfig(level_shares=(0.5, 0.2), num_voters=2),
    ]
)
CROWDED = (1e-6, 0.02, 1.0, 30.0, 1e6)


def check_rows(refined: np.ndarray, num_points: int, num_classes: int) -> None:
    assert refined.shape == (num_points, num_classes)
    sums = refined.astype(float).sum(axis=1)
    assert (refined >= 0).all() and ((np.abs(sums - 1) < 0.02) | (sums == 0)).all()


@given(
    clouds(max_points=60, scales=CROWDED, dtypes=FLOATS),
    st.integers(1, 4),
    CONFIGS,
    generators(),
    st.sampled_from(["labels", "weak", "strong"]),
)
def test_rows_sum_to_one_or_to_zero(points, num_classes, config, generator, evidence):
    scores = labels_to_scores(generator.integers(0, num_classes + 1, len(points)), num_classes, num_classes)
    scores = (
        scores
        if evidence == "labels"
        else (scores * generator.random((len(points), 1)) * (1e-38 if evidence == "weak" else 1e9)).astype("f4")
    )
    refined = result_or_error([], approximate_flat_interaction, points, scores, config)
    check_rows(refined, len(points), num_classes)
    assert refined.dtype == "f4"
    again = approximate_flat_interaction(np.array(points[:, :3], points.dtype.newbyteorder("=")), scores, config)
    assert same_bits(again, refined)
    of_tensor = approximate_flat_interaction(as_tensor(points), torch.from_numpy(scores), config)
    assert same_bits(of_tensor.numpy(), refined)


@given(st.lists(clouds(max_points=25, special=False), min_size=1, max_size=3), CONFIGS, generators())
def test_a_batch_is_refined_scan_by_scan(scans, config, generator):
    scans = [scan[:, :3] for scan in scans]
    scores = [generator.dirichlet(np.ones(3), len(scan)).astype("f4") for scan in scans]
    together = approximate_flat_interaction(
        np.concatenate(scans), np.concatenate(scores), config, [len(scan) for scan in scans]
    )
    alone = [approximate_flat_interaction(scan, own, config) for scan, own in zip(scans, scores, strict=True)]
    assert same_bits(together, np.concatenate(alone))


@given(
    anything([(6, 3), (6, 4), (5, 3)]),
    anything([(6, 2), (6, 3), (5, 2)]),
    st.sampled_from([None, [6], [2, 4], [7, -1], 6, [6.0], [[6]], "6", np.array([6]), torch.tensor([3, 3])]),
    st.booleans(),
    CONFIGS,
)
def test_any_points_are_refined_or_an_error_names_them(points, scores, num_points, as_torch, config):
    points, scores = (as_tensor(points), as_tensor(scores)) if as_torch else (points, scores)
    refined = result_or_error(
        ["points", "scores", "num_points"], approximate_flat_interaction, points, scores, config, num_points
    )
    if refined is not None:
        check_rows(np.asarray(refined), len(points), scores.shape[1])


@given(st.integers(0, 20), st.integers(1, 5), st.data())
def test_labels_become_one_hot_rows(size, num_labels, data):
    labels = data.draw(ids(size, num_labels, INTEGERS[:4], also=num_labels))
    scores = result_or_error([], labels_to_scores, labels, num_labels, num_labels)
    assert scores.tolist() == [[float(label == column) for column in range(num_labels)] for label in labels]


@given(anything([(6,), (3,), (0,)]), st.booleans())
def test_any_labels_become_scores_or_an_error_names_them(labels, as_torch):
    scores = result_or_error(["labels"], labels_to_scores, as_tensor(labels) if as_torch else labels, 3)
    assert scores is None or scores.shape == (len(labels), 3)


@given(
    clouds(max_points=50, columns=(3,), scales=CROWDED, special=False),
    clouds(max_points=10, columns=(3,), special=False),
    st.integers(1, 60),
    st.booleans(),
)
def test_neighbours_are_the_nearest_and_of_equals_the_first(points, others, k, of_all):
    points = as_tensor(points)
    queries = points if of_all else as_tensor(others)
    found = result_or_error([], nearest_points, queries, points, k).numpy()
    squares = ((queries[:, None] - points[None]) ** 2).numpy()
    squares = squares[..., 0] + squares[..., 1] + squares[..., 2]
    expected = np.argsort(squares, axis=1, kind="stable")[:, :k]
    assert found.shape == (len(queries), min(k, len(points)))
    for row, (own, right) in enumerate(zip(found, expected, strict=True)):
        if {*own} != {*right}:  # float64 may order what float32 holds for equal
            np.testing.assert_allclose(np.sort(squares[row, own]), np.sort(squares[row, right]), rtol=1e-5)


@given(clouds(max_points=40, columns=(3,), scales=CROWDED, special=False), st.data())
def test_picks_are_the_farthest_points(points, data):
    points = as_tensor(points).numpy()
    size = data.draw(st.integers(0, len(points) + 1))
    picks = result_or_error(["size", "points"], farthest_points, torch.from_numpy(points), size)
    if picks is None:
        assert not 1 <= size <= len(points)
        return
    axis = points[:, 0] * points[:, 0] + points[:, 1] * points[:, 1] + points[:, 2] * points[:, 2]
    distances, picked = np.where(axis > 1e-3, np.inf, -1).astype("f4"), [0]
    for _ in range(1, size):
        offsets = points - points[picked[-1]]
        distances = np.minimum(distances, offsets[:, 0] ** 2 + offsets[:, 1] ** 2 + offsets[:, 2] ** 2)
        picked.append(int(distances.argmax()))
    assert picks.tolist() == picked


@given(anything([(5, 3), (4, 3)], FLOATS + ["i8", "?"]), anything([(5, 3), (4, 3)], FLOATS), st.integers(-1, 4))
def test_any_points_have_neighbours_or_an_error_names_them(queries, points, k):
    arrays = as_tensor(queries), as_tensor(points)
    if all(isinstance(array, torch.Tensor) for array in arrays):
        if all(array.is_floating_point() and array.isfinite().all() and (array.abs() < 1e9).all() for array in arrays):
            found = result_or_error(
                ["queries", "points", "k"], nearest_points, *(array.float() for array in arrays), k
            )
            assert found is None or ((found >= 0) & (found < len(points))).all()


@given(clouds(max_points=60, scales=(1.0, 3.0), columns=(3, 4)))
def test_ground_is_in_the_ring_and_low_and_never_the_vehicle(points):
    ground, vehicle = result_or_error([], find_ground, as_tensor(points), RING)
    radius = np.hypot(points[:, 0].astype(float), points[:, 1].astype(float))
    assert not (ground & vehicle).any()
    assert (points[ground.numpy(), 2] < RING.max_height - RING.sensor_height).all()
    assert ((radius[ground.numpy()] > 1.999) & (radius[ground.numpy()] < 5.001)).all() and (
        radius[vehicle.numpy()] < 2.001
    ).all()
