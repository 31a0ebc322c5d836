"""Label files in SemanticKITTI's layout: 32 bits a point, the class in the lower half, the instance in the upper."""

from pathlib import Path

import numpy as np

from uov_hf.vocabulary import Vocabulary


def read_label_words(path: Path, scan: Path) -> np.ndarray:
    """
    What a label file says of each point of a scan file, uint32 of shape `(num_points,)`.

    Raises:
        ValueError: where it is missing, or has not one label for each point; it names the file.
    """
    num_points = scan.stat().st_size // 16
    if not path.is_file():
        raise ValueError(f"{path}: expected the labels of {scan}, got no file.")
    if path.stat().st_size != 4 * num_points:
        raise ValueError(
            f"{path}: expected {num_points} labels of 4 bytes, one for each point of {scan.name}, got "
            f"{path.stat().st_size} bytes."
        )
    return np.fromfile(path, np.uint32)


def to_classes(raw_labels: np.ndarray, vocabulary: Vocabulary, path: Path) -> np.ndarray:
    """Training ids of raw labels, uint8; an error names the file they are from."""
    try:
        return vocabulary.classes_of(raw_labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def instances_of(words: np.ndarray) -> np.ndarray:
    """The whole label word as int32, 0 where its upper half is 0: each raw class numbers its own instances."""
    words = words.astype(np.uint32)
    return np.where(words >> 16 > 0, words, 0).view(np.int32)
