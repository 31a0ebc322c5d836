"""Batch normalisation over the voxels of all processes: one collective per layer and pass, and no wait of the host."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from uov_hf.sparse_unet import VoxelBatchNorm, is_recomputation


class SyncVoxelBatchNorm(VoxelBatchNorm):
    """`VoxelBatchNorm` whose statistics in training are those of the voxels of all processes together.

    A process may have no voxels. Where all of them together have fewer than two, every process normalises by the
    running statistics, and these stay as they are. In evaluation it is `VoxelBatchNorm`, without communication.
    All processes must call it in training, and run its backward pass, equally often.
    """

    # PyTorch's class allows for none of these; a `VoxelBatchNorm` has them all.
    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        with torch.no_grad():
            mean, var, count = _gather_statistics(features)
            is_enough = count > 1
            if not is_recomputation():
                weight = self.momentum * is_enough.to(mean.dtype)
                self.running_mean.lerp_(mean, weight)
                self.running_var.lerp_(var * count / (count - 1).clamp(min=1), weight)
                self.num_batches_tracked.add_(is_enough.squeeze())
            mean = torch.where(is_enough, mean, self.running_mean)
            var = torch.where(is_enough, var, self.running_var)
            share = torch.where(is_enough, 1 / count.clamp(min=1), 0.0)
        return _Normalize.apply(features, self.weight, self.bias, mean, var, share, self.eps)


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Turn every `VoxelBatchNorm` of a model into a `SyncVoxelBatchNorm`, in place; parameters and names stay."""
    for module in model.modules():
        if type(module) is VoxelBatchNorm:
            module.__class__ = SyncVoxelBatchNorm  # they differ in `forward` alone
    return model


def _gather_statistics(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance `(channels,)` and number `(1,)` of the voxels of all processes, at least float32."""
    channels = features.shape[1]
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    own = features.new_zeros(2 * channels + 1)  # sum of squared distances from the mean, mean, number
    if len(features):
        var, mean = torch.var_mean(features, dim=0, correction=0)
        own = torch.cat([var * len(features), mean, mean.new_full((1,), len(features))])
    everyone = own.new_empty(distributed.get_world_size(), len(own))
    distributed.all_gather(list(everyone), own)
    squares, means, counts = everyone.split([channels, channels, 1], dim=1)  # (processes, …) each
    count = counts.sum(dim=0)
    mean = (counts * means).sum(dim=0) / count.clamp(min=1)
    # The sums of squares about each mean, moved to the common one: no difference of large, almost equal numbers.
    squares = (squares + counts * (means - mean).square()).sum(dim=0)
    return mean, squares / count.clamp(min=1), count


class _Normalize(torch.autograd.Function):
    """y = (x - mean) / √(var + eps) · weight + bias, where mean and var depend on x by `share` = 1 / number of voxels.

    With `share` 0 they are constants. The gradients of weight and bias are of this process's voxels, as those of any
    other parameter.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, share: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, torch.rsqrt(var + eps), share)
        return nn.functional.batch_norm(features, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, inverse_std, share = ctx.saved_tensors
        normalized = (features - mean) * inverse_std
        sums = torch.stack([grad.sum(dim=0, dtype=mean.dtype), (grad * normalized).sum(dim=0)])  # (2, channels)
        grad_bias, grad_weight = sums.clone()
        distributed.all_reduce(sums)
        # What moves mean and variance reaches every voxel of every process.
        mean_grad, mean_product = sums * share
        grad_features = (grad - mean_grad - normalized * mean_product) * (inverse_std * weight)
        return grad_features.to(features.dtype), grad_weight, grad_bias, None, None, None, None
