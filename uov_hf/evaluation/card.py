"""Results in the model card: in its YAML, where the Hub reads them, and as tables for readers."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from uov_hf.labels.shards import write_atomically


# Our name of a metric, the Hub's, and what readers call it.
METRICS = (
    ("mean_iou", "mean_iou", "mean IoU"),
    ("overall_accuracy", "accuracy", "accuracy"),
    ("fwiou", "fwiou", "frequency-weighted IoU"),
)
SECTION = re.compile(r"^## Evaluation\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def update_card(folder: Path, results: dict[str, Any], tables: str, dataset: dict[str, str], settings: dict) -> None:
    """Put the results of an evaluation into the `README.md` of a checkpoint.

    Its section "Evaluation" has a part for each dataset, split and setting; what is evaluated again replaces what it
    said before, and everything else stays. The YAML gets the results on all points as `model-index`.

    Args:
        folder (`Path`): The checkpoint.
        results (`dict`): From `Scores.compute`, without NaN.
        tables (`str`): From `evaluation_tables`.
        dataset (`dict[str, str]`): `name`, `type` (an id or short name), `split`, perhaps `config`.
        settings (`dict`): Arguments of evaluate.py that change what comes out, where they are not the defaults.
    """
    card = ModelCard.load(folder / "README.md")
    title = f"{dataset['name']}, split {dataset['split']}" + (f", `{as_flags(settings)}`" if settings else "")
    card.text = replace_part(card.text, title, tables)
    new = eval_results(results["all_points"], dataset, settings)
    kept = [old for old in card.data.eval_results or [] if not any(old.is_equal_except_value(one) for one in new)]
    card.data.eval_results = kept + new
    card.data.model_name = getattr(card.data, "model_name", None) or folder.resolve().name
    write_atomically(folder / "README.md", str(card).encode())


def replace_part(text: str, title: str, content: str) -> str:
    """The text of a card with `content` under `### title`, in its section "Evaluation"; made where there is none."""
    found = SECTION.search(text)
    if found is None:
        return f"{text.rstrip()}\n\n## Evaluation\n\n### {title}\n\n{content}\n"
    before, *parts = re.split(r"^### ", found.group(1), flags=re.MULTILINE)
    parts = dict(part.split("\n", 1) for part in parts)
    parts[title] = f"\n{content}\n\n"
    section = "## Evaluation\n\n" + "".join(f"### {name}\n{part}" for name, part in parts.items())
    return text[: found.start()] + section + text[found.end() :]


def eval_results(metrics: dict[str, Any], dataset: dict[str, str], settings: dict) -> list[EvalResult]:
    """The metrics of one matrix as the Hub's YAML has them; those that are not defined are left out."""
    suffix = f" ({as_flags(settings)})" if settings else ""
    return [
        EvalResult(
            task_type="semantic-segmentation",  # of the Hub's list, which knows no points
            task_name="LiDAR semantic segmentation",
            dataset_type=dataset["type"],
            dataset_name=dataset["name"],
            dataset_config=dataset.get("config"),
            dataset_split=dataset["split"],
            metric_type=metric_type,
            metric_name=title + suffix,
            metric_value=metrics[name],
            metric_args=settings or None,
        )
        for name, metric_type, title in METRICS
        if metrics[name] is not None
    ]


def as_flags(settings: dict[str, Any]) -> str:
    """`{"refine": "afi", "predict_void": True}` as the command line has it: `--refine afi --predict_void`."""
    return " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in settings.items())
