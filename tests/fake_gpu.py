"""A device "fakegpu" whose tensors lie on the CPU: it refuses what CUDA refuses and counts what costs time there.

```python
with FakeGPU() as traffic:
    model, points = to_gpu(model), to_gpu(points)
    model(points)
print(traffic)  # how many launches, syncs and copies, and which line made each
```

Autograd counts the devices when it first runs backward. So this file is imported, and the device
registered, before any test: by conftest.py. Outside of the context the device counts as absent, and its tensors refuse
every operation. Nothing of torch is patched. `torch.inference_mode` is not supported; use `torch.no_grad`.
"""

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)


NAME = "fakegpu"
LIBRARY = str(Path(__file__).parents[1] / "uov_hf")
NOT_A_CAUSE = (__file__, str(Path(torch.__file__).parent))

TRANSFERS = {"_to_copy": 0, "copy_": 1}  # which argument is the source
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
# Memory is reserved, or a number read; views are seen from their schemas.
NO_LAUNCH = set("_local_scalar_dense _unsafe_view empty empty_like empty_strided new_empty new_empty_strided".split())
# The host reads the result, its size, or whether it is right (ATen/native/cuda). `_local_scalar_dense` is what `item`,
# `bool`, `int` and `float` come to, `nonzero` is `argwhere` and `where` of one argument; `isin` waits where it sorts.
SYNCHRONISING = set(
    "_linalg_check_errors _linalg_eigh _linalg_svd _local_scalar_dense _unique _unique2 allclose bincount equal isin "
    "linalg_eig linalg_lstsq linalg_pinv masked_select multinomial nonzero unique_consecutive unique_dim "
    "unique_dim_consecutive".split()
)
# Under autocast, as on CUDA (ATen/autocast_mode.h): those that this package uses.
IN_AUTOCAST_DTYPE = "addmm baddbmm bmm einsum linear matmul mm".split()
IN_FLOAT32 = (
    "cross_entropy_loss cumsum exp layer_norm linalg_vector_norm log log_softmax.int logsumexp nll_loss "
    "norm.ScalarOpt_dim pow.Tensor_Scalar prod softmax.int sum sum.dim_IntList".split()
)

_active: list["FakeGPU"] = []


class _Module(_DummyBackendModule):
    def is_available(self) -> bool:
        return bool(_active)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Hook(_DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return bool(_active)


_setup_privateuseone_for_python_backend(NAME, _Module(), _Hook())
_autocast = [torch.library.Library(namespace, "IMPL", "AutocastPrivateUse1") for namespace in ("aten", "_")]
_autocast[1].fallback(torch.library.fallthrough_kernel)


def _register_autocast(name: str) -> None:
    """Let an operation run in the dtype of autocast, or in float32."""

    def run(*args, **kwargs):
        dtype = torch.float32 if name in IN_FLOAT32 else torch.get_autocast_dtype(NAME)
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            floating = torch.float16, torch.bfloat16, torch.float32
            args = tree_map_only(torch.Tensor, lambda one: one.to(dtype) if one.dtype in floating else one, args)
            return operation(*args, **kwargs)

    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
    _autocast[0].impl(name, run)


for _name in (*IN_AUTOCAST_DTYPE, *IN_FLOAT32):
    _register_autocast(_name)


class _GPUTensor(torch.Tensor):
    """The shape of `raw`, which lies on the CPU, under the name of the device."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "_GPUTensor":
        layout = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, raw.shape, device=torch.device(NAME, 0), **layout)
        tensor.raw = raw
        return tensor

    def numpy(self, **_):
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> list:
        return self.cpu().tolist()

    def __setitem__(self, index, value) -> None:
        # As on CUDA, where a number stays on the host: with it, a mask as the index is no sync.
        number = isinstance(value, (bool, int, float))
        super().__setitem__(index, torch.tensor(value, dtype=self.dtype) if number else value)

    def __repr__(self, **_) -> str:
        return f"fakegpu({self.raw})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} of a tensor on the fake GPU, which is there inside `with FakeGPU()` only.")


class FakeGPU(TorchDispatchMode):
    """
    A context in which the device is there, and in which its traffic is counted, in threads of autograd too.

    Attributes:
        launches, syncs, copies (`Counter[tuple[str, str]]`):
            How often each operation was launched on the device, made the host wait for a value, or moved data between
            host and device, by its name and the line that caused it: the innermost one of the library, else of the
            test. A copy from the device counts as a sync, too. `.total()` is their number.
    """

    def __init__(self):
        super().__init__()
        self.launches, self.syncs, self.copies = Counter(), Counter(), Counter()

    def __enter__(self) -> "FakeGPU":
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=)` makes a CPU tensor, then copies
        _active.append(self)
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        _active.remove(self)
        torch._C._set_only_lift_cpu_tensors(self._lifted)

    def __str__(self) -> str:
        """What there was, the most frequent first."""
        counts = {name: getattr(self, name) for name in ("launches", "syncs", "copies")}
        lines = [f"{name} {count.total()}" for name, count in counts.items()]
        for name, count in counts.items():
            lines += [f"  {name}: {times} x {what} at {where}" for (what, where), times in count.most_common(20)]
        return "\n".join(lines)

    def clear(self) -> None:
        """Count from zero."""
        for count in (self.launches, self.syncs, self.copies):
            count.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        comes_from_gpu = any(map(_is_on_gpu, tensors))
        goes_to_gpu, device = comes_from_gpu, kwargs.get("device")
        name = func.overloadpacket.__name__
        if device is not None:
            goes_to_gpu = torch.device(device).type == NAME
            kwargs["device"] = torch.device("cpu") if goes_to_gpu else device
        elif name == "copy_":
            goes_to_gpu = _is_on_gpu(args[0])
        if not comes_from_gpu and not goes_to_gpu:
            return func(*args, **kwargs)
        _refuse_mixed_devices(name, args, tensors)
        self._count(func, name, args, kwargs, goes_to_gpu)
        raw_args, raw_kwargs = tree_map_only(_GPUTensor, lambda tensor: tensor.raw, (args, kwargs))
        result = func(*raw_args, **raw_kwargs)
        if not goes_to_gpu:
            return result
        result = tree_map_only(torch.Tensor, _GPUTensor, result)
        return return_and_correct_aliasing(func, args, kwargs, result) if comes_from_gpu else result

    def _count(self, func, name: str, args: tuple, kwargs: dict, goes_to_gpu: bool) -> None:
        entry = [(name, _cause())]
        moves = name in TRANSFERS and _is_on_gpu(args[TRANSFERS[name]]) != goes_to_gpu
        if moves or (name in INDEXING and any(map(_is_on_host, args[1]))):
            self.copies.update(entry)
        if (moves and not goes_to_gpu) or _waits(name, args, kwargs):
            self.syncs.update(entry)
        if not (moves or func.is_view or name in NO_LAUNCH):
            self.launches.update(entry)


def to_gpu(thing):
    """On the device: a module (itself), a tensor, or a list, tuple or dictionary of tensors. It is not counted."""
    with FakeGPU():  # of its own
        if isinstance(thing, torch.nn.Module):
            return thing.to(NAME)
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to(NAME), thing)


def _is_on_gpu(value) -> bool:
    return isinstance(value, _GPUTensor)


def _is_on_host(value) -> bool:
    return isinstance(value, torch.Tensor) and not _is_on_gpu(value)


def _waits(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether the host waits for a value: how many there are, or which."""
    if name in INDEXING:
        number = len(args) > 2 and _is_on_host(args[2])
        return not number and any(_is_on_gpu(index) and index.dtype == torch.bool for index in args[1])
    if name in ("masked_fill", "masked_fill_"):
        return _is_on_gpu(args[2])  # reads the number
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    return name in SYNCHRONISING


def _refuse_mixed_devices(name: str, args: tuple, tensors: list[torch.Tensor]) -> None:
    """As CUDA does: on the host there may be numbers, what is copied, and indices into what lies on the device."""
    if name in INDEXING and _is_on_gpu(args[0]):
        tensors = [args[0], *args[2:]]
    if name not in TRANSFERS and any(_is_on_host(tensor) and tensor.dim() for tensor in tensors):
        shapes = [f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device, {name} at {_cause()} got {shapes}.")


def _cause() -> str:
    """File and line of the innermost frame of the library, else of the test; "autograd" in its threads."""
    frame, outside = sys._getframe(1), "autograd"
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(LIBRARY):
            return f"{Path(file).name}:{frame.f_lineno}"
        if outside == "autograd" and not file.startswith(NOT_A_CAUSE):
            outside = f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return outside
