"""A launch has the processes that it should, and these wait for each other without a time-out."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forks import run_on_two
from torch import distributed

from uov_hf.training import launch
from uov_hf.training.launch import COLLECTIVE_TIMEOUT, check_num_processes, wait_for_all


NUM_TURNS = 5


def leave_traces(rank: int, folder: Path) -> list[bool]:
    """Whether what the other process wrote before each wait is there after it; there is no process group."""
    store, *_ = next(distributed.rendezvous("env://"))  # keeps it alive, as a process group does
    met = []
    for turn in range(NUM_TURNS):
        (folder / f"{turn}-{rank}").touch()
        wait_for_all(SimpleNamespace(num_processes=2))
        met.append((folder / f"{turn}-{1 - rank}").exists())
    return met


def test_all_processes_wait_for_each_other_without_a_process_group(tmp_path):
    assert run_on_two(leave_traces, tmp_path, tmp_path) == [[True] * NUM_TURNS] * 2


def read_late(rank: int) -> bool:
    """The main process, in which the store lives here, has nothing more to do; the other one is slow to look."""
    if rank == 1:
        wait = distributed.TCPStore.wait
        distributed.TCPStore.wait = lambda *arguments: time.sleep(1) or wait(*arguments)
    wait_for_all(SimpleNamespace(num_processes=2))
    return True


def test_the_main_process_does_not_end_before_the_others_have_read_its_store(tmp_path):
    assert run_on_two(read_late, tmp_path) == [True, True]


def error_while_second_is_stopped(rank: int, store: distributed.Store, wait: Callable[[], object]) -> str:
    """The message that `wait` raises in the first process while the second one is stopped by SIGSTOP."""
    if rank == 1:
        store.set("pid", str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        return ""
    pid = int(store.get("pid"))
    try:
        wait()
    except RuntimeError as error:
        return str(error)
    finally:
        os.kill(pid, signal.SIGCONT)
    return "no error"


def wait_for_a_stopped_one(rank: int, folder: Path) -> str:
    """What the first process gets while the second one is stopped, as by SIGSTOP or a debugger."""
    launch.HEARTBEAT, launch.LONGEST_SILENCE = timedelta(seconds=0.2), timedelta(seconds=3)
    store, *_ = next(distributed.rendezvous("env://"))  # keeps it alive, as a process group does
    launch.show_life(rank)
    return error_while_second_is_stopped(rank, store, lambda: wait_for_all(SimpleNamespace(num_processes=2)))


def test_a_stopped_process_is_not_waited_for_without_end(tmp_path):
    message, _ = run_on_two(wait_for_a_stopped_one, tmp_path, tmp_path)
    assert message.startswith("Process 1 of 2 has shown no sign of life for 0:00:03: it is stopped")


def test_a_process_alone_does_not_wait(monkeypatch):
    monkeypatch.setattr(distributed, "rendezvous", lambda url: 1 / 0)
    wait_for_all(SimpleNamespace(num_processes=1))
    assert COLLECTIVE_TIMEOUT <= timedelta(hours=1)


@pytest.mark.parametrize(
    "environment, num_processes, is_right",
    [
        ({}, 1, True),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "29500"}, 2, True),
        ({"MASTER_PORT": "29500"}, 1, False),  # accelerate launch --cpu --num_processes 2
        ({"WORLD_SIZE": "2", "MASTER_PORT": "29500"}, 1, False),  # torchrun on CPU without ACCELERATE_USE_CPU
    ],
)
def test_a_launch_that_silently_got_one_process_is_refused(monkeypatch, environment, num_processes, is_right):
    monkeypatch.setattr("os.environ", environment)
    refusal = pytest.raises(RuntimeError, match="accelerate launch --multi_gpu --num_processes 2")
    with nullcontext() if is_right else refusal:
        check_num_processes(num_processes)


def reduce_with_a_stopped_one(rank: int, folder: Path) -> str:
    """What the first process gets in a collective call, of training, while the second one is stopped."""
    launch.COLLECTIVE_TIMEOUT = timedelta(seconds=4)
    accelerator = launch.start(str(folder / "out"), seed=0)
    store, *_ = next(distributed.rendezvous("env://"))
    return error_while_second_is_stopped(rank, store, lambda: accelerator.reduce(torch.ones(1), "sum"))


def test_a_step_does_not_wait_for_a_stopped_process_without_end(tmp_path):
    message, _ = run_on_two(reduce_with_a_stopped_one, tmp_path, tmp_path)
    assert "4000ms" in message
