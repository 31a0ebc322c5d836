"""The run of a `run.json` once more: the same command, arguments, processes and threads, into another folder."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from uov_hf.data.shard_file import write_atomically
from uov_hf.digests import file_digest
from uov_hf.labels.label_set import is_label_set_id
from uov_hf.labels.point_labels import point_labels_folder
from uov_hf.recipe.processes import run_program
from uov_hf.recipe.programs import Launch, accelerate_launch, script_arguments, script_path, scripts_folder
from uov_hf.recipe.recipes import make_recipe
from uov_hf.recipe.sections import SECTIONS, arguments_of
from uov_hf.recipe.stage import flags
from uov_hf.reproduction.inputs import Digests, describe_changes, digest_inputs, digest_inputs_of_recipe
from uov_hf.reproduction.record import RECIPE, RUN_FILE, Execution, RunRecord
from uov_hf.training.argument_files import convert_settings


# Set for a second run: it does not upload, report, or change the card of the checkpoint that it evaluates.
QUIET: dict[str, Any] = {"push_to_hub": False, "report_to": "none", "update_card": False}
PROGRAMS = [name for name, section in SECTIONS.items() if section.module is None]  # scripts with typed arguments
DEMO = "demo"
DEMO_RECIPE = "configs/demo.yaml"  # in the folder of the scripts
LOG = "reproduce.log"
MAX_CHANGES = 10  # in a message; a dataset has thousands of files perhaps
Changes = Mapping[str, object]


@dataclass(frozen=True)
class Rerun:
    """A run that is ready to start.

    Args:
        launch (`Launch`): How it is started.
        words (`list[str]`): The program and its arguments.
        inputs (`dict[str, str]`): Digests of what it will read.
        output_dir (`Path`): The folder of its results.
        record (`Path`): The `run.json` that it will write.
        files (`dict[str, str]`, *optional*): Files of arguments to be written into `output_dir` first.
        label_set (`Path`, *optional*): The label set to be copied there first, without point labels.
    """

    launch: Launch
    words: list[str]
    inputs: Digests
    output_dir: Path
    record: Path
    files: Mapping[str, str] = field(default_factory=dict)
    label_set: Path | None = None


def prepare(
    record: RunRecord, output_dir: Path, changes: Changes, trust_code: bool = False, launcher: str | None = None
) -> Rerun:
    """Make the second run of a record; nothing is written.

    A record may come from someone else: it starts no other program than ours, and no code that is not trusted.

    Args:
        record (`RunRecord`): Of the first run.
        output_dir (`Path`): The folder of the results, new or empty.
        changes (`Mapping[str, object]`): Arguments with another value, such as `data_dir` on another machine.
        trust_code (`bool`, *optional*, defaults to `False`): Whether Python files that the arguments name may run.
        launcher (`str`, *optional*): Of a recipe, the words before each script.

    Raises:
        ValueError: The folder has files, an argument does not exist, a dataset cannot be read, or the record needs a
            launcher or code that is not trusted.
    """
    program, arguments = record["program"], record["arguments"] | dict(changes)
    if program not in (*PROGRAMS, RECIPE, DEMO):
        raise ValueError(f"{RUN_FILE}: expected a run of {', '.join((*PROGRAMS, RECIPE, DEMO))}, got {program!r}.")
    if not trust_code and (files := sorted(_code_in(arguments))):
        raise ValueError(
            f"The run executes {', '.join(files)}. Give --trust_code if you trust their author: Python files and the "
            "states of a training can do anything on this machine."
        )
    if arguments.get("launcher") and launcher is None:
        raise ValueError(
            f"The stages of the recipe were started by {arguments['launcher']!r}. Give the launcher of this machine "
            "with --launcher."
        )
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ValueError(
            f"--output_dir {output_dir}: expected a new or empty folder, got one with files. Give "
            "another one, or delete it."
        )
    if program == RECIPE:
        return _prepare_recipe(record, output_dir, changes, launcher)
    return (_prepare_demo if program == DEMO else _prepare_script)(record, output_dir, changes)


def _code_in(value: object) -> set[str]:
    """The Python files that the arguments of a run name, and the pickled state that it resumes from."""
    if isinstance(value, dict):
        checkpoint = value.get("resume_from_checkpoint")
        pickles = {str(checkpoint)} if checkpoint is not None and not _continues_itself(value) else set[str]()
        return pickles.union(*map(_code_in, value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(_code_in, value))
    return {value} if isinstance(value, str) and (value.endswith(".py") or ".py:" in value) else set()


def default_folder(record: RunRecord, path: Path) -> Path:
    """The folder beside that of a first run, whose record is at `path`, for the second one."""
    # Point labels lie in their label set, of which the second run makes a copy.
    folder = path.absolute().parents[2 if record["program"] == "label_points" else 0]
    return folder.with_name(f"{folder.name}-reproduced")


def check_inputs(record: RunRecord, rerun: Rerun) -> None:
    """Compare what the second run will read with what the first one read.

    Raises:
        ValueError: A file or a frame is missing, was changed or is new.
    """
    if changed := describe_changes(record["inputs"], rerun.inputs):
        shown = "; ".join(changed[:MAX_CHANGES]) + ("; …" if len(changed) > MAX_CHANGES else "")
        raise ValueError(
            f"The inputs are not those of the recorded run: {shown} ({len(changed)} in all). Nothing was run. "
            f"Use those of the first run. Relative paths count from the working directory, {Path.cwd()}: change to "
            "that of the first run, or give the folders of this machine, such as --set data_dir=data/nuscenes."
        )


def run_again(rerun: Rerun) -> None:
    """Run the program to its end; its output appears on stderr and in `reproduce.log`.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    rerun.output_dir.mkdir(parents=True, exist_ok=True)
    if rerun.label_set is not None:
        ignored = shutil.ignore_patterns("points", "card", "stage.json", RUN_FILE, ".*")
        shutil.copytree(rerun.label_set, rerun.output_dir, ignore=ignored, dirs_exist_ok=True)
    for name, content in rerun.files.items():
        write_atomically(rerun.output_dir / name, content.encode())
    run_program([*rerun.launch.words, *rerun.words], rerun.launch.environment, rerun.output_dir / LOG, show=True)


def _prepare_script(record: RunRecord, output_dir: Path, changes: Changes) -> Rerun:
    """A script gets all of its arguments from a file, which also has those that no flag can express."""
    program = record["program"]
    kind: type[Any] = script_arguments(program)
    execution = Execution(**record["execution"])
    given = record["arguments"] | dict(changes)
    given |= {name: value for name, value in QUIET.items() if name in given}
    given |= {"mixed_precision": execution.mixed_precision} if "mixed_precision" in given else {}
    if _continues_itself(record["arguments"]):
        given["resume_from_checkpoint"] = None  # from the beginning the result is the same
    arguments = kind(**convert_settings(given, kind, RUN_FILE))
    inputs = digest_inputs(program, arguments)
    place, label_set = output_dir, None
    if program == "label_points":
        place = point_labels_folder(output_dir, arguments.make_rule())
        label_set = None if is_label_set_id(given["label_set"]) else Path(given["label_set"])
    # Point labels lie in their label set: it is copied, and the copy gets them.
    given |= {"output_dir": str(output_dir)} if label_set is None else {"label_set": str(output_dir)}
    files = {"arguments.json": json.dumps(given, indent=2) + "\n"}
    words = [str(script_path(program)), str(output_dir / "arguments.json")]
    launch = accelerate_launch(execution.num_processes) if execution.num_processes > 1 else Launch()
    launch = replace(launch, environment=launch.environment | _environment_of(execution))
    return Rerun(launch, words, inputs, output_dir, place / RUN_FILE, files, label_set)


def _continues_itself(arguments: Mapping[str, Any]) -> bool:
    """Whether a training was resumed from a checkpoint of its own."""
    checkpoint = arguments.get("resume_from_checkpoint")
    if checkpoint in (None, "latest"):
        return checkpoint is not None
    folder = arguments.get("output_dir")  # a section of a recipe has none
    return isinstance(checkpoint, str) and isinstance(folder, str) and Path(checkpoint).is_relative_to(folder)


def _prepare_recipe(record: RunRecord, output_dir: Path, changes: Changes, launcher: str | None) -> Rerun:
    """A recipe runs from its recorded content: its file may have been edited since."""
    arguments = record["arguments"]
    if not isinstance(arguments.get("recipe"), dict):
        raise ValueError(f"{RUN_FILE}: expected the content of a recipe in arguments.recipe, as uov-hf wrote it.")
    content = {**arguments["recipe"], "output_dir": str(output_dir)}
    for name, value in changes.items():
        stage, dot, argument = name.partition(".")
        content[stage] = {**(content.get(stage) or {}), argument: value} if dot else value
    for stage in content.keys() & SECTIONS.keys():
        if not isinstance(content[stage] or {}, dict):
            continue  # `make_recipe` refuses it with a message
        known = {one.name for one in fields(arguments_of(stage))}
        content[stage] = {**(content[stage] or {}), **{name: QUIET[name] for name in QUIET.keys() & known}}
    recipe = make_recipe(content, RUN_FILE, ("launcher",) if launcher else None)
    words = ["-m", "uov_hf_cli", RECIPE, str(output_dir / "recipe.yaml")]
    words += flags({"until": arguments.get("until"), "launcher": launcher})
    launch = Launch(environment=_environment_of(Execution(**record["execution"])))
    files = {"recipe.yaml": yaml.safe_dump(content, sort_keys=False)}
    return Rerun(launch, words, digest_inputs_of_recipe(recipe), output_dir, output_dir / RUN_FILE, files)


def _prepare_demo(record: RunRecord, output_dir: Path, changes: Changes) -> Rerun:
    given = {**record["arguments"], **changes, "output_dir": str(output_dir)}
    launch = Launch(environment=_environment_of(Execution(**record["execution"])))
    words = [str(script_path(DEMO)), *flags(given)]
    return Rerun(launch, words, digest_demo_recipe(), output_dir, output_dir / RUN_FILE)


def digest_demo_recipe() -> Digests:
    """The one input of the demo, which renders its own data."""
    return {DEMO_RECIPE: file_digest(scripts_folder() / DEMO_RECIPE)}


def _environment_of(execution: Execution) -> dict[str, str]:
    """The variables that choose the device and the threads of a run."""
    variables = {"ACCELERATE_USE_CPU": "true"} if execution.device == "cpu" else {}
    return variables | ({"OMP_NUM_THREADS": str(execution.num_threads)} if execution.num_threads else {})
