"""The plan of a run: which stages run, what they cost as far as that is known, and their commands."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch

from uov_hf import UOVConfig, UOVModel
from uov_hf.data.estimate import check_space, format_duration, format_size
from uov_hf.labels.point_labels import point_labels_folder
from uov_hf.recipe.recipes import Recipe, RecipeStage
from uov_hf.recipe.sections import SECTIONS, start_of
from uov_hf.recipe.trial import NUM_STEPS, seconds_of_scan
from uov_hf.training.checkpoints import list_checkpoints
from uov_hf.training.order import TrainingOrder
from uov_hf.training.tracking import LOG_FILE, read_log


MAX_CHANGES = 10  # in a message; a dataset has thousands of files perhaps
Action = Literal["skip", "run", "continue", "repeat"]
WORDS: dict[Action, str] = {
    "skip": "done with the same settings, skipped",
    "run": "will run",
    "continue": "was interrupted, will continue",
    "repeat": "will run again, without its present result",
}


@dataclass(frozen=True)
class PlannedStage:
    """What a run does with a stage.

    Args:
        made (`RecipeStage`): The stage.
        action (`str`): `skip`, `run`, `continue` or `repeat`.
        seconds (`float`, *optional*): Expected time, where there is a measurement to expect it by.
        seconds_from (`str`): That measurement, or why there is none.
        num_bytes (`int`, *optional*): Expected space on disk, where it is known.
    """

    made: RecipeStage
    action: Action
    seconds: float | None
    seconds_from: str
    num_bytes: int | None


def make_plan(recipe: Recipe, first: str | None = None, last: str | None = None) -> list[PlannedStage]:
    """Decide for each stage whether it runs.

    Args:
        recipe (`Recipe`): All stages.
        first (`str`, *optional*): This stage and the later ones run again, although their results are there.
        last (`str`, *optional*): Later stages do not run.

    Raises:
        ValueError: The recipe has no such stage, or a folder has labels or a training with other settings or files.
        OSError: The disk has less room than is known to be needed.
    """
    end = len(recipe.stages) if last is None else recipe.position(last) + 1
    start = end if first is None else recipe.position(first)
    if first is not None and start >= end:
        raise ValueError(f"--from {first} comes after --until {last}: nothing would run.")
    plan = []
    for place, made in enumerate(recipe.stages[:end]):
        action = _action(made, is_repeated=place >= start)
        seconds, source = _expect_seconds(recipe, made, action)
        plan.append(PlannedStage(made, action, seconds, source, _expect_bytes(recipe, made, action)))
    known = sum(one.num_bytes or 0 for one in plan)
    existing = next(path for path in (recipe.folder, *recipe.folder.parents) if path.is_dir())
    check_space(existing, known, "checkpoints of the recipe")
    return plan


def _action(made: RecipeStage, is_repeated: bool) -> Action:
    stage = made.stage
    if is_repeated:
        return _repeat(made)
    if stage.is_done:
        return "skip"
    has_result = _has_costly_result(made)
    if stage.changes and has_result:  # it may have taken days
        raise ValueError(
            f"{stage.output_dir} has a result of {stage.name}, finished or not, with other settings or files: "
            f"{'; '.join(stage.changes[:MAX_CHANGES])}. If another version of uov-hf began the recipe, "
            f"finish it with that version. Otherwise give another output_dir to keep it, or `--from {stage.name}` to "
            "delete it and to run the stage again."
        )
    if stage.changes:
        return _repeat(made)
    return "continue" if has_result else "run"


def _has_costly_result(made: RecipeStage) -> bool:
    """Whether the folder has labels of a teacher, or a training with a checkpoint or to its end."""
    stage = made.stage
    if stage.name == "generate_label_set":
        return (stage.output_dir / "label_set.json").is_file() or stage.cost is not None
    return SECTIONS[stage.name].is_training and bool(stage.cost or list_checkpoints(stage.output_dir))


def _repeat(made: RecipeStage) -> Action:
    """Run a stage without its present result.

    Raises:
        ValueError: It has point labels in a label set outside the folder of the run, which may belong to others.
    """
    stage = made.stage
    if stage.name == "label_points":
        folder = point_labels_folder(made.arguments.label_set, made.arguments.make_rule())
        if folder.is_dir() and not folder.resolve().is_relative_to(stage.output_dir):
            raise ValueError(
                f"{folder} has point labels, made with other settings or files perhaps, outside the folder of this "
                "run. Delete it, and start again: label_points then makes them again."
            )
    return "repeat" if stage.output_dir.exists() else "run"


def _expect_seconds(recipe: Recipe, made: RecipeStage, action: Action) -> tuple[float | None, str]:
    """The expected time of a stage, and what it is from."""
    stage, is_training = made.stage, SECTIONS[made.stage.name].is_training
    if action == "skip":
        return 0.0, ""
    if (cost := stage.cost) and not stage.changes:
        return cost.seconds, "as the last time"
    records = read_log(stage.output_dir / LOG_FILE) if action == "continue" and is_training else []
    if records and (steps := num_steps(made)):
        left = steps - int(records[-1]["step"])
        return left * median(record["seconds"] for record in records), f"by {len(records):,} steps of this run"
    if is_training and (seconds := _measure_seconds(recipe, made)):
        return seconds, f"measured on {NUM_STEPS} steps of one scan, without loading"
    return None, f"shown after its first {'steps' if is_training else 'frames'}"


def _measure_seconds(recipe: Recipe, made: RecipeStage) -> float | None:
    """The time of a training on this machine; None where its network or its processes are not known."""
    steps, network = num_steps(made), _network_of(recipe, made)
    if not steps or network is None or made.num_processes is None:
        return None
    arguments = made.arguments
    scans = arguments.batch_size(made.num_processes) * arguments.gradient_accumulation_steps
    seconds = seconds_of_scan(made, network)
    return None if seconds is None else steps * scans * seconds


def _expect_bytes(recipe: Recipe, made: RecipeStage, action: Action) -> int | None:
    """Space for the checkpoints of a training at their largest number; of other stages it is not known before."""
    if action == "skip":
        return 0
    if not SECTIONS[made.stage.name].is_training or (network := _network_of(recipe, made)) is None:
        return None
    with torch.device("meta"):
        weights = UOVModel(UOVConfig.from_preset(network.preset)).num_parameters()
    arguments = made.arguments
    states = {"sgd": 1, "adamw": 2}[arguments.optimizer]  # numbers that the optimiser stores for each weight
    # One more than stays on disk: the next is written before the oldest is deleted. And the result.
    num_checkpoints = arguments.checkpoints_total_limit + 1
    return 4 * weights * (num_checkpoints * (1 + states) + 1)


def _network_of(recipe: Recipe, made: RecipeStage) -> Any:
    """The arguments that name the preset of the network that a stage trains; None for a checkpoint of another run."""
    if made.arguments.preset:
        return made.arguments
    if "model_name_or_path" in made.stage.settings:
        return None
    names = {one.stage.name: one for one in recipe.stages}
    start = start_of(made.stage.name, names)
    return _network_of(recipe, names[start]) if start and start != made.stage.name else None


def num_steps(made: RecipeStage) -> int | None:
    """Optimiser steps of a training; None where its launcher decides how many frames a step has."""
    arguments: Any = made.arguments
    if arguments.max_train_steps is not None:
        return arguments.max_train_steps
    if made.num_processes is None:
        return None
    batch_size, accumulation = arguments.batch_size(made.num_processes), arguments.gradient_accumulation_steps
    order = TrainingOrder(made.num_frames, batch_size, made.num_processes, accumulation)
    return order.num_steps(arguments.num_train_epochs)


def describe(plan: list[PlannedStage], with_commands: bool) -> Iterator[str]:
    """A line for each stage, with its command if wanted, and the sum of what is known."""
    for number, one in enumerate(plan, start=1):
        stage, launch = one.made.stage, one.made.launch
        yield f"[{number}/{len(plan)}] {stage.name}: {', '.join([WORDS[one.action], *_facts(one)])}"
        if with_commands and one.action != "skip":
            yield f"  {launch.command_line(stage.words)}"
    times, sizes = [one.seconds for one in plan], [one.num_bytes for one in plan]
    yield f"Time: {_sum(times, format_duration)}. Disk: {_sum(sizes, format_size)}."


def _facts(one: PlannedStage) -> list[str]:
    if one.action == "skip":
        return []
    made = one.made
    facts = [f"{made.num_frames:,} frames"] if made.num_frames else []
    if SECTIONS[made.stage.name].is_training and (steps := num_steps(made)):
        facts.append(f"{steps:,} steps")
    if made.num_processes and made.num_processes > 1:
        facts.append(f"{made.num_processes} processes")
    time = "unknown" if one.seconds is None else f"about {format_duration(one.seconds)}"
    return [*facts, f"time {time} ({one.seconds_from})"]


def _sum(values: list[Any], format_value: Any) -> str:
    """The sum of what is known, and whether something is not."""
    known = [value for value in values if value is not None]
    if not any(known):
        return "unknown" if len(known) < len(values) else "nothing"
    return f"{'at least' if len(known) < len(values) else 'about'} {format_value(sum(known))}"
