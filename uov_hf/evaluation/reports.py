"""Results as files: JSON for programs, a Markdown table for readers."""

import json
import math
from pathlib import Path

from uov_hf.evaluation.segmentation import Matrices


def to_results(matrices: Matrices) -> dict[str, dict]:
    """The metrics of each matrix, ready for JSON: null where a class is absent."""
    return {name: _without_nan(matrix.compute()) for name, matrix in matrices.items()}


def write_results(path: Path, results: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")


def results_table(results: dict[str, dict], class_names: list[str]) -> str:
    """A Markdown table: a row per class and one for their mean, a column per result, IoU in percent."""
    lines = [
        "| IoU in % | " + " | ".join(name.replace("_", " ") for name in results) + " |",
        "|---|" + "---:|" * len(results),
    ]
    for index, name in enumerate(class_names):
        cells = [_percent(result["per_category_iou"][index]) for result in results.values()]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    cells = [f"**{_percent(result['mean_iou'])}**" for result in results.values()]
    lines.append("| **mean** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
