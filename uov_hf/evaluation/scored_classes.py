"""The classes of an evaluation: those of the ground truth, or the common ones of a map between taxonomies."""

from dataclasses import dataclass, replace

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.vocabulary import TaxonomyMap, find_map, load_vocabulary


@dataclass(frozen=True, eq=False)
class ScoredClasses:
    """The classes that are scored, and the class of each id of the predictions, the truth and the teacher.

    With a map, a true class without a partner is ignored. A predicted class without a partner is no class: it is wrong
    where truth counts, a miss of the true class and no false alarm of another.

    Args:
        taxonomy (`str`): The vocabulary of the ground truth.
        class_names (`list[str]`): The scored classes.
        is_thing (`np.ndarray` of shape `(num_classes,)`): bool, the scored classes that have instances.
        of_predictions, of_truth, of_teacher (`np.ndarray` of shape `(256,)`):
            uint8, the scored class of an id, or 255.
        taxonomy_map (`TaxonomyMap`, *optional*): The map whose common classes are scored.
    """

    taxonomy: str
    class_names: list[str]
    is_thing: np.ndarray
    of_predictions: np.ndarray
    of_truth: np.ndarray
    of_teacher: np.ndarray
    taxonomy_map: TaxonomyMap | None = None

    def convert_truth(self, scan: LabelledScan) -> LabelledScan:
        """The scan with its true labels and those of the teacher in the scored classes."""
        teacher = None if scan.teacher_labels is None else self.of_teacher[scan.teacher_labels]
        return replace(scan, labels=self.of_truth[scan.labels], teacher_labels=teacher)


def choose_classes(
    taxonomy: str | None,
    predicted: list[str],
    teacher: list[str] | None = None,
    taxonomy_map: TaxonomyMap | None = None,
) -> ScoredClasses:
    """The scored classes of a ground truth, of predictions and of a teacher.

    Args:
        taxonomy (`str`, *optional*): The vocabulary of the ground truth; None is an error.
        predicted (`list[str]`): The classes of the predictions, in the order of their ids.
        teacher (`list[str]`, *optional*): The classes of a label set that is scored beside them.
        taxonomy_map (`TaxonomyMap`, *optional*): Without it, all classes must be those of the ground truth.

    Raises:
        ValueError: There is no ground truth, the classes differ and there is no map, or the map does not contain them.
    """
    if taxonomy is None:
        raise ValueError("Expected a dataset with a ground truth, got one without annotation: it cannot be scored.")
    vocabulary = load_vocabulary(taxonomy)
    truth = vocabulary.class_names
    teacher = truth if teacher is None else teacher
    if taxonomy_map is None:
        _check_classes("model", predicted, truth)
        _check_classes("teacher", teacher, truth)
        same = np.arange(IGNORED + 1, dtype=np.uint8)
        return ScoredClasses(taxonomy, truth, vocabulary.is_thing, same, same, same)
    of_predictions, of_truth, of_teacher = map(taxonomy_map.to_common, (predicted, truth, teacher))
    num_classes = len(taxonomy_map.class_names)
    is_thing = [bool(vocabulary.is_thing[of_truth[: len(truth)] == common].all()) for common in range(num_classes)]
    names = taxonomy_map.class_names
    return ScoredClasses(taxonomy, names, np.array(is_thing), of_predictions, of_truth, of_teacher, taxonomy_map)


def _check_classes(owner: str, names: list[str], truth: list[str]) -> None:
    if list(names) == truth:
        return
    known = find_map(names, truth)
    way_out = f"Give --map {known}: it has the classes that both have in common."
    if known is None:
        way_out = (
            "Evaluate on a dataset of the same taxonomy, set these classes with `set_classes`, or write a map "
            "(docs/how_to/vocabulary.md) and give it with --map."
        )
    raise ValueError(f"The {owner} predicts the classes {names or 'none'}, the ground truth has {truth}. {way_out}")
