"""Write results in the formats of other programs."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from uov_hf.pictures.viewer import show_in_rerun
from uov_hf.results.class_colors import class_colors
from uov_hf.results.classes import find_label_ids
from uov_hf.results.las_results import write_las
from uov_hf.results.pcd_results import write_pcd
from uov_hf.results.ply_results import write_ply
from uov_hf.results.segmented_scan import SegmentedScan


LIBRARIES = {"ply": "plyfile", "las": "laspy", "laz": "lazrs", "rrd": "rerun"}
EXTRAS = {"rrd": "rerun"}  # of the package; the others belong to `clouds`


def write_result(path: Path, result: SegmentedScan, file: Path | None = None) -> None:
    """Write a result as a file; its suffix is its format.

    `.label` has an id of 32 bits for each point; see [`find_label_ids`]. `.ply`, `.pcd`, `.las` and `.laz` have the
    points with two more fields: `class` (uint8, index of the class, 255 = none) and `score` (float32). If the scan has
    this format, every field that it has is kept with the same bytes; of LAS also offset, scale and the records with
    the coordinate system. Fields of the scan with these names stay, and the new ones are `predicted_class` and
    `predicted_score`. A scan in another format is converted: x, y, z in its own coordinates, and intensity.

    Args:
        path (`Path`): The file, which messages name.
        result (`SegmentedScan`): The scan and its labels.
        file (`Path`, *optional*): A temporary file that is written instead, and that the caller moves to `path`.

    Raises:
        ValueError: The file is the scan itself, or the fields of the scan cannot be written.
        ImportError: The library that writes this format is not installed.
    """
    check_is_not_the_scan(path, result.scan)
    file = file or path
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        _WRITERS[path.suffix[1:].lower()](path, result, file)
    except (OSError, ImportError):
        raise
    except Exception as error:  # a library reads some headers that it cannot write
        if isinstance(error, ValueError) and (str(result.scan) in str(error) or str(path) in str(error)):
            raise
        raise ValueError(
            f"{path}: the fields of {result.scan} cannot be written with the labels: {type(error).__name__}: {error}. "
            "Use another --format."
        ) from error


def check_is_not_the_scan(path: Path, scan: Path) -> None:
    """Check that a result is not written over the scan.

    Raises:
        ValueError: The file is the scan itself.
    """
    if path.exists() and path.samefile(scan):
        raise ValueError(f"{path}: the result would overwrite the scan. Use another --output_dir.")


def check_libraries(formats: Sequence[str]) -> None:
    """Check, before a long run, that the formats are known and that the libraries that write them are installed.

    Raises:
        ValueError: A format is unknown.
        ImportError: A library is not installed.
    """
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"`formats` must be among {', '.join(FORMATS)}, got {', '.join(unknown)}.")
    for name in formats:
        if name in LIBRARIES and find_spec(LIBRARIES[name]) is None:
            extra = EXTRAS.get(name, "clouds")
            raise ImportError(
                f"The format {name} needs a library that is not installed: pip install 'uov-hf[{extra}]'."
            )


def _write_label(path: Path, result: SegmentedScan, file: Path) -> None:
    find_label_ids(result.class_names)[result.labels].astype("<u4").tofile(file)


def _write_rrd(path: Path, result: SegmentedScan, file: Path) -> None:
    names, points = result.class_names, result.cloud.file_points
    shown = points, result.labels, names, class_colors(names)
    intensity = points[:, 3] if points.shape[1] > 3 else None
    show_in_rerun(*shown, scores=result.scores, intensity=intensity, title=result.scan.name, path=file)


_WRITERS: dict[str, Callable[[Path, SegmentedScan, Path], None]] = {
    "label": _write_label,
    "ply": write_ply,
    "pcd": write_pcd,
    "las": write_las,
    "laz": write_las,
    "rrd": _write_rrd,
}
FORMATS = ("npy", *_WRITERS)  # labels.npy and scores.npy are in the folder of the result
