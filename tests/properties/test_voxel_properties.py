"""Properties of voxelisation, of views, and of the labels that scores become."""

import math

import numpy as np
import pytest
import torch
from hostile_arrays import FLOATS, anything, as_tensor, clouds, generators, layouts, result_or_error, same_bits
from hypothesis import given
from hypothesis import strategies as st

from uov_hf import UOVFeatureExtractor, UOVProcessor
from uov_hf.views import average_over_views, views
from uov_hf.voxel_grid import AXIS_LIMIT, guess_full_scale


SETTINGS = st.fixed_dictionaries(
    {
        "coordinate_system": st.sampled_from(["cylindrical", "cartesian"]),
        "voxel_reduction": st.sampled_from(["first", "mean"]),
        "intensity_scaling": st.sampled_from(["raw", "unit", "unit_plus_one"]),
    },
    optional={"point_cloud_range": st.sampled_from([[-20, -20, -3, 20, 20, 3], [0, -3.2, -50, 80.0, 3.2, 50]])},
)
PROCESSOR = UOVProcessor.from_teacher(UOVFeatureExtractor())
VOXELS = ("voxel_coords", "voxel_features", "point_to_voxel", "num_points")


def cells_one_by_one(points: np.ndarray, extractor: UOVFeatureExtractor) -> list[tuple[int, ...] | None]:
    """The voxel of each point, None for none, by scalars of float32."""
    cells = []
    for x, y, z in points[:, :3].astype(np.float32):
        place = np.array([x, y, z])
        if extractor.coordinate_system == "cylindrical":
            place = np.array([np.sqrt(x * x + y * y), np.arctan2(y, x), z])
        inside = np.isfinite([x, y, z]).all()
        if inside and extractor.point_cloud_range is not None:
            lower, upper = np.reshape(np.array(extractor.point_cloud_range, np.float32), (2, 3))
            inside = bool((place >= lower).all() and (place < upper).all())
        size = np.array(extractor.voxel_size, np.float32)
        cells.append(tuple(np.floor(place / size).tolist()) if inside else None)
    return cells


@given(clouds(dtypes=["f4", "f8", ">f4"]), SETTINGS, st.data())
def test_every_point_is_in_the_voxel_of_its_coordinates_and_no_other(points, settings, data):
    extractor = UOVFeatureExtractor(**settings)
    with np.errstate(all="ignore"):
        cells = cells_one_by_one(points, extractor)
    batch = result_or_error(["points", "intensity_max"], extractor, points, 255.0, return_tensors="np")
    if batch is None:
        assert any(cell and np.abs(cell).max() >= AXIS_LIMIT for cell in cells)
        return
    coords, features, rows, num_points = (batch[name] for name in VOXELS)
    assert [None if row < 0 else tuple(coords[row, 1:].tolist()) for row in rows] == cells
    assert len(set(map(tuple, coords))) == len(coords) == len({cell for cell in cells if cell})
    assert (coords.dtype, features.dtype, rows.dtype, num_points.tolist()) == ("i4", "f4", "i8", [len(points)])
    assert features.shape == (len(coords), 1) and np.isfinite(features).all() and (0 <= features).all()
    assert (features <= 255 + (settings["intensity_scaling"] == "unit_plus_one")).all()
    assert np.array_equal(np.unique(rows[rows >= 0], return_index=True)[0], np.arange(len(coords)))
    again = extractor(np.array(points), 255.0, return_tensors="np")
    assert all(same_bits(batch[name], again[name]) for name in VOXELS)
    of_tensor = extractor(as_tensor(points), 255.0, return_tensors="np")
    assert all(same_bits(batch[name], of_tensor[name]) for name in VOXELS)
    order = data.draw(generators()).permutation(len(points))
    shuffled = extractor(points[order], 255.0, return_tensors="np")
    assert {*map(tuple, shuffled["voxel_coords"])} == {*map(tuple, coords)}


@given(st.lists(clouds(max_points=12, special=False, columns=(4,), scales=(0.01, 1.0, 30.0)), min_size=1, max_size=4))
def test_a_batch_is_its_scans_one_after_the_other(scans):
    extractor = UOVFeatureExtractor()
    batch, start, first = extractor(scans, return_tensors="np"), 0, 0
    assert batch["num_points"].tolist() == [len(scan) for scan in scans]
    for index, scan in enumerate(scans):
        alone = extractor(scan, return_tensors="np")
        rows = slice(start, start + len(alone["voxel_coords"]))
        assert (batch["voxel_coords"][rows, 0] == index).all()
        assert same_bits(batch["voxel_coords"][rows, 1:], alone["voxel_coords"][:, 1:])
        assert same_bits(batch["voxel_features"][rows], alone["voxel_features"])
        assert same_bits(batch["point_to_voxel"][first : first + len(scan)], alone["point_to_voxel"] + start)
        start, first = rows.stop, first + len(scan)


@given(
    anything([(5, 4), (20, 4), (3, 3), (0, 4), (1, 6)]),
    st.sampled_from([None, 1, 255.0, 0, -1, math.nan, 1e39, 1e-50, "1"]),
    st.booleans(),
)
def test_any_input_gives_voxels_or_an_error_that_names_it(points, intensity_max, as_torch):
    points = as_tensor(points) if as_torch else points
    if isinstance(points, str):  # the path of a file that is not there
        with pytest.raises(ValueError, match=f"^{points}: expected a file with points, but there is no such file"):
            UOVFeatureExtractor()(points)
        return
    batch = result_or_error(["points", "intensity_max"], UOVFeatureExtractor(), points, intensity_max)
    if batch is not None:
        assert torch.isfinite(batch["voxel_features"]).all()
        assert len(batch["point_to_voxel"]) == int(batch["num_points"].sum())


HOSTILE_NUMBERS = st.one_of(
    st.lists(st.sampled_from([0, -1, 0.1, 1, math.nan, math.inf, 1e-50, 1e-7, 1e39, "a", None]), max_size=7),
    st.sampled_from([0.1, "abc", None, math.nan]),
)


@given(
    HOSTILE_NUMBERS,
    HOSTILE_NUMBERS,
    st.sampled_from([None, 0.25, math.nan, math.inf, 1e39, "a"]),
    clouds(max_points=5),
)
def test_any_settings_make_an_extractor_or_an_error_that_names_them(voxel_size, point_cloud_range, missing, points):
    settings = {"voxel_size": voxel_size, "point_cloud_range": point_cloud_range, "missing_intensity": missing}
    extractor = result_or_error([*settings], UOVFeatureExtractor, **settings)
    if extractor is not None:
        batch = result_or_error(["points"], extractor, points, return_tensors="np")
        assert batch is None or np.isfinite(batch["voxel_features"]).all()


@given(
    generators(), st.integers(0, 30), st.integers(1, 5), st.booleans(), st.booleans(), st.sampled_from([None, 1, 2, 9])
)
def test_every_point_gets_the_best_label_of_its_voxel(
    generator, num_points, num_classes, per_voxel, background, top_k
):
    num_voxels = 7
    rows = generator.integers(-1, num_voxels, num_points)
    scores = torch.from_numpy(generator.normal(0, 3, (num_voxels if per_voxel else num_points, num_classes)))
    sizes = [num_points // 3, num_points - num_points // 3]
    found = PROCESSOR.post_process_semantic_segmentation(
        scores, torch.from_numpy(rows), sizes, per_voxel, include_background=background, top_k=top_k
    )
    assert [len(scan["segmentation"]) for scan in found] == sizes
    labels = torch.cat([scan["segmentation"] for scan in found]).tolist()
    confidences = torch.cat([scan["scores"] for scan in found]).tolist()
    for point, row in enumerate(rows):
        own = scores[row if per_voxel else point].float().softmax(dim=0)
        label = 255 if row < 0 or (background and own.argmax() == num_classes - 1) else int(own.argmax())
        assert labels[point] == label
        assert math.isclose(confidences[point], 0 if row < 0 else own.max(), rel_tol=1e-5)
    if top_k is not None:
        assert found[0]["top_labels"].shape == (sizes[0], min(top_k, num_classes))


@given(
    anything([(6, 3), (4, 3)], [*FLOATS, "f4", "f4", "i8"]),
    anything([(6,), (4,)], ["i8", "i8", "i4", "u1", "f4", "?"]),
    st.sampled_from([None, [6], [3, 3], [7, -1], [], 6, [2.0, 4.0], np.array([4, 2]), [[6]]]),
    st.sampled_from([None, 0, -1, 2]),
    st.sampled_from([None, "afi"]),
    anything([(6, 3), (4, 4)], [*FLOATS]),
)
def test_any_scores_give_labels_or_an_error_that_names_them(scores, rows, num_points, top_k, refine, points):
    names = ["class_scores", "point_to_voxel", "num_points", "top_k", "points"]
    found = result_or_error(
        names,
        PROCESSOR.post_process_semantic_segmentation,
        as_tensor(scores),
        as_tensor(rows),
        num_points,
        top_k=top_k,
        refine=refine,
        points=points,
    )
    for scan in found or []:
        assert ((scan["segmentation"] < scores.shape[1]) | (scan["segmentation"] == 255)).all()
        assert (scan["segmentation"] >= 0).all() and torch.isfinite(scan["scores"]).all()


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 30.0, 255.0, 4e4, 1e8, -5.0, math.nan, math.inf, 3e38]), max_size=40),
    st.data(),
)
def test_a_full_scale_fits_nine_tenths_of_the_echoes(values, data):
    intensity = data.draw(layouts(np.array(values, np.float32)))
    scale = result_or_error(["intensity_max"], guess_full_scale, intensity)
    echoes = [abs(value) for value in values if math.isfinite(value) and value]
    assert sum(value > (65535 if scale is None else scale) for value in echoes) <= len(echoes) // 10 or scale is None
    assert scale is not None or sum(value > 65535 for value in echoes) > len(echoes) // 10


@given(clouds(dtypes=["f4", "f8"], special=False), st.integers(1, 5))
def test_views_keep_distances_and_further_columns(points, num_views):
    turned = views(points, num_views, math.pi / 180)
    assert len(turned) == num_views and turned[0] is points
    for view in turned:
        assert view.dtype == points.dtype and same_bits(view[:, 2:], points[:, 2:])
        np.testing.assert_allclose(np.hypot(*view[:, :2].T), np.hypot(*points[:, :2].T), rtol=1e-4, atol=1e-5)


@given(anything([(5, 4), (3, 3)]), st.sampled_from([1, 3, 0, -1]), st.sampled_from([0.1, 0.0, math.nan]))
def test_any_points_give_views_or_an_error_that_names_them(points, num_views, cell):
    found = result_or_error(["points", "num_views", "azimuth_cell"], views, points, num_views, cell)
    assert found is None or [view.shape for view in found] == [points.shape] * num_views


@given(generators(), st.integers(0, 12), st.integers(1, 4), st.integers(1, 4))
def test_the_mean_over_views_is_that_of_the_probabilities(generator, num_points, num_views, num_classes):
    parts = [
        (
            torch.from_numpy(generator.normal(0, 2, (3, num_classes)).astype("f4")),
            torch.from_numpy(generator.integers(-1, 3, num_points)),
        )
        for _ in range(num_views)
    ]
    logits, rows = average_over_views(parts)
    for point in range(num_points):
        own = [scores[voxel[point]].softmax(0) for scores, voxel in parts if voxel[point] >= 0]
        assert rows[point] == (point if own else -1)
        if own:
            torch.testing.assert_close(logits[point].softmax(0), torch.stack(own).mean(0), rtol=1e-4, atol=1e-5)
