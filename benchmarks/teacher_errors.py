"""The errors of a teacher's labels on lidar points: how many, where, and how long they last.

    python benchmarks/teacher_errors.py --real ../shared/data/real

Prints the same figures for the street's teacher `synthetic` and for a real network on PandaSet. --real is a folder
with `pandaset` and the network's predictions in `espnetv2_cityscapes/pandaset`; without it, the street alone is
measured. Labels are by the paper's rule, hidden points included. "Lag of 1" compares the labels of points with those
of points in the next scan that are within 0.2 m and of the same true class: so moving things do not count there. Scans
are 0.5 s apart on the street, and 0.1 s in PandaSet. Objects are clusters of at least 10 labelled points of one class
of things.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import add_real, make_parser, make_real_label_set, table
from label_votes import MIN_RANGE, make_label_set
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import Frames
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.labels.segments import decode_segmentation


SAME_PLACE = 0.2  # metres between points of two scans
OBJECT_GAP, OBJECT_POINTS = 0.8, 10  # metres between the points of an object; the fewest points of one
MAX_LAG = 3  # scans
BORDERS = 0, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, np.inf  # distance to a border between labels, in image widths


@dataclass(frozen=True)
class LabelledScan:
    """The points with a true class and a label that a camera sees.

    Args:
        sequence (`str`), time (`int`): Of the scan; microseconds.
        positions (`np.ndarray` of shape `(num_points, 3)`): Global, metres.
        truth, labels (`np.ndarray` of shape `(num_points,)`): Training classes.
        border (`np.ndarray` of shape `(num_points,)`): Distance to the nearest border, in image widths.
        num_seen (`int`): Points with a true class that a camera sees, labelled or not.
    """

    sequence: str
    time: int
    positions: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    border: np.ndarray
    num_seen: int

    @property
    def is_wrong(self) -> np.ndarray:
        return self.truth != self.labels


def main() -> None:
    parser = add_real(make_parser(__doc__))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="Of the towns; none: no towns.")
    parser.add_argument("--output_dir", type=Path, default=Path("out/label_votes"))
    args = parser.parse_args()
    columns, classes = {}, {}
    sources = {f"street {seed}": make_label_set(args.output_dir, seed) for seed in args.seeds}
    if args.real:
        sources["PandaSet"] = make_real_label_set(args.real, args.output_dir / "real")
    for name, (label_set, frames) in sources.items():
        scans = read_scans(label_set, frames)
        columns[name] = measure(scans, label_set.is_thing)
        classes[name] = list(measure_classes(scans, label_set))
    rows = [[key, *(column[key] for column in columns.values())] for key in next(iter(columns.values()))]
    print(table(["%", *columns], rows))
    for name, of_source in classes.items():
        print(f"\n{name}\n\n{table(['class', 'points', 'wrong, %', 'objects', 'mostly wrong, %'], of_source)}")


def read_scans(label_set: LabelSet, frames: Frames) -> list[LabelledScan]:
    label_points(label_set, frames)
    point_labels, scans = PointLabels(label_set.folder), []
    for frame in frames.select_columns(["frame_id", "points", "labels", "lidar2global", "timestamp"]):
        row = point_labels.read(frame["frame_id"])
        points, pose = frame["points"][:, :3].astype(np.float64), frame["lidar2global"]
        border = np.full(len(points), np.nan)  # of points that no camera sees
        for camera, of_camera in enumerate(distances_to_borders(label_set, frame["frame_id"])):
            here = row["pair_camera"] == camera
            column, line = row["pair_pixel"][here].T
            border[row["pair_to_point"][here]] = of_camera[line, column]
        seen = ~np.isnan(border) & (frame["labels"] != IGNORED) & (np.hypot(*points[:, :2].T) > MIN_RANGE)
        kept = seen & (row["labels"] != IGNORED)
        positions = points[kept] @ pose[:3, :3].T + pose[:3, 3]
        sequence = frames.sequence_ids[len(scans)]
        content = positions, frame["labels"][kept], row["labels"][kept], border[kept], int(seen.sum())
        scans.append(LabelledScan(sequence, int(frame["timestamp"]), *content))
    return scans


def distances_to_borders(label_set: LabelSet, frame_id: str) -> Iterator[np.ndarray]:
    """Of each image `(height, width)`: the distance of every pixel to the nearest border, in image widths."""
    segments = label_set.read(frame_id, ["segmentation", "segment_labels"])
    class_of_segment = np.append(IGNORED, label_set.prompt_to_class[segments["segment_labels"]])
    for png in segments["segmentation"]:
        classes = class_of_segment[decode_segmentation(png)]
        is_border = np.zeros(classes.shape, bool)
        is_border[:, 1:] |= classes[:, 1:] != classes[:, :-1]
        is_border[1:] |= classes[1:] != classes[:-1]
        yield distance_transform_edt(~is_border) / classes.shape[1]


def measure(scans: list[LabelledScan], is_thing: np.ndarray) -> dict[str, str]:
    """The rows of the table, as shares in %."""
    wrong, border = (np.concatenate(parts) for parts in zip(*((s.is_wrong, s.border) for s in scans), strict=True))
    rows = {
        "points without a label": percent(1 - len(wrong) / sum(scan.num_seen for scan in scans)),
        "wrong, of labelled points": percent(wrong.mean()),
    }
    for near, far in itertools.pairwise(BORDERS):
        there = (near <= border) & (border < far)
        rows[f"points {name_band(near, far)}"] = percent(there.mean())
        rows[f"wrong {name_band(near, far)}"] = percent(wrong[there].mean())
    for lag in range(1, MAX_LAG + 1):
        rows |= measure_persistence(scans, lag)
    return rows | measure_objects(scans, is_thing)


def name_band(near: float, far: float) -> str:
    return f"{near}–{far} of the width from a border" if np.isfinite(far) else f"from {near} of the width on"


def measure_persistence(scans: list[LabelledScan], lag: int) -> dict[str, str]:
    """How the labels of points agree with those of the same places `lag` scans later."""
    before, after, same = [], [], []
    for one, other in zip(scans, scans[lag:], strict=False):
        if one.sequence == other.sequence:
            here, there = match_places(one, other)
            before.append(one.is_wrong[here])
            after.append(other.is_wrong[there])
            same.append(one.labels[here] == other.labels[there])
    wrong, wrong_later, agrees = (np.concatenate(parts) for parts in (before, after, same))
    return {
        f"lag of {lag}: wrong where it was wrong": percent(wrong_later[wrong].mean()),
        f"lag of {lag}: the same wrong label": percent(agrees[wrong].mean()),
        f"lag of {lag}: wrong where it was right": percent(wrong_later[~wrong].mean()),
        f"lag of {lag}: another label": percent((~agrees).mean()),
    }


def match_places(one: LabelledScan, other: LabelledScan) -> tuple[np.ndarray, np.ndarray]:
    """Rows of points of two scans that lie at the same place and have the same true class."""
    distances, nearest = cKDTree(other.positions).query(one.positions, distance_upper_bound=SAME_PLACE)
    here = np.flatnonzero(np.isfinite(distances))
    there = nearest[here]
    is_same = one.truth[here] == other.truth[there]
    return here[is_same], there[is_same]


def measure_objects(scans: list[LabelledScan], is_thing: np.ndarray) -> dict[str, str]:
    shares = np.array([share for scan in scans for c in np.flatnonzero(is_thing) for share in shares_right(scan, c)])
    return {
        "objects mostly wrong": percent((shares < 0.5).mean()),
        "objects with less than 10 % right": percent((shares < 0.1).mean()),
        "objects with more than 90 % right": percent((shares > 0.9).mean()),
    }


def shares_right(scan: LabelledScan, class_id: int) -> list[float]:
    """The share of points with the right label, of each object of a class in a scan."""
    rows = np.flatnonzero(scan.truth == class_id)
    if len(rows) < OBJECT_POINTS:
        return []
    pairs = cKDTree(scan.positions[rows]).query_pairs(OBJECT_GAP, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(rows), len(rows)))
    members = connected_components(graph, directed=False)[1]
    right, sizes = np.bincount(members, ~scan.is_wrong[rows]), np.bincount(members)
    return (right / sizes)[sizes >= OBJECT_POINTS].tolist()


def measure_classes(scans: list[LabelledScan], label_set: LabelSet) -> Iterator[list[str]]:
    """Of each class that is present: points, wrong labels, and for things the objects that are mostly wrong."""
    truth, wrong = (np.concatenate(parts) for parts in zip(*((s.truth, s.is_wrong) for s in scans), strict=True))
    for class_id in np.unique(truth):
        is_thing, of_class = label_set.is_thing[class_id], truth == class_id
        shares = [share for scan in scans for share in shares_right(scan, class_id)] if is_thing else []
        mostly_wrong = percent(np.mean(np.array(shares) < 0.5)) if shares else ""
        name = label_set.class_names[class_id].replace("_", " ")
        yield [name, f"{of_class.sum():,}", percent(wrong[of_class].mean()), str(len(shares) or ""), mostly_wrong]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
