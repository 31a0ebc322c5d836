"""A segmenter as an ONNX graph: a convolution is Gather, MatMul and ScatterND for each offset of its kernel.

The graph computes the pairs of neighbours that exist, as the torch engine does. Tables with a row of zeros for every
missing neighbour would need Add in place of ScatterND, but two to five times the products.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from uov_hf import UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel
from uov_hf.configuration_uov import IGNORED
from uov_hf.convert.run_onnx import FORMAT_VERSION
from uov_hf.sparse_conv import SparseConv
from uov_hf.sparse_unet import ConvNormReLU, ResidualBlock, SparseUNet, UNetStage, VoxelBatchNorm


# Of 2022, the oldest versions that have all the operators here: older runtimes can read the file.
OPSET, IR_VERSION = 18, 8
NUM_PLACES = 8  # of a voxel in its cell of twice the size


ModuleType = TypeVar("ModuleType", bound=nn.Module)


@dataclass(frozen=True)
class _Pairs:
    """Names of the rows that each kernel offset joins.

    Args:
        gathered (`list[str]`): For each offset the input rows `(num_pairs,)`.
        scattered (`list[str]`): For each offset the output rows `(num_pairs, 1)`.
    """

    gathered: list[str]
    scattered: list[str]


class _Graph:
    """Nodes, weights and inputs; the methods return the name of what they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: np.ndarray | Tensor) -> str:
        name = f"constant_{len(self.weights)}"
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def split(self, rows: str, counts: str, num_parts: int) -> list[str]:
        """Cut a list of rows into parts of the given lengths."""
        names = [f"{rows}_part_{part}" for part in range(num_parts)]
        self.nodes.append(helper.make_node("Split", [rows, counts], names, axis=0))
        return names

    def pairs(self, gathered: list[str], scattered: list[str]) -> _Pairs:
        axis = self.constant(np.array([1]))
        return _Pairs(gathered, [self.add("Unsqueeze", rows, axis) for rows in scattered])

    def submanifold_pairs(self, level: int, kernel_size: int) -> _Pairs:
        """Declare the inputs of one kernel on one level; the centre, which pairs every voxel with itself, has none."""
        end, num_offsets = f"_{level}_{kernel_size}", kernel_size**3 // 2
        lists = [self.input(name + end, TensorProto.INT64, [f"num_pairs{end}"]) for name in ("lower", "higher")]
        counts = self.input("counts" + end, TensorProto.INT64, [num_offsets])
        lower, higher = (self.split(rows, counts, num_offsets) for rows in lists)
        # Ascending offsets: those before the centre are the mirror images of those after it.
        return self.pairs([*reversed(lower), *higher], [*reversed(higher), *lower])

    def step_pairs(self, level: int) -> tuple[_Pairs, _Pairs]:
        """Declare the inputs of the convolution from a level down to the next, and of its inverse."""
        names = f"fine_{level}", f"coarse_{level}"
        lists = [self.input(name, TensorProto.INT64, [f"num_voxels_{level}"]) for name in names]
        counts = self.input(f"counts_{level}", TensorProto.INT64, [NUM_PLACES])
        fine, coarse = (self.split(rows, counts, NUM_PLACES) for rows in lists)
        return self.pairs(fine, coarse), self.pairs(coarse, fine)

    def add_products(self, start: str, features: str, taps: np.ndarray, pairs: _Pairs) -> str:
        """start[o] += features[i] @ taps[k] for every pair (i, o) under every offset k.

        An output row occurs at most once under an offset, so that the threads of ScatterND never add to the same row.
        """
        for tap, gathered, scattered in zip(taps, pairs.gathered, pairs.scattered, strict=True):
            product = self.add("MatMul", self.add("Gather", features, gathered, axis=0), self.constant(tap))
            start = self.add("ScatterND", start, scattered, product, reduction="add")
        return start

    def submanifold(self, features: str, conv: SparseConv, norm: VoxelBatchNorm, pairs: _Pairs) -> str:
        """BN(Conv(features)) on the same voxels."""
        taps, shift = fold(conv.weight, norm)
        centre = len(taps) // 2
        start = self.linear(features, taps[centre], shift)
        return self.add_products(start, features, np.delete(taps, centre, axis=0), pairs)

    def step(self, features: str, module: ConvNormReLU, pairs: _Pairs, num_outputs: str) -> str:
        """ReLU(BN(Conv(features))) onto the voxels of another level."""
        taps, shift = fold(module.conv.weight, module.norm)
        start = self.add("Expand", self.constant(shift[None]), num_outputs)
        return self.add("Relu", self.add_products(start, features, taps, pairs))

    def linear(self, features: str, weight: np.ndarray | Tensor, bias: np.ndarray | Tensor) -> str:
        return self.add("Gemm", features, self.constant(weight), self.constant(bias))

    def block(self, features: str, block: ResidualBlock, pairs: _Pairs) -> str:
        """ReLU(shortcut(features) + BN(Conv(ReLU(BN(Conv(features))))))"""
        hidden = self.add("Relu", self.submanifold(features, block.conv1, block.norm1, pairs))
        hidden = self.submanifold(hidden, block.conv2, block.norm2, pairs)
        if isinstance(block.shortcut, nn.Sequential):
            (linear,), (norm,) = _members(block.shortcut, nn.Linear), _members(block.shortcut, VoxelBatchNorm)
            (weight,), shift = fold(linear.weight[:, None], norm)
            features = self.linear(features, weight, shift)
        return self.add("Relu", self.add("Add", hidden, features))


def fold(weight: Tensor, norm: VoxelBatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """A convolution `(out, …, in)` and its batch normalisation as one: taps `(K, in, out)` and shift `(out,)`.

    Computed in float64, so that folding costs one rounding to float32.
    """
    mean, variance, gain, bias = (
        values.detach().double().cpu() for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = gain / (variance + norm.eps).sqrt()
    taps = weight.detach().double().cpu().flatten(1, -2).permute(1, 2, 0) * scale
    return taps.float().numpy(), (bias - mean * scale).float().numpy()


def build_onnx(model: UOVForSemanticSegmentation, extractor: UOVFeatureExtractor) -> onnx.ModelProto:
    """The network in evaluation mode as an ONNX model in float32, with the settings of its voxels as metadata.

    Its inputs are `voxel_features` `(num_voxels, in_channels)` and the maps of [`run_onnx.kernel_maps`]; its output
    is `logits` `(num_voxels, num_labels)`.
    """
    graph, config = _Graph(), model.config
    features = _add_backbone(graph, model.uov.backbone)
    num_labels = len(config.classes)
    if model.classifier is None:
        logits = _add_text_head(graph, features, model.uov, num_labels)
    else:  # without the row for void
        logits = graph.linear(features, model.classifier.weight[:num_labels].T, model.classifier.bias[:num_labels])
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["num_voxels_0", num_labels])
    body = helper.make_graph(graph.nodes, "uov", graph.inputs, [output], graph.weights)
    onnx_model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="uov-hf"
    )
    about = {
        "format_version": FORMAT_VERSION,
        "id2label": config.id2label,
        "ignored_index": IGNORED,
        "head": config.head,
        "num_levels": len(model.uov.backbone.encoder) + 1,
        "stem_kernel_size": config.stem_kernel_size,
        "voxels": asdict(extractor.voxel_grid),
    }
    helper.set_model_props(onnx_model, {"uov_hf": json.dumps(about, ensure_ascii=False)})
    return onnx_model


def _add_backbone(graph: _Graph, backbone: SparseUNet) -> str:
    """The features of the voxels: the graph of `SparseUNet.forward`."""
    config, num_levels = backbone.config, len(backbone.encoder) + 1
    features = graph.input("voxel_features", TensorProto.FLOAT, ["num_voxels_0", config.in_channels])
    num_voxels = graph.input("num_voxels", TensorProto.INT64, [num_levels])
    blocks = [graph.submanifold_pairs(level, 3) for level in range(num_levels)]
    down, up = zip(*(graph.step_pairs(level) for level in range(num_levels - 1)), strict=True)
    sizes = [graph.add("Gather", num_voxels, graph.constant(np.array([level]))) for level in range(num_levels)]
    one = graph.constant(np.array([1]))
    shapes = [graph.add("Concat", size, one, axis=0) for size in sizes]

    stem = blocks[0] if config.stem_kernel_size == 3 else graph.submanifold_pairs(0, config.stem_kernel_size)
    features = graph.add("Relu", graph.submanifold(features, backbone.stem.conv, backbone.stem.norm, stem))
    skips = []
    for level, stage in enumerate(_members(backbone.encoder, UNetStage), start=1):
        skips.append(features)
        features = graph.step(features, stage.step, down[level - 1], shapes[level])
        for block in _members(stage.blocks, ResidualBlock):
            features = graph.block(features, block, blocks[level])
    for level, stage in zip(reversed(range(num_levels - 1)), _members(backbone.decoder, UNetStage), strict=True):
        features = graph.step(features, stage.step, up[level], shapes[level])
        features = graph.add("Concat", features, skips.pop(), axis=1)
        for block in _members(stage.blocks, ResidualBlock):
            features = graph.block(features, block, blocks[level])
    return features


def _members(modules: nn.ModuleList | nn.Sequential, kind: type[ModuleType]) -> list[ModuleType]:
    """The modules of a class in a list, which itself has no type for its modules."""
    return [module for module in modules if isinstance(module, kind)]


def _add_text_head(graph: _Graph, features: str, uov: UOVModel, num_classes: int) -> str:
    """Cosine similarity to the best prompt of each class, times the scale: the graph of `UOVModel.class_scores`."""
    axis = graph.constant(np.array([-1]))
    embeds = graph.linear(features, uov.point_projection.weight.T, uov.point_projection.bias)
    length = graph.add("ReduceL2", embeds, axis)
    embeds = graph.add("Div", embeds, graph.add("Max", length, graph.constant(np.array([1e-12], np.float32))))
    prompts = uov.config.logit_scale * uov.prompt_embeds.T
    scores = graph.add("MatMul", embeds, graph.constant(prompts))  # (num_voxels, num_prompts)
    rows = prompts_of_classes(uov.prompt_to_class.tolist(), num_classes)
    scores = graph.add("Gather", scores, graph.constant(rows), axis=1)  # (num_voxels, num_classes, most prompts)
    return graph.add("ReduceMax", scores, axis, keepdims=0)


def prompts_of_classes(prompt_to_class: list[int], num_classes: int) -> np.ndarray:
    """The prompts of each class `(num_classes, most prompts)`; a class with fewer has its first one several times."""
    rows = [[row for row, own in enumerate(prompt_to_class) if own == number] for number in range(num_classes)]
    most = max(map(len, rows))
    return np.array([own + own[:1] * (most - len(own)) for own in rows])
