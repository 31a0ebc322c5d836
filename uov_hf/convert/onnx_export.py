"""Export a segmenter for ONNX Runtime: the graph, a numeric proof, then the files."""

import inspect
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from uov_hf import (
    UOVFeatureExtractor,
    UOVForSemanticSegmentation,
    bin_files,
    las_files,
    numpy_files,
    pcd_files,
    ply_files,
    point_fields,
    point_files,
    text_points,
    voxel_grid,
)
from uov_hf.written_together import only_writer, written_together


try:
    import onnx

    from uov_hf.convert import run_onnx
    from uov_hf.convert.onnx_graph import build_onnx
except ImportError as error:
    raise ImportError(
        f"An export to ONNX needs packages that are not installed ({error}). They belong to the extra `onnx`: "
        "pip install 'uov-hf[onnx]'"
    ) from error


TOLERANCE = 1e-4  # of the proof, relative to the largest logit: float32 sums in another order
# Modules of NumPy that the program imports: the readers of scans, and the voxels.
SCAN_FILES = (
    bin_files,
    las_files,
    numpy_files,
    pcd_files,
    ply_files,
    point_fields,
    point_files,
    text_points,
    voxel_grid,
)
MAX_BYTES = 2**31 - 1  # of a protobuf file


@dataclass(frozen=True)
class OnnxExport:
    """The result of an export.

    Args:
        folder (`Path`): Contains `model.onnx`, `run_onnx.py` and the folder `scan_files`.
        num_bytes (`int`): Size of `model.onnx`.
        num_voxels (`int`): Voxels of the scan of the proof.
        difference (`float`): Largest difference from torch's logits, relative to the largest of them.
    """

    folder: Path
    num_bytes: int
    num_voxels: int
    difference: float


def export_onnx(
    model: UOVForSemanticSegmentation,
    extractor: UOVFeatureExtractor,
    output_dir: str | Path,
    points: np.ndarray | None = None,
    intensity_max: float | None = None,
) -> OnnxExport:
    """Write a segmenter as `model.onnx`, which is complete in itself, and the program that runs it without torch.

    Args:
        model (`UOVForSemanticSegmentation`): The network, in float32. It is set to evaluation mode.
        extractor (`UOVFeatureExtractor`): The settings of its voxels.
        output_dir (`str` or `Path`): Created if it does not exist. An earlier export in it is replaced.
        points (`np.ndarray` of shape `(num_points, 3 or more)`, *optional*):
            The scan of the proof; by default a random one.
        intensity_max (`float`, *optional*): Full scale of the intensity of `points`.

    Raises:
        ValueError: If the logits of ONNX Runtime and torch differ by more than `TOLERANCE` times the largest, the scan
            has no voxels, or the network is too large for one file. Nothing is written then.
        BlockingIOError: Another run writes into the folder.
        ImportError: The extra `onnx` is not installed.
    """
    folder = Path(output_dir)
    num_bytes = 4 * sum(parameter.numel() for parameter in model.uov.backbone.parameters())
    if num_bytes > MAX_BYTES:
        raise ValueError(f"The network has {num_bytes:,} bytes of weights, and an ONNX file at most {MAX_BYTES:,}.")
    if points is None:
        points, intensity_max = random_scan(), 255.0
    with only_writer(folder), written_together(folder, "model.onnx") as temporary:
        file = temporary / "model.onnx"
        onnx.save(build_onnx(model.eval(), extractor), file)
        num_voxels, difference = prove(model, extractor, file, points, intensity_max)
        _copy_program(temporary)
    return OnnxExport(folder, (folder / "model.onnx").stat().st_size, num_voxels, difference)


def _copy_program(folder: Path) -> None:
    """Copy the program, and what it imports as the package `scan_files`."""
    shutil.copy(inspect.getfile(run_onnx), folder)
    scan_files = folder / "scan_files"
    scan_files.mkdir(exist_ok=True)
    (scan_files / "__init__.py").touch()
    for module in SCAN_FILES:
        shutil.copy(inspect.getfile(module), scan_files)


def prove(
    model: UOVForSemanticSegmentation,
    extractor: UOVFeatureExtractor,
    file: Path,
    points: np.ndarray,
    intensity_max: float | None,
) -> tuple[int, float]:
    """Compare the logits of all points of a scan, by ONNX Runtime and by torch.

    Returns:
        `tuple[int, float]`: The number of voxels, and the largest difference relative to torch's largest logit.

    Raises:
        ValueError: The difference exceeds `TOLERANCE`, other points have voxels, or no point has one.
    """
    voxel_logits, point_to_voxel = run_onnx.Segmenter(file).voxel_logits(points, intensity_max)
    inputs = extractor(points, intensity_max=intensity_max).to(model.device)
    if not len(inputs["voxel_coords"]):
        raise ValueError("No point of the scan has a voxel, so that nothing can be compared. Pass another scan.")
    with torch.no_grad():
        expected = model.get_voxel_logits(inputs["voxel_coords"], inputs["voxel_features"]).cpu().numpy()
    rows = inputs["point_to_voxel"].cpu().numpy()
    in_grid = rows >= 0
    if not np.array_equal(in_grid, point_to_voxel >= 0):
        raise ValueError("The exported voxels contain other points than those of torch. Please report this.")
    differences = np.abs(voxel_logits[point_to_voxel[in_grid]] - expected[rows[in_grid]])
    difference = float(differences.max() / np.abs(expected).max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"The logits of ONNX Runtime and torch differ by {difference:.1e} of the largest logit, more than "
            f"{TOLERANCE:.0e}. Nothing was exported."
        )
    return len(expected), difference


def random_scan(num_points: int = 20_000) -> np.ndarray:
    """A random scan `(num_points, 4)` in which every kernel offset has pairs: clusters, with intensities to 255."""
    rng = np.random.default_rng(0)
    centres = rng.uniform([-20, -20, -2], [20, 20, 2], (200, 3))
    points = centres[rng.integers(len(centres), size=num_points)] + rng.normal(0, 0.3, (num_points, 3))
    return np.concatenate([points, rng.uniform(0, 255, (num_points, 1))], axis=1).astype(np.float32)
