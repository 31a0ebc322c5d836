"""A deterministic synthetic street, recorded by a car and written as a genuine nuScenes root."""

import json
import shutil
from pathlib import Path
from typing import Any

from uov_hf.synthetic.drives import DriveSettings, check_counts, record_all, share_out
from uov_hf.synthetic.recording import record_scene, scene_name
from uov_hf.synthetic.tables import fixed_tables, write_tables


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
    """Build towns, drive through each, and write the lidar and camera recordings as a nuScenes root.

    Every scene has its own town, which depends on `seed` and the scene number only. The same arguments give the same
    files to the byte, for any `num_workers`. Scenes are called scene-9001, scene-9002, …: no official split of
    nuScenes contains them, so the root has a `splits.json`.

    Besides nuScenes's tables and files, the root contains the true segmentation of every image as
    `synthetic/segmentation/<sample_data token>.png` (16 bit; 0 is the sky), and in `synthetic/segments.json` the raw
    class and the instance of each id: `scenes[images[token]]["raw_class"][id]`. `synthetic/places/<token>.png` has the
    number of the cube of 4 m of the town that each pixel shows (16 bit).

    Classes that are rare on real streets are common here, so that all 16 have points in nearly every frame.

    Args:
        output_dir (`str` or `Path`): The root to write; it must not contain tables of any version yet.
        num_scenes, frames_per_scene (`int`, *optional*, default to 6 and 12):
            Number of scenes and of their keyframes, 0.5 s apart.
        seed (`int`, *optional*, defaults to 0): Of all random numbers.
        image_size (`tuple[int, int]`, *optional*, defaults to `(225, 400)`):
            Height and width; nuScenes's is (900, 1600).
        azimuth_steps (`int`, *optional*, defaults to 480):
            Firings of the 32 beams in one turn; nuScenes's lidar has 1084.
        version (`str`, *optional*, defaults to `"v1.0-mini"`): Name of the tables' folder.
        splits (`dict[str, int]`, *optional*):
            Number of scenes of each split, in order; by default the last third is `test`, the rest `train`.
        num_workers (`int`, *optional*, defaults to 1): Number of processes that record scenes.
        synchronised (`bool`, *optional*, defaults to `False`):
            Whether all cameras fire at the time of the scan; by default each has nuScenes's delay.

    Returns:
        `Path`: The root.

    Raises:
        ValueError: An argument is out of range, or `splits` does not add up to `num_scenes`.
        FileExistsError: The root contains tables of a version: of another dataset, or of another street.
    """
    root = Path(output_dir)
    check_counts(num_scenes=num_scenes, num_workers=num_workers)
    settings = DriveSettings(root, seed, frames_per_scene, image_size, azimuth_steps, synchronised, version)
    counts, names = share_out(num_scenes, splits), [scene_name(index) for index in range(num_scenes)]
    # Not beside another version either: the versions of a root share `splits.json` and the folders of sensor files.
    tables = next(root.glob("*/scene.json"), root / version)
    if tables.exists():
        raise FileExistsError(f"{tables} exists, but a street needs a root of its own: choose another `output_dir`.")
    recorded = record_all(record_scene, settings, num_scenes, num_workers)
    images = {
        row["token"]: name
        for name, (tables, _) in zip(names, recorded, strict=True)
        for row in tables["sample_data"]
        if row["fileformat"] == "jpg"
    }
    segments = {"scenes": dict(zip(names, [of_scene for _, of_scene in recorded], strict=True)), "images": images}
    (root / "synthetic" / "segments.json").write_text(json.dumps(segments), encoding="utf-8")
    remaining = iter(names)
    members = {split: [next(remaining) for _ in range(count)] for split, count in counts.items()}
    (root / "splits.json").write_text(json.dumps(members, indent=2), encoding="utf-8")
    merged = fixed_tables()
    for name, rows in ((name, rows) for tables, _ in recorded for name, rows in tables.items()):
        merged.setdefault(name, []).extend(rows)
    write_tables(root / version, merged)  # the tables come last: a root with tables is complete
    return root


def generate_street_once(output_dir: Path, **settings: Any) -> None:
    """`generate_street`, unless an earlier call has finished; one that was killed leaves no `output_dir`."""
    if not output_dir.exists():
        partial = output_dir.with_name(f"{output_dir.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        generate_street(partial, **settings).rename(output_dir)
