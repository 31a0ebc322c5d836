"""Part of gpu.py: the results of each engine in each precision, compared with float64 on the CPU."""

import math
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from unittest.mock import patch

import torch
from torch import nn

from uov_hf import UOVConfig
from uov_hf.sparse_unet import SparseUNet


PACKAGES = {"spconv": "cuda", "spconv_triton": "triton"}  # an engine and the extra that installs it
DTYPES = {"fp32": None, "tf32": None, "fp16": torch.float16, "bf16": torch.bfloat16}  # of autocast
# Largest error that passes: of a feature, as a share of the largest one; of the gradient of a parameter, as a share of
# its norm. TF32 and float16 keep 10 bits of a product's factors, bfloat16 7; float32 keeps 23.
TOLERANCES = {"fp32": (1e-4, 1e-4), "tf32": (1e-2, 3e-2), "fp16": (1e-2, 3e-2), "bf16": (5e-2, 2e-1)}
# Equal widths: spconv_triton tunes a kernel for every pair of widths, which takes long.
SMALL = {"stem_channels": 32, "hidden_sizes": [32] * 8, "depths": [1] * 8, "projection_dim": 8}
SCAN = "a scan"  # the input of the network that is measured
LOSS_SCALE = 16.0  # or small gradients vanish in float16


@cache
def why_not_installed(engine: str) -> str | None:
    """The reason why an engine's package cannot be imported, or None."""
    if engine not in PACKAGES:
        return None
    try:
        import_module(f"{engine}.pytorch")
    except Exception as error:  # a broken binary may raise anything
        return f"{one_line(error)}: pip install 'uov-hf[{PACKAGES[engine]}]'"
    return None


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def allow_tf32(allowed: bool) -> None:
    """Let torch and the engines use TF32 in float32 products, or forbid it."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    for engine in PACKAGES:
        if why_not_installed(engine) is None:
            import_module(f"{engine}.constants").SPCONV_ALLOW_TF32 = allowed


@contextmanager
def precision(name: str, device: str):
    """Computing in this precision; one process must not use both float32 and TF32.

    spconv keeps the kernel that it found fastest for a shape, whether or not TF32 is still allowed.
    """
    allow_tf32(name == "tf32")
    with torch.autocast(device, dtype=DTYPES[name], enabled=DTYPES[name] is not None):
        yield


def without_relu():
    """Remove ReLU, at whose kink rounding alone would change the gradients of a right engine by much."""
    return patch("torch.relu_", lambda features: features)


def disarm_spconv(device: str) -> None:
    """On a CPU: spconv requests a CUDA stream in backward and crashes, and is right on one thread only."""
    if device == "cpu" and why_not_installed("spconv") is None:
        import_module("spconv.pytorch.ops").get_current_stream = lambda: 0
        torch.set_num_threads(1)


def odd_voxels() -> dict[str, torch.Tensor]:
    """Coordinates `(num_voxels, 4)`, int32, that an engine might get wrong."""
    blob = _blob(600, (17, 31, 5))
    corner = torch.tensor([[0, 16, 30, 4]], dtype=torch.int32)  # the last cell of the odd grid
    stray = torch.tensor([[0, 100_000, -100_000, 3_000]], dtype=torch.int32)
    return {
        "empty batch": blob[:0],
        "one voxel": blob[:1],
        "odd grid": torch.unique(torch.cat([blob, corner]), dim=0),
        "negative coordinates": blob - torch.tensor([0, 37, 41, 3], dtype=torch.int32),
        "sample without voxels": torch.cat([blob, blob[::2] + torch.tensor([2, 0, 0, 0], dtype=torch.int32)]),
        "far stray point": torch.cat([blob, stray]),
        "non-contiguous coordinates": blob.T.contiguous().T,
    }


def _blob(num_voxels: int, size: tuple[int, int, int]) -> torch.Tensor:
    """Different cells of a grid, in any order."""
    cells = torch.ones(size).nonzero()[torch.randperm(math.prod(size), generator=torch.Generator().manual_seed(0))]
    return torch.nn.functional.pad(cells[:num_voxels], (1, 0)).int()


class Case:
    """A network and an input, with the features and gradients that float64 gives on the CPU.

    The weights are random, and the batch normalisation has the statistics of `warm_up`, another input.
    """

    def __init__(self, name, config: UOVConfig, coords, features, warm_up):
        self.name, self.coords, self.features = name, coords, features
        self.network = prepare_network(config, *warm_up)
        generator = torch.Generator().manual_seed(1)
        self.directions = torch.randn(len(coords), config.hidden_sizes[-1], generator=generator)
        self.directions *= LOSS_SCALE / max(len(coords), 1) ** 0.5
        self.exact = self.compute(self.network.double(), "cpu")
        self.network.float()

    def compute(self, network: SparseUNet, device: str) -> list[torch.Tensor]:
        """Features, then the gradient of every parameter, in float64 on the CPU."""
        network.zero_grad()
        dtype = next(network.parameters()).dtype
        with without_relu():
            result = network(self.coords.to(device), self.features.to(device, dtype))
        if result.requires_grad:
            (result.to(dtype) * self.directions.to(device, dtype)).sum().backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
        return [tensor.detach().cpu().double() for tensor in (result, *gradients)]

    def errors(self, engine: str, precision_name: str, device: str) -> tuple[float, float]:
        """Errors of the features and of the worst gradient, as TOLERANCES has them."""
        network = self.network.to(device)
        network.config.sparse_backend = engine
        with precision(precision_name, device):
            features, *gradients = self.compute(network, device)
        exact_features, *exact_gradients = self.exact
        pairs = zip(gradients, exact_gradients, strict=True)
        wrong = share((features - exact_features).abs().amax(), exact_features.abs().amax()) if len(features) else 0.0
        return wrong, max(share((ours - exact).norm(), exact.norm()) for ours, exact in pairs)


def is_refusal(error: BaseException) -> bool:
    """Whether the network refused an engine with its own message."""
    return isinstance(error, RuntimeError) and "sparse_backend='torch'" in str(error)


def share(difference: torch.Tensor, whole: torch.Tensor) -> float:
    """NaN and infinity stay: they pass no tolerance."""
    return (difference / whole if whole > 0 else difference).item()


def prepare_network(config: UOVConfig, coords: torch.Tensor, features: torch.Tensor) -> SparseUNet:
    """A random network in evaluation, with the batch statistics of an input: its features stay near unit size."""
    torch.manual_seed(0)
    network = SparseUNet(config).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0
    with torch.no_grad(), without_relu():
        network(coords, features)
    return network.eval()


def make_cases(preset: str, scan: tuple[torch.Tensor, torch.Tensor]) -> list[Case]:
    """All inputs: the odd ones for a small network, the scan for the network of the preset."""
    generator = torch.Generator().manual_seed(0)
    inputs = {name: (coords, torch.rand(len(coords), 1, generator=generator)) for name, coords in odd_voxels().items()}
    small = UOVConfig(**SMALL, sparse_backend="torch")
    cases = [Case(name, small, *voxels, warm_up=inputs["odd grid"]) for name, voxels in inputs.items()]
    return [*cases, Case(SCAN, UOVConfig.from_preset(preset, sparse_backend="torch"), *scan, warm_up=scan)]


def check(cases: list[Case], engine: str, precision_name: str, device: str) -> dict:
    """The largest errors of an engine in a precision, and the inputs that it passes, refuses or fails."""
    result = {"value_error": 0.0, "gradient_error": 0.0, "passed": [], "refused": {}, "failed": {}}
    for case in cases:
        try:
            errors = case.errors(engine, precision_name, device)
        except Exception as error:  # an engine may raise anything
            result["refused" if is_refusal(error) else "failed"][case.name] = one_line(error)
            continue
        names = ("value_error", "gradient_error")
        for name, value, tolerance in zip(names, errors, TOLERANCES[precision_name], strict=True):
            result[name] = max(result[name], value) if value == value else value
            if not value <= tolerance:
                result["failed"][case.name] = f"{name.replace('_', ' ')} {value:.1e}, {tolerance:.0e} is allowed"
        if case.name not in result["failed"]:
            result["passed"].append(case.name)
    return result
