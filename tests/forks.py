"""Programs of this repository, run in forks of one process that has already imported what takes them seconds."""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing import start_processes


PRELOADED = [
    *("accelerate", "datasets", "uov_hf", "uov_hf.data", "uov_hf.labels", "uov_hf.teachers"),
    *("uov_hf.training.publishing", "uov_hf.training.self_training", "uov_hf.training.loop"),
]


def start_server() -> multiprocessing.context.ForkServerContext:
    """The context whose processes are such forks. Their environment is the one of the first start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment_of(rank: int, port: int, num_processes: int = 2) -> dict[str, str]:
    """What a launch on this machine gives to one of several CPU processes."""
    ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) | dict.fromkeys(
        ("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes)
    )
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", **ranks}


def write_output_to(log: str | Path) -> None:
    """Append everything that this process prints to a file."""
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)


def run_script(script: str, arguments: list[str], log: str, environment: dict[str, str], num_threads: int = 1) -> None:
    """Run a script of this repository as `python script arguments` does, in the process that calls this."""
    write_output_to(log)
    os.environ |= environment
    torch.set_num_threads(num_threads)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def run_on_two(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """The results of `work(rank, *arguments)`, a function of a module, on two processes, as a launch starts them."""
    start_server()
    start_processes(_work, (free_port(), work, folder, arguments), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _work(rank: int, port: int, work: Callable[..., Any], folder: Path, arguments: tuple) -> None:
    os.environ |= environment_of(rank, port)
    torch.set_num_threads(1)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
