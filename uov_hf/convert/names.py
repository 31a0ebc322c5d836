"""Old name → new name of every tensor of the official MinkUNet34, and its layout (docs/how_to/convert.md)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from uov_hf import UOVConfig


Rename = tuple[str, str, Callable[[Tensor], Tensor]]  # old name, new name, old layout to new layout

STEM = ("conv0p1s1", "bn0", "stem")
# The step down or up to a stage, its norm, its blocks, and the stage's name here.
STAGES = (
    ("conv1p1s2", "bn1", "block1", "encoder.0"),
    ("conv2p2s2", "bn2", "block2", "encoder.1"),
    ("conv3p4s2", "bn3", "block3", "encoder.2"),
    ("conv4p8s2", "bn4", "block4", "encoder.3"),
    ("convtr4p16s2", "bntr4", "block5", "decoder.0"),
    ("convtr5p8s2", "bntr5", "block6", "decoder.1"),
    ("convtr6p4s2", "bntr6", "block7", "decoder.2"),
    ("convtr7p2s2", "bntr7", "block8", "decoder.3"),
)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def backbone_names(config: UOVConfig) -> list[Rename]:
    """The table of everything below the head; new names are those of a `SparseUNet` of this configuration."""
    stem, norm, new = STEM
    names = [(f"{stem}.kernel", f"{new}.conv.weight", cube_kernel), *_norm(norm, f"{new}.norm")]
    widths = [config.stem_channels, *config.hidden_sizes]
    skips = [0] * 4 + [*config.hidden_sizes[2::-1], config.stem_channels]
    for index, (step, norm, block, stage) in enumerate(STAGES):
        names += [(f"{step}.kernel", f"{stage}.step.conv.weight", cube_kernel), *_norm(norm, f"{stage}.step.norm")]
        # A step down keeps the width, and the blocks widen it; a step up narrows it, and the skip joins.
        step_width = widths[index] if index < 4 else widths[index + 1]
        for place in range(config.depths[index]):
            widens = place == 0 and step_width + skips[index] != widths[index + 1]
            names += _block(f"{block}.{place}", f"{stage}.blocks.{place}", widens)
    return names


def head_names(weight: str, bias: str) -> list[Rename]:
    """The table of the last layer, which is a matrix."""
    return [("final.kernel", weight, matrix_kernel), ("final.bias", bias, row_bias)]


def cube_kernel(kernel: Tensor) -> Tensor:
    """`(size³, in, out)`, first axis fastest, to `(out, size, size, size, in)`, last axis fastest."""
    size = round(len(kernel) ** (1 / 3))
    return kernel.unflatten(0, (size, size, size)).permute(4, 2, 1, 0, 3).contiguous()


def matrix_kernel(kernel: Tensor) -> Tensor:
    """`(in, out)` to `(out, in)`."""
    return kernel.T.contiguous()


def row_bias(bias: Tensor) -> Tensor:
    """`(1, out)` to `(out,)`."""
    return bias[0]


def _block(old: str, new: str, widens: bool) -> Iterator[Rename]:
    for conv in ("1", "2"):
        yield f"{old}.conv{conv}.kernel", f"{new}.conv{conv}.weight", cube_kernel
        yield from _norm(f"{old}.norm{conv}", f"{new}.norm{conv}")
    if widens:
        yield f"{old}.downsample.0.kernel", f"{new}.shortcut.0.weight", matrix_kernel
        yield from _norm(f"{old}.downsample.1", f"{new}.shortcut.1")


def _norm(old: str, new: str) -> Iterator[Rename]:
    for name in NORM:
        yield f"{old}.bn.{name}", f"{new}.{name}", torch.clone
