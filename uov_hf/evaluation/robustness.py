"""Robo3D's mean corruption error and mean resilience rate, of the metrics under corruptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from uov_hf.evaluation.conditions import ConditionMetrics
from uov_hf.evaluation.corruptions import SEVERITIES
from uov_hf.hub.upload import hide_folders
from uov_hf.setting_files import read_json


NO_BASELINE = (
    "The mean corruption error compares with a baseline, and none was given: evaluate one with the same "
    "--corruptions, and give its metrics.json as --corruption_baseline."
)


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


@dataclass(frozen=True)
class Baseline:
    """Another evaluation under the same corruptions.

    Args:
        name (`str`): The evaluated checkpoint; of a path the last part, as the results may be published.
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
        content = read_json(Path(path))
        known = {
            "class_names": content["class_names"],
            "split": content["split"],
            "num_frames": content["num_frames"] + len(content["broken_frames"]),
            "seed": content["robustness"]["seed"],
        }
        found = content["robustness"]["corruptions"]
        if missing := [name for name in corruptions if name not in found]:
            raise ValueError(f"it has no {', '.join(missing)}")
        errors = {name: _sum_of_errors(found[name]["severities"]) for name in corruptions}
        name = str(hide_folders(content["model_name_or_path"]))
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error)
        if not isinstance(error, ValueError):
            reason = f"a key is missing or has another value ({type(error).__name__}: {error})"
        raise ValueError(
            f"--corruption_baseline {path}: expected the metrics.json of an evaluation with --corruptions "
            f"{' '.join(corruptions)}: {reason}"
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
        kept = np.mean([severities[severity]["all_points"]["mean_iou"] for severity in SEVERITIES])
        error = baseline.errors[name] if baseline else np.nan
        corruptions[name] = {
            "severities": severities,
            "resilience_rate": _ratio(float(kept), clean["all_points"]["mean_iou"]),
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
    return sum(1 - float(severities[severity]["all_points"]["mean_iou"]) for severity in SEVERITIES)


def _ratio(value: float, whole: float) -> float:
    return value / whole if whole else float("nan")
