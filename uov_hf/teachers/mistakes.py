"""How 2D segmenters err: they confuse names, let borders bleed, cut one road into two, and merge masks."""

import numpy as np
from PIL import Image


# What a class is taken for when it is mistaken. Commoner mistakes come twice.
CONFUSIONS = {
    "barrier": ("manmade", "manmade", "traffic_cone"),
    "bicycle": ("motorcycle", "motorcycle", "pedestrian"),
    "bus": ("truck", "truck", "car"),
    "car": ("truck", "truck", "bus"),
    "construction_vehicle": ("truck", "truck", "car", "trailer"),
    "motorcycle": ("bicycle", "bicycle", "pedestrian"),
    "pedestrian": ("manmade", "bicycle", "motorcycle"),
    "traffic_cone": ("barrier", "manmade"),
    "trailer": ("truck", "truck", "manmade"),
    "truck": ("car", "car", "bus", "trailer", "construction_vehicle"),
    "driveable_surface": ("sidewalk", "other_flat"),
    "other_flat": ("driveable_surface", "sidewalk", "terrain"),
    "sidewalk": ("driveable_surface", "driveable_surface", "terrain"),
    "terrain": ("sidewalk", "sidewalk", "vegetation", "other_flat"),
    "manmade": ("vegetation", "barrier", "truck"),
    "vegetation": ("manmade", "terrain"),
}
# What the teacher never learnt, and calls by another name more often than by chance.
UNSEEN = {"construction_vehicle": "truck", "trailer": "truck", "other_flat": "sidewalk"}


def bleed(rng: np.random.Generator, ids: np.ndarray, reach: float) -> np.ndarray:
    """`ids` (height, width) with ragged borders: every pixel reads the id about `reach` pixels beside it."""
    height, width = ids.shape
    grid = (max(height // 12, 2), max(width // 12, 2))
    row, column = (
        index + reach * (smooth_noise(rng, grid, ids.shape) + 0.4 * rng.standard_normal(ids.shape, dtype=np.float32))
        for index in np.indices(ids.shape, sparse=True)
    )
    row = np.clip(np.rint(row), 0, height - 1).astype(np.int32)
    column = np.clip(np.rint(column), 0, width - 1).astype(np.int32)
    return ids[row, column]


def cut_into_units(
    rng: np.random.Generator, ids: np.ndarray, stuff_class: np.ndarray, region_size: float
) -> tuple[np.ndarray, np.ndarray]:
    """
    The units that get a name each: what a thing, or a kind of stuff, covers in a region of the image.

    Args:
        ids (`np.ndarray` of shape `(height, width)`): what each pixel shows.
        stuff_class (`np.ndarray` of shape `(num_ids,)`): kind of stuff of each id, -1 for a thing.
        region_size (`float`): side of a region in pixels; their borders wave.

    Returns:
        Unit of each pixel (height, width), and one of its ids for each unit.
    """
    wave = [0.3 * region_size * smooth_noise(rng, (6, 8), ids.shape) for _ in range(2)]
    start = rng.uniform(0, region_size, 2)
    down, across = (
        np.floor((index + w + s) / region_size).astype(np.int64)
        for index, w, s in zip(np.indices(ids.shape, sparse=True), wave, start, strict=True)
    )
    region = (down - down.min()) * (np.ptp(across) + 1) + across - across.min()
    stuff = stuff_class[ids]
    num_ids = len(stuff_class)
    keys = np.where(stuff < 0, ids, num_ids + stuff) * (region.max() + 1) + region
    _, first, units = np.unique(keys, return_index=True, return_inverse=True)
    return units.reshape(ids.shape), ids.reshape(-1)[first]


def touching(units: np.ndarray) -> np.ndarray:
    """Pairs (num_pairs, 2) of units that meet at a pixel border, each once, in ascending order."""
    sideways = np.stack([units[:, :-1].ravel(), units[:, 1:].ravel()])
    downwards = np.stack([units[:-1].ravel(), units[1:].ravel()])
    pairs = np.concatenate([sideways, downwards], axis=1)
    low, high = pairs.min(axis=0), pairs.max(axis=0)
    size = int(units.max()) + 1
    return np.stack(np.divmod(np.unique(low[low < high] * size + high[low < high]), size), axis=1)


def smooth_noise(rng: np.random.Generator, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Gaussian noise on a coarse grid, drawn out to `shape` (height, width)."""
    coarse = Image.fromarray(rng.standard_normal(grid, dtype=np.float32))
    return np.array(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
