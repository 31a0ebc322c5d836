"""Properties of augmentation, mixing and collation: nothing given changes, and pairs stay with their points."""

import math

import numpy as np
import torch
from hostile_arrays import FLOATS, INTEGERS, anything, clouds, generators, result_or_error, same_bits
from hypothesis import given
from hypothesis import strategies as st

from uov_hf.training.augmentation import AugmentationConfig, augment, random_box, transform
from uov_hf.training.collation import collate_scans, collate_tmp, concatenate_rows
from uov_hf.training.mixing import Scan, azimuth_bins, labelled_sector, mix_sectors, place_sector


CONFIGS = st.builds(
    AugmentationConfig,
    rotate=st.booleans(),
    flip=st.booleans(),
    cuboid_size=st.sampled_from([0.0, 0.2, 1.0]),
    crop_scale=st.sampled_from([None, (0.3, 1.0), (0.01, 0.02)]),
    min_pairs=st.sampled_from([0, 5, 1024]),
    random_scale=st.sampled_from([0.0, 0.1]),
    random_slope=st.sampled_from([0.0, 0.05]),
    max_redraws=st.integers(0, 3),
)
SIZES = np.array([[90, 160], [40, 30]])


def draw_pairs(generator: np.random.Generator, num_pairs: int, num_points: int) -> dict[str, np.ndarray]:
    cameras = np.sort(generator.integers(0, 2, num_pairs)).astype("i2")
    return {
        "pair_to_point": generator.integers(0, num_points, num_pairs).astype("i4"),
        "pair_camera": cameras,
        "pair_pixel": (generator.random((num_pairs, 2)) * SIZES[cameras][:, ::-1]).astype("i2"),
        "pair_segment": np.arange(1, num_pairs + 1, dtype="i4"),
    }


@given(clouds(columns=(4,), dtypes=["f4", "f8"]), st.integers(0, 30), CONFIGS, generators(), st.integers(0, 2**32))
def test_augmented_pairs_belong_to_the_same_points(points, num_pairs, config, generator, seed):
    pairs = draw_pairs(generator, num_pairs if len(points) else 0, max(len(points), 1))
    marked = np.array(points, points.dtype.newbyteorder("="))
    marked[:, 3] = np.arange(len(points))  # the intensity tells the points apart
    found, kept = result_or_error([], augment, marked, pairs, SIZES, config, np.random.default_rng(seed))
    assert found.dtype == marked.dtype and found.shape[1] == 4 and set(found[:, 3]) <= set(marked[:, 3])
    place = kept["pair_segment"] - 1
    assert (found[kept["pair_to_point"], 3] == marked[pairs["pair_to_point"][place], 3]).all()
    assert (kept["pair_pixel"] == pairs["pair_pixel"][place]).all() and (np.diff(place) > 0).all()
    again, _ = augment(marked, pairs, SIZES, config, np.random.default_rng(seed))
    assert same_bits(again, found)
    if config.random_slope == config.random_scale == 0:
        old = marked[found[:, 3].astype(int)]
        finite = np.isfinite(old[:, :3]).all(axis=1) & (np.abs(old[:, :3]) < 1e18).all(axis=1)
        lengths = [np.linalg.norm(array[finite, :3].astype("f8"), axis=1) for array in (found, old)]
        np.testing.assert_allclose(*lengths, rtol=1e-4)


@given(
    anything([(6, 4), (6, 3)], [*FLOATS, "f4", "i8", "?"]),
    anything([(5,), (4,)], [*INTEGERS, "f4"]),
    anything([(5,), (4,)], [*INTEGERS, "f4"]),
    anything([(5, 2), (4, 2)], INTEGERS),
    anything([(2, 2), (1, 2)], [*INTEGERS, "f4"]),
    st.integers(0, 4),
    generators(),
)
def test_any_pairs_are_augmented_or_an_error_names_them(points, to_point, camera, pixel, sizes, valid, generator):
    right = draw_pairs(generator, 5, 6)
    arrays = [points, to_point, camera, pixel, sizes]
    for place, array in enumerate(
        [np.ones((6, 4), "f4"), right["pair_to_point"], right["pair_camera"], right["pair_pixel"], SIZES]
    ):
        arrays[place] = arrays[place] if place == valid else array
    names = ["points", "pair_to_point", "pair_camera", "pair_pixel", "pair_segment", "image_sizes"]
    pairs = dict(zip(names[1:4], arrays[1:4], strict=True)) | {"pair_segment": right["pair_segment"]}
    if not hasattr(arrays[0], "shape") or not all(hasattr(array, "shape") for array in pairs.values()):
        return
    found = result_or_error(names, augment, arrays[0], pairs, arrays[4], AugmentationConfig(min_pairs=0), generator)
    if found is not None:
        assert ((found[1]["pair_to_point"] >= 0) & (found[1]["pair_to_point"] < max(len(found[0]), 1))).all()


@given(anything([(6, 4), (6, 3)]), generators(), st.booleans())
def test_any_points_are_transformed_or_an_error_names_them(points, generator, with_config):
    found = result_or_error(["points"], transform, points, AugmentationConfig() if with_config else None, generator)
    assert found is None or found.shape == points.shape


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([(0.3, 1.0), (0.01, 0.01), (1.0, 1.0)]),
    st.sampled_from([(14 / 9, 17 / 9), (0.01, 100), (50, 60)]),
    generators(),
)
def test_a_random_box_lies_in_its_image(height, width, scale, ratio, generator):
    left, top, box_width, box_height = random_box(
        (height, width), AugmentationConfig(crop_scale=scale, crop_ratio=ratio), generator
    )
    assert 0 <= left <= left + box_width <= width and 0 <= top <= top + box_height <= height


@given(st.lists(clouds(columns=(4,), max_points=60, dtypes=["f4"]), min_size=0, max_size=4), generators())
def test_mixed_scans_are_parts_of_the_scans_with_their_labels(clouds_, generator):
    scans = []
    for number, points in enumerate(clouds_):
        points = np.array(points, "f4")
        points[:, 3] = np.arange(len(points))
        pairs = draw_pairs(generator, 10 if len(points) else 0, max(len(points), 1))
        is_labelled = np.abs(np.arctan2(points[:, 1], points[:, 0])) < generator.uniform(0, 2)
        scans.append(Scan(str(number), points, is_labelled, {"labels": np.arange(len(points))}, pairs))
    parts = result_or_error(["scans"], mix_sectors, scans)
    if not scans:
        assert parts is None
        return
    assert parts[0].frame_id == "0" and len(parts) <= len(scans)
    for part in parts:
        whole = scans[int(part.frame_id)]
        rows = part.points[:, 3].astype(int)
        assert (part.columns["labels"] == rows).all() and (part.is_labelled == whole.is_labelled[rows]).all()
        segments = part.pairs["pair_segment"] - 1
        assert (rows[part.pairs["pair_to_point"]] == whole.pairs["pair_to_point"][segments]).all()
        finite = np.isfinite(whole.points[rows, :2]).all(axis=1) & (np.abs(whole.points[rows, :2]) < 1e15).all(axis=1)
        radii = [np.hypot(*points[finite, :2].T.astype("f8")) for points in (part.points, whole.points[rows])]
        np.testing.assert_allclose(*radii, rtol=1e-4)
    replaced = {*scans[0].points[:, 3]} - {*parts[0].points[:, 3]}
    bins = azimuth_bins(scans[0].points)
    free = ~labelled_sector(bins[scans[0].is_labelled])
    assert all(free[bins[int(row)]] for row in replaced)  # no label gives way


@given(generators(), st.floats(0, 1), st.floats(0, 1))
def test_a_sector_takes_only_what_is_free(generator, share, free_share):
    sector, free = generator.random(360) < share, generator.random(360) < free_share
    shift, taken = result_or_error([], place_sector, sector, free)
    assert 0 <= shift < 360 and not (taken & ~free).any() and not (taken & ~np.roll(sector, shift)).any()
    assert taken.sum() == 0 or taken.sum() >= 10


@given(
    anything([(6, 4), (5, 3)], [*FLOATS, "i8"]),
    anything([(6,), (5,)], ["?", "?", "i8"]),
    anything([(6,), (5,)], INTEGERS),
    anything([(3,), (4,)], INTEGERS),
)
def test_any_arrays_make_a_scan_or_an_error_names_them(points, is_labelled, column, to_point):
    generator = np.random.default_rng(0)
    pairs = draw_pairs(generator, 3, 5) | {"pair_to_point": to_point}
    if hasattr(to_point, "shape") and hasattr(points, "shape") and np.ndim(points) and np.ndim(to_point):
        names = ["points", "is_labelled", "labels", "pair_to_point", "pair_camera", "pair_pixel", "pair_segment"]
        scan = result_or_error(names, Scan, "frame", points, is_labelled, {"labels": column}, pairs)
        assert scan is None or len(scan.take(scan.is_labelled).points) == scan.is_labelled.sum()


def draw_sample(generator: np.random.Generator, num_points: int, num_voxels: int) -> dict[str, torch.Tensor]:
    coords = np.unique(generator.integers(-9, 9, (num_voxels, 3)), axis=0)
    num_voxels, num_segments = len(coords), int(generator.integers(0, 4))
    pairs = int(generator.integers(0, 6)) if num_segments and num_points else 0
    arrays = {
        "voxel_coords": np.insert(coords, 0, 0, axis=1).astype("i4"),
        "voxel_features": generator.random((num_voxels, 1)).astype("f4"),
        "point_to_voxel": generator.integers(-1, num_voxels, num_points),
        "num_points": np.array([num_points]),
        "labels": generator.integers(0, 3, num_points),
        "pair_to_point": generator.integers(0, max(num_points, 1), pairs),
        "superpoint_ids": generator.integers(0, max(num_segments, 1), pairs),
        "segment_embeds": generator.random((num_segments, 4)).astype("f4"),
        "segment_labels": generator.integers(0, 2, num_segments),
        "prompt_embeds": np.eye(2, 4, dtype="f4"),
        "prompt_groups": np.arange(2),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@given(generators(), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), max_size=4), st.booleans())
def test_a_batch_contains_every_sample_in_its_place(generator, sizes, is_tmp):
    samples = [draw_sample(generator, *size) for size in sizes]
    batch = result_or_error(["samples"], collate_tmp if is_tmp else collate_scans, samples)
    if not samples:
        assert batch is None
        return
    voxels = batch["voxel_coords"]
    starts = dict.fromkeys(("point", "voxel", "segment"), 0)
    for number, sample in enumerate(samples):
        own = voxels[voxels[:, 0] == number]
        assert torch.equal(own[:, 1:], sample["voxel_coords"][:, 1:])
        end = starts["point"] + len(sample["labels"])
        rows = batch["point_to_voxel"][starts["point"] : end]
        assert torch.equal(
            rows, torch.where(sample["point_to_voxel"] < 0, -1, sample["point_to_voxel"] + starts["voxel"])
        )
        if not is_tmp:
            assert torch.equal(batch["labels"][starts["point"] : end], sample["labels"])
        else:
            assert ((batch["scene_ids"] == number).sum() == len(sample["segment_labels"])).all()
        starts = {"point": end, "voxel": starts["voxel"] + len(own), "segment": 0}


@given(st.lists(st.lists(st.integers(-1, 3), max_size=5), min_size=1, max_size=4))
def test_rows_move_to_where_their_sample_lies(rows):
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    moved = result_or_error([], concatenate_rows, tensors, [10] * len(rows)).tolist()
    assert moved == [value if value < 0 else value + 10 * number for number, row in enumerate(rows) for value in row]


@given(st.sampled_from([(7, [0, 1]), (-2, [0, 1]), (0, [0]), (1, [0, 1, 2])]))
def test_a_sample_with_points_of_no_voxel_is_refused(case):
    row, points = case
    sample = draw_sample(np.random.default_rng(0), 2, 3)
    sample["point_to_voxel"] = torch.tensor([row, *[0] * (len(points) - 1)])
    batch = result_or_error(["point_to_voxel"], collate_scans, [sample])
    assert batch is None and math.isfinite(row)
