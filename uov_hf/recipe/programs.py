"""The scripts of the stages, and how they are started: by accelerate, on what the machine has."""

import os
import runpy
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env

from uov_hf.training.arguments import ReadingArguments


PACKAGE = Path(__file__).resolve().parents[1]


def scripts_folder() -> Path:
    """`examples/` of the repository; of an installed package the copy of it that the wheel contains."""
    copied = PACKAGE / "recipe" / "scripts"  # setup.py puts it there
    return copied if copied.is_dir() else PACKAGE.parent / "examples"


def script_path(name: str) -> Path:
    """The file of a script, such as `pretrain`."""
    return scripts_folder() / f"{name}.py"


def script_arguments(name: str) -> type[ReadingArguments]:
    """The dataclass of a script's arguments."""
    kinds = runpy.run_path(str(script_path(name)), run_name=name).values()
    return next(kind for kind in kinds if _is_own(kind, name))


def _is_own(kind: Any, module: str) -> bool:
    return isinstance(kind, type) and issubclass(kind, ReadingArguments) and kind.__module__ == module


@dataclass(frozen=True)
class Launch:
    """What stands before a script on its command line.

    Args:
        words (`tuple[str, ...]`): The launcher with its options; by default this Python.
        environment (`dict[str, str]`): Variables that the script gets besides those of this process.
    """

    words: tuple[str, ...] = (sys.executable,)
    environment: dict[str, str] = field(default_factory=dict)

    def command_line(self, words: list[str]) -> str:
        """A command as it is typed, with its environment; files below the working directory by relative paths."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join([*_as_typed(self.words), *map(relative_path, words)])])


def accelerate_launch(num_processes: int) -> Launch:
    """A launch of so many processes by accelerate on this machine, on its GPUs if it has any."""
    # All options are given: a configuration file of accelerate does not change a recipe.
    options = ["--num_processes", str(num_processes), "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    if num_processes > 1:
        options += ["--multi_gpu", "--main_process_port", "0"]
    # Processes that together have more threads than cores slow each other down.
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads_of(num_processes))}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    return Launch((sys.executable, "-m", "accelerate.commands.launch", *options), environment)


def default_device() -> str:
    """The device of a program by accelerate in this environment: `cuda` or `cpu`."""
    return "cuda" if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU") else "cpu"


def threads_of(num_processes: int) -> int:
    """Threads of each of several processes that share the cores of this machine."""
    return max(1, (os.cpu_count() or 1) // num_processes)


def _as_typed(words: tuple[str, ...]) -> list[str]:
    if words[:3] == (sys.executable, "-m", "accelerate.commands.launch"):
        return ["accelerate", "launch", *words[3:]]
    return ["python" if word == sys.executable else word for word in words]


def relative_path(word: str) -> str:
    """An absolute path below the working directory as a relative one; other words as they are."""
    path = Path(word)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else word
