"""The time of a training, from a few steps of its network on one scan, on this machine.

    python -m uov_hf.recipe.trial minkunet34 < voxels.npz

A process of its own measures: its memory on the GPU is free again before the training starts, and where it is too
small, only the estimate is missing.
"""

import io
import os
import subprocess
import sys
import time
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import torch

from uov_hf import UOVConfig, UOVModel
from uov_hf.data.frames import BROKEN
from uov_hf.feature_extraction_uov import UOVFeatureExtractor
from uov_hf.recipe.programs import default_device
from uov_hf.recipe.recipes import RecipeStage
from uov_hf.training.arguments import NetworkArguments


NUM_STEPS = 3
MAX_SECONDS = 300  # a plan does not wait longer for an estimate


def seconds_of_scan(made: RecipeStage, network: Any) -> float | None:
    """The time in which each process of a training trains on one scan: forward and backward, without loading.

    Args:
        made (`RecipeStage`): The training.
        network (object): The arguments with the `preset` of its network.

    Returns:
        `float`: Seconds; None where they cannot be measured: the training will name a broken scan, or its memory.
    """
    settings = network.voxel_settings() if isinstance(network, NetworkArguments) else {}
    try:
        frame = made.frames[0].select_columns(["points", "intensity_max"])[0]
        batch = UOVFeatureExtractor(**settings)(frame["points"], intensity_max=frame["intensity_max"])
    except BROKEN:
        return None
    voxels = io.BytesIO()
    np.savez(voxels, coords=batch["voxel_coords"].numpy(), features=batch["voxel_features"].numpy())
    return _measure_apart(network.preset, voxels.getvalue(), tuple(made.launch.environment.items()))


@cache  # pre-training and distillation have the same network and the same scan perhaps
def _measure_apart(preset: str, voxels: bytes, environment: tuple[tuple[str, str], ...]) -> float | None:
    command, variables = [sys.executable, "-m", __name__, preset], os.environ | dict(environment)
    try:
        done = subprocess.run(
            command, input=voxels, env=variables, capture_output=True, timeout=MAX_SECONDS, check=True
        )
        return float(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _measure(preset: str, coords: torch.Tensor, features: torch.Tensor) -> float:
    device = default_device()
    with torch.device(device):
        model = UOVModel(UOVConfig.from_preset(preset)).train()
    times = []
    for _ in range(1 + NUM_STEPS):  # the first includes the warm-up
        started = time.perf_counter()
        embeds = model.get_point_features(coords.to(device), features.to(device))
        embeds.square().sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[1:])


if __name__ == "__main__":
    arrays = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    seconds = _measure(sys.argv[1], torch.from_numpy(arrays["coords"]), torch.from_numpy(arrays["features"]))
    sys.stdout.write(f"{seconds}\n")
