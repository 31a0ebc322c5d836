"""Properties of results: files, colours, pictures, tiles and the pipeline."""

import json
import math

import numpy as np
import pytest
import torch
from hostile_arrays import FLOATS, INTEGERS, anything, as_tensor, clouds, generators, ids, result_or_error
from hypothesis import given
from hypothesis import strategies as st
from small_models import CLASSES, small_segmenter

from uov_hf import PointCloudSegmentationPipeline, UOVFeatureExtractor, UOVProcessor
from uov_hf.pictures.scan_colors import check_palette, distinct_colors, label_colors, present_classes, value_colors
from uov_hf.pictures.viewer import write_viewer
from uov_hf.pictures.visualization import draw_birds_eye_view
from uov_hf.point_files import PointCloud, read_cloud
from uov_hf.results import SegmentedScan, find_label_ids, read_labels, to_asprs, write_result
from uov_hf.results.classes import write_classes
from uov_hf.tiles import is_larger_than_a_scan, segment_in_tiles


NAMES = ["car", "driveable surface", "tree"]
ARRAYS = ["points", "origin", "labels", "scores", "class_names"]


@pytest.fixture(scope="module")
def segmenter() -> PointCloudSegmentationPipeline:
    torch.manual_seed(0)
    processor = UOVProcessor.from_teacher(UOVFeatureExtractor())
    return PointCloudSegmentationPipeline(model=small_segmenter().eval(), processor=processor)


def make_result(
    folder, points: np.ndarray, labels: np.ndarray, scores: np.ndarray, origin=(0.0, 0.0, 0.0)
) -> SegmentedScan:
    return SegmentedScan(folder / "scan.bin", folder, points, np.array(origin), labels, scores, NAMES)


@given(
    clouds(dtypes=["f4"], columns=(3, 4), scales=(1.0, 30.0)),
    generators(),
    st.sampled_from(["label", "ply", "pcd", "las", "laz"]),
    st.sampled_from([(0.0, 0, 0), (5e5, 5e6, 100.0)]),
)
def test_a_result_is_read_back_from_every_format(tmp_path_factory, points, generator, suffix, origin):
    folder = tmp_path_factory.getbasetemp()
    labels = np.where(generator.random(len(points)) < 0.2, 255, generator.integers(0, 3, len(points))).astype("u1")
    result = make_result(folder, points, labels, generator.random(len(points)).astype("f4"), origin)
    write_classes(folder / "classes.json", {}, NAMES, distinct_colors(3), result.points_per_class())
    path = folder / f"result.{suffix}"
    (folder / "scan.bin").touch()
    written = result_or_error(["points"], write_result, path, result)
    assert written is None
    limit = 2e6 if suffix in ("las", "laz") else np.inf
    kept = (
        np.isfinite(points[:, :3]).all(axis=1) & (np.abs(points[:, :3]) < limit).all(axis=1)
        if suffix in ("las", "laz")
        else np.ones(len(points), bool)
    )
    if suffix in ("las", "laz") and (np.abs(points[:, :3])[np.isfinite(points[:, :3]).all(axis=1)] >= limit).any():
        return  # refused
    assert (read_labels(path).labels == labels[kept]).all()
    if (
        suffix != "label"
        and len(points)
        and np.isfinite(points[:, :3]).all()
        and (np.abs(points) < 1e6).all()
        and not origin[0]
    ):
        try:
            found = read_cloud(path)
        except ValueError as error:  # 1e4 m of height are no metres
            assert "probably" in str(error)
            return
        np.testing.assert_allclose(
            found.points[:, :3] + found.origin, points[:, :3], atol=1e-3 + 1e-6 * np.abs(points[:, :3]).max()
        )


@given(
    anything([(6, 3), (6, 4), (5, 3)], [*FLOATS, "f4", "f4", "i8"]),
    anything([(6,), (5,)], [*INTEGERS, "u1", "f4"]),
    anything([(6,), (5,)], FLOATS),
    st.integers(0, 3),
    st.sampled_from(["label", "ply", "pcd", "las"]),
)
def test_any_result_is_written_or_an_error_names_its_arrays(tmp_path_factory, points, labels, scores, valid, suffix):
    points, labels = (np.ones((6, 3), "f4") if valid > 0 else points), (np.arange(6) % 3 if valid > 1 else labels)
    folder = tmp_path_factory.getbasetemp()
    result = result_or_error(ARRAYS, make_result, folder, points, labels, scores)
    if result is not None:
        (folder / "scan.bin").touch()
        result_or_error(ARRAYS, write_result, folder / f"any.{suffix}", result)
        assert sum(result.points_per_class().values()) == (np.asarray(result.labels) != 255).sum()


@given(st.lists(st.one_of(st.text(max_size=4), st.sampled_from(["car", "road", "tree", "building"])), max_size=8))
def test_every_class_has_an_id_and_a_code(names):
    label_ids, codes = find_label_ids(names), to_asprs(names)
    assert label_ids.shape == codes.shape == (256,) and label_ids[255] == 0 and codes[255] == 1
    assert (label_ids[: len(names)] > 0).all() and len(set(label_ids[: len(names)].tolist())) == len(names)
    assert not label_ids[len(names) :].any()


@given(
    anything([(6,), (0,)], [*INTEGERS, "f4", "?"]),
    anything([(3, 3), (3, 4)], [*INTEGERS, "u1", "u1", "f4"]),
    st.booleans(),
)
def test_any_labels_have_colors_or_an_error_names_them(labels, colors, valid):
    colors = distinct_colors(3) if valid else colors
    found = result_or_error(["labels", "colors"], label_colors, labels, colors)
    if found is not None:
        assert found.shape == (np.size(labels), 3) and found.dtype == np.uint8
    palette = result_or_error(["colors"], check_palette, colors, 3)
    assert palette is None or (palette.max(axis=1) >= 159).all() or (colors.max(axis=1) == 0).any()


@given(clouds(columns=(3,), dtypes=["f4", "f8", "f2"]))
def test_any_values_have_colors(points):
    values = points[:, 0]
    colors = result_or_error([], value_colors, values)
    assert colors.shape == (len(values), 3) and (colors[~np.isfinite(values)] == (90, 96, 105)).all()


@given(st.integers(0, 20), st.data())
def test_classes_are_counted(size, data):
    labels = data.draw(ids(size, 3, ["u1", "i8"], also=255))
    rows = present_classes(labels, NAMES, distinct_colors(3), "none")
    assert {row.id: row.num_points for row in rows} == {
        number: int((labels == number).sum()) for number in set(labels.tolist())
    }


@given(clouds(columns=(3, 4), dtypes=["f4", "f8"], max_points=30), st.data())
def test_pictures_show_any_points(tmp_path_factory, points, data):
    labels = data.draw(ids(len(points), 3, ["u1", "i8"], also=255))
    shown = points, labels, NAMES, distinct_colors(3)
    picture = result_or_error(["points", "labels", "segmentation"], draw_birds_eye_view, *shown)
    assert picture is not None and np.asarray(picture).shape[2] == 3
    path = tmp_path_factory.getbasetemp() / "viewer.html"
    path.unlink(missing_ok=True)
    result_or_error(["points"], write_viewer, path, *shown)
    finite = points[np.isfinite(points[:, :3]).all(axis=1), :3].astype("f8")
    assert path.exists() or np.ptp(finite, axis=0).max() > 1e6


@given(anything([(6, 3), (5, 4)], [*FLOATS, "i8"]), anything([(6,), (5,)], [*INTEGERS, "f4"]))
def test_any_arrays_are_shown_or_an_error_names_them(tmp_path_factory, points, labels):
    shown, path = (points, labels, NAMES, distinct_colors(3)), tmp_path_factory.getbasetemp() / "any.html"
    result_or_error(["points", "segmentation", "labels"], write_viewer, path, *shown)
    picture = result_or_error(["points", "labels", "segmentation"], draw_birds_eye_view, *shown)
    assert picture is None or len(np.asarray(points)) == len(np.asarray(labels))


@given(
    clouds(columns=(3, 4), scales=(1.0, 60.0, 300.0), dtypes=["f4"], max_points=25),
    st.sampled_from([None, [[0.0, 0.0]], [[1, 2, 3.0], [80, 0, 2]]]),
    st.sampled_from([20.0, 50.0]),
)
def test_every_finite_point_is_segmented_in_the_tile_of_its_nearest_origin(points, origins, radius):
    seen = []

    def segment(tile):
        seen.append(len(tile))
        assert tile.dtype == np.float32 and tile.shape[1] == points.shape[1]
        return {"segmentation": np.full(len(tile), len(seen) % 3), "scores": np.ones(len(tile), "f4"), "labels": NAMES}

    found = result_or_error([], segment_in_tiles, PointCloud(points, np.zeros(3)), segment, origins, radius)
    finite = np.isfinite(points[:, :3]).all(axis=1)
    assert ((found["segmentation"] != 255) == finite).all() and (found["scores"][~finite] == 0).all()
    assert found["segmentation"].shape == (len(points),) and (not seen or max(seen) <= finite.sum())
    assert isinstance(result_or_error([], is_larger_than_a_scan, points), bool)


@given(anything([(2, 3), (2, 2), (1, 4)]), st.sampled_from([50.0, 0, -1, math.nan, math.inf]))
def test_any_origins_make_tiles_or_an_error_names_them(origins, radius):
    cloud = PointCloud(np.ones((4, 3), "f4"), np.zeros(3))

    def segment(tile):
        return {"segmentation": np.zeros(len(tile), int), "scores": np.ones(len(tile)), "labels": NAMES}

    found = result_or_error(["origins", "radius"], segment_in_tiles, cloud, segment, origins, radius)
    assert found is None or (found["segmentation"] == 0).all()


@given(
    points=anything([(6, 3), (6, 4), (20, 4), (0, 4)], [*FLOATS, "f4", "f4", "i8", "O"]),
    as_torch=st.booleans(),
    refine=st.sampled_from([None, "afi"]),
    num_views=st.integers(1, 2),
)
def test_the_pipeline_labels_any_points_or_an_error_names_them(segmenter, points, as_torch, refine, num_views):
    points = as_tensor(points) if as_torch else points
    if not isinstance(points, (np.ndarray, torch.Tensor)):
        return
    result = result_or_error(["points", "intensity_max"], segmenter, points, refine=refine, num_views=num_views)
    if result is not None:
        assert result["labels"] == CLASSES and len(result["segmentation"]) == len(result["scores"]) == len(points)
        assert np.isfinite(result["scores"]).all() and set(result["segmentation"].tolist()) <= {0, 1, 2, 255}
        assert json.dumps(result["scores"].tolist())
