"""Export a checkpoint for ONNX Runtime, to run without torch.

It writes model.onnx, which contains the classes and the settings of the voxels, and run_onnx.py with the folder
scan_files, which need NumPy and ONNX Runtime only. The logits of both runtimes are compared on a scan first.

examples:
  uov-hf export out/demo/uov --format onnx --output_dir out/onnx
  uov-hf export out/demo/uov --format onnx --output_dir out/onnx --scan out/demo/scan.bin --intensity_max 255
  python out/onnx/run_onnx.py out/demo/scan.bin --intensity_max 255 --output_dir out/segmented
"""

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_name_or_path", help="folder or Hub id of a checkpoint")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--format", choices=["onnx"], required=True, help="format of the export")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the export")
    parser.add_argument("--scan", type=Path, help="scan of the comparison; default: a random one")
    parser.add_argument("--num_columns", type=int, help="columns of --scan, if it is a .bin; default: measured")
    parser.add_argument("--intensity_max", type=float, help="full scale of the intensity of --scan")


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.convert.onnx_export import export_onnx
    from uov_hf.point_files import read_points
    from uov_hf.segmenting import load_segmenter

    points = None if args.scan is None else read_points(args.scan, args.num_columns)
    segmenter = load_segmenter(args.model_name_or_path, "cpu", "float32", args.revision)
    extractor = segmenter.processor.feature_extractor
    done = export_onnx(segmenter.model, extractor, args.output_dir, points, args.intensity_max)
    yield (
        f"{done.folder / 'model.onnx'}: {done.num_bytes / 1e6:.1f} MB. Largest difference from torch on "
        f"{done.num_voxels:,} voxels: {done.difference:.0e} of the largest logit."
    )
    yield f"{done.folder / 'run_onnx.py'}: python {done.folder / 'run_onnx.py'} scan.bin"
