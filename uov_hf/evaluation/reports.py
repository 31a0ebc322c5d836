"""Results as files: JSON, Markdown tables, and a section of the model card."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from huggingface_hub import EvalResult, ModelCard

from uov_hf.data.shard_file import write_atomically
from uov_hf.evaluation.conditions import ConditionMetrics
from uov_hf.evaluation.metrics import SegmentationMetrics
from uov_hf.evaluation.panoptic import PanopticMetrics
from uov_hf.evaluation.robustness import RobustnessResults
from uov_hf.evaluation.scores import EvaluationResults, Matrices
from uov_hf.vocabulary.taxonomy_map import NO_PARTNER, TaxonomyMap
from uov_hf.written_together import written_together


TOTALS = {"mean IoU of the classes with truth": "mean_iou", "accuracy": "overall_accuracy", "fwIoU": "fwiou"}
OFFICIAL_TOTALS = {
    "as the official UOV code: mean IoU of all classes, 100 for an absent one": "official_mean_iou",
    "as the official UOV code: micro IoU, which it calls fwIoU": "official_fwiou",
}
COUNTS = {"classes with truth": "num_classes", "points": "num_points"}
# Our name of a metric, the Hub's, and its title.
METRICS = (
    ("mean_iou", "mean_iou", "mean IoU"),
    ("overall_accuracy", "accuracy", "accuracy"),
    ("fwiou", "fwiou", "frequency-weighted IoU"),
)
SECTION = re.compile(r"^## Evaluation\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class EvaluatedDataset(TypedDict):
    """The dataset of an evaluation, as the model card names it; `type` is a Hub id or short name."""

    name: str
    type: str
    split: str
    config: NotRequired[str | None]


def to_results(matrices: Matrices) -> dict[str, SegmentationMetrics]:
    """The metrics of each matrix, with None instead of NaN."""
    return without_nan({name: matrix.compute() for name, matrix in matrices.items()})


def without_nan(value: Any) -> Any:
    """The same value, however nested, with None instead of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write results without NaN as JSON."""
    write_atomically(path, (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())


def results_table(results: Mapping[str, SegmentationMetrics], class_names: list[str]) -> str:
    """A Markdown table of IoU in percent: a row for each class and one for the mean, a column for each result."""
    ious = zip(*(result["per_category_iou"] for result in results.values()), strict=True)
    rows = [(name, *map(_percent, shares)) for name, shares in zip(class_names, ious, strict=True)]
    means = [f"**{_percent(result['mean_iou'])}**" for result in results.values()]
    return markdown_table("IoU in %", results, [*rows, ("**mean of the classes with truth**", *means)])


def evaluation_tables(
    results: EvaluationResults, class_names: list[str], taxonomy_map: TaxonomyMap | None = None
) -> str:
    """All results in Markdown: by class and region, by range, calibration, abstention, robustness, panoptic quality.

    Args:
        results (`EvaluationResults`): From `Scores.compute`, with None instead of NaN.
        class_names (`list[str]`): In the order of their ids.
        taxonomy_map (`TaxonomyMap`, *optional*): The map whose common classes were scored.
    """
    regions = {name: cast(SegmentationMetrics, part) for name, part in results.items() if name.endswith("_points")}
    parts = [_map_note(taxonomy_map)] if taxonomy_map else []
    parts += [results_table(regions, class_names), _totals_table("in %", regions, TOTALS | OFFICIAL_TOTALS)]
    if results["by_range"]:
        parts.append(_totals_table("by range, in %", results["by_range"], TOTALS))
    error = results["calibration"]["expected_calibration_error"]
    parts.append(f"Expected calibration error of the points that have a predicted label: {_percent(error)} %.")
    risks = results["abstention"]["risk_at_coverage"]
    wrong = [("wrong predictions among them, in %", *map(_percent, risks.values()))]
    parts.append(markdown_table("most confident points", risks, wrong))
    if "robustness" in results:
        parts.append(robustness_table(results["robustness"]))
    if "panoptic" in results:
        parts.append(_panoptic_table(results["panoptic"], class_names))
    return "\n\n".join(parts)


def robustness_table(robustness: RobustnessResults) -> str:
    """Metrics under corruptions in Markdown, in percent, with a row for each corruption and one for the means.

    Args:
        robustness (`RobustnessResults`): From `summarise`, with None instead of NaN.
    """
    columns = ["light", "moderate", "heavy", "resilience rate", "corruption error", "calibration error", "AURC"]
    clean = robustness["clean"]
    rows = [("clean", _percent(clean["all_points"]["mean_iou"]), *["–"] * 4, *_confidence_cells([clean]))]
    for name, corruption in robustness["corruptions"].items():
        severities = list(corruption["severities"].values())
        ious = [_mean_iou_cell(metrics, clean) for metrics in severities]
        rates = [_percent(corruption["resilience_rate"]), _percent(corruption["corruption_error"])]
        rows.append((_plain(name), *ious, *rates, *_confidence_cells(severities)))
    means = [_percent(robustness["mean_resilience_rate"]), _percent(robustness["mean_corruption_error"])]
    rows.append(("**mean**", *["–"] * 3, *means, *["–"] * 2))
    baseline = robustness["note"] or f"Corruption errors are relative to `{robustness['baseline']}`."
    table = markdown_table("mean IoU under corruptions, in %", columns, rows)
    return f"{table}\n\n{baseline} Calibration error and AURC are means of the severities."


def update_card(
    folder: Path, results: EvaluationResults, tables: str, dataset: EvaluatedDataset, settings: dict[str, Any]
) -> None:
    """Put the results of an evaluation into the `README.md` of a checkpoint.

    Its section "Evaluation" has one part for each dataset, split and settings. A new evaluation replaces its own part;
    everything else stays. The YAML gets the metrics of all points as `model-index`.

    Args:
        folder (`Path`): The checkpoint.
        results (`EvaluationResults`): From `Scores.compute`, with None instead of NaN.
        tables (`str`): From `evaluation_tables`.
        dataset (`EvaluatedDataset`): The dataset and split.
        settings (`dict[str, Any]`): Arguments of evaluate.py that change the results and are not at their defaults.
    """
    card = ModelCard.load(folder / "README.md")
    title = f"{dataset['name']}, split {dataset['split']}" + (f", `{as_flags(settings)}`" if settings else "")
    card.text = replace_part(card.text, title, tables)
    new = eval_results(results["all_points"], dataset, settings)
    kept = [old for old in card.data.eval_results or [] if not any(old.is_equal_except_value(one) for one in new)]
    card.data.eval_results = kept + new
    card.data.model_name = getattr(card.data, "model_name", None) or folder.resolve().name
    with written_together(folder, "README.md") as temporary:
        (temporary / "README.md").write_bytes(str(card).encode())


def replace_part(text: str, title: str, content: str) -> str:
    """The text of a card with `content` below `### title` in its section "Evaluation", which is added if missing."""
    found = SECTION.search(text)
    if found is None:
        return f"{text.rstrip()}\n\n## Evaluation\n\n### {title}\n\n{content}\n"
    _, *rest = re.split(r"^### ", found.group(1), flags=re.MULTILINE)
    parts = dict(part.split("\n", 1) for part in rest) | {title: f"\n{content}\n\n"}
    section = "## Evaluation\n\n" + "".join(f"### {name}\n{part}" for name, part in parts.items())
    return text[: found.start()] + section + text[found.end() :]


def eval_results(
    metrics: SegmentationMetrics, dataset: EvaluatedDataset, settings: dict[str, Any]
) -> list[EvalResult]:
    """The metrics in the form of the Hub's YAML; undefined ones are left out."""
    suffix = f" ({as_flags(settings)})" if settings else ""
    return [
        EvalResult(
            task_type="semantic-segmentation",  # the Hub's list has no task for points
            task_name="LiDAR semantic segmentation",
            dataset_type=dataset["type"],
            dataset_name=dataset["name"],
            dataset_config=dataset.get("config"),
            dataset_split=dataset["split"],
            metric_type=metric_type,
            metric_name=title + suffix,
            metric_value=value,
            metric_args=settings or None,
        )
        for name, metric_type, title in METRICS
        if (value := dict(metrics)[name]) is not None
    ]


def as_flags(settings: dict[str, Any]) -> str:
    """`{"refine": "afi", "predict_void": True}` as on the command line: `--refine afi --predict_void`."""
    return " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in settings.items())


def _totals_table(title: str, results: Mapping[str, SegmentationMetrics], totals: dict[str, str]) -> str:
    columns: list[dict[str, Any]] = [dict(result) for result in results.values()]
    rows = [(name, *(_percent(column[key]) for column in columns)) for name, key in totals.items()]
    counts = [(name, *(f"{column[key]:,}" for column in columns)) for name, key in COUNTS.items()]
    return markdown_table(title, results, [*rows, *counts])


def _map_note(taxonomy_map: TaxonomyMap) -> str:
    ignored = taxonomy_map.describe()[NO_PARTNER]
    shown = "; ".join(f"{', '.join(names)} ({taxonomy})" for taxonomy, names in ignored.items() if names)
    return (
        f"Scored in the {len(taxonomy_map.class_names)} common classes of {' and '.join(taxonomy_map.taxonomies)}, by "
        f"the map `{taxonomy_map.path.stem}`. Without a partner: {shown or 'none'}. As truth these classes are not "
        "scored; as predictions they are wrong."
    )


def _mean_iou_cell(metrics: ConditionMetrics, clean: ConditionMetrics) -> str:
    """The mean IoU, with the number of classes where a corruption took all points of some."""
    found, all_classes = metrics["all_points"]["num_classes"], clean["all_points"]["num_classes"]
    classes = "" if found == all_classes else f" ({found} of {all_classes} classes)"
    return _percent(metrics["all_points"]["mean_iou"]) + classes


def _confidence_cells(conditions: list[ConditionMetrics]) -> list[str]:
    """The calibration error and the area under the risk–coverage curve, averaged over conditions."""
    errors = [metrics["calibration"]["expected_calibration_error"] for metrics in conditions]
    areas = [metrics["abstention"]["area_under_risk_coverage"] for metrics in conditions]
    return [_percent(None if None in values else sum(values) / len(values)) for values in (errors, areas)]


def _panoptic_table(panoptic: PanopticMetrics, class_names: list[str]) -> str:
    means = {"**all**": panoptic, "**things**": panoptic["things"], "**stuff**": panoptic["stuff"]}
    shares: list[tuple[str, float, float, float]]
    shares = [(name, part["pq"], part["sq"], part["rq"]) for name, part in means.items()]
    per_category = panoptic["per_category_pq"], panoptic["per_category_sq"], panoptic["per_category_rq"]
    shares += zip(class_names, *per_category, strict=True)
    rows = [(name, _percent(pq), _percent(sq), _percent(rq)) for name, pq, sq, rq in shares]
    title = "instances by Euclidean clustering, in %; means of the classes with a segment"
    return markdown_table(title, ["PQ", "SQ", "RQ"], rows)


def markdown_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first column and the header have names, in which `_` becomes a space."""
    head = (title, *map(_plain, columns))
    header, *lines = [f"| {' | '.join([_plain(name), *cells])} |" for name, *cells in [head, *rows]]
    return "\n".join([header, "|---|" + "---:|" * (header.count("|") - 2), *lines])


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
