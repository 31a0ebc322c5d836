"""Label maps: the label, score and probabilities that a closed-set network predicts for each pixel of an image."""

from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array

from uov_hf.image_files import open_image
from uov_hf.numpy_files import load_npz


NO_LABEL = 255  # in a PNG of labels
# Smaller components are a few lidar points at most, too few to pool and to contrast.
MIN_PIXELS = 64


def read_bytes(path: Path, content: str) -> np.ndarray:
    """Read a PNG with one uint8 for each pixel, `(height, width)`; `content` names the values in the error.

    Raises:
        ValueError: the file is broken or has other pixels.
    """
    with open_image(path) as image:
        mode, values = image.mode, np.asarray(image)
    if mode not in ("L", "P"):
        raise ValueError(f"{path}: expected {content} as grey values of 8 bits, got an image of mode {mode}.")
    return values


def read_labels(path: Path, num_labels: int) -> np.ndarray:
    """Read a PNG of labels, `(height, width)` uint8: 0 to `num_labels` − 1, or `NO_LABEL`.

    Raises:
        ValueError: the file is broken or has other values.
    """
    labels = read_bytes(path, "labels")
    present = np.unique(labels)
    if len(strange := present[(present >= num_labels) & (present != NO_LABEL)]):
        raise ValueError(
            f"{path} holds the labels {strange[:5].tolist()}; expected 0 to {num_labels - 1}, the places in "
            f"classes.json, or {NO_LABEL} for none."
        )
    return labels


def read_probabilities(path: Path, num_labels: int) -> np.ndarray:
    """Read `probs` of an `.npz` file, `(num_labels, h, w)` uint8: probabilities times 255, at any resolution.

    Raises:
        ValueError: the file is missing or broken, or has another array.
    """
    arrays = load_npz(path)
    if "probs" not in arrays:
        raise ValueError(f"{path}: expected an .npz file with the array `probs`, got {', '.join(arrays) or 'none'}.")
    probs = arrays["probs"]
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
    segmentation = np.zeros(labels.shape, np.int32)
    segment_labels: list[int] = []
    for label in np.unique(labels[labels != NO_LABEL]).tolist():
        components, num_components = ndimage.label(labels == label)
        is_large = np.bincount(components.ravel(), minlength=num_components + 1) >= MIN_PIXELS
        is_large[0] = False  # the pixels of other labels
        segment = is_large.cumsum()
        num_segments = int(segment[-1]) + (not is_large[1:].all())
        segment = np.where(is_large, segment, num_segments)  # the last one is of all small components
        inside = components > 0
        segmentation[inside] = len(segment_labels) + segment[components[inside]]
        segment_labels += [label] * num_segments
    return segmentation, np.array(segment_labels, np.int64)


def mean_probabilities(probs: np.ndarray, segmentation: np.ndarray, num_segments: int) -> np.ndarray:
    """Means of probabilities over segments; a pixel has the values of the cell that it lies in.

    Args:
        probs (`np.ndarray` of shape `(num_labels, h, w)`): Of cells that divide the image evenly.
        segmentation (`np.ndarray` of shape `(height, width)`): Ids 1…S, 0 = none.
        num_segments (`int`): S.

    Returns:
        `np.ndarray` of shape `(S, num_labels)`, float32, in the units of `probs`.
    """
    (num_labels, h, w), (height, width) = probs.shape, segmentation.shape
    row, column = np.arange(height) * h // height, np.arange(width) * w // width
    cells = row[:, None] * w + column  # (height, width)
    # Sparse, because most of the segments have pixels in few of the cells; pixels of one pair are added up.
    pairs = (segmentation.ravel(), cells.ravel())
    pixels = coo_array((np.ones(cells.size, np.float32), pairs), shape=(num_segments + 1, h * w)).tocsr()[1:]
    return pixels @ probs.reshape(num_labels, -1).T.astype(np.float32) / pixels.sum(axis=1)[:, None]
