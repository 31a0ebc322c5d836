"""Programs of this repository, run in forks of one process that has already imported what takes them seconds."""

import multiprocessing
import os
import runpy
import socket
import sys
from pathlib import Path


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
    import torch

    write_output_to(log)
    os.environ |= environment
    torch.set_num_threads(num_threads)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
