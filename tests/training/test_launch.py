"""Processes wait for each other as long as it takes, and without a collective call, which would time out."""

import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

from processes import run_on_two
from torch import distributed

from uov_hf.training.launch import COLLECTIVE_TIMEOUT, wait_for_all


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


def test_a_process_alone_does_not_wait(monkeypatch):
    monkeypatch.setattr(distributed, "rendezvous", lambda url: 1 / 0)
    wait_for_all(SimpleNamespace(num_processes=1))
    assert COLLECTIVE_TIMEOUT <= timedelta(hours=1)
