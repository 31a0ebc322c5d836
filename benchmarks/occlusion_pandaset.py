"""What the occlusion test is worth on real labels: PandaSet's, painted into an image and read back at other points.

    python benchmarks/occlusion_pandaset.py --data_dir pandaset/001

The labels of one random half of frame 00's points are painted into its front image, one per cell of pixels, that of
the nearest point in it. They are read back at the other half, and at all points of frame 01, which is 0.1 s later: its
points are brought into the image of frame 00 by the poses (lidar of 01 to world, world to camera of 00), so that what
stands still is right and what moves is not. A point that reads another class than its own is an error, one that reads
an empty cell, or is hidden, has no label. Both arms paint and read the same halves; several halves are drawn.

Some coverage is lost with the test, and fewer labels can be righter ones for free. So the other arm gives up as many
labels in its own best way: those read farthest, in pixels, from the point that painted them.

`data_dir` holds `lidar/FF.bin` (x, y, z, intensity; float32), `labels/FF.label` (uint32), and `calib.json` with
`cam_intrinsic`, `width`, `height` and per frame `lidar2world` and `cam2world`, for FF = 00 and 01.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf.geometry.projection import Camera, OcclusionConfig, project_points, round_to_pixels, visible_points


UNLABELLED = 0
ARMS = {
    "without": (False, False),
    "with, in reading": (False, True),
    "with, in painting and reading": (True, True),
}  # whether hidden points are left out of painting, of reading


@dataclass(frozen=True)
class LabelledView:
    """Points of a frame as the front camera of frame 00 has them."""

    pixel_coords: np.ndarray
    depth: np.ndarray
    labels: np.ndarray
    in_view: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True)
class Answers:
    """What was read at the points in question (M,): right or not, labelled or not, pixels to what was painted."""

    right: np.ndarray
    labelled: np.ndarray
    distance: np.ndarray

    @property
    def coverage(self) -> float:
        return self.labelled.mean()

    def accuracy(self, coverage: float) -> float:
        """Of the labels read nearest to what was painted, as many as give this coverage."""
        order = np.argsort(np.where(self.labelled, self.distance, np.inf), kind="stable")
        return self.right[order[: round(coverage * len(order))]].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--cell_sizes", type=int, nargs="+", default=[8, 16], help="Pixels.")
    parser.add_argument("--num_halves", type=int, default=10)
    args = parser.parse_args()
    first, second = read_views(args.data_dir)
    for name, view in (("00", first), ("01", second)):
        print(f"frame {name}: {view.in_view.sum()} points in view, {(view.in_view & ~view.visible).sum()} hidden")
    for cell_size in args.cell_sizes:
        print(f"\ncells of {cell_size} pixels")
        print("| read at | occlusion test | coverage | accuracy | without it, as many | difference over halves |")
        print("|---" * 6 + "|")
        runs = [compare(first, second, cell_size, seed) for seed in range(args.num_halves)]
        for place in runs[0]:
            for arm in ARMS:
                print_row(place, arm, [(run[place]["without"], run[place][arm]) for run in runs])
        print_risk_coverage(runs)


def read_views(folder: Path) -> tuple[LabelledView, LabelledView]:
    calibration = json.loads((folder / "calib.json").read_text())
    camera_pose = np.array(calibration["frames"]["00"]["cam2world"])
    views = []
    for name in ("00", "01"):
        points = np.fromfile(folder / "lidar" / f"{name}.bin", "<f4").reshape(-1, 4)
        labels = np.fromfile(folder / "labels" / f"{name}.label", "<u4")
        lidar2cam = np.linalg.inv(camera_pose) @ np.array(calibration["frames"][name]["lidar2world"])
        camera = Camera(lidar2cam, calibration["cam_intrinsic"], (calibration["height"], calibration["width"]))
        pixel_coords, in_view = project_points(points, camera)
        depth = points[:, :3] @ lidar2cam[2, :3] + lidar2cam[2, 3]
        visible = visible_points(points, camera, OcclusionConfig())
        views.append(LabelledView(pixel_coords, depth, labels, in_view, visible))
    return views[0], views[1]


def compare(first: LabelledView, second: LabelledView, cell_size: int, seed: int) -> dict[str, dict[str, Answers]]:
    """Place → arm → answers, for one random half."""
    painted = np.random.default_rng(seed).permutation(len(first.labels)) < len(first.labels) // 2
    places = {
        "other half of 00": (first, ~painted & first.in_view & (first.labels != UNLABELLED)),
        "01": (second, second.in_view & (second.labels != UNLABELLED)),
    }
    answers = {place: {} for place in places}
    for arm, (test_painting, test_reading) in ARMS.items():
        painter = paint(first, painted & (first.visible if test_painting else first.in_view), cell_size)
        for place, (view, asked) in places.items():
            answers[place][arm] = read(first, painter, view, asked, test_reading, cell_size)
    return answers


def paint(view: LabelledView, chosen: np.ndarray, cell_size: int) -> dict[tuple[int, int], int]:
    """The nearest of the chosen points in every cell that has one."""
    points = np.flatnonzero(chosen)
    points = points[np.argsort(-view.depth[points], kind="stable")]  # of several, the last one stays
    return dict(zip(cells_of(view.pixel_coords[points], cell_size), points.tolist(), strict=True))


def read(
    source: LabelledView, painter: dict[tuple[int, int], int], view: LabelledView, asked, test_reading, cell_size
) -> Answers:
    asked = np.flatnonzero(asked)
    found = np.array([painter.get(cell, -1) for cell in cells_of(view.pixel_coords[asked], cell_size)])
    labelled = (found >= 0) & (source.labels[found] != UNLABELLED)
    if test_reading:
        labelled &= view.visible[asked]
    distance = np.linalg.norm(source.pixel_coords[found] - view.pixel_coords[asked], axis=1)
    return Answers(labelled & (source.labels[found] == view.labels[asked]), labelled, distance)


def cells_of(pixel_coords: np.ndarray, cell_size: int) -> list[tuple[int, int]]:
    rows, columns = round_to_pixels(pixel_coords)
    return list(zip((rows // cell_size).tolist(), (columns // cell_size).tolist(), strict=True))


def print_row(place: str, arm: str, pairs: list[tuple[Answers, Answers]]) -> None:
    coverage = np.mean([answers.coverage for _, answers in pairs])
    with_test = np.array([answers.accuracy(answers.coverage) for _, answers in pairs])
    as_many = np.array([without.accuracy(answers.coverage) for without, answers in pairs])
    gain = 100 * (with_test - as_many)
    print(
        f"| {place} | {arm} | {100 * coverage:.1f} % | {100 * with_test.mean():.2f} % | {100 * as_many.mean():.2f} % "
        f"| {gain.mean():+.2f} ({gain.min():+.2f} … {gain.max():+.2f}) |"
    )


def print_risk_coverage(runs: list[dict[str, dict[str, Answers]]]) -> None:
    """Share of errors among the labels read nearest to what was painted, both arms sorted alike."""
    for place in runs[0]:
        highest = min(run[place][arm].coverage for run in runs for arm in ARMS)
        coverages = np.linspace(0.2, 1, 5) * highest
        print(f"\nrisk at {place}, coverage " + ", ".join(f"{100 * coverage:.0f} %" for coverage in coverages))
        for arm in ARMS:
            risks = [1 - np.mean([run[place][arm].accuracy(coverage) for run in runs]) for coverage in coverages]
            print(f"  {arm:<30}" + ", ".join(f"{100 * risk:.2f} %" for risk in risks))


if __name__ == "__main__":
    main()
