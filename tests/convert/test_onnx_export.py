"""An exported network computes the logits of torch, on real scans too, or is not written."""

import importlib
import json
import sys

import numpy as np
import onnx
import pytest
import torch
from exported_networks import CLUSTERS, VOXELS, clusters, lively_segmenter, make_lively
from small_models import CLASSES, small_config

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation
from uov_hf.convert import onnx_export, run_onnx
from uov_hf.convert.onnx_export import TOLERANCE, export_onnx, random_scan
from uov_hf.convert.onnx_graph import build_onnx, prompts_of_classes
from uov_hf.point_files import read_points
from uov_hf_cli.__main__ import main


REAL_SCANS = [
    "nuscenes/samples/LIDAR_TOP/*.pcd.bin",
    "pandaset/001/lidar/00.bin",
    "semantickitti/dataset/sequences/08/velodyne/000000.bin",
]


def with_void() -> UOVForSemanticSegmentation:
    config = small_config(head="linear", has_void=True)
    config.id2label = dict(enumerate(CLASSES))
    return make_lively(UOVForSemanticSegmentation(config))


def preset_segmenter(preset: str, head: str = "linear") -> UOVForSemanticSegmentation:
    config = UOVConfig.from_preset(preset, head=head)
    config.id2label = dict(enumerate(CLASSES))
    return make_lively(UOVForSemanticSegmentation(config))


def logits_of_torch(model, extractor, points) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the points that have a voxel, and which these are."""
    inputs = extractor(points, intensity_max=255)
    with torch.no_grad():
        logits = model.get_voxel_logits(inputs["voxel_coords"], inputs["voxel_features"])
    in_grid = inputs["point_to_voxel"] >= 0
    return logits[inputs["point_to_voxel"][in_grid]].numpy(), in_grid.numpy()


def difference(segmenter: run_onnx.Segmenter, model, extractor, points) -> float:
    logits, point_to_voxel = segmenter.voxel_logits(points, 255)
    expected, in_grid = logits_of_torch(model, extractor, points)
    assert np.array_equal(point_to_voxel >= 0, in_grid) and in_grid.any()
    return np.abs(logits[point_to_voxel[in_grid]] - expected).max() / np.abs(expected).max()


MODELS = {
    "linear": lambda: lively_segmenter("linear"),
    "text": lambda: lively_segmenter("text"),
    "void": with_void,
    "large stem": lambda: lively_segmenter("linear", stem_kernel_size=5),
    "two blocks": lambda: lively_segmenter("text", hidden_sizes=[8, 8, 16, 16, 8, 8, 4, 4], depths=[2] * 8),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_logits_are_those_of_torch_on_scans_of_any_size(make, tmp_path):
    model, extractor = make(), UOVFeatureExtractor(intensity_scaling="unit")
    done = export_onnx(model, extractor, tmp_path)
    assert done.difference <= TOLERANCE and done.num_bytes == (tmp_path / "model.onnx").stat().st_size
    segmenter = run_onnx.Segmenter(tmp_path / "model.onnx")
    for num_points in CLUSTERS:
        assert difference(segmenter, model, extractor, clusters(num_points)) < 1e-5


@pytest.mark.parametrize("voxels", VOXELS, ids=str)
def test_the_file_contains_the_voxels_of_the_checkpoint(voxels, tmp_path):
    model, extractor = lively_segmenter("linear"), UOVFeatureExtractor(**voxels)
    export_onnx(model, extractor, tmp_path)
    segmenter = run_onnx.Segmenter(tmp_path / "model.onnx")
    assert difference(segmenter, model, extractor, clusters(1000)) < 1e-5
    assert difference(segmenter, model, extractor, clusters(1000)[:, :3]) < 1e-5


def test_the_file_contains_the_classes_and_is_a_valid_onnx_model(tmp_path):
    export_onnx(lively_segmenter("text"), UOVFeatureExtractor(intensity_scaling="unit"), tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    about = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "uov_hf"))
    assert about["id2label"] == {"0": CLASSES[0], "1": CLASSES[1], "2": CLASSES[2]}
    assert (about["format_version"], about["head"], about["ignored_index"]) == (1, "text", 255)
    assert about["voxels"]["intensity_scaling"] == "unit"
    assert run_onnx.Segmenter(tmp_path / "model.onnx").class_names == CLASSES


def test_a_file_of_another_format_is_refused(tmp_path):
    model = build_onnx(lively_segmenter("linear"), UOVFeatureExtractor())
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="expected an export of format version 1"):
        run_onnx.Segmenter(tmp_path / "model.onnx")


def test_a_network_that_differs_from_torch_is_not_written(tmp_path, monkeypatch):
    other = build_onnx(lively_segmenter("linear"), UOVFeatureExtractor())
    monkeypatch.setattr(onnx_export, "build_onnx", lambda *_: other)
    with pytest.raises(ValueError, match="differ by .* of the largest logit, more than 1e-04"):
        export_onnx(lively_segmenter("linear"), UOVFeatureExtractor(), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_scan_without_voxels_proves_nothing(tmp_path):
    with pytest.raises(ValueError, match="Pass another scan"):
        export_onnx(lively_segmenter("linear"), UOVFeatureExtractor(), tmp_path, np.full((5, 4), np.nan))
    assert not any(tmp_path.iterdir())


def test_the_random_scan_has_pairs_under_every_offset():
    keys, _, _ = run_onnx.voxelize(random_scan(), UOVFeatureExtractor().voxel_grid)
    maps = run_onnx.kernel_maps(keys, 5, 3)
    assert all((counts > 0).all() for name, counts in maps.items() if name.startswith("counts"))


def test_a_class_has_the_score_of_its_best_prompt():
    assert prompts_of_classes([1, 0, 255, 1, 2], 3).tolist() == [[1, 1], [0, 3], [4, 4]]


def test_the_command_exports_and_compares_on_a_given_scan(tiny_segmenter, tmp_path, capsys):
    command = ["export", str(tiny_segmenter), "--format", "onnx", "--output_dir", str(tmp_path / "onnx")]
    rng = np.random.default_rng(0)
    rng.permutation(np.pad(clusters(3000), ((0, 0), (0, 2)))).tofile(tmp_path / "scan.bin")
    assert main([*command, "--scan", str(tmp_path / "scan.bin"), "--num_columns", "6"]) == 0
    printed = capsys.readouterr().out
    num_voxels = len(UOVFeatureExtractor()(read_points(tmp_path / "scan.bin", 6))["voxel_coords"])
    assert f"Largest difference from torch on {num_voxels:,} voxels" in printed
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == ["model.onnx", "run_onnx.py", "scan_files"]


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # which Python takes for a module that cannot be found
    monkeypatch.delitem(sys.modules, "uov_hf.convert.onnx_export")
    with pytest.raises(ImportError, match=r"pip install 'uov-hf\[onnx\]'"):
        importlib.import_module("uov_hf.convert.onnx_export")


def assert_equal_on_real_scans(preset: str, shared_data, folder) -> None:
    model, extractor = preset_segmenter(preset), UOVFeatureExtractor(intensity_scaling="unit")
    export_onnx(model, extractor, folder)
    segmenter, num_voxels = run_onnx.Segmenter(folder / "model.onnx"), set()
    for pattern in REAL_SCANS:
        points = read_points(next(shared_data.glob(pattern)))
        num_voxels.add(len(segmenter.voxel_logits(points, 255)[0]))
        assert difference(segmenter, model, extractor, points) < TOLERANCE
    assert len(num_voxels) == 3


def test_logits_are_those_of_torch_on_real_scans(shared_data, tmp_path):
    assert_equal_on_real_scans("tiny", shared_data, tmp_path)


@pytest.mark.slow
def test_minkunet34_has_the_logits_of_torch_on_real_scans(shared_data, tmp_path):
    assert_equal_on_real_scans("minkunet34", shared_data, tmp_path)


@pytest.mark.slow
def test_minkunet34_has_the_logits_of_torch(tmp_path):
    done = export_onnx(preset_segmenter("minkunet34"), UOVFeatureExtractor(), tmp_path)
    assert done.difference <= TOLERANCE and done.num_bytes > 140e6
