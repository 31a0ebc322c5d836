"""The long commands that `kills.py` kills: how each starts, what it needs, and how one process of it is run."""

import multiprocessing
import os
import runpy
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from common import REPOSITORY

from uov_hf import UOVForSemanticSegmentation, UOVProcessor, save_checkpoint


DATA = "--dataset nuscenes --data_dir street"
TRAINING = (
    f"{DATA} --split train --per_device_train_batch_size 1 --max_train_steps 6 --checkpointing_steps 1 "
    "--optimizer adamw --learning_rate 3e-3 --checkpoints_total_limit 3 --dataloader_num_workers 1 "
    "--resume_from_checkpoint latest --output_dir out"
)
LABELS = "--label_set labels --point_labels_preset consolidated"
SCHEDULE = {"split": "train", "max_train_steps": 3, "checkpointing_steps": 1, "per_device_train_batch_size": 1}
RECIPE = {  # of few stages, because each starts an interpreter
    "dataset": "nuscenes",
    "data_dir": "street",
    "output_dir": "out",
    "dataloader_num_workers": 0,
    "generate_label_set": {"teacher": "synthetic", "split": "all"},
    "pretrain": {"preset": "tiny", "min_pairs": 20, "optimizer": "adamw", "learning_rate": 3e-3, **SCHEDULE},
}
WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree", "shutil.copyfile")


@dataclass(frozen=True)
class Job:
    """
    A long command, which the same words start and continue.

    Args:
        name (`str`): The row of the table.
        words (`str`): The command; it runs in a folder with the inputs, and writes into `out`.
        num_kills (`int`): Kills of the whole check.
        inputs (`dict[str, str]`, *optional*):
            Name -> the job of whose result it is a copy; a link to the street is in every folder.
        results (`tuple[str, ...]`, *optional*, defaults to `("out",)`): What is compared.
        last (`str`, *optional*): The file without which a folder of results is unfinished: where it is, all files are
            of one run.
    """

    name: str
    words: str
    num_kills: int
    inputs: dict[str, str] = field(default_factory=dict)
    results: tuple[str, ...] = ("out",)
    last: str | None = None


JOBS = [
    Job("generate_label_set", f"examples/generate_label_set.py {DATA} --split all --output_dir out", 22),
    Job(
        "label_points",
        f"examples/label_points.py {DATA} --split all --label_set out --preset consolidated",
        20,
        {"out": "generate_label_set"},
    ),
    Job("dataset script", "dataset_scripts/nuscenes.py --data_dir street --output_dir out --num_proc 2", 20),
    Job(
        "pretrain",
        f"examples/pretrain.py {TRAINING} {LABELS} --preset tiny --min_pairs 20",
        26,
        {"labels": "label_points"},
    ),
    Job(
        "distill",
        f"examples/distill.py {TRAINING} {LABELS} --model_name_or_path model --head_learning_rate 3e-3",
        26,
        {"labels": "label_points", "model": "pretrain"},
    ),
    Job("finetune", f"examples/finetune.py {TRAINING} --preset tiny", 22),
    Job(
        "evaluate",
        f"examples/evaluate.py {DATA} --split test --model_name_or_path model --label_set labels --export nuscenes "
        "--output_dir out",
        16,
        {"labels": "label_points", "model": "distill"},
        ("out", "model"),
    ),
    Job(
        "uov-hf segment",
        "uov-hf segment street/samples/LIDAR_TOP --model_name_or_path model --intensity_max 255 --num_columns 5 "
        "--format npy,ply,las --output_dir out",
        16,
        {"model": "distill"},
        last="classes.json",
    ),
    Job(
        "uov-hf export",
        "uov-hf export model --format onnx --output_dir out",
        12,
        {"model": "distill"},
        last="model.onnx",
    ),
    Job("uov-hf push", "uov-hf push model me/pushed", 12, {"model": "distill"}, ("model", "hub")),
    Job(
        "save_checkpoint",
        "save_checkpoint model out",
        16,
        {"model": "distill", "out": "distill"},
        last="config.json",
    ),
    Job("uov-hf train", f"uov-hf train recipe.yaml --launcher {sys.executable}", 6),
]


def write_recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))


def save_changed(model_folder: str, output_dir: str) -> None:
    """A program of a user: it loads a checkpoint, changes it, and saves it over another one."""
    model = UOVForSemanticSegmentation.from_pretrained(model_folder)
    processor = UOVProcessor.from_pretrained(model_folder)
    model.config.initializer_range = 0.5  # so that a mixture of the two checkpoints is found
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    save_checkpoint(output_dir, model, processor)


def run_words(words: list[str]) -> None:
    """Run a command in this process, as its interpreter would."""
    program, *arguments = words
    if program == "uov-hf":
        sys.argv = words
        runpy.run_module("uov_hf_cli", run_name="__main__", alter_sys=True)
    if program == "save_checkpoint":
        save_changed(*arguments)
        return
    sys.argv = [str(REPOSITORY / program), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def run(words: list[str], folder: Path, log: Path, kill_at: int, number: int, to_group: bool) -> None:
    """
    The fork of one start: a session of its own, in a folder, that prints into a log.

    Args:
        words (`list[str]`): The command.
        folder (`Path`): Where it runs.
        log (`Path`): Its output is appended.
        kill_at (`int`): The change of a file before which it gets the signal; 0 for none.
        number (`int`): The signal.
        to_group (`bool`): Whether all of its processes get it.
    """
    os.setsid()
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # the default of this Python, as in an interpreter
    count_changes(folder, log.with_suffix(".changes"), kill_at, number, to_group)
    run_words(words)


def count_changes(folder: Path, count_file: Path, kill_at: int, number: int, to_group: bool) -> None:
    """Send the signal before change number `kill_at` of a file in the folder; write how many there have been."""
    count, own, descriptor = 0, os.getpid(), os.open(count_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    here = str(folder)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not is_change(event, arguments, here) or os.getpid() != own:
            return
        count += 1
        os.pwrite(descriptor, b"%d" % count, 0)
        if count == kill_at:
            (os.killpg if to_group else os.kill)(own, number)

    sys.addaudithook(audit)


def is_change(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        return isinstance(flags, int) and bool(flags & WRITING_FLAGS) and is_inside(path, folder)
    return event in CHANGES and is_inside(arguments[0], folder)


def is_inside(path: object, folder: str) -> bool:
    return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(folder)


def main() -> None:
    """One start in an interpreter of its own: `python kill_jobs.py FOLDER LOG WORD …`."""
    folder, log, *words = sys.argv[1:]
    run(words, Path(folder), Path(log), 0, signal.SIGKILL, False)


if __name__ == "__main__":
    main()
