"""Two processes of one test, on the CPU."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forks import environment_of, free_port, start_server
from torch import multiprocessing


def run_on_two(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """The results of `work(rank, *arguments)`, a function of a module, on two processes.

    They have the environment that a launch gives them; the process group is `work`'s.
    """
    start_server()
    arguments = (free_port(), work, folder, arguments)
    multiprocessing.start_processes(_process, arguments, nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _process(rank: int, port: int, work: Callable[..., Any], folder: Path, arguments: tuple) -> None:
    os.environ |= environment_of(rank, port)
    torch.set_num_threads(1)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
