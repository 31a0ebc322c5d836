"""What label files are made of: PNGs of ids, JSON about segments and categories, `.pt` files of tensors."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


MAX_ID = 256**3 - 1  # of an RGB pixel


def read_ids(path: Path, described: np.ndarray) -> np.ndarray:
    """Ids `(height, width)`, integer, of a PNG: grey or palette values, or red + 256 green + 256² blue."""
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except OSError as error:
        raise ValueError(f"{path} is not a readable PNG: {error}") from error
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
    """`pixels` with 1…S in place of `ids` (S,), in their order; 0 stays none."""
    place = np.zeros(max(pixels.max(initial=0), ids.max(initial=0)) + 1, np.int32)
    place[ids] = np.arange(1, len(ids) + 1)
    segmentation = place[pixels]
    if (strange := (segmentation == 0) & (pixels != 0)).any():
        raise ValueError(
            f"{path} holds ids {np.unique(pixels[strange])[:5].tolist()}, which its JSON does not describe; 0 is none."
        )
    return segmentation


def read_segments(path: Path) -> list[dict[str, Any]]:
    """The `segments_info` of one image."""
    content = read_json(path)
    return check_segments(content.get("segments_info") if isinstance(content, dict) else content, path)


def check_segments(segments: Any, path: Path) -> list[dict[str, Any]]:
    """`segments`, which are a `segments_info`: each with an id of its own and a category."""
    if not isinstance(segments, list):
        raise ValueError(f"{path}: expected a list of segments, or one under `segments_info`, got {segments!r:.80}.")
    for segment in segments:
        numbers = [segment.get(key) for key in ("id", "category_id")] if isinstance(segment, dict) else []
        if [type(number) for number in numbers] != [int, int] or not 0 < numbers[0] <= MAX_ID:
            raise ValueError(
                f"{path}: a segment must have whole numbers `id`, 1 to {MAX_ID}, and `category_id`, "
                f"got {segment!r:.80}."
            )
        score = segment.get("score", 1.0)
        if not isinstance(score, (int, float)) or not 0 <= score <= 1:
            raise ValueError(f"{path}: the `score` of segment {segment['id']} must be 0 to 1, got {score!r:.80}.")
    ids = [segment["id"] for segment in segments]
    if len(set(ids)) < len(ids):
        raise ValueError(
            f"{path}: a segment id is described twice: {sorted(i for i in set(ids) if ids.count(i) > 1)}."
        )
    return segments


def scores_of(segments: list[dict[str, Any]]) -> np.ndarray:
    """`(S,)` float32; 1 where a segment has none."""
    return np.array([segment.get("score", 1.0) for segment in segments], np.float32)


def prompts_of_categories(categories: Any, prompts: list[str], path: Path) -> dict[int, int]:
    """Category id -> row of the prompt that has its name."""
    try:
        names = {one["id"]: one["name"] for one in categories}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected categories as a list of objects with `id` and `name`.") from error
    if unknown := [name for name in names.values() if name not in prompts]:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(names)} categories are no prompts of the vocabulary: {unknown}. Its "
            f"prompts are {prompts}. Rename the categories, or write a vocabulary with these prompts "
            "(docs/vocabularies.md)."
        )
    return {category: prompts.index(name) for category, name in names.items()}


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: expected a JSON file, got {error}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def read_features(path: Path) -> Tensor:
    """`(rows, embed_dim)` float32 of a `.pt` file, or of the second of two; nothing but tensors is ever unpickled."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: expected a file of tensors, which it is not: {error}") from error
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = value[1]
    if not isinstance(value, Tensor) or value.ndim != 2:
        shown = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{path}: expected a tensor (rows, dimensions), or a list of two, got {shown}.")
    return value.detach().float()


def unit_length(rows: Tensor, path: Path) -> np.ndarray:
    """Rows `(rows, embed_dim)` of length one."""
    lengths = rows.norm(dim=1, keepdim=True)
    if not (lengths.isfinite() & (lengths > 0)).all():
        bad = (~(lengths.isfinite() & (lengths > 0)))[:, 0].nonzero()[:, 0].tolist()
        raise ValueError(f"{path}: rows of zeros or of no finite length, which have no direction: {bad[:5]}.")
    return (rows / lengths).numpy()
