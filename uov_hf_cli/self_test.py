"""The self-test of `uov-hf doctor`: compare each engine that this machine can use with another computation."""

import importlib
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch.nn.functional import conv3d
from torch.utils.flop_counter import FlopCounterMode

from uov_hf.configuration_uov import UOVConfig
from uov_hf.sparse_conv import SparseConv
from uov_hf.sparse_engines import why_not
from uov_hf.sparse_unet import SparseUNet
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels
from uov_hf_cli.machine_report import Engine, Report, SelfTest, Speed, installed_version, one_line


TOLERANCE = 1e-4  # of the largest value, in float32
# Distributions of the other engines. If several engines work on a GPU, the first one is used.
DISTRIBUTIONS = {
    "spconv": ("spconv-cu126", "spconv-cu124", "spconv-cu121", "spconv-cu120", "spconv-cu118", "spconv"),
    "spconv_triton": ("spconv-triton",),
}
SECONDS_OF_SPEED = 2.0
# A network as small as this one reaches a tenth to a fifth of the speed of a large product. Far below that, the small
# products themselves are slow: a library that takes long to prepare each new shape brings the share below one percent.
LEAST_SHARE = 0.05


def examine_engines(report: Report) -> None:
    """Run the tests that this machine can run, and add their results to the report.

    They run on one thread: two threads wait long for each other on a busy machine, and spconv's CPU build has a data
    race.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _examine(report)
    finally:
        torch.set_num_threads(num_threads)


def _examine(report: Report) -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    report.engine = dict.fromkeys(devices, "torch")
    for device in devices:
        _run(report, f"torch engine on {device}, a convolution", partial(convolve, device))
        _run(report, f"torch engine on {device}, a network", partial(train_a_step, device))
    report.speed = measure_speed()
    if report.speed.share < LEAST_SHARE:
        report.problems.append(_speed_problem(report.speed.share))
    for name in DISTRIBUTIONS:
        engine = find_engine(name)
        report.engines.append(engine)
        if engine.imports:
            _try(report, engine, devices)
        elif engine.installed:
            report.problems.append(f"{name} is installed and cannot be imported: {engine.verdict}")


def _try(report: Report, engine: Engine, devices: list[str]) -> None:
    """Compare an engine with torch's if it can run here, and set its verdict."""
    name = engine.name
    reason = why_not(name, torch.device("cuda"), torch.float32) if "cuda" in devices else None
    if reason is not None:
        engine.verdict = f"not used: {reason}"
    elif "cuda" in devices:
        if not _run(report, f"{name} against the torch engine on cuda", lambda: compare_engines(name, "cuda")):
            engine.verdict = "wrong here: pip uninstall it"
        elif report.engine["cuda"] == "torch":
            report.engine["cuda"], engine.verdict = name, "used on cuda"
        else:
            engine.verdict = "right on cuda"
    else:
        engine.verdict = "not used: it is for GPUs, and torch finds none"
        if name == "spconv":  # its CPU build is right on one thread, and forwards only
            _run(report, "spconv against the torch engine on one thread", lambda: compare_engines(name, "cpu"))


def find_engine(name: str) -> Engine:
    """The installed build of an engine's package, and whether it can be imported."""
    installed = [f"{build} {installed_version(build)}" for build in DISTRIBUTIONS[name] if installed_version(build)]
    if not installed:
        return Engine(name, None, False, "only needed for speed on GPUs")
    try:
        importlib.import_module(f"{name}.pytorch")
    except Exception as error:  # a broken binary may raise anything
        return Engine(name, ", ".join(installed), False, one_line(error))
    return Engine(name, ", ".join(installed), True, "")


def measure_speed() -> Speed:
    """Speed of the torch engine's products in training steps on the CPU, beside one large product.

    Every scan has another number of voxels, as in training, so that preparation for one shape does not help the next.
    Each scan's operations per second are divided by those of a product measured right after it; `share` is the median.
    """
    generator = torch.Generator().manual_seed(0)
    network = _network("torch")
    shares: list[float] = []
    speeds: list[float] = []
    end = time.perf_counter() + SECONDS_OF_SPEED
    while not shares or time.perf_counter() < end:
        voxels = _scan(side=40, num_voxels=int(torch.randint(7000, 9000, (), generator=generator)))
        seconds = _seconds(partial(_train, network, *voxels))
        speeds.append(count_operations(network, *voxels) / seconds)
        shares.append(speeds[-1] / product_speed())
    return Speed(median(shares), median(speeds) / 1e9, len(shares))


def count_operations(network: SparseUNet, coords: torch.Tensor, features: torch.Tensor) -> int:
    """Multiplications and additions in the products of a training step, forwards and backwards."""
    with FlopCounterMode(display=False) as counter:
        _train(network, coords, features)
    return counter.get_total_flops()


def product_speed(size: int = 1024) -> float:
    """Operations per second of a large product."""
    left, right = torch.ones(size, size), torch.ones(size, size)
    return 2 * size**3 / min(_seconds(lambda: torch.mm(left, right)) for _ in range(3))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _speed_problem(share: float) -> str:
    return (
        f"the torch engine reaches {share:.1%} of the speed of a large product on this processor, and at least "
        f"{LEAST_SHARE:.0%} is expected: small products are too slow. Run this again on an idle machine. If the share "
        "stays low, install another build of torch (https://pytorch.org/get-started/locally), and report the output "
        "of `uov-hf doctor --json`"
    )


def convolve(device: str) -> float:
    """Largest difference of a sparse convolution from torch's dense one in float64, relative to the largest value."""
    coords, features = _scan(channels=4)
    torch.manual_seed(0)
    conv = SparseConv(4, 8, 3)
    dense = torch.zeros(1, 4, 16, 16, 16, dtype=torch.float64)
    x, y, z = coords[:, 1:].long().T
    dense[0, :, x, y, z] = features.double().T
    expected = conv3d(dense, conv.weight.double().permute(0, 4, 1, 2, 3), padding=1)[0, :, x, y, z].T
    finest, order = sort_voxels(coords.to(device), num_levels=1)
    with torch.no_grad():
        result = conv.to(device)(features.to(device)[order], VoxelPyramid(finest).submanifold(0, 3))
    return _difference(result, expected.to(device)[order])


def train_a_step(device: str) -> float:
    """Largest difference between the gradients of two equal runs through a tiny network."""
    first, second = (_gradients(device, "torch") for _ in range(2))
    if not all(gradient.isfinite().all() for gradient in first) or not any(gradient.any() for gradient in first):
        raise ValueError("gradients are not finite, or all zero")
    return max(_difference(ours, theirs) for ours, theirs in zip(first, second, strict=True))


def compare_engines(name: str, device: str) -> float:
    """Largest difference of an engine from torch's in the features and, on CUDA, in the gradients."""
    results = [[_answer(device, engine)] for engine in ("torch", name)]
    if device == "cuda":  # spconv's CPU build has no backward
        results = [own + _gradients(device, engine) for own, engine in zip(results, ("torch", name), strict=True)]
    return max(_difference(theirs, ours) for ours, theirs in zip(*results, strict=True))


def _run(report: Report, name: str, test: Callable[[], float]) -> bool:
    """Run a test, add it to the report, and return whether it passed."""
    start = time.perf_counter()
    try:
        difference = test()
        passed, result = difference <= TOLERANCE, f"differs by {difference:.0e}, {TOLERANCE:.0e} is allowed"
    except Exception as error:  # a broken engine may raise anything
        passed, result = False, one_line(error)
    seconds = time.perf_counter() - start
    report.self_test.append(SelfTest(name, passed, result, seconds))
    if not passed:
        report.problems.append(f"{name}: {result}")
    return passed


def _answer(device: str, engine: str) -> torch.Tensor:
    coords, features = _scan()
    with torch.no_grad():
        return _network(engine).eval().to(device)(coords.to(device), features.to(device))


def _gradients(device: str, engine: str) -> list[torch.Tensor]:
    coords, features = _scan()
    network = _network(engine).to(device)
    _train(network, coords.to(device), features.to(device))
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def _network(engine: str) -> SparseUNet:
    torch.manual_seed(0)
    return SparseUNet(UOVConfig.from_preset("tiny", sparse_backend=engine))


def _train(network: SparseUNet, coords: torch.Tensor, features: torch.Tensor) -> None:
    network(coords, features).square().mean().backward()


def _scan(channels: int = 1, side: int = 16, num_voxels: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """`num_voxels` different voxels of a cube, and random features."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randperm(side**3, generator=generator)[:num_voxels]
    coords = torch.stack([torch.zeros_like(cells), cells // side**2, cells // side % side, cells % side], dim=1).int()
    return coords, torch.rand(len(cells), channels, generator=generator)


def _difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    scale = expected.abs().max().item()
    return (result - expected).abs().max().item() / (scale or 1.0)
