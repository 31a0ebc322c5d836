"""Two processes of one test, over gloo on the CPU."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing


def run_on_two(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What `work(rank, *arguments)` returned on either of two processes; it must be a function of a module."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_process, (port, work, folder, arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _process(rank: int, port: int, work: Callable[..., Any], folder: Path, arguments: tuple) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    distributed.init_process_group("gloo")
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
