"""Properties of votes, superpoints, the vote over time and segment maps."""

import math

import numpy as np
from hostile_arrays import FLOATS, INTEGERS, anything, clouds, generators, ids, result_or_error
from hypothesis import given
from hypothesis import strategies as st

from uov_hf.labels.consolidation import Consolidation, parse_rule
from uov_hf.labels.labelling import look_up_segments
from uov_hf.labels.segments import decode_segmentation, encode_segmentation
from uov_hf.labels.superpoints import SuperpointConfig, find_superpoints, vote_in_superpoints
from uov_hf.labels.time_vote import TimeVoteConfig, gather_in_voxels, vote_over_time, voxel_keys
from uov_hf.labels.votes import Votes, count_votes, decide, rank_classes


def draw_votes(generator: np.random.Generator, num_votes: int, num_points: int, num_classes: int) -> Votes:
    classes = np.where(generator.random(num_votes) < 0.2, 255, generator.integers(0, num_classes, num_votes))
    return count_votes(
        generator.integers(0, num_points, num_votes), classes, generator.random(num_votes), num_points, num_classes
    )


@given(st.integers(0, 40), st.integers(1, 8), st.integers(1, 5), st.data())
def test_votes_are_summed_as_a_loop_sums_them(num_votes, num_points, num_classes, data):
    point = data.draw(ids(num_votes, num_points, INTEGERS))
    classes = data.draw(ids(num_votes, num_classes, ["u1", "i2", "i8"], also=255))
    score = data.draw(generators()).random(num_votes).astype("f4")
    votes = result_or_error([], count_votes, point, classes, score, num_points, num_classes)
    weights, scores = np.zeros((2, num_points, num_classes + 1))
    for row, label, value in zip(point.tolist(), classes.tolist(), score.tolist(), strict=True):
        weights[row, min(label, num_classes)] += 1
        scores[row, min(label, num_classes)] += max(value, 1e-9)
    np.testing.assert_allclose(votes.weights, weights)
    np.testing.assert_allclose(votes.scores, scores, rtol=1e-5)
    order = data.draw(generators()).permutation(num_votes)
    assert (
        count_votes(point[order], classes[order], score[order], num_points, num_classes).weights == votes.weights
    ).all()


@given(
    anything([(6,), (5,)], [*INTEGERS, "f4", "?"]),
    anything([(6,), (5,)], [*INTEGERS, "f4"]),
    anything([(6,), (5,)], FLOATS),
    st.sampled_from([0, 3, 255, 256, -1]),
    st.integers(0, 3),
)
def test_any_votes_are_summed_or_an_error_names_them(point, classes, score, num_classes, valid):
    point = point if valid < 1 else np.arange(6)
    classes = classes if valid < 2 else np.arange(6) % 3
    votes = result_or_error(
        ["point", "class_of_vote", "score", "num_classes"], count_votes, point, classes, score, 6, num_classes
    )
    if votes is not None:
        assert votes.weights.shape == (6, num_classes + 1) and votes.weights.sum() == len(point)
        assert np.isfinite(votes.scores).all() and (votes.scores >= 0).all()


@given(generators(), st.integers(0, 40), st.integers(1, 8), st.integers(1, 6), st.floats(0, 1))
def test_a_point_has_the_label_with_the_most_votes(generator, num_votes, num_points, num_classes, min_confidence):
    votes = draw_votes(generator, num_votes, num_points, num_classes)
    labels, confidence = result_or_error([], decide, votes, min_confidence)
    assert (labels.dtype, confidence.dtype) == ("u1", "f2") and ((confidence >= 0) & (confidence <= 1)).all()
    for point, label in enumerate(labels):
        if label != 255:
            assert votes.weights[point, label] == votes.weights[point].max() > 0
            assert confidence[point] >= min_confidence - 1e-3
        elif min_confidence == 0 and votes.weights[point].any():
            assert votes.weights[point, -1] == votes.weights[point].max()
    soft_labels, soft_scores = result_or_error([], rank_classes, votes)
    assert soft_labels.shape == soft_scores.shape == (num_points, 3) and np.isfinite(soft_scores).all()
    for point in range(num_points):
        named = soft_labels[point][soft_labels[point] != 255]
        assert len(set(named)) == len(named) == min(3, (votes.weights[point, :-1] > 0).sum())


@given(
    clouds(max_points=60, columns=(3,), scales=(1e-3, 0.02, 1.0, 30.0, 1e6), dtypes=["f8", "f4"], special=False),
    st.integers(1, 12),
    generators(),
)
def test_superpoints_number_all_points_and_join_only_points_of_one_cell(points, num_neighbors, generator):
    config = SuperpointConfig(num_neighbors=num_neighbors)
    superpoints = result_or_error([], find_superpoints, points, config)
    assert superpoints.shape == (len(points),)
    assert sorted(set(superpoints.tolist())) == list(range(superpoints.max(initial=-1) + 1))
    cells = np.floor(points.astype("f8") / config.cell_size)
    for number in set(superpoints.tolist()):
        assert len(np.unique(cells[superpoints == number], axis=0)) == 1
    copies = np.unique(points, axis=0, return_inverse=True)[1].ravel()
    assert all(len(set(superpoints[copies == one].tolist())) == 1 for one in set(copies.tolist()))
    votes = draw_votes(generator, 30, max(len(points), 1), 3)
    if len(points):
        together = result_or_error([], vote_in_superpoints, votes, superpoints)
        for point, number in enumerate(superpoints):
            mean = votes.weights[superpoints == number].mean(axis=0)
            np.testing.assert_allclose(together.weights[point], votes.weights[point] + mean, rtol=1e-4, atol=1e-5)


@given(anything([(6, 3), (4, 3), (0, 3)]))
def test_any_positions_have_superpoints_or_an_error_names_them(positions):
    superpoints = result_or_error(["positions"], find_superpoints, positions, SuperpointConfig())
    assert superpoints is None or superpoints.shape == (len(positions),)


@given(anything([(6,), (5,)], [*INTEGERS, "f4"]), generators())
def test_any_superpoints_vote_or_an_error_names_them(superpoints, generator):
    votes = draw_votes(generator, 10, 6, 2)
    together = result_or_error(["superpoints"], vote_in_superpoints, votes, superpoints)
    assert together is None or np.isfinite(together.weights).all()


@given(
    generators(),
    st.integers(0, 3),
    st.integers(1, 20),
    st.sampled_from([0.05, 1.0, 30.0]),
    st.sampled_from([0.0, 5e6]),
)
def test_votes_over_time_are_finite_and_of_near_voxels(generator, num_others, num_points, scale, offset):
    config, scans = TimeVoteConfig(), []
    for _ in range(num_others + 1):
        positions = generator.normal(0, scale, (num_points, 3)) + offset
        positions = positions[generator.integers(0, num_points, num_points)]
        votes = draw_votes(generator, 15, num_points, 3)
        scans.append((positions, votes, result_or_error([], gather_in_voxels, votes, positions, config)))
    for positions, votes, voxels in scans:
        assert (
            len(voxels.centers)
            == len(voxels.votes)
            == len(np.unique(np.floor(positions[votes.is_any] / config.voxel_size), axis=0))
        )
        assert np.isfinite(voxels.centers).all() and voxels.votes.is_any.all()
    positions, _, own = scans[0]
    others, ranges = [scan[2] for scan in scans[1:]], np.full(num_points, 10.0)
    found = result_or_error([], vote_over_time, positions, ranges, own, others, np.array([True, False, False]), config)
    assert found.weights.shape == (num_points, 4) and np.isfinite(found.weights).all() and (found.weights >= 0).all()
    centers = np.concatenate([voxels.centers for voxels in (own, *others)])
    gaps = np.linalg.norm(positions[:, None] - centers[None], axis=2).min(axis=1, initial=np.inf)
    assert not found.weights[gaps > 3 * config.reach + 1e-6].any()


@given(
    clouds(columns=(3,), dtypes=["f8", "f4"]).filter(lambda points: bool((np.abs(points) < 1e30).all())),
    st.sampled_from([0.2, 0.3, 1.0]),
)
def test_keys_are_those_of_the_voxels(points, voxel_size):
    keys = result_or_error([], voxel_keys, points, voxel_size)
    for point, key in zip(points.tolist(), keys.tolist(), strict=True):
        dtype = points.dtype.newbyteorder("=").type
        column, row, layer = (int(np.floor(dtype(value) / voxel_size)) % 2**21 for value in point)
        assert key == (column << 42) | (row << 21) | layer


@given(generators(), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 255, 256, 65535]))
def test_segment_maps_come_back_from_their_png_and_give_the_segments_of_pixels(generator, height, width, most):
    segmentation = generator.integers(0, most + 1, (height, width))
    found = decode_segmentation(result_or_error([], encode_segmentation, segmentation))
    assert (found == segmentation).all()
    pixels = np.stack([generator.integers(0, width, 12), generator.integers(0, height, 12)], axis=1)
    cameras = generator.integers(0, 2, 12)
    pairs = {
        "pair_to_point": np.arange(12),
        "pair_camera": cameras,
        "pair_pixel": pixels,
        "pair_segment": np.zeros(12),
    }
    segments = look_up_segments(pairs, [found, None])
    expected = [
        0 if camera else segmentation[row, column] for camera, (column, row) in zip(cameras, pixels, strict=True)
    ]
    assert segments.tolist() == expected


@given(anything([(4, 5), (2, 2)], INTEGERS + ["f4", "?"]))
def test_any_segmentation_is_stored_or_an_error_names_it(segmentation):
    png = result_or_error(["segmentation"], encode_segmentation, segmentation)
    if png is not None:
        assert (decode_segmentation(png) == segmentation).all()


@given(
    st.sampled_from([None, "paper", "consolidated", "other", ""]),
    st.one_of(st.none(), st.text("aceimnorstu,_p ", max_size=20), st.sampled_from(["cameras", "time,superpoints"])),
    st.sampled_from([0, 0.5, 1, -1, 2, math.nan]),
)
def test_any_rule_is_parsed_or_an_error_has_its_name(preset, rules, min_confidence):
    try:
        rule = parse_rule(preset, rules, min_confidence)
    except ValueError as error:
        assert str(error).startswith(
            ("There is no vote", "There is no preset", "A preset and a list", "`min_confidence`")
        )
    else:
        assert rule in ("paper", "consolidated") or isinstance(rule, Consolidation)
