"""Read tensors and settings from the official `.pt` and `.ckpt` files, without running code."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


# The key of the 3D network's tensors in the file, and the prefix of their names (docs/how_to/convert.md).
LAYOUTS = (
    ("model_points", ""),  # the official scripts' and SLidR's own files
    ("state_dict", "model_points."),  # Lightning's, of pre-training
    ("state_dict", "model."),  # Lightning's, of annotation-free training and fine-tuning
    ("state_dict", ""),
    (None, ""),
)
SIGN = "conv0p1s1.kernel"  # every MinkUNet of MinkowskiEngine's examples has it


def read_official(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of the 3D network under their official names, and the training settings, if the file has any.

    Raises:
        ValueError: If the file contains anything but tensors and plain values, or no MinkUNet.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path}: expected a PyTorch file of tensors and plain values, which can be read without running code; "
            f"reading it failed: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary, got {type(content).__name__}.")
    for key, prefix in LAYOUTS:
        found = content if key is None else content.get(key)
        tensors = _below(found, prefix) if isinstance(found, dict) else {}
        if SIGN in tensors:
            config = content.get("config")
            return tensors, config if isinstance(config, dict) else {}
    raise ValueError(f"{path}: expected the MinkUNet of UOV/AFOV or SLidR ({SIGN}), got {_describe(content)}.")


def _below(entries: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names have this prefix, without it and without the prefix of data-parallel training."""
    tensors = {}
    for name, value in entries.items():
        name = str(name).removeprefix("module.")
        if isinstance(value, Tensor) and name.startswith(prefix):
            tensors[name.removeprefix(prefix).removeprefix("module.")] = value
    return tensors


def _describe(content: dict) -> str:
    names = [str(name) for name in content]
    for inner in ("state_dict", "model_points", "model"):
        if isinstance(content.get(inner), dict):
            names = [f"{inner}/{name}" for name in content[inner]]
    hint = ""
    if any("conv_input.0.weight" in name for name in names):
        hint = (
            " It looks like Pointcept's SpUNet, which cannot be converted: its downsampling layers widen, its "
            "normalisation has another epsilon, and its input has coordinates beside the intensity."
        )
    return f"{', '.join(names[:4])} … ({len(names)} entries).{hint}"
