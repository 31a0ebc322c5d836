"""The report of a recipe: a page with its stages, the label card, the metrics and the checkpoint."""

import shlex
from pathlib import Path

from uov_hf.data.estimate import format_duration
from uov_hf.data.shard_file import write_atomically
from uov_hf.evaluation.reports import markdown_table
from uov_hf.recipe.recipes import Recipe
from uov_hf.recipe.sections import SECTIONS


def write_report(recipe: Recipe) -> Path:
    """Write `report.md` into the folder of a recipe, about its finished stages; its links are relative.

    Returns:
        `Path`: The file.
    """
    path = recipe.folder / "report.md"
    write_atomically(path, "\n\n".join(["# Report of a recipe", *_parts(recipe)]).encode() + b"\n")
    return path


def _parts(recipe: Recipe) -> list[str]:
    finished = [made.stage for made in recipe.stages if made.stage.is_done]
    parts = [_stages_table(recipe)]
    folders = {stage.name: SECTIONS[stage.name].folder for stage in finished}
    if "label_card" in folders:
        parts.append(f"The quality of the labels: [label card]({folders['label_card']}/README.md).")
    table = recipe.folder / folders.get("evaluate", "") / "table.md"
    if table.is_file():
        parts.append(f"## Evaluation\n\n{table.read_text(encoding='utf-8').strip()}")
    trained = [name for name in folders if SECTIONS[name].is_training]
    if trained:
        folder = folders[trained[-1]]
        parts.append(
            f"## Checkpoint\n\n`{folder}`, with its [card]({folder}/README.md).\n\n"
            f"```bash\nuov-hf segment {_scans_of(recipe)} --model_name_or_path {recipe.folder / folder}\n```"
        )
    return parts


def _scans_of(recipe: Recipe) -> str:
    """The scans in the command that uses the checkpoint: the bag of the run, or any scan."""
    settings = recipe.stages[0].stage.settings
    return (
        f"{shlex.quote(str(settings['data_dir']))} --format bag" if settings.get("dataset") == "rosbag" else "scan.bin"
    )


def _stages_table(recipe: Recipe) -> str:
    rows = []
    for made in recipe.stages:
        stage, folder = made.stage, SECTIONS[made.stage.name].folder
        cost = stage.cost if stage.is_done else None
        numbers = [format_duration(cost.seconds), f"{cost.gigabytes:.1f} GB"] if cost else ["not finished", "–"]
        rows.append([stage.name, *numbers, f"[{folder}]({folder})"])
    return markdown_table("stage", ["time", "memory of the largest process", "result"], rows)
