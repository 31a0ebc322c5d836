"""Checks of the rows of labels from anybody. They decode no PNG: training reads every row."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.labels.votes import NUM_SOFT_LABELS, ROUNDING


WAY_OUT = (
    "If the file was downloaded, delete it and download it again. If it was made here, delete it and make it again."
)
SCORE = (-ROUNDING, 1 + ROUNDING)
FINITE = (-np.inf, np.inf)


class Numbers(NamedTuple):
    """What a column of numbers must be.

    Args:
        kinds (`str`): The kinds of numpy's dtypes.
        of (`str`): What it has a row for. All columns of one thing have as many rows.
        width (`tuple[int, ...]`): The shape of a row.
        limits (`tuple[float, float]`): The smallest and the largest value.
    """

    kinds: str
    of: str
    width: tuple[int, ...]
    limits: tuple[float, float]


POINT_COLUMNS = {
    "pair_to_point": Numbers("iu", "pairs", (), (0, np.iinfo(np.int32).max)),
    "pair_camera": Numbers("iu", "pairs", (), (0, np.iinfo(np.int16).max)),
    "pair_pixel": Numbers("iu", "pairs", (2,), (0, np.iinfo(np.int16).max)),
    "pair_segment": Numbers("iu", "pairs", (), (0, np.iinfo(np.uint16).max)),
    "confidence": Numbers("f", "points", (), SCORE),
    "soft_scores": Numbers("f", "points", (NUM_SOFT_LABELS,), SCORE),
    "calibration": Numbers("f", "calibration", (), FINITE),
}


def check_segment_row(
    row: Mapping[str, Any], file: str, num_prompts: int, num_augmentations: int, embed_dim: int
) -> None:
    """Check the columns of a label set that a row has.

    Raises:
        ValueError: A column has values of another type, of another number or out of range; the message names the file.
    """
    columns = {
        "segment_camera": Numbers("iu", "segments", (), (0, np.iinfo(np.int16).max)),
        "segment_labels": Numbers("iu", "segments", (), (0, num_prompts - 1)),
        "segment_scores": Numbers("f", "segments", (), SCORE),
        "segment_embeds": Numbers("f", "segments", (embed_dim,), FINITE),
        "calibration": Numbers("f", "calibration", (), FINITE),
    }
    _check_numbers(row, file, columns)
    _check_text(row, file)
    cameras = row.get("camera_names")
    if "camera_names" in row and not _is_list_of((str,), cameras):
        raise ValueError(f"{file}: expected a list of text as 'camera_names', got {cameras!r:.80}. {WAY_OUT}")
    for name, factor in {"segmentation": 1, "augmented_segmentation": num_augmentations}.items():
        if name not in row:
            continue
        pngs, num = row[name], None if cameras is None else factor * len(cameras)
        if not _is_list_of((bytes, type(None)), pngs) or num not in (None, len(pngs)):
            expected = "a list of PNGs" if num is None else f"a list of {num} PNGs"
            found = f"{len(pngs)} values" if isinstance(pngs, list) else type(pngs).__name__
            raise ValueError(f"{file}: expected {expected} as {name!r}, got {found}. {WAY_OUT}")


def check_point_row(row: Mapping[str, Any], file: str, num_classes: int) -> None:
    """Check the columns of point labels that a row has.

    Raises:
        ValueError: As `check_segment_row`.
    """
    has_soft = row.get("soft_labels") is not None or row.get("soft_scores") is not None  # the paper's rule makes none
    columns = {name: own for name, own in POINT_COLUMNS.items() if has_soft or name != "soft_scores"}
    classes = {"labels": (), "soft_labels": (NUM_SOFT_LABELS,)} if has_soft else {"labels": ()}
    columns |= {name: Numbers("iu", "points", width, (0, IGNORED)) for name, width in classes.items()}
    _check_numbers(row, file, columns)
    _check_text(row, file)
    for name in classes.keys() & row.keys():
        if ((row[name] >= num_classes) & (row[name] != IGNORED)).any():
            raise ValueError(f"{file}: expected one of {num_classes} classes or {IGNORED} in {name!r}. {WAY_OUT}")
    if {"pair_to_point", "labels"} <= row.keys() and row["pair_to_point"].max(initial=-1) >= len(row["labels"]):
        raise ValueError(
            f"{file}: expected one of {len(row['labels'])} points in 'pair_to_point', got "
            f"{row['pair_to_point'].max()}. {WAY_OUT}"
        )


def _check_numbers(row: Mapping[str, Any], file: str, columns: Mapping[str, Numbers]) -> None:
    lengths: dict[str, tuple[str, int]] = {}  # of each thing: the first column of it, and its rows
    for name, wanted in columns.items():
        if name not in row:
            continue
        values = row[name]
        is_array = isinstance(values, np.ndarray)
        if not is_array or values.dtype.kind not in wanted.kinds or values.shape[1:] != wanted.width:
            kind = "numbers" if "f" in wanted.kinds else "integers"
            expected = f"{kind} of shape {('any', *wanted.width)}".replace("'", "")
            found = f"{values.dtype} of shape {values.shape}" if is_array else f"{values!r:.80}"
            raise ValueError(f"{file}: expected {expected} as {name!r}, got {found}. {WAY_OUT}")
        first, length = lengths.setdefault(wanted.of, (name, len(values)))
        if len(values) != length:
            raise ValueError(
                f"{file}: expected as many rows in {name!r} as the {length} in {first!r}, got {len(values)}. {WAY_OUT}"
            )
        if wanted.limits == FINITE:
            if not np.isfinite(values).all():
                raise ValueError(f"{file}: expected finite numbers as {name!r}, got others. {WAY_OUT}")
            continue
        low, high = wanted.limits
        if values.size and not (low <= values.min() and values.max() <= high):  # false for NaN
            raise ValueError(
                f"{file}: expected {name!r} from {low:g} to {high:g}, got {values.min()} to {values.max()}. {WAY_OUT}"
            )


def _check_text(row: Mapping[str, Any], file: str) -> None:
    if "fingerprint" in row and not isinstance(row["fingerprint"], str):
        raise ValueError(f"{file}: expected text as 'fingerprint', got {row['fingerprint']!r:.80}. {WAY_OUT}")


def _is_list_of(kinds: tuple[type, ...], values: object) -> bool:
    return isinstance(values, list) and all(isinstance(one, kinds) for one in values)
