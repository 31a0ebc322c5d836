"""The folder layout `semantic`: label maps, which have the label that a closed-set network predicts for each pixel."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uov_hf.foreign_paths import inside
from uov_hf.leftovers import data_files
from uov_hf.setting_files import read_json
from uov_hf.teachers.file_contents import normalize_rows
from uov_hf.teachers.file_layouts import FiledSegments, Layout
from uov_hf.teachers.label_maps import (
    MIN_PIXELS,
    NO_LABEL,
    find_components,
    mean_probabilities,
    read_bytes,
    read_labels,
    read_probabilities,
)
from uov_hf.teachers.pooling import means_of_segments


CLASSES = "classes.json"
LABELS, SCORES, PROBS = "_labels.png", "_scores.png", "_probs.npz"  # the ends of the file names


class SemanticLayout(Layout):
    """The label that a closed-set network predicts for each pixel, as PNGs in one folder or in folders below it.

    `classes.json` in the folder, or in the one above it, is the list of the labels. For each image there is
    `<name>_labels.png`, and there may be `<name>_scores.png` and `<name>_probs.npz`; see `uov_hf.teachers.label_maps`.
    A file below the folder belongs to an image if its path ends with a name of the image.

    A segment is a connected component of a label. Its score is the mean of its pixels' scores. Its embedding is the
    mean of its pixels' probabilities, with a zero at the end, and the embedding of a label has a one at its place. A
    prompt that the network never predicts has a one at the end, so that its similarity to every segment is 0.
    """

    name = "semantic"
    marker = CLASSES
    form = f"{CLASSES} and, for each image, <name>{LABELS}, with or without <name>{SCORES} and <name>{PROBS}"

    def __init__(self, folder: Path, prompts: list[str]):
        super().__init__(folder, prompts)
        labels = read_classes(folder)
        if prompts[: len(labels)] != labels:
            raise ValueError(
                f"{folder} has the {len(labels)} labels of {CLASSES} ({', '.join(labels[:3])}, …), not other words. "
                "Give a vocabulary instead of words; in Python, pass the prompts of `FilesTeacher.fit_vocabulary`."
            )
        self.num_labels = len(labels)
        if next(folder.rglob(f"*{PROBS}"), None) is not None:
            rows = np.arange(len(prompts)).clip(max=self.num_labels)
            self.prompt_embeds = np.eye(self.num_labels + 1, dtype=np.float32)[rows]

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return _find_classes(folder) is not None

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"min_pixels": MIN_PIXELS}

    def read(self, names: list[str], size: tuple[int, int]) -> FiledSegments:
        path = self._find(names)
        segmentation, labels = find_components(read_labels(path, self.num_labels, size))
        start = path.name.removesuffix(LABELS)
        scores = self._scores(path.with_name(start + SCORES), segmentation, len(labels))
        embeds = self._embeds(path.with_name(start + PROBS), segmentation, len(labels))
        return FiledSegments(path, segmentation, labels, scores, embeds)

    def _scores(self, path: Path, segmentation: np.ndarray, num_segments: int) -> np.ndarray:
        if not path.is_file():
            return np.ones(num_segments, np.float32)
        height, width = segmentation.shape
        scores = read_bytes(path, "scores", (height, width))
        values = torch.from_numpy(scores.astype(np.float32) / 255)
        return means_of_segments(values, torch.from_numpy(segmentation), num_segments).numpy()

    def _embeds(self, path: Path, segmentation: np.ndarray, num_segments: int) -> np.ndarray:
        if not self.prompt_embeds.size:
            return np.empty((num_segments, 0), np.float32)
        probs = read_probabilities(path, self.num_labels, segmentation.size)
        means = mean_probabilities(probs, segmentation, num_segments)
        return normalize_rows(torch.from_numpy(np.pad(means, ((0, 0), (0, 1)))), path)

    def _find(self, names: list[str]) -> Path:
        for name in names:
            path = inside(self.folder, f"{name}{LABELS}", f"The image id {name}")
            # A number alone is the name of an image in many folders.
            below = [] if name.isdigit() else self._paths_by_name.get(path.name, [])
            fitting = [path] if path.is_file() else [one for one in below if _ends_with(one, f"{name}{LABELS}")]
            if len(fitting) > 1:
                raise ValueError(
                    f"{fitting[0]} and {fitting[1]} both fit the image {name}. Give the folder that contains only one "
                    f"of them; {CLASSES} may lie in the folder above it."
                )
            if fitting:
                return fitting[0]
        expected = " or ".join(f"{name}{LABELS}" for name in names)
        raise FileNotFoundError(f"{self.folder} has no labels of this image: expected {expected}.")

    @cached_property
    def _paths_by_name(self) -> dict[str, list[Path]]:
        """The paths of all label files, by their last part."""
        paths: dict[str, list[Path]] = {}
        for path in data_files(self.folder, f"**/*{LABELS}"):
            paths.setdefault(path.name, []).append(path)
        return paths


def read_classes(folder: Path) -> list[str]:
    """The labels of a folder of the layout `semantic`, in the order of their indices.

    Raises:
        ValueError: there is no list of different labels.
    """
    path = _find_classes(folder) or folder / CLASSES
    labels = read_json(path)
    is_list = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if not is_list or not 0 < len(labels) <= NO_LABEL or len(set(labels)) < len(labels):
        raise ValueError(f"{path}: expected a list of 1 to {NO_LABEL} different labels, got {labels!r:.80}.")
    return labels


def _find_classes(folder: Path) -> Path | None:
    """`classes.json` in the folder, or in the one above it: labels of several datasets lie side by side."""
    paths = [folder / CLASSES, folder.absolute().parent / CLASSES]
    return next((path for path in paths if path.is_file()), None)


def _ends_with(path: Path, name: str) -> bool:
    parts = Path(name).parts
    return path.parts[-len(parts) :] == parts
