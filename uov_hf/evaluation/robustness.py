"""Robustness: the metrics under corruptions, and Robo3D's mean corruption error and mean resilience rate."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from accelerate import Accelerator

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.corruptions import SEVERITIES
from uov_hf.evaluation.metrics import AbstentionMetrics, ConfidenceBins, ConfusionMatrix, RiskCoverage
from uov_hf.evaluation.predictions import Prediction
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.evaluation.scored_classes import ScoredClasses
from uov_hf.evaluation.scores import Scores, count_confidences, reduce_counts


NO_BASELINE = (
    "The mean corruption error compares with a baseline, and none was given: evaluate one with the same --corruptions, "
    "and give its metrics.json as --corruption_baseline."
)


class ConditionMetrics(TypedDict):
    """The metrics of all points of the scans under one condition: clean, or one corruption of one severity.

    Args:
        mean_iou, num_classes, overall_accuracy, num_points: As of `SegmentationMetrics`.
        expected_calibration_error (`float`): As of `CalibrationMetrics`.
        abstention (`AbstentionMetrics`): Risk if the least confident predictions are left out.
    """

    mean_iou: float
    num_classes: int
    overall_accuracy: float
    num_points: int
    expected_calibration_error: float
    abstention: AbstentionMetrics


class CorruptionMetrics(TypedDict):
    """The metrics of one corruption.

    Args:
        severities (`dict[str, ConditionMetrics]`): By severity, the lightest first.
        resilience_rate (`float`): Mean IoU, averaged over the severities, as a share of that of the clean scans.
        corruption_error (`float`): Error, 1 − mean IoU, summed over the severities, as a share of that of the
            baseline; NaN without a baseline.
    """

    severities: dict[str, ConditionMetrics]
    resilience_rate: float
    corruption_error: float


class RobustnessResults(TypedDict):
    """The results under corruptions, as metrics.json contains them.

    Args:
        seed (`int`): Of the corruptions.
        clean (`ConditionMetrics`): Metrics of the scans as they are.
        corruptions (`dict[str, CorruptionMetrics]`): By name.
        mean_resilience_rate, mean_corruption_error (`float`): Means over the corruptions.
        baseline (`str`, *optional*): The checkpoint that the corruption errors compare with.
        note (`str`, *optional*): Why there is no corruption error.
    """

    seed: int
    clean: ConditionMetrics
    corruptions: dict[str, CorruptionMetrics]
    mean_resilience_rate: float
    mean_corruption_error: float
    baseline: str | None
    note: str | None


class ConditionScores:
    """Counts of the scans under one condition; their size does not grow with the number of scans.

    Args:
        classes (`ScoredClasses`): The classes that are scored.
    """

    def __init__(self, classes: ScoredClasses):
        self.classes = classes
        self.confusion = ConfusionMatrix(len(classes.class_names), IGNORED)
        self.confidences, self.abstention = ConfidenceBins(), RiskCoverage()

    @classmethod
    def of_clean(cls, scores: Scores) -> "ConditionScores":
        """The same counts of an evaluation of the clean scans."""
        clean = cls(scores.classes)
        clean.confusion = scores.regions["all_points"]
        clean.confidences, clean.abstention = scores.confidences, scores.abstention
        return clean

    def update(self, prediction: Prediction, scan: LabelledScan) -> None:
        """Count the prediction of one scan; its labels and those of the scan are in their own classes."""
        labels, truth = self.classes.of_predictions[prediction.labels], self.classes.convert_truth(scan).labels
        self.confusion.update(labels, truth)
        count_confidences(self.confidences, self.abstention, prediction, labels, truth)

    def reduce(self, accelerator: Accelerator) -> None:
        """Add the counts of all processes, in each of them."""
        reduce_counts([self.confusion, self.confidences, self.abstention], accelerator)

    def compute(self) -> ConditionMetrics:
        """The metrics of everything counted so far."""
        segmentation = self.confusion.compute()
        return {
            "mean_iou": segmentation["mean_iou"],
            "num_classes": segmentation["num_classes"],
            "overall_accuracy": segmentation["overall_accuracy"],
            "num_points": segmentation["num_points"],
            "expected_calibration_error": self.confidences.compute()["expected_calibration_error"],
            "abstention": self.abstention.compute(),
        }


@dataclass(frozen=True)
class Baseline:
    """Another evaluation under the same corruptions.

    Args:
        name (`str`): The evaluated checkpoint.
        errors (`dict[str, float]`): Of each corruption: 1 − mean IoU, summed over the severities.
    """

    name: str
    errors: dict[str, float]


def read_baseline(
    path: str | Path, corruptions: Sequence[str], class_names: Sequence[str], split: str, num_frames: int, seed: int
) -> Baseline:
    """Read the `metrics.json` of an evaluation with `--corruptions`.

    Args:
        path (`str` or `Path`): The file.
        corruptions (sequence of `str`): The corruptions that it must have.
        class_names, split, num_frames, seed: What the two evaluations must have in common.

    Raises:
        ValueError: The file is missing, or of an evaluation without these corruptions or of other scans.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        known = {
            "class_names": content["class_names"],
            "split": content["split"],
            "num_frames": content["num_frames"] + len(content["broken_frames"]),
            "seed": content["robustness"]["seed"],
        }
        found = content["robustness"]["corruptions"]
        errors = {name: _sum_of_errors(found[name]["severities"]) for name in corruptions}
        name = str(content["model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--corruption_baseline {path}: expected the metrics.json of an evaluation with --corruptions "
            f"{' '.join(corruptions)}: {type(error).__name__}: {error}"
        ) from error
    here = {"class_names": list(class_names), "split": split, "num_frames": num_frames, "seed": seed}
    for key, value in here.items():
        if known[key] != value:
            raise ValueError(
                f"--corruption_baseline {path}: expected an evaluation of the same scans, with the {key} {value}, got "
                f"{known[key]}. Evaluate the baseline with the same arguments."
            )
    return Baseline(name, errors)


def summarise(
    clean: ConditionMetrics,
    conditions: Mapping[str, dict[str, ConditionMetrics]],
    seed: int,
    baseline: Baseline | None = None,
) -> RobustnessResults:
    """Resilience rates and corruption errors (Kong et al., ICCV 2023).

    Args:
        clean (`ConditionMetrics`): Metrics of the clean scans.
        conditions (`Mapping`): Metrics by corruption and severity.
        seed (`int`): Of the corruptions.
        baseline (`Baseline`, *optional*): Without it there is no corruption error.
    """
    corruptions: dict[str, CorruptionMetrics] = {}
    for name, severities in conditions.items():
        kept = np.mean([severities[severity]["mean_iou"] for severity in SEVERITIES])
        error = baseline.errors[name] if baseline else np.nan
        corruptions[name] = {
            "severities": severities,
            "resilience_rate": _ratio(float(kept), clean["mean_iou"]),
            "corruption_error": _ratio(_sum_of_errors(severities), error),
        }
    return {
        "seed": seed,
        "clean": clean,
        "corruptions": corruptions,
        "mean_resilience_rate": float(np.mean([one["resilience_rate"] for one in corruptions.values()])),
        "mean_corruption_error": float(np.mean([one["corruption_error"] for one in corruptions.values()])),
        "baseline": baseline.name if baseline else None,
        "note": None if baseline else NO_BASELINE,
    }


def _sum_of_errors(severities: Mapping[str, Any]) -> float:
    return sum(1 - float(severities[severity]["mean_iou"]) for severity in SEVERITIES)


def _ratio(value: float, whole: float) -> float:
    return value / whole if whole else float("nan")
