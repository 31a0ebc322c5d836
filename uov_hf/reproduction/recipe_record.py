"""The record of a recipe: of all its stages together; each script has one of its own, too."""

import os
from collections.abc import Sequence
from pathlib import Path

from uov_hf.labels.point_labels import point_labels_folder
from uov_hf.recipe.programs import default_device
from uov_hf.recipe.recipes import Content, Recipe
from uov_hf.recipe.sections import SECTIONS
from uov_hf.reproduction.inputs import digest_inputs_of_recipe
from uov_hf.reproduction.record import RECIPE, RUN_FILE, Execution, RunRecorder, read_record


def record_recipe(
    recipe: Recipe, content: Content, until: str | None, launcher: str | None, words: Sequence[str]
) -> RunRecorder:
    """The recorder of a recipe, before its stages run.

    Args:
        recipe (`Recipe`): Its stages.
        content (`dict`): The mapping in its file, with the options of the command line.
        until (`str`, *optional*): The last stage that runs.
        launcher (`str`, *optional*): The words before each script, if it is not accelerate on this machine.
        words (`Sequence[str]`): The command line after `uov-hf train`.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    execution = Execution(default_device(), 1, int(threads) if threads else None)
    recorder = RunRecorder(recipe.folder, RECIPE, words, execution)
    resolved = dict(content)
    for made in recipe.stages:
        if made.num_processes is not None and SECTIONS[made.stage.name].module is None:
            # Otherwise another machine would start as many processes as it has GPUs.
            section = resolved[made.stage.name] or {}
            resolved[made.stage.name] = {**section, "num_processes": made.num_processes}
    recorder.arguments = {"recipe": resolved, "until": until, "launcher": launcher}
    seeds = {made.arguments.seed for made in recipe.stages if hasattr(made.arguments, "seed")}
    recorder.seed = seeds.pop() if len(seeds) == 1 else None
    recorder.inputs = digest_inputs_of_recipe(recipe)
    return recorder


def write_record(recorder: RunRecorder, recipe: Recipe) -> None:
    """Write the record of a recipe whose stages have run. Its engine is that of the last stage with a network."""
    places, engine = list[str](), None
    for made in recipe.stages:
        if not made.stage.is_done:
            continue
        folder = made.stage.output_dir
        if made.stage.name == "label_points":
            folder = point_labels_folder(made.arguments.label_set, made.arguments.make_rule())
        record = folder / RUN_FILE
        if record.is_file():
            engine = read_record(record)["execution"]["engine"] or engine
        if Path(folder).resolve().is_relative_to(recipe.folder):  # point labels may be in a label set of others
            places.append(Path(folder).resolve().relative_to(recipe.folder).as_posix())
    recorder.set_engine(engine)
    recorder.write(places)
