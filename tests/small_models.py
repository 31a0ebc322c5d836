"""A network small enough for a test, classes and prompts for it, and a batch of voxels and points."""

import torch
import torch.nn.functional as F

from uov_hf import UOVConfig, UOVForSemanticSegmentation, UOVModel


CLASSES = ["car", "driveable_surface", "tree"]
PROMPTS = ["car", "road", "tree", "sedan", "sky"]  # the last one is background
PROMPT_TO_CLASS = torch.tensor([0, 1, 2, 0, 255])


def unit(*shape: int, **options) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, **options), dim=-1)


def small_config(**fields) -> UOVConfig:
    small = {"hidden_sizes": [8] * 8, "stem_channels": 8, "projection_dim": 12, "sparse_backend": "torch"}
    return UOVConfig.from_preset("tiny", **small | fields)


def small_network(**fields) -> UOVModel:
    """A network with prompts for its classes."""
    uov = UOVModel(small_config(**fields))
    uov.set_classes(CLASSES, unit(len(PROMPTS), uov.config.projection_dim), PROMPT_TO_CLASS, PROMPTS)
    return uov


def small_segmenter(head: str = "linear") -> UOVForSemanticSegmentation:
    return UOVForSemanticSegmentation.from_backbone(small_network(), head)


def small_batch(num_points: int = 70) -> dict[str, torch.Tensor]:
    """Two blobs of voxels, and points in them; every seventh point lies outside the grid."""
    cells = torch.cat([torch.randint(0, 2, (120, 1)), torch.randint(-4, 4, (120, 3))], 1).unique(dim=0).int()
    point_to_voxel = torch.randint(len(cells), (num_points,))
    point_to_voxel[::7] = -1
    return {
        "voxel_coords": cells,
        "voxel_features": torch.rand(len(cells), 1),
        "point_to_voxel": point_to_voxel,
        "num_points": torch.tensor([30, num_points - 30]),
    }


def have_same_weights(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    state, other_state = model.state_dict(), other.state_dict()
    return state.keys() == other_state.keys() and all(torch.equal(state[name], other_state[name]) for name in state)
