"""The program that travels with an exported network makes the voxels, kernel maps and labels of the torch side."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from exported_networks import CLUSTERS, clusters, lively_segmenter

from uov_hf import UOVFeatureExtractor, UOVProcessor
from uov_hf.convert import run_onnx
from uov_hf.convert.onnx_export import export_onnx
from uov_hf.pipeline_uov import PointCloudSegmentationPipeline
from uov_hf.sparse_conv import KernelMap
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


NUM_LEVELS = 5


def pairs_of(kernel_map: KernelMap, num_offsets: int) -> list[tuple[list[int], list[int]]]:
    """Input and output rows under each offset, from all groups of a map of torch."""
    pairs = [([], []) for _ in range(num_offsets)]
    for group in kernel_map.groups:
        offsets = range(num_offsets)[group.offsets]
        for side, rows in enumerate((kernel_map.inputs, kernel_map.outputs)):
            for offset, own in zip(offsets, rows[group.pairs].view(-1, group.num_pairs), strict=True):
                pairs[offset][side].extend(own.tolist())
    return pairs


def parts_of(maps: dict[str, np.ndarray], name: str, end: str) -> list[list[int]]:
    ends = np.cumsum([0, *maps[f"counts_{end}"]])
    return [maps[f"{name}_{end}"][start:stop].tolist() for start, stop in pairwise(ends)]


def test_voxels_are_those_of_the_feature_extractor_in_the_order_of_their_keys():
    extractor, points = UOVFeatureExtractor(point_cloud_range=(1, -3, -1, 30, 3, 1)), clusters(3000)
    points[::50, 0] = np.nan
    points[9::60, 3:], points[11::60, 3:] = 1e30, -7  # wrong intensities are clipped
    keys, features, point_to_voxel = run_onnx.voxelize(points, extractor.voxel_grid, 255)
    coords, expected, rows = extractor.voxelize(points, 255)
    order = np.lexsort(coords.T[::-1])
    rank = np.append(np.argsort(order), -1)
    assert np.array_equal(np.stack(run_onnx._unpack(keys), 1) - run_onnx.SHIFT, coords[order])
    assert np.array_equal(features, expected[order])
    assert np.array_equal(point_to_voxel, rank[rows]) and (point_to_voxel < 0).any()


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("num_points", [1, 2, 300, 6000])
def test_kernel_maps_are_those_of_torch(kernel_size, num_points):
    extractor, points = UOVFeatureExtractor(), clusters(num_points)
    keys, _, _ = run_onnx.voxelize(points, extractor.voxel_grid)
    maps = run_onnx.kernel_maps(keys, NUM_LEVELS, kernel_size)
    pyramid = VoxelPyramid(sort_voxels(extractor(points)["voxel_coords"], NUM_LEVELS)[0])
    for level, size in [*((level, 3) for level in range(NUM_LEVELS)), (0, kernel_size)]:
        lower, higher = (parts_of(maps, name, f"{level}_{size}") for name in ("lower", "higher"))
        rows = list(range(maps["num_voxels"][level]))
        after = list(zip(higher, lower, strict=True))
        before = [(own, other) for other, own in reversed(after)]
        assert pairs_of(pyramid.submanifold(level, size), size**3) == [*before, (rows, rows), *after]
    for level in range(NUM_LEVELS - 1):
        fine, coarse = (parts_of(maps, name, f"{level}") for name in ("fine", "coarse"))
        assert pairs_of(pyramid.down(level), 8) == list(zip(fine, coarse, strict=True))
    assert all(rows.dtype == np.int64 for rows in maps.values())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A segmenter of torch and the folder of its export."""
    torch.manual_seed(0)
    model = lively_segmenter("text")
    extractor = UOVFeatureExtractor(point_cloud_range=(0, -np.pi, -9, 40, np.pi, 9), intensity_scaling="unit_plus_one")
    folder = tmp_path_factory.mktemp("exported")
    export_onnx(model, extractor, folder)
    processor = UOVProcessor.from_teacher(extractor)
    return PointCloudSegmentationPipeline(model=model, processor=processor), folder


NOT_FINITE, FAR = [np.nan, 0, 0, 9], [900, 0, 0, 9]


@pytest.mark.parametrize(
    "points",
    [*map(clusters, CLUSTERS), np.zeros((0, 4)), [NOT_FINITE] * 3, [FAR], [NOT_FINITE, [5, 5, 0, 9], FAR]],
    ids=[*CLUSTERS, "empty", "not finite", "out of range", "one point"],
)
def test_labels_and_scores_are_those_of_the_pipeline(exported, points):
    pipeline, folder = exported
    points = np.asarray(points, np.float32)
    labels, scores = run_onnx.Segmenter(folder / "model.onnx")(points, intensity_max=255)
    expected = pipeline(points, intensity_max=255)
    assert labels.dtype == np.uint8 and scores.dtype == np.float32
    assert np.allclose(scores, expected["scores"], atol=1e-5)
    clear = scores > 0.51  # elsewhere, two classes may be equally likely
    assert clear.sum() > 0.9 * len(points) or len(points) < 10
    assert np.array_equal(labels[clear], expected["segmentation"][clear])
    without = expected["segmentation"] == 255
    assert np.array_equal(labels == 255, without) and not scores[without].any()


# `None` in `sys.modules` is how Python marks a module that cannot be found.
BLOCK = "import runpy, sys\nsys.modules |= dict.fromkeys(('torch', 'transformers', 'uov_hf', 'onnx', 'scipy'))\n"
RUN = "del sys.argv[0]\nsys.path[0] = sys.argv[0].rpartition('/')[0]\nrunpy.run_path(sys.argv[0], run_name='__main__')"


def run_python(code: str, folder, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def run_program(exported, folder, scan, *options) -> subprocess.CompletedProcess:
    """Run the copied program where neither torch nor the package can be imported."""
    command = [exported[1] / "run_onnx.py", scan, "--intensity_max", "255", *options]
    return run_python(BLOCK + RUN, folder, *command)


def test_the_copied_program_runs_with_numpy_and_onnx_runtime_only(exported, tmp_path):
    points = np.sort(clusters(2000), axis=0)  # neighbours in the file are near each other, as a lidar writes them
    points.tofile(tmp_path / "scan.bin")
    np.save(tmp_path / "scan.npy", np.asfortranarray(points))
    np.savetxt(tmp_path / "scan.xyz", points, fmt="%.9g")
    expected = run_onnx.Segmenter(exported[1] / "model.onnx")(points, 255)
    for scan in ("scan.bin", "scan.npy", "scan.xyz"):
        result = run_program(exported, tmp_path, scan, "--output_dir", scan[-3:])
        assert not result.returncode, result.stderr
        assert result.stdout.startswith(f"{scan}: ") and "without a label" in result.stdout
        for name, values in zip(("labels", "scores"), expected, strict=True):
            assert np.array_equal(np.load(tmp_path / scan[-3:] / f"{name}.npy"), values)
    assert "ModuleNotFoundError" in run_python(BLOCK + "import uov_hf", tmp_path).stderr


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (clusters(50).T, "transposed"),
        ((1000 * clusters(50)).astype(np.int32), "millimetres"),
        (clusters(50) + np.float64([0, 5_000_000, 0, 0]), "map coordinates"),
        (np.full((5, 4), np.nan), "finite points"),
        (np.array(["a"]), "expected an array of shape"),
    ],
)
def test_the_copied_program_refuses_the_files_that_the_package_refuses(exported, tmp_path, points, message):
    np.save(tmp_path / "odd.npy", points)
    result = run_program(exported, tmp_path, "odd.npy")
    assert result.returncode == 1 and result.stderr.startswith("run_onnx.py: odd.npy: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not result.stdout
