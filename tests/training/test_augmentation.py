"""Augmentation: points and pairs change together, and no image loses more pairs than it may."""

from dataclasses import replace

import numpy as np
import pytest

from uov_hf.training.augmentation import (
    AugmentationConfig,
    augment,
    crop_images,
    drop_cuboid,
    inside_box,
    random_box,
    rotated,
    select_pairs,
    transform,
)


NOTHING = {"rotate": False, "flip": False, "cuboid_size": 0, "crop_scale": None}
IMAGE_SIZES = np.array([[90, 160], [90, 160]])


def scene(num_points=4000, seed=0):
    """Points in a box of 40 x 20 x 4 m; even points are seen by camera 0, points divisible by 3 by camera 1."""
    generator = np.random.default_rng(seed)
    points = generator.uniform(-1, 1, (num_points, 4)).astype(np.float32) * np.float32([20, 10, 2, 1])
    seen = [np.arange(0, num_points, 2), np.arange(0, num_points, 3)]
    pair_to_point = np.concatenate(seen)
    pairs = {
        "pair_to_point": pair_to_point,
        "pair_camera": np.repeat([0, 1], [len(seen[0]), len(seen[1])]),
        "pair_pixel": generator.integers(0, [160, 90], (len(pair_to_point), 2)),
        "pair_segment": pair_to_point + 1,  # identifies the original point
    }
    points[:, 3] = np.arange(num_points)  # identifies the original point
    return points, pairs


def names_of(points, pairs):
    """Of every pair, the point it was of and the point it is of now."""
    return pairs["pair_segment"] - 1, points[pairs["pair_to_point"], 3].astype(int)


def test_a_quarter_turn_takes_x_to_y():
    np.testing.assert_allclose(rotated(np.array([[1.0, 0], [0, 1]]), np.pi / 2), [[0, 1], [-1, 0]], atol=1e-12)


def test_turning_and_mirroring_keep_distances_and_leave_height_and_intensity():
    points, pairs = scene()
    points.setflags(write=False)  # the points given are left alone
    config = AugmentationConfig(cuboid_size=0, crop_scale=None)
    moved, pairs_after = augment(points, pairs, IMAGE_SIZES, config, np.random.default_rng(1))
    assert pairs_after is pairs and moved.dtype == np.float32
    np.testing.assert_allclose(np.hypot(*moved[:, :2].T), np.hypot(*points[:, :2].T), rtol=1e-5)
    assert np.array_equal(moved[:, 2:], points[:, 2:]) and not np.allclose(moved[:, :2], points[:, :2])


def test_one_factor_scales_all_coordinates_and_slopes_raise_z_alone():
    points = np.concatenate([np.eye(3), [[1, 1, 1]]])
    still = AugmentationConfig(**NOTHING)
    scaled = [transform(points, replace(still, random_scale=0.1), np.random.default_rng(i)) for i in range(400)]
    factors = np.array([moved[0, 0] for moved in scaled])
    assert all(np.allclose(moved, factor * points) for moved, factor in zip(scaled, factors, strict=True))
    assert 0.9 <= factors.min() < 0.91 and 1.09 < factors.max() <= 1.1
    tilted = np.array(
        [transform(points, replace(still, random_slope=0.1), np.random.default_rng(i)) for i in range(400)]
    )
    assert (tilted[:, :, :2] == points[:, :2]).all()
    raised = tilted[:, :, 2] - points[:, 2]
    np.testing.assert_allclose(raised[:, 3], raised[:, 0] + raised[:, 1], atol=1e-12)
    assert (raised[:, 2] == 0).all() and 0.09 < np.abs(raised[:, :2]).max() <= 0.1
    assert abs(np.corrcoef(raised[:, 0], raised[:, 1])[0, 1]) < 0.2  # two slopes, not one


@pytest.mark.parametrize("name", ["random_scale", "random_slope"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_scale_or_slope_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0 and below 1, got"):
        AugmentationConfig(**{name: value})


def test_both_axes_are_mirrored_half_of_the_time():
    config = AugmentationConfig(**NOTHING | {"flip": True})
    points, pairs = np.ones((1, 3)), select_pairs(scene()[1], slice(0))
    signs = [augment(points, pairs, IMAGE_SIZES, config, np.random.default_rng(i))[0][0, :2] for i in range(400)]
    assert sorted({tuple(sign) for sign in signs}) == [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    np.testing.assert_allclose(np.mean(signs, axis=0), 0, atol=0.15)


def test_a_cuboid_is_dropped_and_pairs_follow_their_points():
    points, pairs = scene()
    points.setflags(write=False)
    config = AugmentationConfig(cuboid_size=1.0, min_pairs=10)
    fewer, pairs_after = drop_cuboid(points, pairs, config, np.random.default_rng(0))
    was, now = names_of(fewer, pairs_after)
    assert np.array_equal(was, now)
    dropped = set(range(len(points))) - set(fewer[:, 3].astype(int))
    assert set(pairs["pair_segment"] - 1) - set(was) == dropped & set(pairs["pair_to_point"])
    gone = points[sorted(dropped), :3]
    inside = ((fewer[:, :3] >= gone.min(axis=0)) & (fewer[:, :3] <= gone.max(axis=0))).all(axis=1)
    assert len(gone) > 10 and not inside.any()


def test_a_cuboid_is_cancelled_when_an_image_with_pairs_would_keep_too_few():
    points, pairs = scene()
    of_camera_1 = select_pairs(pairs, pairs["pair_camera"] == 1)
    config = AugmentationConfig(cuboid_size=1.0, min_pairs=len(of_camera_1["pair_camera"]))
    same, same_pairs = drop_cuboid(points, pairs, config, np.random.default_rng(3))
    assert same is points and same_pairs is pairs
    config = AugmentationConfig(cuboid_size=1.0, min_pairs=10)
    assert len(drop_cuboid(points, of_camera_1, config, np.random.default_rng(3))[0]) < len(points)


def test_a_crop_keeps_the_pairs_inside_its_box_but_those_that_rounding_pushes_over_its_border():
    pixels = np.array([[10, 5], [49, 24], [9, 5], [10, 4], [50, 24], [49, 25]])  # column, row
    kept = inside_box(pixels, box=(10, 5, 40, 20), crop_size=(20, 40))
    assert kept.tolist() == [True, True, False, False, False, False]
    # A box of 10 x 10 resized to 4 x 4: column 9 becomes 3.6. As in the paper, this rounds to 4, one too many.
    pixels = np.stack([np.arange(10), np.zeros(10)], axis=1)
    assert inside_box(pixels, box=(0, 0, 10, 10), crop_size=(4, 4)).tolist() == [True] * 9 + [False]


def test_boxes_have_the_area_and_shape_that_were_asked_for():
    generator, config = np.random.default_rng(0), AugmentationConfig()
    boxes = np.array([random_box((900, 1600), config, generator) for _ in range(300)])
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (left + width <= 1600).all() and (top + height <= 900).all()
    area, ratio = width * height / (900 * 1600), width / height
    assert area.min() > 0.29 and area.max() <= 1 and np.ptp(area) > 0.5
    assert ratio.min() > 14 / 9 - 0.01 and ratio.max() < 17 / 9 + 0.01


def test_a_box_that_cannot_be_drawn_is_the_largest_in_the_middle():
    config = AugmentationConfig(crop_scale=(1.0, 1.0))
    assert random_box((400, 100), config, np.random.default_rng(0)) == (0, 168, 100, 64)


def test_a_crop_drops_pairs_of_an_image_and_nothing_else_and_keeps_enough():
    points, pairs = scene()
    for seed in range(20):
        cropped = crop_images(pairs, IMAGE_SIZES, AugmentationConfig(min_pairs=600), np.random.default_rng(seed))
        was, now = names_of(points, cropped)
        assert np.array_equal(was, now) and len(was) < len(pairs["pair_camera"])
        assert (np.bincount(cropped["pair_camera"]) > 600).all()


def test_redraws_end_when_no_crop_is_good_enough():
    _, pairs = scene(num_points=30)
    config = AugmentationConfig(min_pair_share=1.0, max_redraws=3)
    cropped = crop_images(pairs, IMAGE_SIZES, config, np.random.default_rng(0))
    assert np.array_equal(cropped["pair_camera"], pairs["pair_camera"])


def test_a_frame_without_pairs_or_points_passes_through():
    pairs = select_pairs(scene()[1], np.arange(0))
    for points in (scene()[0], np.empty((0, 4), np.float32)):
        after, pairs_after = augment(points, pairs, IMAGE_SIZES, AugmentationConfig(), np.random.default_rng(0))
        assert len(after) <= len(points) and len(pairs_after["pair_to_point"]) == 0


def test_points_that_are_not_finite_do_no_harm():
    points, pairs = scene()
    points[::7, 1] = np.nan
    config = AugmentationConfig(cuboid_size=1.0, min_pairs=10)
    after, pairs_after = augment(points, pairs, IMAGE_SIZES, config, np.random.default_rng(0))
    assert np.isnan(after[:, 1]).sum() == np.isnan(points[:, 1]).sum()
    was, now = names_of(after, pairs_after)
    assert np.array_equal(was, now)


@pytest.mark.parametrize(
    "name, wrong", [("cuboid_size", 2), ("crop_scale", (0.5, 0.3)), ("crop_ratio", (2, 1)), ("max_redraws", -1)]
)
def test_wrong_settings_are_refused(name, wrong):
    with pytest.raises(ValueError, match=name):
        AugmentationConfig(**{name: wrong})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pair_to_point": np.array([0, -1])}, "`pair_to_point` must lie between 0 and 4, got -1 to -1"),
        ({"pair_camera": np.array([0, 1])}, "`pair_camera` must lie between 0 and 0, got 1 to 1"),
        ({"pair_segment": np.array([1])}, r"`pair_segment` must be whole numbers of shape \(2,\)"),
    ],
)
def test_a_pair_of_no_point_or_camera_is_refused(change, message):
    two = np.zeros(2, int)
    pairs = {
        "pair_to_point": two,
        "pair_camera": two,
        "pair_pixel": np.zeros((2, 2), int),
        "pair_segment": two,
    } | change
    with pytest.raises(ValueError, match=message):
        augment(
            np.zeros((5, 4), np.float32), pairs, np.array([[9, 9]]), AugmentationConfig(), np.random.default_rng(0)
        )


def test_whole_numbers_are_not_rotated_to_whole_numbers():
    with pytest.raises(ValueError, match="`points` must be floating-point numbers"):
        transform(np.ones((5, 3), int), AugmentationConfig(), np.random.default_rng(0))


def test_cameras_may_be_numbers_without_a_sign():
    points, pairs = scene()
    pairs["pair_camera"] = pairs["pair_camera"].astype(np.uint8)
    expected = drop_cuboid(points, scene()[1], AugmentationConfig(), np.random.default_rng(0))
    found = drop_cuboid(points, pairs, AugmentationConfig(), np.random.default_rng(0))
    assert np.array_equal(found[0], expected[0]) and np.array_equal(
        found[1]["pair_to_point"], expected[1]["pair_to_point"]
    )
