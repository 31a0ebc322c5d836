"""A deterministic street, driven through and written as a genuine nuScenes root."""

import json
from pathlib import Path

from uov_hf.synthetic.drives import DriveSettings, check_counts, record_all
from uov_hf.synthetic.recording import record_scene, scene_name
from uov_hf.synthetic.tables import fixed_tables, merge_tables, write_tables


def generate_street(
    output_dir: str | Path,
    num_scenes: int = 6,
    frames_per_scene: int = 12,
    seed: int = 0,
    image_size: tuple[int, int] = (225, 400),
    azimuth_steps: int = 480,
    version: str = "v1.0-mini",
    splits: dict[str, int] | None = None,
    num_workers: int = 1,
    synchronised: bool = False,
) -> Path:
    """Build towns, drive through each, and write what lidar and cameras saw as a nuScenes root.

    Every scene has a town of its own, made from (`seed`, scene number) alone: other seeds, other towns. The same
    arguments give the same files to the byte, whatever `num_workers` is. Scenes are called scene-9001, scene-9002, …:
    no official split of nuScenes names them, so the root's `splits.json` does.

    Besides nuScenes's tables and files, the root holds the true segmentation of every image as
    `synthetic/segmentation/<sample_data token>.png` (16 bit; 0 is the sky), and in `synthetic/segments.json` the raw
    class and the instance of each id: `scenes[images[token]]["raw_class"][id]`.

    The classes that are rare on real streets are common here, so that all 16 have points in nearly every frame.

    Args:
        output_dir (`str` or `Path`): the root to write; it must not hold this version yet.
        num_scenes, frames_per_scene (`int`): scenes, and their keyframes, 0.5 s apart.
        seed (`int`): of everything.
        image_size (`tuple[int, int]`): height and width; nuScenes's is (900, 1600).
        azimuth_steps (`int`): firings of the 32 beams in one turn; nuScenes's lidar has 1084.
        version (`str`): name of the tables' folder.
        splits (`dict[str, int]`, *optional*):
            Number of scenes of each split, in order; by default the last third is `test`, the rest `train`.
        num_workers (`int`): processes; scenes are shared out among them.
        synchronised (`bool`):
            Whether all cameras fire at the time of the scan; by default each has nuScenes's delay to it.

    Returns:
        `Path`: the root.

    Raises:
        ValueError: an argument is out of range, or `splits` does not share out all scenes.
        FileExistsError: the root holds tables of this version.
    """
    root = Path(output_dir)
    check_counts(num_scenes=num_scenes, num_workers=num_workers)
    settings = DriveSettings(root, seed, frames_per_scene, tuple(image_size), azimuth_steps, synchronised, version)
    members = _share_out(num_scenes, splits)
    if (root / version).exists():
        raise FileExistsError(f"{root / version} exists: remove it, or choose another `output_dir` or `version`.")
    tables, segments = zip(*record_all(record_scene, settings, num_scenes, num_workers), strict=True)
    _write_segments(root, tables, segments)
    (root / "splits.json").write_text(json.dumps(members, indent=2), encoding="utf-8")
    write_tables(root / version, fixed_tables() | merge_tables(tables))  # last: where they are, all else is
    return root


def _share_out(num_scenes: int, splits: dict[str, int] | None) -> dict[str, list[str]]:
    if splits is None:
        splits = {"train": num_scenes - num_scenes // 3, "test": num_scenes // 3}
    if sum(splits.values()) != num_scenes or min(splits.values()) < 0:
        raise ValueError(f"`splits` must share out all {num_scenes} scenes, got {splits}.")
    names = iter([scene_name(index) for index in range(num_scenes)])
    return {split: [next(names) for _ in range(count)] for split, count in splits.items()}


def _write_segments(root: Path, tables, segments) -> None:
    content = {"scenes": {}, "images": {}}
    for index, (rows, classes) in enumerate(zip(tables, segments, strict=True)):
        content["scenes"][scene_name(index)] = classes
        images = (row["token"] for row in rows["sample_data"] if row["fileformat"] == "jpg")
        content["images"].update(dict.fromkeys(images, scene_name(index)))
    path = root / "synthetic" / "segments.json"
    path.write_text(json.dumps(content), encoding="utf-8")
