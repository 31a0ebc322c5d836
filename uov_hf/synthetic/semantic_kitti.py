"""The same drives written as SemanticKITTI: the folders of KITTI odometry, with a label on every point."""

import json
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uov_hf.configuration_uov import IGNORED
from uov_hf.synthetic.cameras import CAMERAS, take_picture
from uov_hf.synthetic.drives import FRAME_INTERVAL, DriveSettings, check_counts, record_all, share_out
from uov_hf.synthetic.lidar import LIDAR_TO_EGO, Scan, scan
from uov_hf.synthetic.surfaces import Surfaces
from uov_hf.synthetic.views import PinholeView
from uov_hf.vocabulary import load_vocabulary


# SemanticKITTI's own numbers, so that its splits are those of the street.
SEQUENCES = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(f"{number:02d}" for number in range(11, 22)),
}
# nuScenes-lidarseg's raw classes → SemanticKITTI's. The first key that the name of a class begins with counts.
COUNTERPARTS = {
    "noise": "unlabeled",
    "animal": "unlabeled",
    "human.pedestrian.personal_mobility": "other-object",
    "human.pedestrian.stroller": "other-object",
    "human.pedestrian.wheelchair": "other-object",
    "human.": "person",
    "movable_object.barrier": "fence",
    "movable_object.": "other-object",
    "static_object.": "other-object",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus": "bus",
    "vehicle.car": "car",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.truck": "truck",
    "vehicle.ego": "unlabeled",
    "vehicle.": "other-vehicle",
    "flat.driveable_surface": "road",
    "flat.sidewalk": "sidewalk",
    "flat.terrain": "terrain",
    "flat.": "other-ground",
    "static.manmade": "building",
    "static.vegetation": "vegetation",
    "static.": "other-object",
}
# Moving objects have their own classes. In nuScenes a rider belongs to the vehicle, here the vehicle to the rider.
MOVING = {
    "bicycle": "moving-bicyclist",
    "bus": "moving-bus",
    "car": "moving-car",
    "motorcycle": "moving-motorcyclist",
    "other-vehicle": "moving-other-vehicle",
    "person": "moving-person",
    "truck": "moving-truck",
}

FRONT = CAMERAS[0]
LIDAR_TO_FRONT = np.linalg.inv(FRONT.to_ego()) @ LIDAR_TO_EGO


def generate_semantic_kitti(
    output_dir: str | Path,
    num_scenes: int = 6,
    frames_per_scene: int = 12,
    seed: int = 0,
    image_size: tuple[int, int] = (225, 400),
    azimuth_steps: int = 480,
    splits: dict[str, int] | None = None,
    num_workers: int = 1,
) -> Path:
    """Write the drives of `generate_street` as `sequences/00`, `01`, … of SemanticKITTI.

    Scene for scene, the town and the lidar are the same: the points are equal to the bit, with the intensity as a
    remission from 0 to 1, a 255th of nuScenes's. `image_2` is the image of the front camera at the time of the scan,
    as in a nuScenes root written with `synchronised`. Poses are in the frame of the town, as in such a root. Labels
    are mapped by `COUNTERPARTS` and `MOVING`; countable objects have an instance number.

    Args:
        output_dir (`str` or `Path`): The root to write; it must not contain `sequences` yet.
        num_scenes, frames_per_scene, seed, image_size, azimuth_steps, num_workers:
            As in `generate_street`.
        splits (`dict[str, int]`, *optional*):
            Number of scenes of `train` (at most 10), `val` (at most 1) and `test` (at most 11), in this order; by
            default the last third is `test`, the rest `train`.

    Returns:
        `Path`: The root.

    Raises:
        ValueError: An argument is out of range, or `splits` does not add up to `num_scenes`.
        FileExistsError: The root contains sequences.
    """
    root = Path(output_dir)
    check_counts(num_scenes=num_scenes, num_workers=num_workers)
    settings = DriveSettings(root, seed, frames_per_scene, image_size, azimuth_steps, synchronised=True)
    names = _sequence_names(share_out(num_scenes, splits))
    if (root / "sequences").exists():
        raise FileExistsError(f"{root / 'sequences'} exists: remove it, or choose another `output_dir`.")
    record_all(partial(record_sequence, names), settings, num_scenes, num_workers)
    return root


def record_sequence(names: list[str], settings: DriveSettings, index: int) -> None:
    """Write scene number `index` as the sequence `names[index]`."""
    folder, surfaces = settings.root / "sequences" / names[index], settings.surfaces(index)
    for sub in ("velodyne", "labels", "image_2"):
        (folder / sub).mkdir(parents=True)
    words, times = label_words(surfaces), FRAME_INTERVAL * np.arange(settings.frames_per_scene)
    num_points = {}
    for frame, time in enumerate(times):
        rng, snapshot, ego_pose = settings.rng(index, frame), surfaces.at(time), surfaces.town.ego_pose(time)
        captured = scan(rng, snapshot, ego_pose @ LIDAR_TO_EGO, settings.azimuth_steps)
        _write_scan(folder, f"{frame:06d}", captured, words[surfaces.segment[captured.surface]])
        num_points[f"{frame:06d}"] = len(captured.points)
        view = PinholeView(ego_pose @ FRONT.to_ego(), FRONT.intrinsics(settings.image_size), settings.image_size)
        picture = take_picture(rng, snapshot, view)
        Image.fromarray(picture.image).save(folder / "image_2" / f"{frame:06d}.png")
    _write_calibration(folder / "calib.txt", settings.image_size)
    lidar_poses = [surfaces.town.ego_pose(time) @ LIDAR_TO_EGO for time in times]
    poses = [LIDAR_TO_FRONT @ pose @ np.linalg.inv(LIDAR_TO_FRONT) for pose in lidar_poses]
    _write_lines(folder / "poses.txt", [_text(pose[:3]) for pose in poses])
    _write_lines(folder / "times.txt", [_text(time) for time in times])
    # The reader recognises the street by this file. The counts tie it to these scans: a real recording that is
    # unpacked into the same folder must not be published.
    (folder / "street.json").write_text(
        json.dumps({"seed": settings.seed, "num_points": num_points}), encoding="utf-8"
    )


def label_words(surfaces: Surfaces) -> NDArray[np.uint32]:
    """The label word of every segment, uint32: the raw class and, for a thing, the segment id in the upper 16 bits."""
    vocabulary = load_vocabulary("semantic_kitti")
    raw_ids = dict(zip(vocabulary.raw_names, vocabulary.raw_ids.tolist(), strict=True))
    is_thing = np.append(vocabulary.is_thing, np.zeros(IGNORED + 1 - len(vocabulary.is_thing), bool))
    is_moving = [thing.speed != 0 for thing in surfaces.things] + [False] * len(surfaces.town.ground.patches)
    words = [raw_ids["unlabeled"]]  # the sky
    for segment, (category, moves) in enumerate(zip(surfaces.categories, is_moving, strict=True), start=1):
        raw_id = raw_ids[counterpart(category, moves)]
        words.append(raw_id + (segment << 16) * bool(is_thing[vocabulary.raw_to_class[raw_id]]))
    return np.array(words, np.uint32)


def counterpart(category: str, moves: bool = False) -> str:
    """The raw class of SemanticKITTI for one of nuScenes-lidarseg."""
    name = next(name for beginning, name in COUNTERPARTS.items() if category.startswith(beginning))
    return MOVING.get(name, name) if moves else name


def _sequence_names(counts: dict[str, int]) -> list[str]:
    room = {split: len(numbers) for split, numbers in SEQUENCES.items()}
    if any(count > room.get(split, -1) for split, count in counts.items()):
        raise ValueError(f"`splits` must fit into SemanticKITTI, which has room for {room}; got {counts}.")
    return [number for split, numbers in SEQUENCES.items() for number in numbers[: counts.get(split, 0)]]


def _write_scan(folder: Path, stem: str, captured: Scan, words: NDArray[np.uint32]) -> None:
    remission = captured.points[:, 3:4] / np.float32(255)
    points = np.concatenate([captured.points[:, :3], remission], axis=1)
    points.astype("<f4").tofile(folder / "velodyne" / f"{stem}.bin")
    words.astype("<u4").tofile(folder / "labels" / f"{stem}.label")


def _write_calibration(path: Path, image_size: tuple[int, int]) -> None:
    """All four cameras of KITTI are the front camera, and poses are in its frame."""
    projection = np.column_stack([FRONT.intrinsics(image_size), np.zeros(3)])
    matrices = dict.fromkeys(("P0", "P1", "P2", "P3"), projection) | {"Tr": LIDAR_TO_FRONT[:3]}
    _write_lines(path, [f"{name}: {_text(matrix)}" for name, matrix in matrices.items()])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _text(numbers: NDArray[np.float64] | float) -> str:
    return " ".join(f"{number:.12e}" for number in np.ravel(numbers))
