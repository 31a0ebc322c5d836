"""Loaders: workers that start once, pinned memory for a GPU alone, and broken frames that are replaced or reported."""

import multiprocessing
import os
import signal
import sys
import threading

import pytest
import torch
from torch.utils.data import Dataset

from uov_hf.training.loaders import ReportBrokenFrames, SkipBrokenFrames, make_loader, only_readable
from uov_hf.training.loop import model_inputs


class WhoLoads(Dataset):
    """Every sample is the process that loads it."""

    def __getitem__(self, key):
        return os.getpid()


def processes_of(loader) -> set[int]:
    return {process for batch in loader for process in batch}


def test_workers_start_once_however_often_the_loader_is_iterated_and_without_them_this_process_loads():
    loader = make_loader(WhoLoads(), [[0], [1], [2], [3]], list, num_workers=2, device=torch.device("cpu"))
    first = processes_of(loader)
    assert len(first) == 2 and os.getpid() not in first
    assert processes_of(loader) == processes_of(loader) == first
    assert processes_of(make_loader(WhoLoads(), [[0]], list, 0, torch.device("cpu"))) == {os.getpid()}


class SignalsItself(Dataset):
    """A job of Slurm that nears its limit: all of its processes get SIGTERM."""

    def __getitem__(self, key):
        os.kill(os.getpid(), signal.SIGTERM)
        return key


def test_workers_live_on_when_sigterm_comes_so_that_their_run_can_save(start_method):
    loader = make_loader(SignalsItself(), [[0], [1], [2]], list, num_workers=1, device=torch.device("cpu"))
    assert list(loader) == [[0], [1], [2]]


class SignalsItselfBesideAThread(SignalsItself):
    """A library has started a thread that takes all signals."""

    def __getitem__(self, key):
        has_begun = threading.Event()

        def take_signals():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            has_begun.set()
            threading.Event().wait()

        threading.Thread(target=take_signals, daemon=True).start()
        has_begun.wait()
        return [super(SignalsItselfBesideAThread, self).__getitem__(key) for _ in range(20)][0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere SIGTERM ends a worker, whoever sends it")
def test_workers_live_on_if_a_thread_of_a_library_gets_the_signal(start_method):
    loader = make_loader(SignalsItselfBesideAThread(), [[0], [1]], list, num_workers=1, device=torch.device("cpu"))
    assert list(loader) == [[0], [1]]


def sleep():
    threading.Event().wait()


class Hangs(Dataset):
    """A read of a disk that does not answer."""

    def __init__(self):
        self.reads = multiprocessing.Event()

    def __getitem__(self, key):
        self.reads.set()
        sleep()


def exit_status_of_a_worker_that_hangs() -> int | None:
    """Of one that gets SIGTERM from its run; with another one than 0, the loader raises while the run ends."""
    dataset, before = Hangs(), {*multiprocessing.active_children()}  # other tests may have left some
    loader = make_loader(dataset, [[0]], list, num_workers=1, device=torch.device("cpu"))
    iterator, (worker,) = iter(loader), {*multiprocessing.active_children()} - before
    assert dataset.reads.wait(60)
    worker.terminate()
    worker.join(10)
    status = worker.exitcode
    worker.kill()
    del iterator
    return status


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere SIGTERM ends a worker, whoever sends it")
def test_a_worker_that_hangs_ends_when_its_run_ends_it(start_method):
    assert exit_status_of_a_worker_that_hangs() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere SIGTERM ends a worker, whoever sends it")
def test_a_worker_that_hangs_ends_if_torch_has_started_a_thread_in_it(start_method, monkeypatch):
    """As it does in a forked worker when it sets the number of threads, if the run had several."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: threading.Thread(target=sleep, daemon=True).start())
    assert exit_status_of_a_worker_that_hangs() == 0


def test_memory_is_pinned_for_cuda_alone_and_batches_on_the_cpu_are_not_copied():
    assert make_loader(WhoLoads(), [[0]], list, 0, torch.device("cuda")).pin_memory
    assert not make_loader(WhoLoads(), [[0]], list, 0, torch.device("cpu")).pin_memory
    batch = {"points": torch.rand(3), "num_points": torch.tensor([3])}
    assert all(value is batch[name] for name, value in model_inputs(batch, torch.device("cpu")).items())


class Frames:
    """Sample `i` of epoch `e` is 10 e + i; some are broken."""

    def __init__(self, broken, length=5):
        self.broken, self.length = broken, length

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        epoch, index = key
        if index in self.broken:
            raise ValueError(f"frame {index} is truncated")
        return {"value": 10 * epoch + index}


def test_the_next_readable_frame_replaces_a_broken_one_and_if_there_is_none_the_run_stops():
    frames = SkipBrokenFrames(Frames(broken={3, 4}))
    assert frames[2, 1] == {"value": 21, "broken_frames": []}
    messages = ["ValueError: frame 3 is truncated", "ValueError: frame 4 is truncated"]
    assert frames[2, 3] == {"value": 20, "broken_frames": messages}
    with pytest.raises(RuntimeError, match="5 frames in a row are broken; the last: ValueError: frame 1"):
        SkipBrokenFrames(Frames(broken=range(5)))[0, 2]


def test_an_evaluation_reports_a_broken_frame_and_does_not_replace_it():
    frames, broken = ReportBrokenFrames(Frames(broken={1})), []
    readable = list(only_readable([frames[0, index] for index in range(3)], broken))
    assert readable == [{"value": 0}, {"value": 2}]
    assert broken == ["ValueError: frame 1 is truncated"]
