"""Write a result as LAS or LAZ."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.las_files import read_las_file
from uov_hf.point_fields import load_library
from uov_hf.results.classes import to_asprs
from uov_hf.results.segmented_scan import SegmentedScan, name_new_fields


logger = logging.getLogger(__name__)

MILLIMETRE = 0.001
MAX_DISTANCE = 2_000_000  # metres: 32 bits hold 2147 km in millimetres
MAX_INTENSITY = 65535


def write_las(path: Path, result: SegmentedScan, file: Path) -> None:
    """Write the points of a LAS or LAZ file with all that it has, or those of another scan; see [`write_result`].

    `classification` has the code of ASPRS. If the file had other codes than 0, they are the dimension
    `original_classification`.
    """
    laspy = load_library(path, "laspy", "laspy[lazrs]")
    labels, scores = result.labels, result.scores
    if result.scan.suffix.lower() in (".las", ".laz"):
        cloud = read_las_file(result.scan)
        _check_wave_packets(path, result.scan, cloud.point_format.id)
    else:
        # The coordinates of LAS are whole numbers.
        kept = np.isfinite(result.points[:, :3]).all(axis=1)
        if not kept.all():
            logger.warning("%s: without %d points that are not finite.", path, np.sum(~kept))
        _check_extent(path, result.points[kept, :3])
        cloud, labels, scores = _to_las(laspy, result, kept), labels[kept], scores[kept]
    label_field, score_field = name_new_fields(list(cloud.point_format.dimension_names))
    # LAS has no numbers of 16 bits.
    fields = {label_field: labels, score_field: scores.astype(np.promote_types(scores.dtype, np.float32))}
    if (before := np.array(cloud.classification)).any():
        fields[_free_name(cloud, "original_classification")] = before
    cloud.add_extra_dims([laspy.ExtraBytesParams(name, values.dtype) for name, values in fields.items()])
    for name, values in fields.items():
        cloud[name] = values
    cloud.classification = to_asprs(result.class_names)[labels]
    cloud.write(file)


def _check_wave_packets(path: Path, scan: Path, point_format: int) -> None:
    """The library that compresses LAZ, lazrs, changes the wave packets of the formats 9 and 10."""
    if point_format in (9, 10) and ".laz" in (path.suffix.lower(), scan.suffix.lower()):
        raise ValueError(
            f"{path}: expected a scan whose fields LAZ keeps, got the wave packets of point format {point_format}. "
            "Convert the scan to .las with another program, and use --format las."
        )


def _check_extent(path: Path, positions: np.ndarray) -> None:
    farthest = np.abs(positions).max(initial=0)
    if farthest > MAX_DISTANCE:
        raise ValueError(
            f"{path}: `points` must lie within {MAX_DISTANCE:,.0f} m of their origin, got one at {farthest:.4g} m: "
            "LAS stores whole millimetres of 32 bits. Write .ply or .pcd, or leave out such points."
        )


def _to_las(laspy: Any, result: SegmentedScan, kept: np.ndarray) -> Any:
    """A LAS of the kept points, in millimetres from their origin."""
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.offsets, header.scales = result.origin, np.full(3, MILLIMETRE)
    cloud, fields = laspy.LasData(header), result.to_fields()[kept]
    cloud.x, cloud.y, cloud.z = (fields[axis].astype(np.float64) for axis in "xyz")
    if "intensity" in fields.dtype.names:
        intensity = np.nan_to_num(fields["intensity"])
        # LAS has whole numbers: reflectances of 0…1, as those of KITTI, are scaled to them.
        scale = MAX_INTENSITY if intensity.max(initial=0) <= 1 else 1
        cloud.intensity = np.rint(intensity * scale).clip(0, MAX_INTENSITY).astype(np.uint16)
    return cloud


def _free_name(cloud: Any, name: str) -> str:
    """The name, with "original_" before it as often as the cloud has it."""
    while name in cloud.point_format.dimension_names:
        name = f"original_{name}"
    return name
