"""Errors of 2D segmenters: confused classes, ragged borders, one road in two masks, two things in one mask."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


# The classes that a class is confused with. More frequent confusions occur twice.
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
# A real network's scores depend on the class, and little on whether the label is right. Means, and the loss of a wrong
# label; measured with ESPNetv2 on PandaSet, as printed by benchmarks/teacher_errors.py.
THIN = "barrier", "bicycle", "motorcycle", "pedestrian", "traffic_cone"
SCORE, THIN_SCORE, WRONG_SCORE, SCORE_DEVIATION = 0.88, 0.6, -0.05, 0.08
# Classes that the teacher was never trained on, and confuses with another class more often than by chance.
UNSEEN = {"construction_vehicle": "truck", "trailer": "truck", "other_flat": "sidewalk"}


@dataclass(frozen=True)
class Units:
    """The units of one image, see `cut_into_units`."""

    raw_classes: np.ndarray  # (num_units,)
    owners: list[str]  # of each unit, the object or the place that its errors belong to
    regions: np.ndarray  # (num_units,)
    areas: np.ndarray  # (num_units,): pixels

    def __len__(self) -> int:
        return len(self.owners)


@dataclass(frozen=True)
class Draw:
    """Drawn predictions for the units (see `cut_into_units`) of one image."""

    segment_of_unit: np.ndarray  # (num_units,): the segment of each unit, -1 = no mask
    labels: np.ndarray  # (num_segments,): row of the prompt
    scores: np.ndarray  # (num_segments,): confidence
    noise: np.ndarray  # (num_segments, 64): the error of the embedding


def draw_shift(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a shift of borders in rows and columns (2, height, width): smooth with some noise, of about length 1."""
    height, width = shape
    grid = (max(height // 12, 2), max(width // 12, 2))
    return np.stack(
        [smooth_noise(rng, grid, shape) + 0.4 * rng.standard_normal(shape, dtype=np.float32) for _ in range(2)]
    )


def bleed(ids: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Make the borders of `ids` (height, width) ragged: every pixel takes the id `shift` pixels beside it."""
    height, width = ids.shape
    down, across = np.ogrid[:height, :width]
    row = np.clip(np.rint(down + shift[0]), 0, height - 1).astype(np.int32)
    column = np.clip(np.rint(across + shift[1]), 0, width - 1).astype(np.int32)
    return ids[row, column]


def draw_regions(rng: np.random.Generator, shape: tuple[int, int], region_size: float) -> np.ndarray:
    """Draw a region for each pixel (height, width): squares of `region_size` pixels with wavy borders."""
    wave = [0.3 * region_size * smooth_noise(rng, (6, 8), shape) for _ in range(2)]
    start = rng.uniform(0, region_size, 2)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down = np.floor((rows + wave[0] + start[0]) / region_size).astype(np.int64)
    across = np.floor((columns + wave[1] + start[1]) / region_size).astype(np.int64)
    return (down - down.min()) * (np.ptp(across) + 1) + across - across.min()


def cut_into_units(
    ids: np.ndarray, stuff_class: np.ndarray, places: np.ndarray, regions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cut an image into units, which are labelled each on its own: in one region, a thing, or stuff at one place.

    Args:
        ids (`np.ndarray` of shape `(height, width)`): true id of each pixel.
        stuff_class (`np.ndarray` of shape `(num_ids,)`): kind of stuff of each id, -1 for a thing.
        places (`np.ndarray` of shape `(height, width)`): place in the town that each pixel shows.
        regions (`np.ndarray` of shape `(height, width)`): from `draw_regions`.

    Returns:
        Unit of each pixel (height, width), and a pixel of each unit, as a row of the flat image.
    """
    stuff, num_ids = stuff_class[ids], len(stuff_class)
    kinds = np.where(stuff < 0, ids, num_ids + stuff + (stuff_class.max() + 1) * places)
    _, first, units = np.unique(kinds * (regions.max() + 1) + regions, return_index=True, return_inverse=True)
    return units.reshape(ids.shape), first


def touching(units: np.ndarray) -> np.ndarray:
    """Pairs (num_pairs, 2) of units that meet at a pixel border, each once, in ascending order."""
    sideways = np.stack([units[:, :-1].ravel(), units[:, 1:].ravel()])
    downwards = np.stack([units[:-1].ravel(), units[1:].ravel()])
    pairs = np.concatenate([sideways, downwards], axis=1)
    low, high = pairs.min(axis=0), pairs.max(axis=0)
    size = int(units.max()) + 1
    return np.stack(np.divmod(np.unique(low[low < high] * size + high[low < high]), size), axis=1)


def smooth_noise(rng: np.random.Generator, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Draw Gaussian noise on a coarse grid, upsampled to `shape` (height, width)."""
    coarse = Image.fromarray(rng.standard_normal(grid, dtype=np.float32))
    return np.array(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def compact(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the ids 0, 1, 2, … in ascending order, with -1 as it is; also return the id of each number."""
    kept, numbers = np.unique(np.append(ids, -1), return_inverse=True)  # -1 comes first
    return numbers[:-1] - 1, kept[1:]
