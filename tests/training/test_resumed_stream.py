"""A training stopped after any step continues with the frames of an unbroken run: two ranks with two workers each."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from uov_hf.data import load_frames
from uov_hf.training.augmentation import AugmentationConfig, transform
from uov_hf.training.order import TrainingOrder
from uov_hf.training.run import Run


NUM_RANKS, NUM_WORKERS, NUM_STEPS, PER_STEP = 2, 2, 6, 6


class Scans(Dataset):
    """The scans of a street, augmented: each as its key and its bytes."""

    def __init__(self, root):
        self.frames = load_frames("nuscenes", split="all", data_dir=root).select_columns(["points"])

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key):
        points = transform(self.frames[key[1]]["points"], AugmentationConfig(), np.random.default_rng([0, *key]))
        return key, points.tobytes()


def load(scans, rank: int, local: bool, start: int = 0) -> list:
    """The micro-batches that the training loop of a rank loads when `start` steps are done."""
    order = TrainingOrder(len(scans), batch_size=1, num_processes=NUM_RANKS, accumulation=3, local=local)
    accelerator = SimpleNamespace(process_index=rank, device=torch.device("cpu"))
    run = Run(accelerator, None, None, None, order, NUM_STEPS, Path(), step=start)
    loader = run.make_loader(scans, tuple, NUM_WORKERS, on_error="raise")
    assert len(loader) == 3 * (NUM_STEPS - start)
    return list(loader)


@pytest.mark.parametrize("local", [False, True], ids=["shuffled", "local"])
def test_after_any_stop_two_ranks_of_two_workers_load_what_they_would_have_loaded(tiny_street, local):
    scans = Scans(tiny_street)  # four: a step of six reaches into the next epoch
    whole = [load(scans, rank, local) for rank in range(NUM_RANKS)]
    keys = sorted(key for batches in whole for ((key, _),) in batches)
    assert keys == [(epoch, index) for epoch in range(NUM_STEPS * PER_STEP // 4) for index in range(4)]
    for stop in range(1, NUM_STEPS):
        for rank in range(NUM_RANKS):
            assert load(scans, rank, local, start=stop) == whole[rank][3 * stop :]
