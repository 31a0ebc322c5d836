"""Loaders: workers that start once, and pinned memory for a GPU alone."""

import os

import torch
from torch.utils.data import Dataset

from uov_hf.training.loaders import make_loader
from uov_hf.training.loop import model_inputs


class WhoLoads(Dataset):
    """Every sample is the process that loads it."""

    def __getitem__(self, key):
        return os.getpid()


def processes_of(loader) -> set[int]:
    return {process for batch in loader for process in batch}


def test_workers_start_once_however_often_the_loader_is_gone_through():
    loader = make_loader(WhoLoads(), [[0], [1], [2], [3]], list, num_workers=2, device=torch.device("cpu"))
    first = processes_of(loader)
    assert len(first) == 2 and os.getpid() not in first
    assert processes_of(loader) == processes_of(loader) == first


def test_without_workers_this_process_loads():
    assert processes_of(make_loader(WhoLoads(), [[0]], list, 0, torch.device("cpu"))) == {os.getpid()}


def test_memory_is_pinned_for_cuda_alone_and_batches_on_the_cpu_are_not_copied():
    assert make_loader(WhoLoads(), [[0]], list, 0, torch.device("cuda")).pin_memory
    assert not make_loader(WhoLoads(), [[0]], list, 0, torch.device("cpu")).pin_memory
    batch = {"points": torch.rand(3), "num_points": torch.tensor([3])}
    assert all(value is batch[name] for name, value in model_inputs(batch, torch.device("cpu")).items())
