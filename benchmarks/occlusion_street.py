"""How well hidden points are told from visible ones, on synthetic towns, where rays say what each pixel shows.

    python benchmarks/occlusion_street.py --seeds 0 1 2

A point is truly hidden from a camera where the ray through its pixel meets another thing, or another kind of ground,
before it gets there. Its label is bleeding where that has another class, which the point would take over. Time is that
of one core. The defaults of `OcclusionConfig` were chosen on the towns of seeds 100 to 104.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from uov_hf.configuration_uov import IGNORED
from uov_hf.geometry.projection import Camera, OcclusionConfig, project_points, round_to_pixels, visible_points
from uov_hf.synthetic.cameras import CAMERAS, CameraMount
from uov_hf.synthetic.lidar import LIDAR_TO_EGO, Scan, scan
from uov_hf.synthetic.raycast import cast
from uov_hf.synthetic.recording import FRAME_INTERVAL
from uov_hf.synthetic.surfaces import Surfaces
from uov_hf.synthetic.town import build_town
from uov_hf.synthetic.views import PinholeView
from uov_hf.vocabulary import load_vocabulary


IMAGE_SIZE = (900, 1600)
NUM_FRAMES = 3
RANGE_ERROR = 0.2  # metres that a point may lie behind what its pixel shows


@dataclass(frozen=True)
class View:
    """
    What one camera sees of one scan.

    Args:
        points, camera: what `visible_points` is given.
        in_view (`np.ndarray` of shape `(num_points,)`): the paper's.
        truly_hidden, truly_visible, bleeding, right (each `np.ndarray` of shape `(num_points,)`):
            `bleeding` points are hidden ones that would take over another class, `right` ones get their own.
    """

    points: np.ndarray
    camera: Camera
    in_view: np.ndarray
    truly_hidden: np.ndarray
    truly_visible: np.ndarray
    bleeding: np.ndarray
    right: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="One town each.")
    parser.add_argument("--azimuth_steps", type=int, default=1084, help="Firings of the 32 beams in one turn.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| town | pairs | truly hidden | found | found that are truly hidden | truly visible lost |", end="")
    print(" labels that bleed | of these removed | right labels lost | ms a camera |")
    print("|---" * 10 + "|")
    total = Counter()
    for seed in args.seeds:
        counts = sum((count(view) for view in look_around(seed, args.azimuth_steps)), Counter())
        print(as_row(f"seed {seed}", counts), flush=True)
        total += counts
    print(as_row("all", total))


def look_around(seed: int, azimuth_steps: int) -> Iterator[View]:
    """The views of the first frames of a town's scans by its six cameras, as `generate_street` renders them."""
    surfaces = Surfaces(build_town(np.random.default_rng([seed, 0]), NUM_FRAMES * FRAME_INTERVAL))
    for frame in range(NUM_FRAMES):
        time_of_scan = frame * FRAME_INTERVAL
        lidar_pose = surfaces.town.ego_pose(time_of_scan) @ LIDAR_TO_EGO
        rng = np.random.default_rng([seed, 0, frame])
        captured = scan(rng, surfaces.at(time_of_scan), lidar_pose, azimuth_steps)
        for mount in CAMERAS:
            yield look(surfaces, captured, lidar_pose, mount, time_of_scan + mount.delay)


def look(surfaces: Surfaces, captured: Scan, lidar_pose: np.ndarray, mount: CameraMount, exposure: float) -> View:
    pose = surfaces.town.ego_pose(exposure) @ mount.to_ego()
    intrinsics = mount.intrinsics(IMAGE_SIZE)
    camera = Camera(np.linalg.inv(pose) @ lidar_pose, intrinsics, IMAGE_SIZE)
    pixel_coords, in_view = project_points(captured.points, camera)
    pixels = round_to_pixels(np.where(in_view[:, None], pixel_coords, 0))

    hits = cast(PinholeView(pose, intrinsics, IMAGE_SIZE), surfaces.at(exposure))
    surface_shown, distance_shown = hits.surface[pixels], hits.distance[pixels]
    thing_shown = np.where(surface_shown >= 0, surfaces.segment[surface_shown], 0)  # 0 is the sky
    thing = surfaces.segment[captured.surface]
    class_of_thing = load_vocabulary("nuscenes").raw_to_class[surfaces.raw_class].copy()
    class_of_thing[0] = IGNORED
    label_shown, label = class_of_thing[thing_shown], class_of_thing[thing]

    in_camera = captured.points[:, :3] @ camera.lidar2cam[:3, :3].T + camera.lidar2cam[:3, 3]
    behind = np.linalg.norm(in_camera, axis=1) - distance_shown
    hidden = in_view & (thing_shown != thing) & (behind > RANGE_ERROR)
    own_far_side = (thing_shown == thing) & (behind > 0.5 + 0.03 * distance_shown)
    return View(
        captured.points,
        camera,
        in_view,
        hidden,
        in_view & ~hidden & ~own_far_side,
        hidden & (label_shown != label) & (label != IGNORED),
        in_view & (label_shown == label) & (label != IGNORED),
    )


def count(view: View) -> Counter:
    start = time.process_time()
    visible = visible_points(view.points, view.camera, OcclusionConfig())
    seconds = time.process_time() - start
    found = view.in_view & ~visible
    counts = {name: int(getattr(view, name).sum()) for name in ("in_view", "truly_hidden", "truly_visible")}
    counts |= {name: int(getattr(view, name).sum()) for name in ("bleeding", "right")}
    counts |= {"found": int(found.sum()), "found_hidden": int((found & view.truly_hidden).sum())}
    counts |= {"lost": int((found & view.truly_visible).sum()), "lost_right": int((found & view.right).sum())}
    return Counter(counts | {"removed": int((found & view.bleeding).sum()), "views": 1, "seconds": seconds})


def as_row(name: str, n: Counter) -> str:
    labelled = n["bleeding"] + n["right"]
    shares = [
        n["truly_hidden"] / n["in_view"],
        n["found_hidden"] / n["truly_hidden"],
        n["found_hidden"] / n["found"],
        n["lost"] / n["truly_visible"],
        n["bleeding"] / labelled,
        n["removed"] / n["bleeding"],
        n["lost_right"] / n["right"],
    ]
    percent = " | ".join(f"{100 * share:.1f} %" for share in shares)
    return f"| {name} | {n['in_view']:,} | {percent} | {1000 * n['seconds'] / n['views']:.1f} |"


if __name__ == "__main__":
    main()
