"""Two processes of one test, on the CPU."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing


def run_on_two(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What `work(rank, *arguments)`, a function of a module, returned on either of two processes.

    They have the environment that a launch gives them; the process group is `work`'s.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_process, (port, work, folder, arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _process(rank: int, port: int, work: Callable[..., Any], folder: Path, arguments: tuple) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
