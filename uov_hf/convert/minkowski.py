"""MinkowskiEngine's rules as plain loops, with which a converted network is compared (docs/how_to/convert.md).

This file shares nothing with the network of this package; it reads the official tensors under their official names.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from uov_hf.convert.names import STAGES, STEM


EPSILON = 1e-5  # of BatchNorm


def run_minkunet(
    tensors: Mapping[str, np.ndarray], coords: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Run the official Res16UNet in evaluation mode, in float64.

    Args:
        tensors (mapping of `str` to `np.ndarray`): By official name.
        coords (`np.ndarray` of shape `(num_voxels, 4)`): Batch index and three whole numbers; unique.
        features (`np.ndarray` of shape `(num_voxels, in_channels)`): Features of the voxels.

    Returns:
        The features below the head `(num_voxels, width)`, and the output of the head `(num_voxels, num_outputs)`.
    """
    network = OfficialNetwork(tensors)
    stem, norm, _ = STEM
    grids, stride = [coords], 1
    features = network.norm_relu(norm, network.same(stem, coords, features, stride))
    skips = []
    for step, norm, block, _ in STAGES[:4]:
        skips.append(features)
        coarse = np.unique(_parents(grids[-1], stride), axis=0)
        features = network.norm_relu(norm, network.down(step, grids[-1], features, coarse, stride))
        grids, stride = [*grids, coarse], 2 * stride
        features = network.blocks(block, coarse, features, stride)
    for step, norm, block, _ in STAGES[4:]:
        coarse, stride = grids.pop(), stride // 2
        fine = grids[-1]
        features = network.norm_relu(norm, network.up(step, coarse, features, fine, stride))
        features = network.blocks(block, fine, np.concatenate([features, skips.pop()], axis=1), stride)
    return features, features @ network.of("final.kernel") + network.of("final.bias")


class OfficialNetwork:
    """The layers, by the names of their tensors."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors = tensors

    def of(self, name: str) -> np.ndarray:
        return np.asarray(self.tensors[name], np.float64)

    def same(self, name: str, coords: np.ndarray, features: np.ndarray, stride: int) -> np.ndarray:
        """Output u sums W_k · x at u + o_k; the offset is centred, its first axis fastest, in steps of the stride."""
        kernel = self.of(f"{name}.kernel")
        size = round(len(kernel) ** (1 / 3))
        offsets = [(np.array([k % size, k // size % size, k // size**2]) - size // 2) * stride for k in range(size**3)]
        return _sum_over_offsets(kernel, offsets, coords, features, coords)

    def down(self, name: str, fine: np.ndarray, features: np.ndarray, coarse: np.ndarray, stride: int) -> np.ndarray:
        """A kernel of two without centre: the coarse voxel u sums W_k · x at u + o_k, o_k in {0, stride}³."""
        offsets = [np.array([k & 1, k >> 1 & 1, k >> 2]) * stride for k in range(8)]
        return _sum_over_offsets(self.of(f"{name}.kernel"), offsets, fine, features, coarse)

    def up(self, name: str, coarse: np.ndarray, features: np.ndarray, fine: np.ndarray, stride: int) -> np.ndarray:
        """The same map with the ends swapped: a fine voxel gets W_k · x of its one parent, k its index in it."""
        kernel, rows = self.of(f"{name}.kernel"), _rows(coarse)
        parents = _parents(fine, stride)
        bits = (fine - parents)[:, 1:] // stride
        pairs = zip(parents, bits, strict=True)
        return np.stack([features[rows[tuple(parent)]] @ kernel[x + 2 * y + 4 * z] for parent, (x, y, z) in pairs])

    def blocks(self, name: str, coords: np.ndarray, features: np.ndarray, stride: int) -> np.ndarray:
        place = 0
        while f"{name}.{place}.conv1.kernel" in self.tensors:
            block, place = f"{name}.{place}", place + 1
            shortcut = features
            if f"{block}.downsample.0.kernel" in self.tensors:
                shortcut = self.norm(f"{block}.downsample.1", features @ self.of(f"{block}.downsample.0.kernel"))
            hidden = self.norm_relu(f"{block}.norm1", self.same(f"{block}.conv1", coords, features, stride))
            hidden = self.norm(f"{block}.norm2", self.same(f"{block}.conv2", coords, hidden, stride))
            features = np.maximum(hidden + shortcut, 0)
        return features

    def norm(self, name: str, features: np.ndarray) -> np.ndarray:
        scale = self.of(f"{name}.bn.weight") / np.sqrt(self.of(f"{name}.bn.running_var") + EPSILON)
        return (features - self.of(f"{name}.bn.running_mean")) * scale + self.of(f"{name}.bn.bias")

    def norm_relu(self, name: str, features: np.ndarray) -> np.ndarray:
        return np.maximum(self.norm(name, features), 0)


def _parents(coords: np.ndarray, stride: int) -> np.ndarray:
    """floor(u / 2 stride) · 2 stride, towards minus infinity; the batch index stays."""
    parents = coords // (2 * stride) * (2 * stride)
    parents[:, 0] = coords[:, 0]
    return parents


def _rows(coords: np.ndarray) -> dict[tuple[int, ...], int]:
    return {tuple(place): row for row, place in enumerate(coords.tolist())}


def _sum_over_offsets(
    kernel: np.ndarray, offsets: Sequence[np.ndarray], coords: np.ndarray, features: np.ndarray, outputs: np.ndarray
) -> np.ndarray:
    rows, out = _rows(coords), np.zeros((len(outputs), kernel.shape[2]))
    for weight, offset in zip(kernel, offsets, strict=True):
        places = outputs + np.array([0, *offset])
        found = np.array([rows.get(tuple(place), -1) for place in places.tolist()])
        out[found >= 0] += features[found[found >= 0]] @ weight
    return out
