"""The self-test of `uov-hf doctor`: what each engine that can be used here computes, held against another way."""

import time
from collections.abc import Callable

import torch
from torch.nn.functional import conv3d

from uov_hf.configuration_uov import UOVConfig
from uov_hf.sparse_conv import SparseConv
from uov_hf.sparse_unet import SparseUNet
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels
from uov_hf_cli.doctor import Report, installed_version, one_line


TOLERANCE = 1e-4  # of the largest value, in float32
SPCONVS = ("spconv-cu126", "spconv-cu124", "spconv-cu121", "spconv-cu120", "spconv-cu118", "spconv")


def examine_engines(report: Report) -> None:
    """Run the tests that this machine can run, and write what they say into the report.

    On one thread: two of them wait for each other for long on a busy machine, and spconv's CPU build has a data race.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _examine(report)
    finally:
        torch.set_num_threads(num_threads)


def _examine(report: Report) -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    report.spconv = find_spconv()
    report.engine = dict.fromkeys(devices, "torch")
    for device in devices:
        _run(report, f"torch engine on {device}, a convolution", lambda device=device: convolve(device))
        _run(report, f"torch engine on {device}, a network", lambda device=device: train_a_step(device))
    if report.spconv["installed"] is None or not report.spconv["imports"]:
        if report.spconv["installed"]:
            report.problems.append(f"spconv is installed and cannot be imported: {report.spconv['verdict']}")
        return
    if "cuda" in devices:
        passed = _run(report, "spconv against the torch engine on cuda", lambda: compare_engines("cuda"))
        report.engine["cuda"] = "spconv" if passed else "torch"
        report.spconv["verdict"] = "used on cuda" if passed else "wrong here: pip uninstall it"
    else:
        report.spconv["verdict"] = (
            "not used: it is for GPUs (on a CPU it is right on one thread only, and forwards only)"
        )
        _run(report, "spconv against the torch engine on one thread", lambda: compare_engines("cpu"))


def find_spconv() -> dict:
    """Which build is `installed`, whether it `imports`, and what to think of it."""
    installed = [f"{name} {installed_version(name)}" for name in SPCONVS if installed_version(name)]
    if not installed:
        return {"installed": None, "imports": False, "verdict": "only needed for speed on NVIDIA GPUs"}
    try:
        import spconv.pytorch  # noqa: F401
    except Exception as error:  # a broken binary may raise anything
        return {"installed": ", ".join(installed), "imports": False, "verdict": one_line(error)}
    return {"installed": ", ".join(installed), "imports": True, "verdict": ""}


def convolve(device: str) -> float:
    """How far a sparse convolution is from torch's dense one in float64, as a share of the largest value."""
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
    """Forwards and backwards through a tiny network, twice: how far the gradients of the two runs are apart."""
    first, second = (_gradients(device, "torch") for _ in range(2))
    if not all(gradient.isfinite().all() for gradient in first) or not any(gradient.any() for gradient in first):
        raise ValueError("gradients are not finite, or all zero")
    return max(_difference(ours, theirs) for ours, theirs in zip(first, second, strict=True))


def compare_engines(device: str) -> float:
    """Largest difference between spconv and the torch engine; on CUDA also of the gradients."""
    results = [[_answer(device, engine)] for engine in ("torch", "spconv")]
    if device == "cuda":  # its CPU build has no backward
        results = [own + _gradients(device, engine) for own, engine in zip(results, ("torch", "spconv"), strict=True)]
    return max(_difference(theirs, ours) for ours, theirs in zip(*results, strict=True))


def _run(report: Report, name: str, test: Callable[[], float]) -> bool:
    """Whether a test passes; one that does not is a problem."""
    start = time.perf_counter()
    try:
        difference = test()
        passed, result = difference <= TOLERANCE, f"differs by {difference:.0e}, {TOLERANCE:.0e} is allowed"
    except Exception as error:  # whatever a broken engine raises is its result
        passed, result = False, one_line(error)
    seconds = time.perf_counter() - start
    report.self_test.append({"name": name, "passed": passed, "result": result, "seconds": seconds})
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
    network(coords.to(device), features.to(device)).square().mean().backward()
    return [parameter.grad for parameter in network.parameters()]


def _network(engine: str) -> SparseUNet:
    torch.manual_seed(0)
    return SparseUNet(UOVConfig.from_preset("tiny", sparse_backend=engine))


def _scan(channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Some 400 voxels of a grid of 16³."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randperm(16**3, generator=generator)[:400]
    coords = torch.stack([torch.zeros_like(cells), cells // 256, cells // 16 % 16, cells % 16], dim=1).int()
    return coords, torch.rand(len(cells), channels, generator=generator)


def _difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    scale = expected.abs().max().item()
    return (result - expected).abs().max().item() / (scale or 1.0)
