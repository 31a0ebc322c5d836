"""Label maps: the label, score and probabilities that a closed-set network predicts for each pixel of an image."""

from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array

from uov_hf.image_files import read_pixels
from uov_hf.numpy_files import load_npz_array


NO_LABEL = 255  # in a PNG of labels
MAX_CELLS = 4  # of probabilities for each pixel
HEADER_SIZE = 1024  # bytes, more than NumPy writes before an array
# Smaller components are a few lidar points at most, too few to pool and to contrast.
MIN_PIXELS = 64


def read_bytes(path: Path, content: str, size: tuple[int, int]) -> np.ndarray:
    """Read a PNG with one uint8 for each pixel, `(height, width)`; `content` names the values in the error.

    Raises:
        ValueError: the file is broken, has other pixels or not this height and width.
    """
    mode, values = read_pixels(path, size)
    if mode not in ("L", "P"):
        raise ValueError(f"{path}: expected {content} as grey values of 8 bits, got an image of mode {mode}.")
    return values


def read_labels(path: Path, num_labels: int, size: tuple[int, int]) -> np.ndarray:
    """Read a PNG of labels, `(height, width)` uint8: 0 to `num_labels` − 1, or `NO_LABEL`.

    Raises:
        ValueError: the file is broken, has other values or not this height and width.
    """
    labels = read_bytes(path, "labels", size)
    present = np.unique(labels)
    if len(strange := present[(present >= num_labels) & (present != NO_LABEL)]):
        raise ValueError(
            f"{path} holds the labels {strange[:5].tolist()}; expected 0 to {num_labels - 1}, the places in "
            f"classes.json, or {NO_LABEL} for none."
        )
    return labels


def read_probabilities(path: Path, num_labels: int, num_pixels: int) -> np.ndarray:
    """Read `probs` of an `.npz` file, `(num_labels, h, w)` uint8: probabilities times 255.

    They may have any resolution up to twice that of the image, which has `num_pixels`.

    Raises:
        ValueError: the file is missing or broken, or has another array or a larger one.
    """
    probs = load_npz_array(path, "probs", num_labels * MAX_CELLS * num_pixels + HEADER_SIZE)
    if probs.dtype != np.uint8 or probs.ndim != 3 or len(probs) != num_labels or not probs.size:
        raise ValueError(
            f"{path}: expected `probs` as uint8 of shape ({num_labels}, h, w), probabilities times 255, got "
            f"{probs.dtype} of shape {probs.shape}."
        )
    return probs


def find_components(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make a segment of each connected component of a label.

    Pixels are neighbours along rows and columns. The components of a label below `MIN_PIXELS` are one segment.

    Args:
        labels (`np.ndarray` of shape `(height, width)`): As of `read_labels`.

    Returns:
        The segmentation `(height, width)` int32 with ids 1…S, 0 = none, and the segments' labels `(S,)` int64.
    """
    height, width = labels.shape
    # Pixels at even places, and between neighbours of one label a link: one pass, whatever the number of labels.
    grid = np.ones((2 * height - 1, 2 * width - 1), bool)
    grid[1::2, 1::2] = False
    grid[1::2, ::2] = labels[1:] == labels[:-1]
    grid[::2, 1::2] = labels[:, 1:] == labels[:, :-1]
    components, num_components = ndimage.label(grid)
    components = components[::2, ::2] - 1
    is_large = np.bincount(components.ravel()) >= MIN_PIXELS
    label_of = np.empty(num_components, np.int64)
    label_of[components] = labels
    # Segments in the order of their labels and first pixels, the small components of a label last.
    keys = label_of * (num_components + 1) + np.where(is_large, np.arange(num_components), num_components)
    is_labelled = label_of != NO_LABEL
    keys, place = np.unique(keys[is_labelled], return_inverse=True)
    segment = np.zeros(num_components, np.int32)
    segment[is_labelled] = place + 1
    return segment[components], keys // (num_components + 1)


def mean_probabilities(probs: np.ndarray, segmentation: np.ndarray, num_segments: int) -> np.ndarray:
    """Means of probabilities over segments; a pixel has the values of the cell that it lies in.

    Args:
        probs (`np.ndarray` of shape `(num_labels, h, w)`): Of cells that divide the image evenly.
        segmentation (`np.ndarray` of shape `(height, width)`): Ids 1…S, 0 = none.
        num_segments (`int`): S.

    Returns:
        `np.ndarray` of shape `(S, num_labels)`, float32, in the units of `probs`.
    """
    (_, h, w), (height, width) = probs.shape, segmentation.shape
    row, column = np.arange(height) * h // height, np.arange(width) * w // width
    cells = row[:, None] * w + column  # (height, width)
    # Sparse, because most of the segments have pixels in few of the cells; pixels of one pair are added up.
    pairs = (segmentation.ravel(), cells.ravel())
    pixels = coo_array((np.ones(cells.size, np.float32), pairs), shape=(num_segments + 1, h * w)).tocsr()[1:]
    # One label at a time: the floating-point numbers of all would take four times the memory of `probs`, twice.
    sums = [pixels @ of_label.reshape(-1, 1).astype(np.float32) for of_label in probs]
    return np.hstack(sums) / pixels.sum(axis=1)[:, None]
