"""Contents of label files: PNGs of ids, JSON about segments and categories, `.pt` files of tensors.

Every reader raises a `ValueError` that names the file if its content is wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from uov_hf.image_files import read_pixels
from uov_hf.setting_files import read_json
from uov_hf.teachers.protocol import Rows
from uov_hf.tensor_files import plain_tensor, read_tensor_file


MAX_ID = 256**3 - 1  # of an RGB pixel


@dataclass(frozen=True)
class SegmentInfo(Rows):
    """The columns of an image's `segments_info`."""

    ids: np.ndarray  # (S,), int64: 1 to `MAX_ID`, each once
    categories: np.ndarray  # (S,), int64
    scores: np.ndarray  # (S,), float32; 1 for a segment without a score

    @classmethod
    def parse(cls, segments: Any, path: Path) -> "SegmentInfo":
        """Check a `segments_info` from JSON: each segment has its own id and a category."""
        if not isinstance(segments, list):
            raise ValueError(
                f"{path}: expected a list of segments, or one under `segments_info`, got {segments!r:.80}."
            )
        rows = [_parse_segment(segment, path) for segment in segments]
        ids, categories, scores = zip(*rows, strict=True) if rows else ((), (), ())
        if len(set(ids)) < len(ids):
            twice = sorted({one for one in ids if ids.count(one) > 1})
            raise ValueError(f"{path}: a segment id is described twice: {twice}.")
        return cls(np.array(ids, np.int64), np.array(categories, np.int64), np.array(scores, np.float32))

    @classmethod
    def read(cls, path: Path) -> "SegmentInfo":
        """Read the JSON of one image."""
        content = read_json(path)
        return cls.parse(content.get("segments_info") if isinstance(content, dict) else content, path)


def _parse_segment(segment: Any, path: Path) -> tuple[int, int, float]:
    own: dict[str, Any] = segment if isinstance(segment, dict) else {}
    segment_id, category, score = own.get("id"), own.get("category_id"), own.get("score", 1.0)
    if (
        type(segment_id) is not int
        or type(category) is not int
        or not 0 < segment_id <= MAX_ID
        or abs(category) > MAX_ID
    ):
        raise ValueError(
            f"{path}: a segment must have whole numbers `id`, 1 to {MAX_ID}, and `category_id`, got {segment!r:.80}."
        )
    if not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise ValueError(f"{path}: the `score` of segment {segment_id} must be 0 to 1, got {score!r:.80}.")
    return segment_id, category, score


def read_ids(path: Path, described: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Read ids of `size`, integer, of a PNG: grey or palette values, or red + 256 green + 256² blue."""
    mode, values = read_pixels(path, size)
    if mode in ("RGB", "RGBA"):
        return values[..., :3].astype(np.int32) @ np.array([1, 256, 256**2], np.int32)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{path}: expected segment ids as grey or RGB values, got an image of mode {mode}.")
    if values.dtype == np.uint8 and described.max(initial=0) > 255:
        raise ValueError(
            f"{path} has 8 bits, but segments up to id {described.max()} are described: the ids above 255 were lost "
            "when it was written. Write it with 16 bits."
        )
    return values


def number_from_one(pixels: np.ndarray, ids: np.ndarray, path: Path) -> np.ndarray:
    """Replace `ids` (S,) in `pixels` by 1…S, in their order; 0 stays "no segment"."""
    place = np.zeros(int(ids.max(initial=0)) + 1, np.int32)  # pixels may be any number of 32 bits
    place[ids] = np.arange(1, len(ids) + 1)
    known = (pixels >= 0) & (pixels < len(place))
    segmentation = place[np.where(known, pixels, 0)]
    if (strange := (segmentation == 0) & (pixels != 0)).any():
        raise ValueError(
            f"{path} holds ids {np.unique(pixels[strange])[:5].tolist()}, which its JSON does not describe; 0 is none."
        )
    return segmentation


def prompts_of_categories(categories: Any, prompts: list[str], path: Path) -> dict[int, int]:
    """Category id -> row of the prompt with its name."""
    try:
        names = {one["id"]: one["name"] for one in categories}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected categories as a list of objects with `id` and `name`.") from error
    if unknown := [name for name in names.values() if name not in prompts]:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(names)} categories are no prompts of the vocabulary: {unknown}. Its "
            f"prompts are {prompts}. Rename the categories, or write a vocabulary with these prompts "
            "(docs/how_to/existing_labels.md)."
        )
    return {category: prompts.index(name) for category, name in names.items()}


def read_features(path: Path) -> Tensor:
    """Read `(rows, embed_dim)` float32 from a `.pt` file with one tensor, or the second of two."""
    try:
        value = read_tensor_file(path)
    except OSError as error:
        raise ValueError(f"{path}: expected a PyTorch file of tensors, got: {error}") from error
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = value[1]
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{path}: expected a tensor (rows, dimensions), or a list of two, got {type(value).__name__}."
        )
    plain = plain_tensor(value, path)
    if plain is None or not plain.is_floating_point():
        raise ValueError(f"{path}: expected a dense tensor of floating-point numbers, got another kind.")
    if plain.ndim != 2:
        raise ValueError(
            f"{path}: expected a tensor (rows, dimensions), or a list of two, got shape {tuple(plain.shape)}."
        )
    return plain.float()


def normalize_rows(rows: Tensor, path: Path) -> np.ndarray:
    """Divide rows `(rows, embed_dim)` by their lengths."""
    lengths = rows.norm(dim=1, keepdim=True)
    bad = ~(lengths.isfinite() & (lengths > 0))[:, 0]
    if bad.any():
        raise ValueError(
            f"{path}: rows of zeros or of no finite length, which have no direction: {bad.nonzero()[:5, 0].tolist()}."
        )
    return (rows / lengths).numpy()
