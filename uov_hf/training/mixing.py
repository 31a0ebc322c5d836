"""Mixed scans: where a scan has no label, a sector of another scan that has labels takes its place.

One forward camera sees a fifth of a scan. Without mixing, four fifths of each training step have no label. PolarMix
(Xiao et al., NeurIPS 2022) exchanges sectors of azimuth between scans; here they are the sectors with labels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import binary_closing

from uov_hf.array_checks import check_array
from uov_hf.labels.labelling import Pairs
from uov_hf.training.augmentation import check_pairs, select_pairs
from uov_hf.views import rotated


NUM_BINS = 360  # of azimuth, 1° each
MAX_GAP = 20  # bins; a gap of up to this width between labels belongs to their sector
MIN_BINS = 10  # a narrower sector is not taken
MAX_SCANS = 12  # read for one mixed scan, at most


def no_pairs() -> Pairs:
    """Pairs of points and pixels, of which there are none."""
    nothing = np.zeros(0, dtype=np.int64)
    return {
        "pair_to_point": nothing,
        "pair_camera": nothing,
        "pair_pixel": np.zeros((0, 2), dtype=np.int64),
        "pair_segment": nothing,
    }


@dataclass(frozen=True)
class Scan:
    """The points of a frame with their supervision.

    Args:
        frame_id (`str`): Of the frame.
        points (`np.ndarray` of shape `(num_points, 4)`): x, y, z in metres, intensity.
        is_labelled (`np.ndarray` of shape `(num_points,)`): Which points the teacher labelled.
        columns (`dict[str, np.ndarray]`, *optional*): Further values of each point, `(num_points,)`.
        pairs (`Pairs`, *optional*): Pairs of these points with pixels.

    Raises:
        ValueError: The arrays do not fit, or a pair is of no point.
    """

    frame_id: str
    points: np.ndarray
    is_labelled: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    pairs: Pairs = field(default_factory=no_pairs)

    def __post_init__(self):
        check_array("points", self.points, ("num_points", "3 or more"), "f")
        check_array("is_labelled", self.is_labelled, (len(self.points),), "b")
        for name, values in self.columns.items():
            check_array(name, values, (len(self.points),))
        check_pairs(self.pairs, len(self.points))

    def take(self, kept: np.ndarray, angle: float = 0.0) -> "Scan":
        """The points where `kept` `(num_points,)` is true, rotated about z by `angle` radians."""
        points = self.points[kept]
        if angle:
            points[:, :2] = rotated(points[:, :2], angle)
        new_row = np.cumsum(kept) - 1
        pairs = select_pairs(self.pairs, kept[self.pairs["pair_to_point"]])
        pairs = {**pairs, "pair_to_point": new_row[pairs["pair_to_point"]]}
        columns = {name: values[kept] for name, values in self.columns.items()}
        return replace(self, points=points, is_labelled=self.is_labelled[kept], columns=columns, pairs=pairs)


def mix_sectors(scans: Iterable[Scan]) -> list[Scan]:
    """Where the first scan has no label, take sectors of the following scans that have labels.

    Each is rotated by whole degrees to where most of its sector finds room. The first scan keeps all that no other
    replaces. Scans are read only as long as there is room, and at most 12.

    Returns:
        `list[Scan]`: The parts; together they are the mixed scan. The first is of the first scan.

    Raises:
        ValueError: There is no scan.
    """
    rest = iter(scans)
    first = next(rest, None)
    if first is None:
        raise ValueError("`scans` must have one scan or more, got none.")
    bins = azimuth_bins(first.points)
    free = ~labelled_sector(bins[first.is_labelled])
    replaced, parts = np.zeros(NUM_BINS, dtype=bool), []
    for _ in range(MAX_SCANS - 1):
        scan = next(rest, None) if free.sum() >= MIN_BINS else None
        if scan is None:
            break
        own_bins = azimuth_bins(scan.points)
        shift, taken = place_sector(labelled_sector(own_bins[scan.is_labelled]), free)
        free, replaced = free & ~taken, replaced | taken
        parts.append(scan.take(taken[(own_bins + shift) % NUM_BINS], shift * 2 * math.pi / NUM_BINS))
    return [first.take(~replaced[bins]) if replaced.any() else first, *parts]


def azimuth_bins(points: np.ndarray) -> np.ndarray:
    """The bin of azimuth of each point `(num_points, >=2)`, from 0 to 359; 0 for a point that is not finite."""
    azimuth = np.arctan2(points[:, 1], points[:, 0]).astype(np.float64)
    return np.floor(np.nan_to_num(azimuth) * (NUM_BINS / (2 * math.pi))).astype(np.int64) % NUM_BINS


def labelled_sector(bins: np.ndarray) -> np.ndarray:
    """Which bins `(360,)` have labels, given the bin of each labelled point; narrow gaps are closed."""
    has_label = np.bincount(bins, minlength=NUM_BINS) > 0
    around = np.concatenate([has_label] * 3)  # a circle has no ends
    return binary_closing(around, np.ones(MAX_GAP + 1, dtype=bool))[NUM_BINS : 2 * NUM_BINS]


def place_sector(sector: np.ndarray, free: np.ndarray) -> tuple[int, np.ndarray]:
    """The rotation in bins at which most of a sector is free, and the bins `(360,)` that it then takes.

    The smallest of equally good rotations counts. A sector that finds room for fewer than 10 bins takes none.
    """
    room = np.stack([np.roll(sector, shift) & free for shift in range(NUM_BINS)])  # (shifts, bins)
    shift = int(room.sum(axis=1).argmax())
    taken = room[shift]
    return shift, taken if taken.sum() >= MIN_BINS else np.zeros_like(taken)
