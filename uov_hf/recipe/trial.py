"""The time of a training, from a few steps of its network on one scan, on this machine."""

import time
from statistics import median
from typing import Any

import torch

from uov_hf import UOVConfig, UOVModel
from uov_hf.data.frames import BROKEN
from uov_hf.feature_extraction_uov import UOVFeatureExtractor
from uov_hf.recipe.recipes import RecipeStage
from uov_hf.training.arguments import NetworkArguments


NUM_STEPS = 3


def seconds_of_scan(made: RecipeStage, network: Any) -> float | None:
    """The time in which each process of a training trains on one scan: forward and backward, without loading.

    Args:
        made (`RecipeStage`): The training.
        network (object): The arguments with the `preset` of its network.

    Returns:
        `float`: Seconds; None where the first scan cannot be read, the training will name it.
    """
    settings = network.voxel_settings() if isinstance(network, NetworkArguments) else {}
    try:
        frame = made.frames[0].select_columns(["points", "intensity_max"])[0]
        batch = UOVFeatureExtractor(**settings)(frame["points"], intensity_max=frame["intensity_max"])
    except BROKEN:
        return None
    before = torch.get_num_threads()
    torch.set_num_threads(int(made.launch.environment.get("OMP_NUM_THREADS", before)))
    try:
        return _measure(network.preset, batch["voxel_coords"], batch["voxel_features"])
    finally:
        torch.set_num_threads(before)


def _measure(preset: str, coords: torch.Tensor, features: torch.Tensor) -> float:
    device = "cuda" if torch.cuda.is_available() else "cpu"
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
