"""Part of gpu.py: time and memory of the network, and of steps of pre-training; every round has another input."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
from gpu_checks import DTYPES, precision
from scans import vary
from torch import nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForPreTraining
from uov_hf.sparse_conv import SparseConv
from uov_hf.sparse_unet import SparseUNet


NUM_SUPERPOINTS, PAIRS_PER_SUPERPOINT, NUM_PROMPTS = 150, 100, 175  # of a scan, about those of the paper
WARM_UP = 3  # rounds
LEARNING_RATE = 0.01
GIB = 2**30


@dataclass(frozen=True)
class Effort:
    """How much is measured: all of it on a GPU, and little on a CPU, where the program itself is tested."""

    preset: str
    num_scans: int
    every_nth_point: int
    batch_sizes: tuple[int, ...]
    seconds: float  # of timed rounds
    least_rounds: int
    most_rounds: int
    num_workers: int
    product_size: int
    copy_size: int


EFFORTS = {
    "cuda": Effort("minkunet34", 24, 1, (1, 16, 4), 1.0, 4, 12, 8, 8192, GIB),
    "cpu": Effort("tiny", 3, 80, (1, 2), 0.0, 1, 1, 1, 256, GIB // 256),
}


def time_rounds(prepare: Callable[[int], Any], run: Callable[[Any], None], device: str, effort: Effort) -> dict:
    """Run on `prepare(0)`, `prepare(1)`, …, until there are enough timed rounds; preparing is not timed.

    Returns:
        Seconds of the first call, which prepares much, and of the timed ones; peak memory of these in bytes.
    """
    times = []
    while len(times) < WARM_UP + effort.most_rounds:
        timed = times[WARM_UP:]
        if len(timed) >= effort.least_rounds and sum(timed) >= effort.seconds:
            break
        if device == "cuda" and len(times) == WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        inputs = prepare(len(times))
        times.append(seconds_of(lambda inputs=inputs: run(inputs), device))
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    timed = times[WARM_UP:]
    return {"first_s": times[0], "ms": 1000 * median(timed), "rounds": len(timed), "peak": peak}


def seconds_of(function: Callable[[], Any], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_card(precision_name: str, device: str, effort: Effort) -> dict[str, float]:
    """Operations per second of a large product in this precision, and bytes per second of a large copy."""
    size, dtype = effort.product_size, DTYPES[precision_name] or torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.ones(effort.copy_size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with precision(precision_name, device):
        product = min(seconds_of(lambda: left @ right, device) for _ in range(6))
    copy = min(seconds_of(lambda: target.copy_(source), device) for _ in range(6))
    return {"flops_per_s": 2 * size**3 / product, "bytes_per_s": 2 * effort.copy_size / copy}


class NetworkTimer:
    """The network of a preset on one device; `scans` has coordinates and features of the scans of each sensor."""

    def __init__(self, scans: dict[str, list], device: str, effort: Effort):
        self.scans, self.device, self.effort = scans, device, effort
        torch.manual_seed(0)
        self.network = SparseUNet(UOVConfig.from_preset(effort.preset)).to(device)
        self.work = {}

    def measure(self, engine: str, precision_name: str, sensor: str, batch_size: int, training: bool) -> dict:
        """Milliseconds, peak memory, and the work of a round: operations and the least traffic of memory in bytes."""
        scans, network = self.scans[sensor], self.network.train(training)
        flops, numbers = np.sum([self.work_of(sensor, row) for row in range(len(scans))], axis=0).tolist()
        network.config.sparse_backend = engine

        def prepare(round_: int):
            return self.batch([scans[(round_ + row) % len(scans)] for row in range(batch_size)])

        def run(voxels):
            with torch.set_grad_enabled(training), precision(precision_name, self.device):
                features = network(*voxels)
            if training:
                features.float().square().mean().backward()
                network.zero_grad()

        rounds = time_rounds(prepare, run, self.device, self.effort)
        share = batch_size / len(scans) * (3 if training else 1)  # backward: gradients of the inputs, of the weights
        width = (DTYPES[precision_name] or torch.float32).itemsize
        voxels = round(sum(len(coords) for coords, _ in scans) / len(scans) * batch_size)
        work = {"flops": flops * share, "bytes": numbers * width * share}
        return {"num_voxels": voxels, **rounds, **work}

    def batch(self, scans: list) -> tuple[torch.Tensor, torch.Tensor]:
        coords = torch.cat([coords for coords, _ in scans])
        counts = torch.tensor([len(coords) for coords, _ in scans])
        coords[:, 0] = torch.arange(len(scans)).repeat_interleave(counts)
        return coords.to(self.device), torch.cat([features for _, features in scans]).to(self.device)

    def work_of(self, sensor: str, row: int) -> tuple[int, int]:
        """Operations of all products of a forward pass over a scan, and the numbers that its layers must move."""
        if (sensor, row) not in self.work:
            is_training = self.network.training
            self.network.config.sparse_backend = "torch"
            with count_numbers(self.network) as numbers, FlopCounterMode(display=False) as counter, torch.no_grad():
                self.network.eval()(*self.batch([self.scans[sensor][row]]))
            self.network.train(is_training)
            self.work[sensor, row] = counter.get_total_flops(), sum(numbers)
        return self.work[sensor, row]


@contextmanager
def count_numbers(network: nn.Module):
    """While it is open: of each layer, how many numbers it reads and writes at least, each input and weight once."""
    numbers = []

    def count(module, inputs, output):
        weights = sum(parameter.numel() for parameter in module.parameters())
        numbers.append(inputs[0].numel() + weights + output.numel())

    layers = [module for module in network.modules() if isinstance(module, (SparseConv, nn.Linear, nn.BatchNorm1d))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    yield numbers
    for hook in hooks:
        hook.remove()


@dataclass
class Superpoints:
    """Collates varied clouds to a batch for `UOVForPreTraining`, with pairs of points and segments as of a label set.

    An item of the loader is `(seed, points)`: the cloud to change, and the seed of its change.
    """

    extractor: UOVFeatureExtractor
    embed_dim: int

    def __call__(self, items: list[tuple[int, np.ndarray]]) -> dict[str, torch.Tensor]:
        clouds = [vary(points, np.random.default_rng(seed)) for seed, points in items]
        starts = np.cumsum([0, *map(len, clouds)])
        size = (NUM_SUPERPOINTS * PAIRS_PER_SUPERPOINT,)
        num_superpoints = len(clouds) * NUM_SUPERPOINTS
        return {
            **self.extractor(clouds, intensity_max=255.0),
            "pair_to_point": torch.cat([torch.randint(first, end, size) for first, end in pairwise(starts)]),
            "superpoint_ids": torch.arange(num_superpoints).repeat_interleave(PAIRS_PER_SUPERPOINT),
            "scene_ids": torch.arange(len(clouds)).repeat_interleave(NUM_SUPERPOINTS),
            "segment_embeds": normalize(torch.randn(num_superpoints, self.embed_dim), dim=1),
            "segment_labels": torch.randint(NUM_PROMPTS, (num_superpoints,)),
            "prompt_embeds": normalize(torch.randn(NUM_PROMPTS, self.embed_dim), dim=1),
            "prompt_groups": torch.arange(NUM_PROMPTS) // 6,
        }


def measure_pretraining(
    points: list[np.ndarray],
    extractor: UOVFeatureExtractor,
    engine: str,
    precision_name: str,
    batch_size: int,
    device: str,
    effort: Effort,
) -> dict:
    """A whole step of pre-training, with the optimiser: fed by a `DataLoader`, and with the data at hand."""
    torch.manual_seed(0)
    model = UOVForPreTraining(UOVConfig.from_preset(effort.preset, sparse_backend=engine)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, dampening=0.1, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device, enabled=precision_name == "fp16")
    losses = []

    def step(batch):
        with precision(precision_name, device):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.detach())

    num_steps = WARM_UP + effort.most_rounds
    loader = DataLoader(
        [(seed, points[seed % len(points)]) for seed in range(num_steps * batch_size)],
        batch_size=batch_size,
        collate_fn=Superpoints(extractor, model.config.projection_dim),
        num_workers=effort.num_workers,
        pin_memory=device == "cuda",
    )
    batches, fed, last = [], [], time.perf_counter()
    for batch in loader:
        batches.append({name: values.to(device, non_blocking=True) for name, values in batch.items()})
        step(batches[-1])
        synchronize(device)
        now = time.perf_counter()
        fed.append(now - last)
        last = now
    rounds = time_rounds(lambda round_: batches[round_ % len(batches)], step, device, effort)
    values = torch.stack(losses).tolist()
    if not np.isfinite(values).all():
        raise ValueError(f"the loss is {values}")
    return {**rounds, "first_s": fed[0], "fed_ms": 1000 * median(fed[WARM_UP:]), "losses": values}
