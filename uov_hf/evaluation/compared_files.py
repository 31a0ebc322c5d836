"""Score label files against label files, of any formats and of two sets of classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.metrics import ConfusionMatrix, SegmentationMetrics
from uov_hf.results import FileLabels, read_labels, to_asprs
from uov_hf.results.classes import find_classes_file, plain, scored_asprs
from uov_hf.results.label_files import LABEL_SUFFIXES
from uov_hf.vocabulary import TaxonomyMap, Vocabulary, find_map


FOLDERS_OF_DATASETS = ("velodyne", "labels", "predictions")  # names that differ between a scan and its labels


@dataclass(frozen=True)
class Comparison:
    """The scores of label files.

    Args:
        metrics (`SegmentationMetrics`): Of all points together.
        class_names (`list[str]`): The scored classes.
        num_files (`int`): Pairs of files.
    """

    metrics: SegmentationMetrics
    class_names: list[str]
    num_files: int


def compare_files(
    prediction: Path,
    truth: Path,
    vocabulary: Vocabulary | None = None,
    taxonomy_map: TaxonomyMap | None = None,
) -> Comparison:
    """Score predicted labels against true ones.

    Args:
        prediction, truth (`Path`):
            Two files for [`~uov_hf.results.read_labels`], or two folders, whose files have the same names but for
            their suffixes. In a folder, `labels.npy` has the name of its folder.
        vocabulary (`Vocabulary`, *optional*): Of the ids of the truth, and of predictions without a `classes.json`.
        taxonomy_map (`TaxonomyMap`, *optional*):
            The common classes to score. Without it, every predicted class must be one of the truth; for truths in
            LAS, predicted classes become codes of ASPRS.

    Raises:
        ValueError: A file is broken or has no partner, the numbers of points differ, the classes have no common names,
            or no point has a true class.
    """
    pairs = pair_files(Path(prediction), Path(truth))
    matrix, names = None, None
    for predicted_file, true_file in pairs:
        own = vocabulary if find_classes_file(predicted_file) is None else None
        predicted, true = read_labels(predicted_file, own), read_labels(true_file, vocabulary)
        if len(predicted.labels) != len(true.labels):
            raise ValueError(
                f"{predicted.path}: expected labels of {len(true.labels):,} points, as {true.path} has, got "
                f"{len(predicted.labels):,}."
            )
        class_names, of_prediction, of_truth = _common_classes(predicted, true, taxonomy_map)
        if matrix is None:
            matrix, names = ConfusionMatrix(len(class_names), IGNORED), class_names
        if class_names != names:
            raise ValueError(f"{true.path}: expected the classes of the first file, {names}, got {class_names}.")
        matrix.update(of_prediction[predicted.labels], of_truth[true.labels])
    if matrix is None or names is None or not matrix.counts.any():
        raise ValueError(f"{truth}: expected a true class at some points, got none: nothing can be scored.")
    return Comparison(matrix.compute(), names, len(pairs))


def pair_files(prediction: Path, truth: Path) -> list[tuple[Path, Path]]:
    """The files of each scan in two folders, or two files; see [`compare_files`]."""
    if prediction.is_dir() != truth.is_dir():
        raise ValueError(f"Expected two files or two folders, got {prediction} and {truth}.")
    if not truth.is_dir():
        return [(prediction, truth)]
    predictions, truths = _label_files(prediction), _label_files(truth)
    if not truths:
        raise ValueError(f"{truth}: expected files that end in one of {', '.join(LABEL_SUFFIXES)}, found none.")
    missing = [path for name, path in truths.items() if name not in predictions]
    if missing:
        raise ValueError(
            f"{prediction}: expected a prediction for each of the {len(truths):,} files in {truth}, got none for "
            f"{len(missing):,} of them, such as {missing[0].relative_to(truth)}. Give folders with the same files."
        )
    return [(predictions[name], path) for name, path in truths.items()]


def _label_files(folder: Path) -> dict[tuple[str, ...], Path]:
    """The label files of a folder by the name of their scan; of several, the first of `LABEL_SUFFIXES`."""
    files = [path for path in folder.rglob("*") if path.suffix.lower() in LABEL_SUFFIXES and path.name != "scores.npy"]
    files.sort(key=lambda path: LABEL_SUFFIXES.index(path.suffix.lower()), reverse=True)
    return dict(sorted({_scan_name(path.relative_to(folder)): path for path in files}.items()))


def _scan_name(path: Path) -> tuple[str, ...]:
    named = path.parent if path.name == "labels.npy" else path.with_suffix("")
    return tuple(part for part in named.parts if part not in FOLDERS_OF_DATASETS)


def _common_classes(
    predicted: FileLabels, true: FileLabels, taxonomy_map: TaxonomyMap | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The scored classes, and the class of each predicted and of each true label, `(256,)` uint8 each."""
    if taxonomy_map is not None:
        lookups = taxonomy_map.to_common(predicted.class_names), taxonomy_map.to_common(true.class_names)
        return taxonomy_map.class_names, *lookups
    same = np.arange(IGNORED + 1, dtype=np.uint8)
    if true.is_asprs and not predicted.is_asprs:
        return true.class_names, scored_asprs()[1][to_asprs(predicted.class_names)], same
    ids = {plain(name): row for row, name in enumerate(true.class_names)}
    if unknown := [name for name in predicted.class_names if plain(name) not in ids]:
        known = find_map(predicted.class_names, true.class_names)
        way_out = f"Give --map {known}." if known else "Write a map (docs/how_to/vocabulary.md) for --map."
        raise ValueError(
            f"{predicted.path}: expected classes of the truth, {', '.join(true.class_names)}, got also "
            f"{', '.join(unknown)}. {way_out}"
        )
    of_prediction = np.full(IGNORED + 1, IGNORED, np.uint8)
    of_prediction[: len(predicted.class_names)] = [ids[plain(name)] for name in predicted.class_names]
    return true.class_names, of_prediction, same
