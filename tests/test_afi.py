"""Approximate flat interaction against its pseudo-code, and what it does and does not depend on."""

import math
import runpy
import sys
from functools import partial

import numpy as np
import pytest
import torch
from afi_oracle import SMALL, oracle, same_but_for_ties, scene, street
from scipy.spatial import cKDTree

from uov_hf import afi, ground_ring, point_neighbors
from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores
from uov_hf.evaluation.metrics import ConfusionMatrix


# --- the method -----------------------------------------------------------------------------------------------------


def test_levels_are_4096_points_divided_by_three():
    assert AFIConfig().level_sizes == tuple(4096 // 3**level for level in (1, 2, 3, 4)) == (1365, 455, 151, 50)
    assert 455 * 3 == 1365  # the one place where the own label weighs 0.3
    constants = AFIConfig()
    assert (constants.num_neighbors, constants.num_directions, constants.num_voters) == (20, 20, 6)
    assert (constants.min_cosine, constants.min_count, constants.ground_ring) == (0.995, 0, None)
    ring = {
        "sensor_height": 1.84,
        "max_height": 0.44,
        "min_radius": 2,
        "max_radius": 5,
        "max_residual": 0.1,
        "seed": 42,
    }
    assert vars(ground_ring.GroundRing((0,))) == {"classes": (0,), **ring}
    assert (ground_ring.RANSAC_TRIALS, ground_ring.RANSAC_SAMPLES) == (20, 10)


OTHER = {"num_neighbors": 9, "num_directions": 13, "num_voters": 3, "min_cosine": 0.9, "min_count": 1}
THEIRS = {"sizes": (100, 40), "k": 9, "num_directions": 13, "de_k": 3, "gamma": 0.9, "alpha": 1}
OURS = {"base_vote": 0.02, "own_weights": (0.1, 0.5)}


@pytest.mark.parametrize(
    "num_points, config, constants",
    [
        (2000, AFIConfig(), {}),
        (1500, AFIConfig(own_weights=(0.01, 0.3, 0.01, 0.01)), {}),  # the paper's rule, written out
        (300, AFIConfig((100, 40), **OTHER), THEIRS),
        (600, AFIConfig(level_shares=(0.5, 0.2), **OURS), {"sizes": (300, 120), **OURS}),
    ],
)
def test_it_is_the_pseudo_code_to_1e_9_in_float64(num_points, config, constants):
    points, scores = scene(num_points)
    scores = 0.6 * scores + 0.4 * np.random.default_rng(1).dirichlet(np.ones(5), len(scores))
    scores[::7] = 0  # points without evidence
    ours = approximate_flat_interaction(points, scores, config)
    assert ours.dtype == np.float64 and np.abs(ours - oracle(points, scores, **constants)).max() < 1e-9


@pytest.mark.parametrize(
    "num_points", [2000, *(pytest.param(size, marks=pytest.mark.slow) for size in (8000, 34_700))]
)
def test_float32_gives_the_labels_of_the_pseudo_code_in_float32(num_points):
    points, _, labels = street(num_points, seed=3, dtype=np.float32)
    scores = labels_to_scores(labels, 17)
    ours = approximate_flat_interaction(points, scores)
    assert ours.dtype == np.float32 and same_but_for_ties(ours, oracle(points, scores)).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_real_nuscenes_scan_gets_the_labels_of_the_pseudo_code(shared_data, dtype):
    points = nuscenes_points(shared_data).astype(dtype)
    for seed in range(2):
        scores = labels_to_scores(regions_with_noise(points, seed), 17).astype(dtype)
        assert same_but_for_ties(approximate_flat_interaction(points, scores), oracle(points, scores)).all()


def nuscenes_points(shared_data):
    (path,) = (shared_data / "nuscenes" / "samples" / "LIDAR_TOP").glob("*.bin")
    return np.fromfile(path, np.float32).reshape(-1, 5)[:, :3]


def regions_with_noise(points, seed):
    """A label by the direction from the sensor, which surfaces cut across, and a fifth of them at random."""
    rng = np.random.default_rng(seed)
    labels = np.digitize(np.arctan2(points[:, 1], points[:, 0]), np.linspace(-3, 3, 12)) + 4 * (points[:, 2] > -1)
    return np.where(rng.random(len(points)) < 0.2, rng.integers(0, 17, len(points)), labels)


# --- what it is good for --------------------------------------------------------------------------------------------


def test_scattered_wrong_labels_are_corrected():
    points, truth, noisy = street(8000)
    refined = approximate_flat_interaction(points, labels_to_scores(noisy, 5)).argmax(1)
    assert (noisy == truth).mean() < 0.86 and (refined == truth).mean() > 0.94


def test_points_without_evidence_take_what_flows_to_them():
    points, truth, _ = street(8000)
    labels = np.where(np.random.default_rng(0).random(len(truth)) < 0.3, 255, truth)
    refined = approximate_flat_interaction(points, labels_to_scores(labels, 5)).argmax(1)
    assert (refined == truth)[labels == 255].mean() > 0.85


def test_a_point_that_no_direction_reaches_gets_the_base_votes_of_its_nearest_voters():
    """A wall of columns, and beside it one point with a wrong label, where no line along the wall goes."""
    columns, heights = np.meshgrid(np.arange(-4, 5.0), np.arange(0, 3, 0.5))
    wall = np.stack([columns.ravel(), np.full(columns.size, 5.0), heights.ravel()], axis=1)
    points = np.concatenate([wall, [[0.3, 3.0, 1.2]]])
    scores = labels_to_scores((np.arange(len(points)) == len(wall)).astype(int), 2)
    alone, voted = (
        approximate_flat_interaction(points, scores, AFIConfig(level_sizes=(20,), base_vote=vote)).argmax(1)
        for vote in (0, 0.01)
    )
    assert alone.tolist() == [0] * len(wall) + [1] and not voted.any()


def test_with_all_points_on_one_level_it_is_better_than_a_vote_of_as_many():
    points, truth, noisy = street(3000)
    refined = approximate_flat_interaction(points, labels_to_scores(noisy, 5), DENSE).argmax(1)
    _, nearest = cKDTree(points).query(points, k=20)
    vote = labels_to_scores(noisy, 5)[nearest].sum(axis=1).argmax(1)
    assert (refined == truth).mean() > (vote == truth).mean()


@pytest.mark.slow
def test_flipped_labels_of_a_real_scan_are_corrected_better_than_by_a_vote_of_as_many(shared_data):
    """The processor's settings, chosen on another scan (docs/results.md)."""
    folder = shared_data / "semantickitti" / "dataset" / "sequences" / "08"
    points = np.fromfile(folder / "velodyne" / "000000.bin", np.float32).reshape(-1, 4)[:, :3]
    raw = np.fromfile(folder / "labels" / "000000.label", np.uint32) & 0xFFFF
    classes, truth = np.unique(raw, return_inverse=True)
    rng = np.random.default_rng(1)
    flipped = np.where(rng.random(len(truth)) < 0.2, rng.integers(0, len(classes), len(truth)), truth)
    scores = labels_to_scores(flipped, len(classes))
    _, nearest = cKDTree(points).query(points, k=20)
    refined = approximate_flat_interaction(points, scores, DENSE).argmax(1)
    mean_iou = []
    for labels in (refined, scores[nearest].sum(axis=1).argmax(1)):
        matrix = ConfusionMatrix(len(classes))
        matrix.update(labels, truth)
        mean_iou.append(matrix.compute()["mean_iou"])
    assert mean_iou[0] > mean_iou[1] + 0.05


# --- what changes nothing -------------------------------------------------------------------------------------------


def test_the_order_of_points_and_classes_the_place_and_the_unit_do_not_matter():
    points, scores = scene()
    expected = approximate_flat_interaction(points, scores, SMALL)
    columns, rows = [3, 0, 4, 1, 2], 1 + np.random.default_rng(0).permutation(len(points) - 1)
    rows = np.concatenate([[0], rows])  # the first point is the first pick
    shuffled = approximate_flat_interaction(points[rows], scores[rows][:, columns], SMALL)
    assert np.abs(shuffled - expected[rows][:, columns]).max() < 1e-9
    for moved in (points + [100.0, -50.0, 10.0], points * 10):
        assert np.abs(approximate_flat_interaction(moved, scores, SMALL) - expected).max() < 1e-5
    backwards = approximate_flat_interaction(points[::-1].copy(), scores[::-1].copy(), SMALL)
    assert np.abs(backwards[::-1] - expected).max() > 1e-3  # another first point, and so other picks


def test_a_rotation_changes_the_answer_a_little_because_the_directions_are_fixed():
    points, scores = scene(8000)
    turn = np.array([[math.cos(1), -math.sin(1), 0], [math.sin(1), math.cos(1), 0], [0, 0, 1]])
    plain, turned = (approximate_flat_interaction(cloud, scores) for cloud in (points, points @ turn.T))
    assert 0.9 < (plain.argmax(1) == turned.argmax(1)).mean() < 1


def test_smaller_scores_are_weaker_evidence():
    """The histograms of neighbours are normalised, a point's own share is not."""
    points, scores = scene()
    full, weak = (approximate_flat_interaction(points, scale * scores, SMALL) for scale in (1, 0.01))
    assert np.abs(full - weak).max() > 1e-3 and np.allclose(weak.sum(1), 1, atol=1e-4)


# --- forms of input -------------------------------------------------------------------------------------------------


def test_the_result_has_the_type_and_dtype_of_the_scores_and_no_gradient():
    points, scores = scene(500, dtype=np.float32)
    tensors, before = (torch.from_numpy(points), torch.from_numpy(scores).requires_grad_()), scores.copy()
    refined = approximate_flat_interaction(*tensors, SMALL)
    assert not refined.requires_grad and np.array_equal(scores, before)
    assert np.array_equal(refined.numpy(), approximate_flat_interaction(points, scores, SMALL))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = approximate_flat_interaction(tensors[0], tensors[1].half(), SMALL)
    assert half.dtype == torch.float16 and torch.equal(half, refined.half())


def test_scans_of_a_batch_are_refined_alone():
    scans = [scene(size, seed=size) for size in (300, 0, 40, 500)]
    points, scores = (np.concatenate(parts) for parts in zip(*scans, strict=True))
    together = approximate_flat_interaction(points, scores, SMALL, num_points=[300, 0, 40, 500])
    alone = [approximate_flat_interaction(*scan, SMALL) for scan in scans]
    assert np.array_equal(together, np.concatenate(alone))


def test_without_scipy_the_neighbours_are_the_same(monkeypatch):
    points, scores = scene()
    with_tree = approximate_flat_interaction(points, scores, SMALL)
    monkeypatch.setattr(point_neighbors, "cKDTree", None)
    monkeypatch.setattr(point_neighbors, "CHUNK_ELEMENTS", 1000)  # fewer than points: a chunk for each query
    assert np.abs(approximate_flat_interaction(points, scores, SMALL) - with_tree).max() < 1e-12


def test_the_votes_are_the_same_as_on_an_accelerator_and_in_small_chunks(monkeypatch):
    points, scores = scene(300)
    expected = approximate_flat_interaction(points, scores, SMALL)
    monkeypatch.setattr(afi, "_votes_in_long_rows", afi._votes)
    monkeypatch.setattr(afi, "CHUNK_CENTRES", 7)
    assert np.abs(approximate_flat_interaction(points, scores, SMALL) - expected).max() < 1e-12


def test_more_points_may_vote_than_16_bits_number():
    size, random = 40_000, partial(torch.randn, dtype=torch.float64)
    picked = afi._PickedLevel(
        random(size, 3), random(size, 1), random(size, 2).abs(), afi._unit(random(size, 2, 3)), random(size, 2).abs()
    )
    points, voters = random(50, 3), torch.randint(size, (50, 6))
    votes = afi._votes_in_long_rows(points, voters, picked, 0.5)
    assert torch.allclose(votes, afi._votes(points, voters, picked, 0.5), rtol=0, atol=1e-12) and votes.any()


def test_the_file_loads_where_scipy_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    assert runpy.run_module(point_neighbors.__name__)["cKDTree"] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_gives_the_labels_of_the_cpu():
    points, scores = map(torch.from_numpy, scene(20_000, dtype=np.float32))
    expected = approximate_flat_interaction(points, scores)
    refined = approximate_flat_interaction(points.cuda(), scores.cuda())
    assert refined.is_cuda and same_but_for_ties(refined.cpu().numpy(), expected.numpy()).all()


def test_labels_become_scores_and_ignored_ones_no_evidence():
    assert labels_to_scores(np.array([1, 255, 0]), 2).tolist() == [[0, 1], [0, 0], [1, 0]]
    assert labels_to_scores(torch.tensor([7, 1], dtype=torch.uint8), 2, ignore_index=7).tolist() == [[0, 0], [0, 1]]
    assert labels_to_scores(torch.empty(0, dtype=torch.long), 3).shape == (0, 3)
    with pytest.raises(ValueError, match="from 0 to 1 or 255"):
        labels_to_scores(np.array([2]), 2)


def test_one_hot_scores_may_be_bool_and_labels_an_empty_list():
    points, labels = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), np.arange(40) % 3
    one_hot = labels[:, None] == np.arange(3)
    expected = approximate_flat_interaction(points, one_hot.astype(np.float32))
    assert np.array_equal(approximate_flat_interaction(points, one_hot), expected)
    from_torch = approximate_flat_interaction(torch.tensor(points), torch.tensor(one_hot))
    assert np.array_equal(from_torch.numpy(), expected)
    assert labels_to_scores([], 3).shape == (0, 3)
