"""Run the stages of a plan one after the other, in a folder that is locked, and write their report."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from uov_hf.data.estimate import format_duration
from uov_hf.data.shard_file import write_atomically
from uov_hf.data.writer_lock import writer_lock
from uov_hf.recipe.plan import PlannedStage
from uov_hf.recipe.processes import RUN_VARIABLE, kill_leftovers
from uov_hf.recipe.recipes import Content, Recipe
from uov_hf.recipe.report import write_report


def run_plan(recipe: Recipe, plan: list[PlannedStage], show: bool = False) -> Iterator[str]:
    """Run the stages of a plan, and report them line by line.

    Args:
        recipe (`Recipe`): All stages; the report has those that are finished.
        plan (`list[PlannedStage]`): From `make_plan`.
        show (`bool`, *optional*, defaults to `False`): Whether the output of the programs appears on stderr.

    Raises:
        RuntimeError: Another run writes into the folder.
        ChildProcessError: A stage failed; finished stages stay.
    """
    with writer_lock(recipe.folder):
        if left := kill_leftovers(recipe.folder):
            yield f"Ended what a killed run in {recipe.folder} left running: processes {', '.join(map(str, left))}."
        for one in plan:  # all at once: a run that is killed now does not skip the later ones afterwards
            if one.action == "repeat":
                shutil.rmtree(one.made.stage.output_dir, ignore_errors=True)
        for number, one in enumerate(plan, start=1):
            stage, place = one.made.stage, f"[{number}/{len(plan)}] {one.made.stage.name}"
            if one.action == "skip":
                yield f"{place}: done before"
                continue
            log = log_of(recipe.folder, stage.name)
            yield f"{place}: started, log {log}"
            environment = one.made.launch.environment | {RUN_VARIABLE: str(recipe.folder)}
            cost = stage.run(replace(one.made.launch, environment=environment), log, show)
            yield f"{place}: finished in {format_duration(cost.seconds)}"
        yield f"Report: {write_report(recipe)}"


def save_recipe(recipe: Recipe, content: Content) -> Path:
    """Write a recipe as `recipe.yaml` into its folder, to be copied and changed."""
    path, given = recipe.folder / "recipe.yaml", {name: value for name, value in content.items() if value is not None}
    write_atomically(path, yaml.safe_dump(given, sort_keys=False).encode())
    return path


def log_of(folder: Path, stage: str) -> Path:
    """The log of a stage, to which every run appends."""
    return folder / "logs" / f"{stage}.log"
