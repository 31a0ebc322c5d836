"""Read tensors and settings from the official `.pt` and `.ckpt` files, without running code."""

import json
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from uov_hf.tensor_files import StandIn, plain_tensor, read_tensor_file


# The key of the 3D network's tensors in the file, and the prefix of their names (docs/how_to/convert.md).
LAYOUTS = (
    ("model_points", ""),  # the official scripts' and SLidR's own files
    ("state_dict", "model_points."),  # Lightning's, of pre-training
    ("state_dict", "model."),  # Lightning's, of annotation-free training and fine-tuning
    ("state_dict", ""),
    (None, ""),
)
SIGN = "conv0p1s1.kernel"  # every MinkUNet of MinkowskiEngine's examples has it
# Run where the file was written, by somebody who trusts it: loading runs the code in it.
STRIP = (
    'import os, torch; os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"; '
    'content = torch.load({path}, map_location="cpu"); '
    'torch.save({{key: content[key] for key in ("state_dict", "model_points") if key in content}}, {stripped})'
)


class LightningClass:
    """Stands for a class of Lightning 1.4, whose checkpoints contain classes as keys of what callbacks store."""


class NumberType:
    """Stands for `numpy.dtype`, so that no state of a foreign file gets into NumPy."""

    def __init__(self, code: str, align: bool = False, copy: bool = True):
        self.code, self.byte_order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]


def read_number(dtype: NumberType, content: bytes) -> float:
    """Stands for the function that makes NumPy scalars: the number in `content`, as Python's own."""
    if not re.fullmatch("b1|f[248]|[iu][1248]", dtype.code) or dtype.byte_order not in ("<", ">", "=", "|"):
        raise pickle.UnpicklingError(f"Unsupported NumPy scalar of type {dtype.byte_order}{dtype.code}")
    return np.frombuffer(content, dtype.byte_order + dtype.code).item()


# What an official file may contain beside tensors and plain values, by the name in the file.
STAND_INS: list[StandIn] = [
    (LightningClass, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (LightningClass, "pytorch_lightning.callbacks.early_stopping.EarlyStopping"),
    (LightningClass, "pytorch_lightning.callbacks.timer.Timer"),
    (NumberType, "numpy.dtype"),
    (read_number, "numpy.core.multiarray.scalar"),
    (read_number, "numpy._core.multiarray.scalar"),  # of NumPy 2
]


def read_official(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of the 3D network under their official names, and the training settings, if the file has any.

    Raises:
        ValueError: If the file contains anything but tensors, plain values and `STAND_INS`, no MinkUNet, or one of
            tensors that are not dense or not real.
    """
    try:
        content = read_tensor_file(path, STAND_INS)
    except ValueError as error:
        if explained := _explain(path, str(error)):
            raise ValueError(
                f"{path}: expected a PyTorch file of tensors and plain values, which can be read without running "
                f"code; {explained}"
            ) from error
        raise
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a checkpoint of UOV/AFOV or SLidR, which is a dictionary, got {type(content).__name__}."
        )
    content = _entries(content)
    for key, prefix in LAYOUTS:
        found = content if key is None else content.get(key)
        tensors = _below(_entries(found), prefix) if isinstance(found, dict) else {}
        if SIGN in tensors:
            plain = {name: plain_tensor(value, path) for name, value in tensors.items()}
            if others := [name for name, value in plain.items() if value is None]:
                raise ValueError(
                    f"{path}: expected dense tensors of real numbers, got others: {others[:5]} ({len(others)})."
                )
            config = content.get("config")
            return (
                {name: value for name, value in plain.items() if value is not None},
                _entries(config) if isinstance(config, dict) else {},
            )
    raise ValueError(f"{path}: expected the MinkUNet of UOV/AFOV or SLidR ({SIGN}), got {_describe(content)}.")


def _explain(path: Path, error: str) -> str | None:
    """What the file contains that is refused, and the way out; None if something else is wrong with it."""
    if blocked := re.search(r"GLOBAL (\S+) whose module \S+ is blocked", error):
        return f"it contains {blocked[1]}, which no file of a network needs: do not load it."
    if not (refused := re.search(r"GLOBAL (\S+) was not an allowed", error)):
        return None
    stripped = path.with_name(f"{path.stem}_stripped.pt")
    # JSON writes a text as Python does, but escapes some characters as two surrogates, which Python does not join.
    written = [json.dumps(str(one), ensure_ascii=False) for one in (path, stripped)]
    command = shlex.quote(STRIP.format(path=written[0], stripped=written[1]))
    return (
        f"it contains {refused[1]}. If you trust the file, strip it in the environment that wrote it, which runs its "
        f"code: python -c {command}. Then convert {stripped}."
    )


def _entries(content: dict[Any, Any]) -> dict[str, Any]:
    """A dictionary of a file, as Python's own; a name that is no text becomes the name of its type."""
    # An ordered dictionary in a file may have attributes with the names of its methods, and a name any depth.
    return {_text(name): value for name, value in dict.items(content)}


def _text(name: Any) -> str:
    return name.encode("utf-8", "backslashreplace").decode() if isinstance(name, str) else f"<{type(name).__name__}>"


def _below(entries: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names have this prefix, without it and without the prefix of data-parallel training."""
    tensors = {}
    for name, value in entries.items():
        name = name.removeprefix("module.")
        if isinstance(value, Tensor) and name.startswith(prefix):
            tensors[name.removeprefix(prefix).removeprefix("module.")] = value
    return tensors


def _describe(content: dict[str, Any]) -> str:
    names = [*content]
    for inner in ("state_dict", "model_points", "model"):
        if isinstance(content.get(inner), dict):
            names = [f"{inner}/{name}" for name in _entries(content[inner])]
    hint = ""
    if any("conv_input.0.weight" in name for name in names):
        hint = (
            " It looks like Pointcept's SpUNet, which cannot be converted: its downsampling layers widen, its "
            "normalisation has another epsilon, and its input has coordinates beside the intensity."
        )
    return f"{', '.join(names[:4])[:300]} … ({len(names)} entries).{hint}"
