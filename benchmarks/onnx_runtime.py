"""Time an exported network in ONNX Runtime beside the torch engine, from points to the logits of the voxels.

Every scan is another one. Both runtimes get the same scans in one run, by turns. The network is random.

examples:
  python benchmarks/onnx_runtime.py --networks tiny MinkUNet34 --num_scans 8
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from common import describe_machine, make_parser, table, timed
from scans import SENSORS, find_scans, make_scans
from sparse_conv import PRESETS

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation
from uov_hf.convert.onnx_export import export_onnx
from uov_hf.convert.run_onnx import Segmenter, kernel_maps, voxelize


def main():
    parser = make_parser(__doc__, with_data_dir=True)
    parser.add_argument("--networks", nargs="+", choices=PRESETS, default=["tiny"])
    parser.add_argument(
        "--num_scans", type=int, default=5, help="different scans of each sensor; default: %(default)s"
    )
    parser.add_argument("--num_threads", type=int, default=1, help="of both runtimes; default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    rows = []
    for network in args.networks:
        torch.manual_seed(0)
        config = UOVConfig.from_preset(PRESETS[network], head="linear", sparse_backend="torch")
        config.id2label = {number: f"class {number}" for number in range(16)}
        model = UOVForSemanticSegmentation(config).eval()
        for name, sensor in SENSORS.items():
            kind = "real" if find_scans(sensor, args.data_dir) else "synthetic"
            with TemporaryDirectory() as folder:
                export_onnx(model, sensor.extractor(), folder)
                segmenter = Segmenter(Path(folder) / "model.onnx", num_threads=args.num_threads)
            scans = list(make_scans(sensor, args.data_dir, args.num_scans + 1))
            times = [compare(model, sensor.extractor(), segmenter, points) for points in scans]
            rows.append([network, f"{name} ({kind})", *summarize(times[1:])])  # the first scan warms up
    header = "network,scans,voxels,torch,ONNX Runtime,of which NumPy,ONNX Runtime / torch,difference".split(",")
    print(f"{describe_machine()}, onnxruntime {onnxruntime.__version__}", table(header, rows), sep="\n\n")
    print("\nMedians over different scans; in brackets the least and the greatest.")


def compare(
    model: UOVForSemanticSegmentation, extractor: UOVFeatureExtractor, segmenter: Segmenter, points: np.ndarray
) -> dict[str, float]:
    """Seconds of both runtimes on one scan, and the largest difference relative to the largest logit."""
    seconds = {}
    seconds["torch"], (expected, rows) = timed(lambda: run_torch(model, extractor, points))
    seconds["onnx"], (logits, point_to_voxel) = timed(lambda: segmenter.voxel_logits(points, 255.0))
    seconds["numpy"], _ = timed(lambda: make_inputs(segmenter, points))
    difference = np.abs(logits[point_to_voxel] - expected[rows]).max() / np.abs(expected).max()
    return seconds | {"num_voxels": len(logits), "difference": float(difference)}


@torch.no_grad()
def run_torch(
    model: UOVForSemanticSegmentation, extractor: UOVFeatureExtractor, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the voxels, and the voxel of each point."""
    inputs = extractor(points, intensity_max=255.0)
    logits = model.get_voxel_logits(inputs["voxel_coords"], inputs["voxel_features"])
    return logits.numpy(), inputs["point_to_voxel"].numpy()


def make_inputs(segmenter: Segmenter, points: np.ndarray) -> None:
    keys, _, _ = voxelize(points, segmenter.grid, 255.0)
    kernel_maps(keys, segmenter.settings["num_levels"], segmenter.settings["stem_kernel_size"])


def summarize(times: list[dict[str, float]]) -> list[str]:
    """Cells of the table, after the names."""
    voxels = sorted(int(row["num_voxels"]) for row in times)
    milliseconds = [f"{1000 * median(row[name] for row in times):.0f} ms" for name in ("torch", "onnx", "numpy")]
    ratios = sorted(row["onnx"] / row["torch"] for row in times)
    return [
        f"{voxels[0]}…{voxels[-1]}",
        *milliseconds,
        f"{median(ratios):.2f}× ({ratios[0]:.2f}…{ratios[-1]:.2f})",
        f"{max(row['difference'] for row in times):.0e}",
    ]


if __name__ == "__main__":
    main()
