"""Segment a lidar scan with an exported network; needs NumPy and ONNX Runtime, and neither torch nor uov_hf.

`uov-hf export` copies this file and the folder `scan_files`, which reads scans and makes voxels, beside `model.onnx`,
which contains the classes and the settings of the voxels.

examples:
  python run_onnx.py scan.bin --intensity_max 255 --output_dir segmented

  from run_onnx import Segmenter
  labels, scores = Segmenter("model.onnx")(points, intensity_max=255)
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime


try:  # the copies beside an exported network; in the package they have other names
    from scan_files.point_files import check_finite, read_points  # type: ignore[import-not-found]
    from scan_files.voxel_grid import VoxelGrid  # type: ignore[import-not-found]
except ModuleNotFoundError:
    from uov_hf.point_files import check_finite, read_points
    from uov_hf.voxel_grid import VoxelGrid


FORMAT_VERSION = 1  # of the metadata and of the inputs of the network
IGNORED = 255
# A key is x, y, z with 20 bits each. The shift makes them positive at every stride, and leaves empty cells on all
# sides: a kernel that reaches over the end of a row of cells must land in an empty cell, never in the next row.
FIELD_BITS, SHIFT = 20, 1 << 18


def voxelize(
    points: np.ndarray, grid: VoxelGrid, intensity_max: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of a scan in the order of the network.

    Args:
        points (`np.ndarray` of shape `(num_points, 3 or more)`): x, y, z in metres, and the intensity as in the file.
        grid (`VoxelGrid`): The settings of the voxels.
        intensity_max (`float`, *optional*): The sensor's full scale; not needed with raw intensities.

    Returns:
        `tuple`: Ascending keys `(num_voxels,)` int64, features `(num_voxels, 1)` float32, and the voxel of every point
        `(num_points,)` int64, −1 for a point with a coordinate that is not finite, or out of range.

    Raises:
        ValueError: The points have another form or lie too far out, or `intensity_max` is missing.
    """
    indices, features, point_to_voxel = grid.voxelize(points, intensity_max)
    keys = _pack(indices.astype(np.int64).T + SHIFT)
    order = np.argsort(keys)
    rank = np.append(np.argsort(order), -1)  # the last one is that of row −1
    return keys[order], features[order], rank[point_to_voxel]


def _pack(fields: Iterable[np.ndarray]) -> np.ndarray:
    x, y, z = fields
    return (x << 2 * FIELD_BITS) | (y << FIELD_BITS) | z


def _unpack(keys: np.ndarray) -> list[np.ndarray]:
    return [(keys >> bits) & ((1 << FIELD_BITS) - 1) for bits in (2 * FIELD_BITS, FIELD_BITS, 0)]


def kernel_maps(keys: np.ndarray, num_levels: int, stem_kernel_size: int) -> dict[str, np.ndarray]:
    """The inputs of the network beside the features: which voxels are neighbours, at strides 1, 2, 4, ….

    Args:
        keys (`np.ndarray` of shape `(num_voxels,)`): From `voxelize`.
        num_levels (`int`): Number of strides.
        stem_kernel_size (`int`): Kernel of the first convolution; that of the others is 3.

    Returns:
        `dict[str, np.ndarray]`, int64: `num_voxels` of each level. For each level, `lower` and `higher` rows of the
        pairs of neighbours, under one offset after the other, and the `counts` of pairs of each offset; the pairs of
        the opposite offset are the same with their sides exchanged. For each step to the next level, `fine` and
        `coarse` rows of a voxel and of the cell that contains it, and the `counts` in each of a cell's 8 places.
    """
    maps: dict[str, np.ndarray] = {}
    sizes = [len(keys)]
    for level in range(num_levels):
        for kernel_size in {3, stem_kernel_size if level == 0 else 3}:
            lower, higher, counts = _pairs(keys, kernel_size)
            end = f"{level}_{kernel_size}"
            maps |= {f"lower_{end}": lower, f"higher_{end}": higher, f"counts_{end}": counts}
        if level + 1 < num_levels:
            x, y, z = _unpack(keys)
            keys, coarse = np.unique(_pack((x >> 1, y >> 1, z >> 1)), return_inverse=True)
            place = (x & 1) << 2 | (y & 1) << 1 | z & 1
            fine = np.argsort(place.astype(np.uint8), kind="stable")
            counts = np.bincount(place, minlength=8)
            maps |= {f"fine_{level}": fine, f"coarse_{level}": coarse[fine], f"counts_{level}": counts}
            sizes.append(len(keys))
    return maps | {"num_voxels": np.array(sizes)}


def _pairs(keys: np.ndarray, kernel_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the pairs under each offset after the centre, the last axis fastest, and the pairs of each offset."""
    cells = range(-(kernel_size // 2), kernel_size // 2 + 1)
    offsets = list(product(cells, repeat=3))[kernel_size**3 // 2 + 1 :]
    lower, higher = [], []
    padded = np.append(keys, -1)  # the row after the last is no neighbour
    for x, y, z in offsets:
        targets = keys + (x << 2 * FIELD_BITS) + (y << FIELD_BITS) + z
        rows = np.searchsorted(keys, targets)
        lower.append(np.flatnonzero(padded[rows] == targets))
        higher.append(rows[lower[-1]])
    return np.concatenate(lower), np.concatenate(higher), np.array([len(rows) for rows in lower])


class Segmenter:
    """An exported network: points in, a label and a score for each point out.

    Args:
        path (`str` or `Path`): The `model.onnx` of an export.
        providers (`Sequence[str]`, *optional*, defaults to the CPU): Execution providers of ONNX Runtime.
        num_threads (`int`, *optional*, defaults to 0): Threads of one operator; 0 for one on each core.

    Raises:
        ValueError: The file was exported by another version of this format.
    """

    def __init__(self, path: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",), num_threads: int = 0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        self.settings = json.loads(self.session.get_modelmeta().custom_metadata_map.get("uov_hf", "{}"))
        if self.settings.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"{path}: expected an export of format version {FORMAT_VERSION}. Export it again.")
        self.grid = VoxelGrid(**self.settings["voxels"])
        self.class_names = list(self.settings["id2label"].values())

    def voxel_logits(self, points: np.ndarray, intensity_max: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Logits `(num_voxels, num_classes)` of the voxels, and the voxel of every point `(num_points,)`, or −1."""
        keys, features, point_to_voxel = voxelize(points, self.grid, intensity_max)
        if not len(keys):
            return np.zeros((0, len(self.class_names)), np.float32), point_to_voxel
        maps = kernel_maps(keys, self.settings["num_levels"], self.settings["stem_kernel_size"])
        (logits,) = self.session.run(["logits"], {"voxel_features": features, **maps})
        return logits, point_to_voxel

    def __call__(self, points: np.ndarray, intensity_max: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels `(num_points,)` uint8 and scores `(num_points,)` float32; 255 and 0 for a point without a voxel."""
        logits, point_to_voxel = self.voxel_logits(points, intensity_max)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = np.append(logits.argmax(axis=1), IGNORED).astype(np.uint8)
        scores = np.append(exponentials.max(axis=1) / exponentials.sum(axis=1), 0).astype(np.float32)
        return best[point_to_voxel], scores[point_to_voxel]  # row −1 is the one appended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, help=".bin, .npy, .npz, .pcd, .xyz, …; .ply, .las and .laz by a library")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    parser.add_argument("--num_columns", type=int, help="columns of a .bin file; default: measured")
    parser.add_argument("--intensity_max", type=float, help="full scale of the intensity: 255 (nuScenes), 1 (KITTI)")
    parser.add_argument("--output_dir", type=Path, default=Path("segmented"), help="gets labels.npy and scores.npy")
    args = parser.parse_args()
    try:
        points = read_points(args.scan, args.num_columns)
        check_finite(points, args.scan)
        segmenter = Segmenter(args.model)
        labels, scores = segmenter(points, args.intensity_max)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"run_onnx.py: {error}\n")
        return 1
    args.output_dir.mkdir(parents=True, exist_ok=True)
    np.save(args.output_dir / "labels.npy", labels)
    np.save(args.output_dir / "scores.npy", scores)
    counts = np.bincount(labels, minlength=IGNORED + 1)
    named = [f"{name} {count:,}" for name, count in zip(segmenter.class_names, counts, strict=False) if count]
    sys.stdout.write(f"{args.scan}: {', '.join([*named, f'without a label {counts[IGNORED]:,}'])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
