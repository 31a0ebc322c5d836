"""Patch logits to segments, and segments to pooled patch features, without a full-size feature map.

Upsampling patch features `(D, h, w)` to the image and summing them over a segment is linear: the sum is a weighted sum
of patches. The weights come from the adjoint of bilinear upsampling, applied to the segment's mask.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def upsampling_matrix(num_pixels: int, num_patches: int, device: torch.device | None = None) -> Tensor:
    """`(num_pixels, num_patches)` float32: one side of `interpolate(mode="bilinear", align_corners=False)`."""
    position = (torch.arange(num_pixels, device=device) + 0.5) * (num_patches / num_pixels) - 0.5
    position = position.clamp(0, num_patches - 1)
    patches = torch.arange(num_patches, device=device)
    return (1 - (position[:, None] - patches).abs()).clamp(min=0)


def upsampled_max(logits: Tensor, image_size: tuple[int, int], softmax: bool = False) -> tuple[Tensor, Tensor]:
    """Best of P labels at every pixel, with logits upsampled one label at a time.

    Args:
        logits (`torch.Tensor` of shape `(P, h, w)`): Per patch.
        image_size (`tuple[int, int]`): Height and width.
        softmax (`bool`, *optional*, defaults to `False`):
            Whether to return probabilities among the labels instead of logits.

    Returns:
        Values and labels of every pixel, both `(height, width)`.
    """
    (height, width), (_, h, w) = image_size, logits.shape
    vertical = upsampling_matrix(height, h, logits.device)
    wide = logits @ upsampling_matrix(width, w, logits.device).T  # (P, h, width)
    best = total = logits.new_full(image_size, -torch.inf)
    labels = torch.zeros(image_size, dtype=torch.int64, device=logits.device)
    for label, rows in enumerate(wide):
        dense = vertical @ rows  # (height, width)
        labels.masked_fill_(dense > best, label)
        best = torch.maximum(best, dense)
        if softmax:
            total = torch.logaddexp(total, dense)
    return (best - total).exp() if softmax else best, labels


def segments_of_labels(labels: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Make one segment of each label that occurs.

    Args:
        labels (`torch.Tensor` of shape `(height, width)`): Label of each pixel, 0…P − 1.
        keep (`torch.Tensor` of shape `(height, width)`, bool, *optional*):
            Whether a pixel belongs to a segment; all by default.

    Returns:
        The segmentation `(height, width)` with ids 1…S, 0 = none, and the segments' labels `(S,)`, ascending.
    """
    shifted = labels + 1 if keep is None else (labels + 1) * keep  # 0 = none
    present = torch.bincount(shifted.flatten(), minlength=1) > 0
    present[0] = False
    return present.cumsum(0)[shifted], present.nonzero()[:, 0] - 1


def pool_segments(features: Tensor, segmentation: Tensor, num_segments: int) -> Tensor:
    """`sum_over_segments`, made unit length."""
    return normalize(sum_over_segments(features, segmentation, num_segments), dim=-1)


def sum_over_segments(features: Tensor, segmentation: Tensor, num_segments: int) -> Tensor:
    """Sums of patch features over segments, equal to sums of features upsampled to the image.

    Args:
        features (`torch.Tensor` of shape `(D, h, w)`): Per patch.
        segmentation (`torch.Tensor` of shape `(height, width)`): Ids 1…S, 0 = none.
        num_segments (`int`): S.

    Returns:
        `torch.Tensor` of shape `(S, D)`.
    """
    (height, width), (_, h, w) = segmentation.shape, features.shape
    vertical = upsampling_matrix(height, h, segmentation.device)
    horizontal = upsampling_matrix(width, w, segmentation.device)
    left = (horizontal > 0).byte().argmax(dim=1)  # (width,): a pixel lies between this patch and the next
    right = (left + 1).clamp(max=w - 1)
    share = horizontal.gather(1, left[:, None])[:, 0]

    row_of = segmentation.long() * height + torch.arange(height, device=segmentation.device)[:, None]
    sums = segmentation.new_zeros((num_segments + 1) * height * w, dtype=torch.float32)
    for patch, weight in ((left, share), (right, 1 - share)):
        sums.index_add_(0, (row_of * w + patch).flatten(), weight.expand(height, width).flatten())
    weights = torch.einsum("yh,syw->shw", vertical, sums.view(-1, height, w)[1:])  # of each patch in each segment
    return weights.flatten(1) @ features.flatten(1).T


def means_of_segments(values: Tensor, segmentation: Tensor, num_segments: int) -> Tensor:
    """Means `(num_segments,)` of `values` (height, width) over the segments 1…num_segments."""
    sums = values.new_zeros(num_segments + 1).index_add_(0, segmentation.flatten(), values.flatten())
    return (sums / segmentation.flatten().bincount(minlength=num_segments + 1))[1:]
