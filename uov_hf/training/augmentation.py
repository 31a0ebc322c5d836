"""The paper's augmentation of points and pairs (docs/method.md, sections 1.5 and 1.6); no image is looked at.

The paper crops, resizes and flips the images too, but its pre-training never reads a pixel value: of all this, only
the pairs that a crop drops have an effect. So the crop here drops pairs, and the image flip, which drops none, is left
out. The segment of a pair is the one at its own pixel, where the paper reads a mask shrunk to 224 x 416.
"""

import math
from dataclasses import dataclass

import numpy as np


Pairs = dict[str, np.ndarray]


@dataclass(frozen=True)
class AugmentationConfig:
    """
    Args:
        rotate (`bool`):
            Turn the cloud about z by any angle.
        flip (`bool`):
            Mirror x, and mirror y, each with probability 0.5.
        cuboid_size (`float`):
            A cuboid of up to this share of the cloud's extent is dropped; 0 drops none.
        crop_scale (`tuple[float, float]`, *optional*):
            Share of the image area that a crop keeps; `None` does not crop.
        crop_ratio (`tuple[float, float]`):
            Width to height of a crop.
        crop_size (`tuple[int, int]`):
            Height and width the paper resizes a crop to; its rounding decides about pairs on the crop's border.
        min_pairs (`int`):
            Every image that has pairs keeps at least so many when a cuboid is dropped, and more when it is cropped.
        min_pair_share (`float`):
            A crop that keeps more than this share of the image's pairs is fine, too.
        max_redraws (`int`):
            Crops tried for an image before it stays whole. (The paper tries for ever.)
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

    def __post_init__(self):
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
    """
    Points and pairs as the network sees them in one epoch: turned, mirrored, without a cuboid, with cropped images.

    Args:
        points (`np.ndarray` of shape `(num_points, >=3)`):
            x, y, z in metres, then whatever belongs to the point.
        pairs (`dict` of arrays with `num_pairs` rows):
            `pair_to_point`, `pair_camera`, `pair_pixel` (column, row), and whatever belongs to the pair.
        image_sizes (`np.ndarray` of shape `(num_cameras, 2)`):
            Height and width.
        config (`AugmentationConfig`):
            What is done.
        generator (`np.random.Generator`):
            The only source of chance.
    """
    points = turn_and_mirror(points, config, generator)
    if config.cuboid_size:
        points, pairs = drop_cuboid(points, pairs, config, generator)
    if config.crop_scale is not None:
        pairs = crop_images(pairs, image_sizes, config, generator)
    return points, pairs


def turn_and_mirror(points: np.ndarray, config: AugmentationConfig, generator: np.random.Generator) -> np.ndarray:
    """A copy of the points `(num_points, >=3)`, turned and mirrored: all that the paper does to points with labels."""
    points = points.copy()
    if config.rotate:
        points[:, :2] = rotated(points[:, :2], generator.uniform(0, 2 * math.pi))
    if config.flip:
        points[:, :2] *= generator.choice([-1, 1], size=2)
    return points


def rotated(xy: np.ndarray, angle: float) -> np.ndarray:
    """`xy` `(num_points, 2)`, turned about the origin by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return xy @ np.array([[cos, sin], [-sin, cos]], dtype=xy.dtype)


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
    # The official code also counts images without pairs, and then never ends their crop (docs/method.md, section 1.6).
    cameras = np.unique(pairs["pair_camera"])
    num_pairs = np.bincount(pairs["pair_camera"][pairs_kept], minlength=cameras.max(initial=-1) + 1)[cameras]
    if (num_pairs < config.min_pairs).any():
        return points, pairs
    new_row = np.cumsum(kept) - 1
    pairs = select_pairs(pairs, pairs_kept)
    return points[kept], pairs | {"pair_to_point": new_row[pairs["pair_to_point"]]}


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


def random_box(image_size, config: AugmentationConfig, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, width, height of a box of random area and shape, drawn as torchvision's `RandomResizedCrop` does."""
    height, width = (int(side) for side in image_size)
    for _ in range(10):
        area = height * width * generator.uniform(*config.crop_scale)
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


def select_pairs(pairs: Pairs, rows: np.ndarray) -> Pairs:
    return {name: values[rows] for name, values in pairs.items()}
