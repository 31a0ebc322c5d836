"""The paper's MinkUNet34: a sparse 3D U-Net on plain torch, spconv or spconv-triton, with one set of weights."""

import logging
from dataclasses import astuple
from functools import cached_property

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_uov import UOVConfig
from .sparse_conv import ConvolutionMap, SparseConv
from .sparse_engines import Engine, SpconvPyramid, choose_engine, compute_dtype
from .voxel_pyramid import VoxelLevel, VoxelPyramid, sort_voxels


logger = logging.getLogger(__name__)


def validate_voxels(voxel_coords: torch.Tensor, voxel_features: torch.Tensor, in_channels: int) -> None:
    """Check shapes, dtypes and devices; `sort_voxels` checks the values. `datasets` returns int64: it is valid."""
    if voxel_coords.ndim != 2 or voxel_coords.shape[1] != 4:
        raise ValueError(
            f"`voxel_coords` must have 4 columns (batch, x, y, z), got shape {tuple(voxel_coords.shape)}. "
            "Raw points go through `UOVFeatureExtractor` first."
        )
    if voxel_coords.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"`voxel_coords` must be torch.int32 or torch.int64, got {voxel_coords.dtype}. Use `voxel_coords.int()`."
        )
    if voxel_features.shape != (len(voxel_coords), in_channels):
        raise ValueError(
            f"`voxel_features` must have shape {(len(voxel_coords), in_channels)}: one row per row of `voxel_coords` "
            f"and `config.in_channels` columns, got {tuple(voxel_features.shape)}."
        )
    if not voxel_features.is_floating_point():
        raise ValueError(f"`voxel_features` must be floating point, got {voxel_features.dtype}. Use `.float()`.")
    if voxel_features.device != voxel_coords.device:
        raise ValueError(
            f"`voxel_coords` is on {voxel_coords.device}, `voxel_features` on {voxel_features.device}. Move one."
        )


class VoxelBatchNorm(nn.BatchNorm1d):
    """Batch normalisation that may overwrite its input: on a CPU, in evaluation without gradients, it works in place.

    In training, fewer than two voxels have no variance, so the running statistics normalise them. Each batch updates
    these once, even where gradient checkpointing computes it a second time.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.training and features.shape[0] > 1:
            if is_recomputation():
                spare = self.running_mean.clone(), self.running_var.clone()
                return nn.functional.batch_norm(features, *spare, self.weight, self.bias, training=True, eps=self.eps)
            return super().forward(features)
        if torch.is_grad_enabled() or features.dtype != self.weight.dtype or features.device.type != "cpu":
            statistics = self.running_mean, self.running_var
            return nn.functional.batch_norm(features, *statistics, self.weight, self.bias, eps=self.eps)
        # Six launches instead of one, but no second array of this size: what costs on a CPU.
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift, features, scale, out=features)


def is_recomputation() -> bool:
    """Whether a module runs within a backward pass, where gradient checkpointing repeats the forward pass."""
    # There is no public function for this; `torch.utils.checkpoint` itself uses this one.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class ConvNormReLU(nn.Module):
    """x <- ReLU(BN(Conv(x)))"""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, momentum: float, transposed: bool = False
    ):
        super().__init__()
        self.conv = SparseConv(in_channels, out_channels, kernel_size, transposed=transposed)
        self.norm = VoxelBatchNorm(out_channels, momentum=momentum)

    def forward(self, features: torch.Tensor, kernel_map: ConvolutionMap) -> torch.Tensor:
        return torch.relu_(self.norm(self.conv(features, kernel_map)))


class ResidualBlock(GradientCheckpointingLayer):
    """x <- ReLU(shortcut(x) + BN(Conv(ReLU(BN(Conv(x))))))"""

    def __init__(self, config: UOVConfig, in_channels: int, out_channels: int):
        super().__init__()
        momentum = config.block_batch_norm_momentum
        self.conv1 = SparseConv(in_channels, out_channels, 3)
        self.norm1 = VoxelBatchNorm(out_channels, momentum=momentum)
        self.conv2 = SparseConv(out_channels, out_channels, 3)
        self.norm2 = VoxelBatchNorm(out_channels, momentum=momentum)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            norm = VoxelBatchNorm(out_channels, momentum=config.batch_norm_momentum)
            self.shortcut = nn.Sequential(nn.Linear(in_channels, out_channels, bias=False), norm)

    def forward(self, features: torch.Tensor, kernel_map: ConvolutionMap) -> torch.Tensor:
        hidden = torch.relu_(self.norm1(self.conv1(features, kernel_map)))
        hidden = self.norm2(self.conv2(hidden, kernel_map))
        return torch.relu_(hidden.add_(self.shortcut(features)))


class UNetStage(nn.Module):
    """One step down or up, the skip connection where there is one, and the residual blocks of that level."""

    def __init__(
        self,
        config: UOVConfig,
        in_channels: int,
        step_channels: int,
        skip_channels: int,
        out_channels: int,
        depth: int,
        upwards: bool,
    ):
        super().__init__()
        self.step = ConvNormReLU(in_channels, step_channels, 2, config.batch_norm_momentum, transposed=upwards)
        widths = [step_channels + skip_channels] + [out_channels] * depth
        self.blocks = nn.ModuleList(ResidualBlock(config, *pair) for pair in zip(widths, widths[1:], strict=False))

    def forward(
        self,
        features: torch.Tensor,
        step_map: ConvolutionMap,
        block_map: ConvolutionMap,
        skip: torch.Tensor | None = None,
    ) -> torch.Tensor:
        features = self.step(features, step_map)
        if skip is not None:
            features = torch.cat([features, skip], dim=1)
        for block in self.blocks:
            features = block(features, block_map)
        return features


class SparseUNet(nn.Module):
    """Res16UNet34C of the paper (`minkunet34` preset), and smaller networks of the same shape.

        stride 1    stem 32 ──────────────────────────────── [96, 32] → 96 ×2 → output
        stride 2      └ 32 → 32 ×2 ──────────────── [96, 32] → 96 ×2 ┘
        stride 4          └ 32 → 64 ×3 ──── [128, 64] → 128 ×2 ┘
        stride 8              └ 64 → 128 ×4 ── [256, 128] → 256 ×2 ┘
        stride 16                 └ 128 → 256 ×6 ┘

    └ is a convolution of kernel 2 and stride 2, ┘ its inverse onto the same voxels, ×n are n residual blocks.
    Coordinates may be negative, in any order; the output has the order of the input. Source: `Res16UNet34C` of SLidR.

    Args:
        config (`UOVConfig`):
            `in_channels`, `stem_channels`, `stem_kernel_size`, `hidden_sizes` and `depths` (encoder, then decoder),
            the two batch-norm momenta, and `sparse_backend`.
    """

    def __init__(self, config: UOVConfig):
        super().__init__()
        self.config = config
        self._logged_engines: set[tuple[Engine, str, torch.dtype]] = set()
        num_stages = len(config.hidden_sizes) // 2
        down_widths = [config.stem_channels, *config.hidden_sizes[:num_stages]]
        up_widths = config.hidden_sizes[num_stages - 1 :]
        stem_sizes = config.in_channels, config.stem_channels, config.stem_kernel_size
        self.stem = ConvNormReLU(*stem_sizes, config.batch_norm_momentum)
        self.encoder = nn.ModuleList(
            UNetStage(config, down_widths[i], down_widths[i], 0, down_widths[i + 1], config.depths[i], upwards=False)
            for i in range(num_stages)
        )
        self.decoder = nn.ModuleList(
            UNetStage(
                config,
                up_widths[i],
                up_widths[i + 1],
                down_widths[num_stages - 1 - i],
                up_widths[i + 1],
                config.depths[num_stages + i],
                upwards=True,
            )
            for i in range(num_stages)
        )

    def forward(self, voxel_coords: torch.Tensor, voxel_features: torch.Tensor) -> torch.Tensor:
        """`(num_voxels, hidden_sizes[-1])` features of the voxels, in the order of the input.

        Args:
            voxel_coords (`torch.Tensor` of shape `(num_voxels, 4)`, int32 or int64):
                Batch index, x, y, z; unique. Samples of a batch, and the batch itself, may be empty.
            voxel_features (`torch.Tensor` of shape `(num_voxels, in_channels)`):
                Finite, floating point, of the dtype of the weights (or under autocast).

        Raises:
            ValueError: The voxels are not as described.
            RuntimeError: `config.sparse_backend` names an engine that cannot compute this here.
        """
        validate_voxels(voxel_coords, voxel_features, self.config.in_channels)
        order, rows, pyramid = self._sort(voxel_coords, voxel_features)
        features = self.stem(voxel_features[order], pyramid.submanifold(0, self.config.stem_kernel_size))
        skips = []
        for level, stage in enumerate(self.encoder):
            skips.append(features)
            features = stage(features, pyramid.down(level), pyramid.submanifold(level + 1, 3))
        for level, stage in zip(reversed(range(len(skips))), self.decoder, strict=True):
            features = stage(features, pyramid.up(level), pyramid.submanifold(level, 3), skips.pop())
        return features.index_select(0, rows)

    @torch.compiler.disable(reason="its sizes are those of the scan")
    def _sort(
        self, voxel_coords: torch.Tensor, voxel_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, VoxelPyramid | SpconvPyramid]:
        """The input row of each sorted voxel, the sorted row of each input voxel, and the maps."""
        finest, order = sort_voxels(voxel_coords, len(self.encoder) + 1, voxel_features)
        rows = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return order, rows, self._pyramid(finest, voxel_features)

    def engine(self, device: torch.device | str, dtype: torch.dtype) -> Engine:
        """The engine of the convolutions on a device in a dtype; the first call logs it with the reason.

        Args:
            device (`torch.device` or `str`): Of the voxels.
            dtype (`torch.dtype`): Of the weights, or autocast's.

        Raises:
            RuntimeError: `config.sparse_backend` names an engine that cannot compute this here.
        """
        device, backend = torch.device(device), self.config.sparse_backend
        engine = choose_engine(backend, device, dtype)
        if (engine, device.type, dtype) not in self._logged_engines:
            self._logged_engines.add((engine, device.type, dtype))
            is_slow = backend == "auto" and device.type == "cuda" and engine.name == "torch"
            message = "Sparse convolutions on %s in %s: %s (%s)."
            logger.log(logging.WARNING if is_slow else logging.INFO, message, device.type, dtype, *astuple(engine))
        return engine

    def _pyramid(self, finest: VoxelLevel, voxel_features: torch.Tensor) -> VoxelPyramid | SpconvPyramid:
        """The maps between these voxels by the engine of the run; without voxels, those of plain torch."""
        dtype = compute_dtype(voxel_features)
        engine = self.engine(voxel_features.device, dtype)
        if engine.name == "torch" or len(voxel_features) == 0:
            return VoxelPyramid(finest)
        channels, kernel_size = self._largest
        return SpconvPyramid(
            engine.name, finest, 2 ** len(self.encoder), channels * dtype.itemsize, kernel_volume=kernel_size**3
        )

    @cached_property
    def _largest(self) -> tuple[int, int]:
        """Channels of the widest input or output of a convolution, and the largest kernel size."""
        convs = [module for module in self.modules() if isinstance(module, SparseConv)]
        channels = max(max(conv.in_channels, conv.out_channels) for conv in convs)
        return channels, max(conv.kernel_size for conv in convs)
