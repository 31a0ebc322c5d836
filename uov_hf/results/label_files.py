"""Labels of points in files of any format: results of this package, and annotations made elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.las_files import las_field_names, read_las_records
from uov_hf.numpy_files import load_npy
from uov_hf.pcd_files import read_pcd_fields
from uov_hf.ply_files import read_ply_fields
from uov_hf.point_fields import errors_of_library
from uov_hf.results.classes import MAX_LABEL_ID, find_classes_file, read_classes, scored_asprs
from uov_hf.vocabulary import Vocabulary, load_vocabulary


# Fields with classes in the files of other programs, in lower case. Of several that a file has, the last one counts: a
# result that is segmented again has `class` and `predicted_class`.
CODES = "classification"  # of ASPRS, in every LAS file
LABEL_FIELDS = (
    CODES,
    "scalar_classification",
    "label",
    "labels",
    "scalar_label",
    "semantic",
    "class",
    "scalar_class",
    "predicted_class",
)
DEFAULT_VOCABULARIES = {".label": "semantic_kitti", ".bin": "nuscenes"}


@dataclass(frozen=True)
class FileLabels:
    """Labels of the points of a file.

    Args:
        path (`Path`): The file.
        labels (`np.ndarray` of shape `(num_points,)`): uint8, indices into `class_names`; 255 for none.
        class_names (`list[str]`): The classes.
        is_asprs (`bool`): Whether they are classification codes of LAS, as [`scored_asprs`] groups them.
    """

    path: Path
    labels: np.ndarray
    class_names: list[str]
    is_asprs: bool = False


def read_labels(path: Path, vocabulary: Vocabulary | None = None) -> FileLabels:
    """Read the labels of a file.

    Results of `uov-hf segment` have their classes in `classes.json`. Other files have ids of a vocabulary: class ids
    in a `.npy`, raw ids in a `.label` (by default of SemanticKITTI), in a `.bin` (bytes, by default of nuScenes), and
    in a field of a `.ply` or `.pcd`. Other LAS files have classification codes, unless there is a vocabulary.

    Args:
        path (`Path`): The file; its suffix is its format.
        vocabulary (`Vocabulary`, *optional*): Of the ids. It comes before `classes.json`.

    Raises:
        ValueError: The file is broken, has no labels, or its classes are unknown.
        ImportError: The library that reads this format is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"{path}: expected labels in a file that ends in one of {', '.join(_READERS)}.")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file with labels, got none.")
    with errors_of_library(path):
        values = _whole(path, _READERS[suffix](path))
    classes_file = find_classes_file(path) if vocabulary is None else None
    if classes_file is not None and suffix in (".las", ".laz") and _las_field(path) == CODES:
        classes_file = None  # of another file of this name: a result has a field of its own
    if classes_file is not None:
        return _of_result(path, values, classes_file)
    if suffix in (".las", ".laz") and vocabulary is None:
        names, class_of_code = scored_asprs()
        return FileLabels(path, class_of_code[values.clip(0, IGNORED)], names, is_asprs=True)
    if vocabulary is None and suffix in DEFAULT_VOCABULARIES:
        vocabulary = load_vocabulary(DEFAULT_VOCABULARIES[suffix])
    if vocabulary is None:
        raise ValueError(f"{path}: its classes are unknown: there is no classes.json beside it. Give a vocabulary.")
    if suffix == ".npy":
        _check_ids(path, values, len(vocabulary.class_names))
        return FileLabels(path, values.astype(np.uint8), vocabulary.class_names)
    try:
        return FileLabels(path, vocabulary.classes_of(values), vocabulary.class_names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _of_result(path: Path, values: np.ndarray, classes_file: Path) -> FileLabels:
    """The labels of a result, which `classes.json` describes."""
    classes = read_classes(classes_file)
    if path.suffix.lower() == ".label":
        lookup = np.full(MAX_LABEL_ID + 1, IGNORED, np.uint8)
        for row, own in enumerate(classes):
            lookup[row if own.label_id is None else own.label_id] = row
        values = lookup[values]
    _check_ids(path, values, len(classes))
    return FileLabels(path, values.astype(np.uint8), [own.name for own in classes])


def _check_ids(path: Path, ids: np.ndarray, num_classes: int) -> None:
    wrong = ids[((ids < 0) | (ids >= num_classes)) & (ids != IGNORED)]
    if len(wrong):
        raise ValueError(f"{path}: expected class ids 0…{num_classes - 1} or {IGNORED}, got {int(wrong[0])}.")


def _whole(path: Path, values: np.ndarray) -> np.ndarray:
    """The values as int64: other programs store classes as floating-point numbers."""
    if values.ndim != 1 or values.dtype.kind not in "iufb":
        raise ValueError(f"{path}: expected one label per point, got shape {values.shape} of {values.dtype}.")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise ValueError(f"{path}: expected whole numbers as labels, got others.")
    return values.astype(np.int64)


def _read_label(path: Path) -> np.ndarray:
    if path.stat().st_size % 4:
        raise ValueError(f"{path}: expected 4 bytes for each point, got {path.stat().st_size:,} bytes.")
    return np.fromfile(path, "<u4") & MAX_LABEL_ID


def _read_bytes(path: Path) -> np.ndarray:
    return np.fromfile(path, np.uint8)


def _read_ply(path: Path) -> np.ndarray:
    return _label_field(path, read_ply_fields(path))


def _read_pcd(path: Path) -> np.ndarray:
    return _label_field(path, read_pcd_fields(path))


def _label_field(path: Path, fields: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(fields[_find_field(path, list(fields))])


def _read_las(path: Path) -> np.ndarray:
    cloud = read_las_records(path)
    # Without a classes.json the codes count, which are those of the class.
    return np.asarray(cloud[_las_field(path) if find_classes_file(path) else CODES])


def _las_field(path: Path) -> str:
    return _find_field(path, las_field_names(path))


def _find_field(path: Path, names: list[str]) -> str:
    found = [name for field in LABEL_FIELDS for name in names if name.lower() == field]
    if not found:
        raise ValueError(f"{path}: expected a field with labels ({', '.join(LABEL_FIELDS)}), got {', '.join(names)}.")
    return found[-1]


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".label": _read_label,
    ".npy": load_npy,
    ".ply": _read_ply,
    ".pcd": _read_pcd,
    ".las": _read_las,
    ".laz": _read_las,
    ".bin": _read_bytes,  # last, because a scan has this suffix, too
}
LABEL_SUFFIXES = tuple(_READERS)
