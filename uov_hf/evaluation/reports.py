"""Results as files: JSON for programs, Markdown tables for readers."""

import json
import math
from pathlib import Path
from typing import Any

from uov_hf.evaluation.segmentation import Matrices


TOTALS = {"mean IoU": "mean_iou", "accuracy": "overall_accuracy", "fwIoU": "fwiou"}
AS_PRINTED = {"mean IoU, official": "official_mean_iou", "fwIoU, official": "official_fwiou"}


def to_results(matrices: Matrices) -> dict[str, dict]:
    """The metrics of each matrix, ready for JSON: null where a class is absent."""
    return without_nan({name: matrix.compute() for name, matrix in matrices.items()})


def without_nan(value: Any) -> Any:
    """The same, however nested, with None in the place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_results(path: Path, results: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")


def results_table(results: dict[str, dict], class_names: list[str]) -> str:
    """A Markdown table: a row per class and one for their mean, a column per result, IoU in percent."""
    lines = _header("IoU in %", results)
    for index, name in enumerate(class_names):
        lines.append(_row(_plain(name), [result["per_category_iou"][index] for result in results.values()]))
    cells = [f"**{_percent(result['mean_iou'])}**" for result in results.values()]
    lines.append("| **mean** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def evaluation_tables(results: dict[str, Any], class_names: list[str]) -> str:
    """All of an evaluation in Markdown: by class and by region, by range, calibration and panoptic quality.

    Args:
        results (`dict`): From `Scores.compute`, without NaN.
        class_names (`list[str]`): In the order of their ids.
    """
    regions = {name: result for name, result in results.items() if name.endswith("_points")}
    parts = [results_table(regions, class_names), _totals_table("in %", regions, TOTALS | AS_PRINTED)]
    if results["by_range"]:
        parts.append(_totals_table("by range, in %", results["by_range"], TOTALS))
    error = results["calibration"]["expected_calibration_error"]
    parts.append(f"Expected calibration error of the points that have an answer: {_percent(error)} %.")
    if "panoptic" in results:
        parts.append(_panoptic_table(results["panoptic"], class_names))
    return "\n\n".join(parts)


def _totals_table(title: str, results: dict[str, dict], totals: dict[str, str]) -> str:
    lines = _header(title, results)
    lines += [_row(name, [result[key] for result in results.values()]) for name, key in totals.items()]
    lines.append("| points | " + " | ".join(f"{result['num_points']:,}" for result in results.values()) + " |")
    return "\n".join(lines)


def _panoptic_table(panoptic: dict[str, Any], class_names: list[str]) -> str:
    """Predicted instances are clusters, and the table says so."""
    lines = _header("instances by Euclidean clustering, in %", ["PQ", "SQ", "RQ"])
    for name, part in {"all": panoptic, "things": panoptic["things"], "stuff": panoptic["stuff"]}.items():
        lines.append(_row(f"**{name}**", [part["pq"], part["sq"], part["rq"]]))
    columns = zip(*(panoptic[f"per_category_{part}"] for part in ("pq", "sq", "rq")), strict=True)
    lines += [_row(_plain(name), values) for name, values in zip(class_names, columns, strict=True)]
    return "\n".join(lines)


def _header(title: str, columns) -> list[str]:
    return [f"| {title} | " + " | ".join(map(_plain, columns)) + " |", "|---|" + "---:|" * len(columns)]


def _row(name: str, shares) -> str:
    return f"| {name} | " + " | ".join(map(_percent, shares)) + " |"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
