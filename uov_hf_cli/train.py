"""Train a segmenter from camera images: all stages of a recipe, one after the other, each resumable.

The stages are those of the scripts in examples/: a teacher labels the images, the labels are carried to the points and
get a card, a network is pre-trained and distilled, and evaluated if the dataset has annotation. Without a recipe file
the recipe depends on the number of cameras; it is saved as recipe.yaml in the output folder. Started again, the same
command continues: a finished stage is skipped if its settings are the same. Options override the recipe file.

examples:
  uov-hf train --data_dir data/nuscenes --teacher clip --teacher_model_name_or_path openai/clip-vit-large-patch14-336
  uov-hf train recipe.yaml --dry_run    what would run, what it costs as far as known, and the commands
  uov-hf train recipe.yaml --set distill.max_train_steps=100 distill.seed=1
  uov-hf train recipe.yaml --from distill --until evaluate    run these stages again
"""

import argparse
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


SHARED = ("dataset", "data_dir", "dataset_config", "output_dir", "seed")
OF_THE_TEACHER = ("teacher", "trust_teacher_code", "teacher_model_name_or_path", "teacher_settings", "vocabulary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", type=Path, help="YAML or JSON file: shared settings, a section per stage")
    parser.add_argument("--dataset", help="a dataset script, its short name, a Parquet folder, or a Hub id")
    parser.add_argument("--data_dir", help="root folder of the raw dataset")
    parser.add_argument("--dataset_config", help="such as v1.0-mini; default: the only one in --data_dir")
    parser.add_argument("--teacher", help="model that labels the images; needed without a recipe file")
    parser.add_argument(
        "--trust_teacher_code", action="store_true", default=None, help="run the Python file that --teacher names"
    )
    parser.add_argument("--teacher_model_name_or_path", help="Hub id or folder of the teacher's weights")
    parser.add_argument("--teacher_settings", nargs="+", metavar="NAME=VALUE", help="arguments of this teacher")
    parser.add_argument("--vocabulary", help="prompts and their classes; default: those of the dataset")
    parser.add_argument("--output_dir", help="folder of all results; default: out/train")
    parser.add_argument("--seed", type=int, help="of the trainings")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="STAGE.NAME=VALUE",
        help="settings, such as distill.max_train_steps=100",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the plan and the commands, and run nothing")
    parser.add_argument("--until", metavar="STAGE", help="run no later stage")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="run this stage and the later ones again")
    parser.add_argument(
        "--launcher", help='words before each script, such as "bash examples/slurm/launch.sbatch"; default: accelerate'
    )


def run(args: argparse.Namespace) -> Iterable[str]:
    import shlex

    from uov_hf.recipe.plan import describe, make_plan
    from uov_hf.recipe.recipes import make_recipe
    from uov_hf.recipe.run import run_plan, save_recipe
    from uov_hf.reproduction.recipe_record import record_recipe, write_record

    content, place, reason = read_content(args)
    recipe = make_recipe(content, place, tuple(shlex.split(args.launcher)) if args.launcher else None)
    plan = make_plan(recipe, args.first, args.until)
    if reason:
        yield reason
    yield from describe(plan, with_commands=args.dry_run)
    if args.dry_run:
        return
    previous = signal.signal(signal.SIGTERM, end_interrupted)
    try:
        if reason:
            save_recipe(recipe, content)
        recorder = record_recipe(recipe, content, args.until, args.launcher, args.command_line)
        yield from run_plan(recipe, plan, show=sys.stderr.isatty())
        write_record(recorder, recipe)
    except RuntimeError as error:  # the lock of another run
        raise OSError(error) from error
    except SystemExit:
        yield "The run was interrupted. The same command continues it."
        raise
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def end_interrupted(*_: object) -> None:
    """End the running program, which saves a checkpoint if it is a training, and then this process."""
    from uov_hf.training.interruption import RESUME_STATUS

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another SIGTERM would end the wait for the checkpoint
    sys.exit(RESUME_STATUS)


def read_content(args: argparse.Namespace) -> tuple[dict[str, Any], str, str | None]:
    """The content of the recipe, its name in messages, and the reason of a default recipe."""
    from uov_hf.recipe.defaults import default_recipe
    from uov_hf.training.argument_files import read_mapping

    if args.recipe is None:
        if args.teacher is None:
            raise ValueError("--teacher is needed without a recipe file; `uov-hf train --help` has an example.")
        default = default_recipe(args.dataset, args.data_dir, args.dataset_config)
        content, place, reason = default.content | {"output_dir": "out/train"}, "the default recipe", default.reason
    else:
        content, place, reason = read_mapping(str(args.recipe)), str(args.recipe), None
    content |= given(args, SHARED)
    if teacher := given(args, OF_THE_TEACHER):
        if "generate_label_set" not in content:
            raise ValueError(f"{place}: --{next(iter(teacher))} needs a section `generate_label_set`, got none.")
        add_settings(content, "generate_label_set", teacher)
    for text in args.set:
        set_value(content, text)
    return content, place, reason


def set_value(content: dict[str, Any], text: str) -> None:
    """Put `STAGE.NAME=VALUE` into the section of a recipe; the value is YAML."""
    import yaml

    from uov_hf.recipe.sections import SECTIONS

    place, equals, value = text.partition("=")
    stage, dot, name = place.partition(".")
    if not (dot and equals):
        raise ValueError(f"--set: expected STAGE.NAME=VALUE, such as distill.max_train_steps=100, got {text!r}.")
    if stage not in SECTIONS or stage not in content:
        sections = ", ".join(name for name in SECTIONS if name in content)
        raise ValueError(f"--set {text}: the recipe has no section `{stage}`; it has {sections}.")
    try:
        add_settings(content, stage, {name: yaml.safe_load(value)})
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text}: expected a value as in YAML, got {value!r}.") from error


def add_settings(content: dict[str, Any], stage: str, settings: dict[str, Any]) -> None:
    section = content[stage] or {}
    if isinstance(section, dict):  # `make_recipe` refuses other sections, and names their place
        content[stage] = section | settings


def given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
