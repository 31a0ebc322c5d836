"""The paper's augmentation of points and pairs (docs/explanation/method.md, sections 1.5 and 1.6); no image is opened.

The paper crops, resizes and flips the images too, but its pre-training never reads a pixel value: only the pairs that
a crop drops have an effect. So the crop here drops pairs. The image flip drops none and is left out. The segment of a
pair is the one at its own pixel; the paper reads a mask shrunk to 224 x 416.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uov_hf.array_checks import check_array, check_ids
from uov_hf.labels.labelling import Pairs
from uov_hf.views import rotated


@dataclass(frozen=True)
class AugmentationConfig:
    """Settings of the augmentation.

    Args:
        rotate (`bool`, *optional*, defaults to `True`): Rotate the cloud about z by a random angle.
        flip (`bool`, *optional*, defaults to `True`): Mirror x and y, each with probability 0.5.
        cuboid_size (`float`, *optional*, defaults to 0.2):
            Largest dropped cuboid, as a share of the cloud's extent; 0 drops none.
        crop_scale (`tuple[float, float]`, *optional*, defaults to `(0.3, 1.0)`):
            Share of the image area that a crop keeps; `None` does not crop.
        crop_ratio (`tuple[float, float]`, *optional*, defaults to `(14 / 9, 17 / 9)`): Width to height of a crop.
        crop_size (`tuple[int, int]`, *optional*, defaults to `(224, 416)`):
            Height and width to which the paper resizes a crop; its rounding decides about pairs on the crop's border.
        min_pairs (`int`, *optional*, defaults to 1024):
            Pairs that a dropped cuboid leaves at least to every image that has any, and a crop more than these.
        min_pair_share (`float`, *optional*, defaults to 0.75):
            A crop that keeps a larger share of the image's pairs is accepted, too.
        max_redraws (`int`, *optional*, defaults to 50):
            Crops tried for an image before it stays whole. (The paper has no limit.)
        mix_sectors (`bool`, *optional*, defaults to `False`):
            Whether sectors of other frames take the place of azimuths without labels
            ([`~uov_hf.training.mixing.mix_sectors`]). The paper does not mix: on nuScenes cameras see all azimuths.
        random_scale (`float`, *optional*, defaults to 0):
            Multiply x, y and z by one random factor of 1 ± this share. The paper does not scale.
        random_slope (`float`, *optional*, defaults to 0):
            Raise z by a random slope of up to this number along x, and by another one along y; 0.05 is 5 cm for each
            metre. The paper does not tilt.
    """

    rotate: bool = True
    flip: bool = True
    cuboid_size: float = 0.2
    crop_scale: tuple[float, float] | None = (0.3, 1.0)
    crop_ratio: tuple[float, float] = (14 / 9, 17 / 9)
    crop_size: tuple[int, int] = (224, 416)
    min_pairs: int = 1024
    min_pair_share: float = 0.75
    max_redraws: int = 50
    mix_sectors: bool = False
    random_scale: float = 0.0
    random_slope: float = 0.0

    def __post_init__(self):
        for name in ("random_scale", "random_slope"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 0 and below 1, got {getattr(self, name)}.")
        if not 0 <= self.cuboid_size <= 1:
            raise ValueError(f"`cuboid_size` must be a share from 0 to 1, got {self.cuboid_size}.")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"`crop_scale` must be rising shares of the area in (0, 1], got {self.crop_scale}.")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"`crop_ratio` must be rising and positive, got {self.crop_ratio}.")
        if self.min_pairs < 0 or self.max_redraws < 0:
            raise ValueError(
                f"`min_pairs` and `max_redraws` must not be negative, got {self.min_pairs} and {self.max_redraws}."
            )


def augment(
    points: np.ndarray,
    pairs: Pairs,
    image_sizes: np.ndarray,
    config: AugmentationConfig,
    generator: np.random.Generator,
) -> tuple[np.ndarray, Pairs]:
    """Transform the points, drop a cuboid of them, and drop the pairs outside a crop of each image.

    Args:
        points (`np.ndarray` of shape `(num_points, >=3)`): x, y, z in metres, then any other columns.
        pairs (`Pairs`): Pairs of these points.
        image_sizes (`np.ndarray` of shape `(num_cameras, 2)`): Height and width.
        config (`AugmentationConfig`): Settings.
        generator (`np.random.Generator`): The only source of randomness.

    Returns:
        The remaining points and pairs. The given arrays stay as they are.

    Raises:
        ValueError: An array has another shape, or a pair is of no point or camera.
    """
    check_array("points", points, ("num_points", "3 or more"), "f")
    check_array("image_sizes", image_sizes, ("num_cameras", 2), "iu")
    if (image_sizes < 1).any():
        raise ValueError(f"`image_sizes` must be at least 1 pixel, got {image_sizes.tolist()}.")
    check_pairs(pairs, len(points), len(image_sizes))
    points = transform(points, config, generator)
    if config.cuboid_size:
        points, pairs = drop_cuboid(points, pairs, config, generator)
    if config.crop_scale is not None:
        pairs = crop_images(pairs, image_sizes, config, generator)
    return points, pairs


def transform(points: np.ndarray, config: AugmentationConfig | None, generator: np.random.Generator) -> np.ndarray:
    """A copy of the points `(num_points, >=3)`, rotated, mirrored, scaled, tilted; without a `config` as they are.

    The paper's distillation and fine-tuning rotate and mirror, and do nothing else.

    Raises:
        ValueError: They are no floating-point numbers of this shape.
    """
    check_array("points", points, ("num_points", "3 or more"), "f")
    points = points.copy()
    if config is None:
        return points
    if config.rotate:
        points[:, :2] = rotated(points[:, :2], generator.uniform(0, 2 * math.pi))
    if config.flip:
        points[:, :2] *= generator.choice([-1, 1], size=2)
    if config.random_scale:
        points[:, :3] *= generator.uniform(1 - config.random_scale, 1 + config.random_scale)
    if config.random_slope:
        slopes = generator.uniform(-config.random_slope, config.random_slope, size=2).astype(points.dtype)
        points[:, 2] += points[:, :2] @ slopes
    return points


def drop_cuboid(
    points: np.ndarray, pairs: Pairs, config: AugmentationConfig, generator: np.random.Generator
) -> tuple[np.ndarray, Pairs]:
    """Drop the points strictly inside a random cuboid.

    Cancelled where an image would keep fewer than `min_pairs` pairs; images without any pair do not count.
    """
    xyz = points[:, :3]
    finite = np.flatnonzero(np.isfinite(xyz).all(axis=1))
    if not len(finite):
        return points, pairs
    share = generator.uniform(0, config.cuboid_size)
    half_size = np.ptp(xyz[finite], axis=0) * share / 2
    kept = ~(np.abs(xyz - xyz[generator.choice(finite)]) < half_size).all(axis=1)  # (num_points,)

    pairs_kept = kept[pairs["pair_to_point"]]  # (num_pairs,)
    # The official code also counts images without pairs, and then never ends their crop (method.md, 1.6).
    cameras = np.unique(pairs["pair_camera"])
    num_pairs = np.bincount(pairs["pair_camera"][pairs_kept], minlength=int(cameras.max(initial=0)) + 1)[cameras]
    if (num_pairs < config.min_pairs).any():
        return points, pairs
    new_row = np.cumsum(kept) - 1
    pairs = select_pairs(pairs, pairs_kept)
    return points[kept], {**pairs, "pair_to_point": new_row[pairs["pair_to_point"]]}


def crop_images(
    pairs: Pairs, image_sizes: np.ndarray, config: AugmentationConfig, generator: np.random.Generator
) -> Pairs:
    """Crop every image at random, so that it keeps more than `min_pairs` pairs or `min_pair_share` of them."""
    kept = np.ones(len(pairs["pair_camera"]), dtype=bool)
    for camera in np.unique(pairs["pair_camera"]):
        here = np.flatnonzero(pairs["pair_camera"] == camera)
        for _ in range(config.max_redraws):
            box = random_box(image_sizes[camera], config, generator)
            inside = inside_box(pairs["pair_pixel"][here], box, config.crop_size)
            if inside.sum() > config.min_pairs or inside.mean() > config.min_pair_share:
                kept[here] = inside
                break
    return select_pairs(pairs, kept)


def random_box(
    image_size: Sequence[int] | np.ndarray, config: AugmentationConfig, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, width, height of a box of random area and shape, drawn as torchvision's `RandomResizedCrop` does."""
    height, width = (int(side) for side in image_size)
    smallest, largest = config.crop_scale or (1.0, 1.0)
    for _ in range(10):
        area = height * width * generator.uniform(smallest, largest)
        ratio = math.exp(generator.uniform(*np.log(config.crop_ratio)))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(generator.integers(0, width - box_width + 1))
            top = int(generator.integers(0, height - box_height + 1))
            return left, top, box_width, box_height
    ratio = min(max(width / height, config.crop_ratio[0]), config.crop_ratio[1])  # the largest box in the middle
    box_width, box_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height


def inside_box(pixels: np.ndarray, box: tuple[int, int, int, int], crop_size: tuple[int, int]) -> np.ndarray:
    """Which pixels `(num_pairs, 2)` (column, row) lie in the image that the box becomes at `crop_size`."""
    left, top, width, height = box
    size = np.array([crop_size[1], crop_size[0]])
    resized = np.rint((pixels - np.array([left, top])) * (size / np.array([width, height])))
    return ((resized >= 0) & (resized < size)).all(axis=1)


def check_pairs(pairs: Pairs, num_points: int, num_cameras: int | None = None) -> None:
    """Check that pairs are of these points and cameras: NumPy reads a negative row from the end.

    Raises:
        ValueError: An array has another length, or a pair is of no point or camera.
    """
    check_array("pair_to_point", pairs["pair_to_point"], ("num_pairs",), "iu")
    num_pairs = len(pairs["pair_to_point"])
    check_ids("pair_to_point", pairs["pair_to_point"], "num_pairs", num_points)
    check_ids("pair_camera", pairs["pair_camera"], num_pairs, 1 << 15 if num_cameras is None else num_cameras)
    check_array("pair_pixel", pairs["pair_pixel"], (num_pairs, 2))
    check_array("pair_segment", pairs["pair_segment"], (num_pairs,), "iu")


def select_pairs(pairs: Pairs, rows: np.ndarray) -> Pairs:
    """The pairs at these row numbers, or where a mask is true."""
    return {
        "pair_to_point": pairs["pair_to_point"][rows],
        "pair_camera": pairs["pair_camera"][rows],
        "pair_pixel": pairs["pair_pixel"][rows],
        "pair_segment": pairs["pair_segment"][rows],
    }
