"""The choice of the engine of the sparse convolutions, and one adapter for spconv and spconv-triton."""

import copy
import importlib
import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .voxel_pyramid import VoxelLevel


INT32_MAX = 2**31 - 1
TORCH_ON_A_GPU = "it is exact, but launches several kernels where the others launch one: expect it to be slower"


@dataclass(frozen=True)
class Library:
    """A library with the interface of `spconv.pytorch`, and its limits.

    Args:
        extra (`str`): The extra of this package that installs it.
        dtypes (`dict[str, tuple[torch.dtype, ...]]`): The dtypes that it computes correctly, by type of device.
        max_cells (`int`): Cells of a batch that it can number. Beyond that it finds neighbours that do not exist.
        max_bytes (`int`): Size of a tensor of features that it can address.
        lock (`AbstractContextManager`):
            Held while it is called in a forward pass. Backward passes of several threads are not protected.
    """

    extra: str
    dtypes: dict[str, tuple[torch.dtype, ...]]
    max_cells: int
    max_bytes: int
    lock: AbstractContextManager = field(default_factory=nullcontext)

    def max_voxels(self, row_bytes: int, kernel_volume: int) -> int:
        """Voxels of which it can address the features, and number the pairs of input and output."""
        return min(self.max_bytes // row_bytes, INT32_MAX // (2 * kernel_volume))


# In the order in which "auto" takes them.
LIBRARIES = {
    "spconv": Library(
        extra="cuda",
        dtypes={"cuda": (torch.float16, torch.float32), "cpu": (torch.float32, torch.float64)},
        max_cells=INT32_MAX,
        max_bytes=INT32_MAX,
    ),
    "spconv_triton": Library(
        extra="triton",
        dtypes={"cuda": (torch.bfloat16, torch.float16, torch.float32)},
        max_cells=2**62,  # it takes int64 where int32 does not suffice; its addresses are int64 always
        max_bytes=2**62,
        lock=threading.Lock(),  # Triton's autotuner keeps the arguments of its call on itself
    ),
}


@dataclass(frozen=True)
class Engine:
    """The engine of the sparse convolutions ("torch", "spconv" or "spconv_triton"), and the reason for the choice."""

    name: str
    reason: str


def choose_engine(backend: str, device: torch.device, dtype: torch.dtype) -> Engine:
    """Choose one engine for all batches on this kind of device in this dtype, whatever a batch contains.

    Args:
        backend (`str`): `config.sparse_backend`.
        device (`torch.device`): Where the voxels are.
        dtype (`torch.dtype`): What the convolutions compute in: that of the features, or autocast's.

    Raises:
        RuntimeError: `backend` names a library that cannot compute this here.
    """
    if backend == "torch":
        return Engine("torch", "set by `sparse_backend`")
    if backend != "auto":
        if reason := why_not(backend, device, dtype):
            raise RuntimeError(f"{backend} cannot be used here: {reason}. Use `sparse_backend='torch'` or 'auto'.")
        return Engine(backend, "set by `sparse_backend`")
    if device.type != "cuda":
        return Engine("torch", f"the others need a GPU of NVIDIA or AMD, and the voxels are on {device.type}")
    reasons: list[str] = []
    for name in LIBRARIES:
        if (reason := why_not(name, device, dtype)) is None:
            return Engine(name, "; ".join([*reasons, f"it computes {dtype} on this GPU"]))
        reasons.append(f"not {name}: {reason}")
    return Engine("torch", "; ".join([*reasons, TORCH_ON_A_GPU]))


def compute_dtype(features: torch.Tensor) -> torch.dtype:
    """The dtype of a convolution of these features: that of autocast where it is on, else their own."""
    if torch.is_autocast_enabled(features.device.type):
        return torch.get_autocast_dtype(features.device.type)
    return features.dtype


def why_not(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why a library cannot compute this; None if it can."""
    if dtype not in LIBRARIES[name].dtypes.get(device.type, ()):
        return f"it has no kernels for {dtype} on {device.type}"
    if name == "spconv" and device.type == "cuda" and torch.version.hip:
        return "its kernels are for GPUs of NVIDIA"
    library, problem = load_library(name)
    if library is None:
        return problem
    if device.type == "cuda" and library.conv.CPU_ONLY_BUILD:
        return "the installed build is that for CPUs"
    if device.type == "cpu" and torch.get_num_threads() > 1:
        return "its CPU build has a data race and gives wrong numbers with more than one thread (OMP_NUM_THREADS=1)"
    return None


@cache
def load_library(name: str) -> tuple[ModuleType | None, str]:
    """The library, or None and the problem. Imported on first use: the import is slow, and spconv warns."""
    try:
        return importlib.import_module(f"{name}.pytorch"), ""
    except Exception as error:  # a build for another torch or CUDA may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            extra = LIBRARIES[name].extra
            wheels = ", which has wheels for Python up to 3.13 on x86-64" if extra == "cuda" else ""
            return None, f"it is not installed (for GPUs: `pip install 'uov-hf[{extra}]'`{wheels})"
        return None, f"it cannot be imported ({type(error).__name__}: {error})"


def _library(name: str) -> ModuleType:
    library, problem = load_library(name)
    if library is None:
        raise RuntimeError(f"{name} cannot be used: {problem}.")
    return library


@cache
def _template(
    name: str, kind: str, in_channels: int, out_channels: int, kernel_size: int, key: str, native: bool
) -> nn.Module:
    """A convolution of the library without a weight."""
    library = _library(name)
    options = {"bias": False, "indice_key": key, "algo": library.ConvAlgo.Native if native else None}
    with torch.device("meta"):
        if kind == "submanifold":
            return library.SubMConv3d(in_channels, out_channels, kernel_size, **options)
        if kind == "down":
            return library.SparseConv3d(in_channels, out_channels, kernel_size, stride=kernel_size, **options)
        return library.SparseInverseConv3d(in_channels, out_channels, kernel_size, **options)


def _module(template: nn.Module, weight: torch.Tensor, training: bool) -> nn.Module:
    """A shallow copy of the template with this weight: threads and layers share the template."""
    module = copy.copy(template)
    parameters: dict[str, Any] = {**template._parameters, "weight": weight}  # the library accepts plain tensors
    module._parameters = parameters
    module.training = training  # keeps the pairs that backward needs
    return module


@dataclass(frozen=True)
class Box:
    """The range of cells of voxels: the lowest and the highest batch index, x, y and z."""

    low: tuple[int, ...]
    high: tuple[int, ...]

    def joined(self, other: "Box") -> "Box":
        """The smallest box around both."""
        return Box(tuple(map(min, self.low, other.low)), tuple(map(max, self.high, other.high)))

    def shape(self, stride: int) -> list[int]:
        """Number of samples, and cells per axis, of the box that ends at multiples of `stride`.

        spconv drops the last plane of an odd grid on the way down: the grid is even at every level.
        """
        low, high = self.low[1:], self.high[1:]
        axes = [(end // stride + 1 - start // stride) * stride for start, end in zip(low, high, strict=True)]
        return [self.high[0] - self.low[0] + 1, *axes]


class _Part:
    """Neighbouring samples of a batch in the form of a library. A level exists once the map down to it has run."""

    def __init__(self, fields: torch.Tensor, shape: list[int], total_stride: int):
        low = fields.amin(0)
        low[1:] -= low[1:] % total_stride
        self.batch_size, *spatial_shape = shape
        self.levels = [((fields - low).int().contiguous(), spatial_shape)]
        self.pairs: dict[str, Any] = {}  # the library's own objects

    def num_voxels(self, level: int) -> int:
        return len(self.levels[level][0])

    def convolve(
        self, library: ModuleType, module: nn.Module, features: torch.Tensor, input_level: int, output_level: int
    ) -> torch.Tensor:
        indices, shape = self.levels[input_level]
        inputs = library.SparseConvTensor(features, indices, shape, self.batch_size, indice_dict=self.pairs)
        outputs = module(inputs)
        self.pairs.update(outputs.indice_dict)
        if output_level == len(self.levels):
            self.levels.append((outputs.indices, outputs.spatial_shape))
        return outputs.features


@dataclass(frozen=True)
class SpconvMap:
    """One kind of convolution between two levels; the library finds its pairs and keeps them under `key`."""

    pyramid: "SpconvPyramid"
    kind: str
    input_level: int
    output_level: int
    kernel_size: int
    key: str

    def convolve(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Compute the same as `KernelMap.convolve` by the library of the pyramid."""
        pyramid = self.pyramid
        if torch.is_autocast_enabled(features.device.type):
            dtype = compute_dtype(features)
            features, weight = features.to(dtype), weight.to(dtype)
        native = pyramid.library == "spconv" and features.device.type == "cpu"  # all that its CPU build has
        channels = weight.shape[-1], weight.shape[0]
        template = _template(pyramid.library, self.kind, *channels, self.kernel_size, self.key, native)
        library, module = _library(pyramid.library), _module(template, weight, pyramid.training)
        rows = features.contiguous().split([part.num_voxels(self.input_level) for part in pyramid.parts])
        # The autocast of the libraries is always float16, and off in evaluation; they launch on the current GPU.
        on_device = torch.cuda.device(features.device) if features.device.type == "cuda" else nullcontext()
        with LIBRARIES[pyramid.library].lock, torch.autocast(features.device.type, enabled=False), on_device:
            outputs = [
                part.convolve(library, module, own, self.input_level, self.output_level)
                for part, own in zip(pyramid.parts, rows, strict=True)
            ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class SpconvPyramid:
    """The maps of `VoxelPyramid`, found by spconv or spconv-triton.

    A batch beyond the limits of the library is computed in parts of neighbouring samples, each in its own box of
    cells, convolution by convolution: the result, the batch statistics and the gradients are those of the whole.

    Args:
        library (`str`): "spconv" or "spconv_triton".
        finest (`VoxelLevel`): At least one voxel.
        total_stride (`int`): Stride of the coarsest level.
        row_bytes (`int`): Size of the features of one voxel where they are widest.
        kernel_volume (`int`): Cells of the largest kernel.

    Raises:
        RuntimeError: A single sample exceeds the limits of the library.
    """

    def __init__(self, library: str, finest: VoxelLevel, total_stride: int, row_bytes: int, kernel_volume: int):
        self.library, self.training, self._stride = library, torch.is_grad_enabled(), total_stride
        self._max_voxels = LIBRARIES[library].max_voxels(row_bytes, kernel_volume)
        fields = torch.stack(finest.fields(), 1)
        boxes, counts = zip(*self._runs(fields), strict=True)
        shapes = [box.shape(total_stride) for box in boxes]
        self.parts = [_Part(*part, total_stride) for part in zip(fields.split(counts), shapes, strict=True)]

    @torch.compiler.disable
    def submanifold(self, level: int, kernel_size: int) -> SpconvMap:
        return SpconvMap(self, "submanifold", level, level, kernel_size, f"submanifold{level}.{kernel_size}")

    @torch.compiler.disable
    def down(self, level: int) -> SpconvMap:
        return SpconvMap(self, "down", level, level + 1, 2, f"down{level}")

    @torch.compiler.disable
    def up(self, level: int) -> SpconvMap:
        return SpconvMap(self, "up", level + 1, level, 2, f"down{level}")

    def _runs(self, fields: torch.Tensor) -> list[tuple[Box, int]]:
        """Box and number of voxels of each part. Waits for the device once, and twice more for several parts."""
        whole = _boxes([fields])[0]
        if self._fits(whole, len(fields)):
            return [(whole, len(fields))]
        counts = [count for count in torch.bincount(fields[:, 0]).tolist() if count]
        runs: list[tuple[Box, int]] = []
        for box, num_voxels in zip(_boxes(fields.split(counts)), counts, strict=True):
            if not self._fits(box, num_voxels):
                self._refuse(box, num_voxels)
            longer = (runs[-1][0].joined(box), runs[-1][1] + num_voxels) if runs else None
            if longer and self._fits(*longer):
                runs[-1] = longer
            else:
                runs.append((box, num_voxels))
        return runs

    def _fits(self, box: Box, num_voxels: int) -> bool:
        shape, max_cells = box.shape(self._stride), LIBRARIES[self.library].max_cells
        return num_voxels <= self._max_voxels and math.prod(shape) <= max_cells and max(shape) <= INT32_MAX

    def _refuse(self, box: Box, num_voxels: int) -> None:
        num_cells = math.prod(box.shape(self._stride))
        raise RuntimeError(
            f"Scan {box.low[0]} of the batch has {num_voxels} voxels that span {num_cells} cells, and {self.library} "
            f"supports at most {self._max_voxels} voxels and {LIBRARIES[self.library].max_cells} cells of one scan. "
            "Leave far points out (`point_cloud_range` of `UOVFeatureExtractor`), or use `sparse_backend='torch'`."
        )


def _boxes(slices: Sequence[torch.Tensor]) -> list[Box]:
    ends = torch.stack([torch.stack([fields.amin(0), fields.amax(0)]) for fields in slices]).tolist()
    return [Box(tuple(low), tuple(high)) for low, high in ends]
