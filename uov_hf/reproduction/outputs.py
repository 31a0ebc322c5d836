"""The results of a run in its folder: a digest of each, and its metrics."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.parquet import Shards
from uov_hf.digests import file_digest
from uov_hf.leftovers import data_files
from uov_hf.reproduction.inputs import Digests
from uov_hf.training.tracking import LOG_FILE, read_log


Metrics = dict[str, float]
WHOLE_FILES = ("*.safetensors", "label_set.json", "point_labels.json")
RESULT_FILES = ("metrics.json", "results.json")
SUBMISSION = "submission"  # folder of predictions in the layout of a benchmark
# Of the content of results: times, and the paths of inputs, which a machine decides.
NOT_COMPARED = ("seconds", "stages", "model_name_or_path", "dataset")
TOTALS = (
    "mean_iou",
    "overall_accuracy",
    "fwiou",
    "expected_calibration_error",
    "area_under_risk_coverage",
    "pq",
    "resilience_rate",
    "corruption_error",
    "mean_resilience_rate",
    "mean_corruption_error",
)


def find_evaluations(folder: Path) -> dict[Path, int]:
    """The files of an evaluation in a folder, with the times of their last changes."""
    files = [folder / name for name in RESULT_FILES] + data_files(folder / SUBMISSION, "**/*")
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


def describe_outputs(
    folder: Path, places: Iterable[str] = ("",), before: Mapping[Path, int] | None = None
) -> tuple[Digests, Metrics]:
    """The digests of the results in a folder, and their metrics.

    Args:
        folder (`Path`): Of the run.
        places (`Iterable[str]`, *optional*): The folders in it with results; by default itself alone.
        before (`Mapping[Path, int]`, *optional*):
            From `find_evaluations`, before the run. Files unchanged since then are not results of this run.

    Returns:
        `Digests`: By path in the folder, the SHA-256: of weights and descriptions the file's; of `metrics.json` and
        the log of a training that of their content without times; of Parquet shards that of the rows in the order of
        their frame ids, whatever file they are in.
        `Metrics`: The last record of a training, the totals of an evaluation, counts and means of labels.
    """
    digests, metrics = Digests(), Metrics()
    for place in places:
        found = _describe_place(folder / place, before or {})
        prefix = f"{place}/" if place else ""
        digests |= {f"{prefix}{name}": digest for name, digest in found[0].items()}
        metrics |= {f"{prefix}{name}": value for name, value in found[1].items()}
    return digests, metrics


def _describe_place(folder: Path, before: Mapping[Path, int]) -> tuple[Digests, Metrics]:
    digests = {path.name: file_digest(path) for pattern in WHOLE_FILES for path in data_files(folder, pattern)}
    metrics = Metrics()
    if records := read_log(folder / LOG_FILE):
        contents = [_compared(record) for record in records]
        digests[LOG_FILE], metrics = _digest_json(contents), Metrics(contents[-1])
    for name in ("", "images"):
        if data_files(folder / name, "*.parquet"):
            digests[f"{name}/*.parquet".lstrip("/")], found = _describe_shards(Shards(folder / name))
            metrics |= found
    evaluated = [path for path, changed in find_evaluations(folder).items() if before.get(path) != changed]
    for path in (path for path in evaluated if path.parent == folder):
        content = _compared(json.loads(path.read_text(encoding="utf-8")))
        digests[path.name], metrics = _digest_json(content), metrics | _totals(content)
    if files := [path for path in evaluated if path.parent != folder]:
        lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}" for path in files]
        digests[f"{SUBMISSION}/**"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return digests, metrics


def _compared(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in NOT_COMPARED}


def _digest_json(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _totals(results: dict[str, Any], place: str = "") -> Metrics:
    """The totals of each region, range, condition or method, such as `robustness.clean.all_points.mean_iou`."""
    totals = Metrics()
    for name, value in results.items():
        if isinstance(value, dict):
            totals |= _totals(value, f"{place}{name}.")
        elif name in TOTALS and isinstance(value, float):  # None where no class has truth
            totals[f"{place}{name}"] = value
    return totals


def _describe_shards(shards: Shards) -> tuple[str, Metrics]:
    """The digest of all rows of a label set or of point labels, and what they contain."""
    digest, values = hashlib.sha256(), list[tuple[int, float]]()
    num_points = 0
    for frame_id in sorted(shards.frame_ids):
        row = shards.read(frame_id)
        _update(digest, sorted(row.items()))
        if "labels" in row:
            scores = row["confidence"][row["labels"] != IGNORED]
            num_points += len(row["labels"])
        else:
            scores = np.asarray(row["segment_scores"])
        values.append((len(scores), float(scores.sum(dtype=np.float64))))
    counted, total = (sum(column) for column in zip(*values, strict=True))
    metrics = {"num_frames": float(len(values)), "num_labelled": float(counted), "mean_score": total / (counted or 1)}
    return digest.hexdigest(), metrics | ({"num_points": float(num_points)} if num_points else {})


def _update(digest: Any, value: object) -> None:
    """Add a value of a row to a digest, with its type and size, so that no two rows add the same."""
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            _update(digest, item)
    elif isinstance(value, bytes):
        digest.update(f"b{len(value)}:".encode() + value)
    else:
        digest.update(f"{value!r};".encode())
