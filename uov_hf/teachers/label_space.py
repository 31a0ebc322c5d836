"""The space before the last layer of a closed-set model, in which its labels have embeddings too."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from uov_hf.teachers.pooling import sum_over_segments


@dataclass(frozen=True)
class Piece:
    """A part of an image with features: `vectors[k]` has the share `maps[k]` of each patch.

    Args:
        area (`tuple[slice, slice]`): Rows and columns of the image that the maps cover edge to edge.
        maps (`torch.Tensor` of shape `(K, h, w)`): float32.
        vectors (`torch.Tensor` of shape `(K, D)`, *optional*): float32. None: the maps are the features, and K is D.
    """

    area: tuple[slice, slice]
    maps: Tensor
    vectors: Tensor | None = None


class LabelSpace:
    """The features that a model's last layer reads, and its labels among them.

    The last layer computes w·f + b for each label. A segment is the unit-length sum of (f, 1, 0) over its pixels. A
    label is (w, b, r), made unit length, where r ≥ 0 gives all labels one length. The cosine between a segment and a
    label is then the segment's mean logit of the label times a factor that is the same for all labels.

    Args:
        model (`nn.Module`): A segmenter.
        num_outputs (`int`): Outputs of its last layer: its labels, and "no object" where it has that.
        num_labels (`int`): Its labels.

    Raises:
        ValueError: The model has no such layer.
    """

    def __init__(self, model: nn.Module, num_outputs: int, num_labels: int):
        self.layer = find_last_layer(model, num_outputs)
        bias = self.layer.weight.new_zeros(num_outputs) if self.layer.bias is None else self.layer.bias
        self.label_embeds = embed_labels(self.layer.weight.flatten(1)[:num_labels].float(), bias[:num_labels].float())

    @property
    def embed_dim(self) -> int:
        return self.label_embeds.shape[1]

    def embed_prompts(self, num_prompts: int) -> Tensor:
        """Embeddings `(num_prompts, embed_dim)` of the labels, then of prompts that the model never predicts.

        Those get the direction (0, …, 0, 1): it is orthogonal to every segment.
        """
        never = torch.zeros_like(self.label_embeds[:1])
        never[0, -1] = 1
        return torch.cat([self.label_embeds, never.expand(num_prompts - len(self.label_embeds), -1)])

    @contextmanager
    def record(self) -> Iterator[list[Tensor]]:
        """Append what the last layer reads, in float32, to the list whenever it runs."""
        inputs: list[Tensor] = []
        # A hook, because these models return their last features under different names, or not at all.
        hook = self.layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].float()))
        try:
            yield inputs
        finally:
            hook.remove()

    def embed_segments(self, pieces: list[Piece], segmentation: Tensor, num_segments: int) -> Tensor:
        """Unit-length embeddings `(num_segments, embed_dim)` of the segments of an image `(height, width)`."""
        total = self.label_embeds.new_zeros(num_segments, self.embed_dim)
        for piece in pieces:
            ids = segmentation[piece.area]
            if piece.vectors is None:
                features = torch.cat([piece.maps, torch.ones_like(piece.maps[:1])])  # (f, 1)
                sums = sum_over_segments(features, ids, num_segments)
            else:
                sums = sum_over_segments(piece.maps, ids, num_segments) @ pad(piece.vectors, (0, 1), value=1.0)
            total += pad(sums, (0, 1))
        return normalize(total, dim=-1)


def embed_labels(weight: Tensor, bias: Tensor) -> Tensor:
    """Unit-length `(num_labels, D + 2)` of labels with `weight` (num_labels, D) and `bias` (num_labels,)."""
    rows = torch.cat([weight, bias[:, None]], dim=1)
    squares = rows.square().sum(dim=1)
    rest = (squares.max() - squares).clamp(min=0).sqrt()
    return normalize(torch.cat([rows, rest[:, None]], dim=1), dim=1)


def find_last_layer(model: nn.Module, num_outputs: int) -> nn.Linear | nn.Conv2d:
    """The last linear layer or 1 × 1 convolution with `num_outputs` outputs that is not auxiliary.

    Raises:
        ValueError: The model has none.
    """
    found: nn.Linear | nn.Conv2d | None = None
    for name, layer in model.named_modules():
        is_linear = isinstance(layer, nn.Linear) and layer.out_features == num_outputs
        is_convolution = (
            isinstance(layer, nn.Conv2d) and layer.out_channels == num_outputs and layer.kernel_size == (1, 1)
        )
        if (is_linear or is_convolution) and "auxiliary" not in name:
            found = layer
    if found is None:
        raise ValueError(
            f"{type(model).__name__} has no last layer with {num_outputs} outputs whose inputs could embed segments. "
            "Give a second model, a CLIP, as `embed_model_name_or_path`."
        )
    return found
