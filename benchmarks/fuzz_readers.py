"""The readers that benchmarks/fuzz.py tests: for each a folder of small files, and a call that reads them."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml
from common import REPOSITORY
from fuzz_models import (
    PROMPTS,
    make_checkpoint,
    make_official,
    make_teacher_files,
    read_checkpoint,
    read_official_file,
    read_teacher_files,
)
from fuzz_scans import (
    NUSCENES,
    each,
    make_bin,
    make_las,
    make_npy,
    make_npz,
    make_pcd,
    make_ply,
    make_text,
    named_points,
    read_scan,
)

from uov_hf import (
    vocabulary,
)
from uov_hf.data import FrameBuilder, Frames, load_frames
from uov_hf.data.frames import FrameConfig
from uov_hf.data.parquet import ParquetFrames
from uov_hf.data.writing import write_parquet
from uov_hf.datasets.semantic_kitti import merge_scans
from uov_hf.evaluation.compared_files import compare_files
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.recipe.recipes import make_recipe
from uov_hf.segmenting import read_origins, read_pictures
from uov_hf.training.argument_files import read_mapping, read_settings
from uov_hf.training.arguments import DataArguments
from uov_hf.vocabulary import available_vocabularies, load_map, load_vocabulary


PACKAGE_VOCABULARIES, open_vocabulary = available_vocabularies(), vocabulary._open
sys.path += [str(REPOSITORY / "tests" / own) for own in ("", "datasets", "convert")]


read_package_file = cache(vocabulary._open)
vocabulary._open = lambda name: (  # the files of the package are the same each time, and YAML is slow
    read_package_file(name) if name in PACKAGE_VOCABULARIES else open_vocabulary(name)
)


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Args:
        make (`Callable`): Writes small valid files into an empty folder.
        read (`Callable`): Reads them; gets the folder, and the file that was changed.
        files (`tuple[str, ...]`): Patterns of the files to change.
        is_users (`bool`, *optional*, defaults to `False`):
            Whether the files are the user's own, as recipes, which may name folders anywhere.
    """

    make: Callable[[Path], object]
    read: Callable[[Path, Path], object]
    files: tuple[str, ...]
    is_users: bool = False


def make_vocabulary(folder: Path) -> None:
    classes = [{"name": "car", "prompts": ["car", "van"], "color": [1, 2, 3], "is_thing": True}, {"name": "sky"}]
    classes[1]["prompts"] = ["sky"]
    raw = [{"name": name, "id": own, "class": kind} for name, own, kind in (("a", 3, "car"), ("b", 0, "sky"))]
    raw += [{"name": "c", "id": -1, "class": None}]
    labels = [{"class": "car", "labels": ["auto, car"]}]
    groups = [{"raw_class": "a", "prompts": ["car"]}, {"raw_class": "b", "prompts": ["sky"]}]
    small = {"name": "own", "classes": classes, "raw_classes": raw, "background": ["x"], "model_labels": labels}
    grouped = {"name": "own", "classes": [{"name": "car"}, {"name": "sky"}], "raw_classes": raw}
    for name, content in {"a": small, "b": grouped | {"prompt_groups": groups}}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        (folder / f"{name}_json.yaml").write_text(json.dumps(content))  # JSON is YAML, and its values are changed
    shutil.copy(REPOSITORY / "uov_hf/vocabulary/maps/nuscenes_semantic_kitti.yaml", folder / "map.yaml")
    content = yaml.safe_load((folder / "map.yaml").read_text())
    (folder / "map_json.yaml").write_text(json.dumps(content))


def read_vocabulary(folder: Path, path: Path) -> None:
    if path.name.startswith("map"):
        load_map(path)
    else:
        own = load_vocabulary(path)
        own.classes_of(own.raw_ids)


def make_settings(folder: Path) -> None:
    """Files of arguments, a recipe, origins of tiles, and pictures of classes."""
    arguments = {"dataset": "nuscenes", "data_dir": str(folder), "split": "all", "frame_stride": 2}
    (folder / "arguments.json").write_text(json.dumps(arguments))
    (folder / "arguments.yaml").write_text(yaml.safe_dump(arguments))
    sections = {"generate_label_set": {"teacher": "synthetic", "split": "all"}, "distill": {"max_train_steps": 3}}
    recipe = {"dataset": "nuscenes", "data_dir": str(folder), "output_dir": str(folder / "out"), **sections}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "origins.txt").write_text("1 2\n3,4\n# a\n")
    np.save(folder / "origins.npy", np.ones((2, 3)))
    (folder / "pictures.json").write_text(json.dumps({"tuk-tuk": ["a.jpg", "b.jpg"]}))


def read_settings_files(folder: Path, path: Path) -> None:
    if path.name == "pictures.json":
        read_pictures(file=path)
    elif path.stem == "origins":
        read_origins(path)
    elif path.name == "recipe.json":
        make_recipe(read_mapping(str(path)), str(path))
    else:
        read_settings(str(path), DataArguments)


def make_car(folder: Path) -> None:
    import small_car

    small_car.write_car(folder, num_frames=2)
    calibration = small_car.calibration()
    lens = {"model": "opencv", "coefficients": [-0.01, 0.0, 0.0, 0.0]}
    calibration["cameras"]["left"] |= {"time_offset": 5, "distortion": lens}
    own = {"name": "own", "classes": [{"name": "road", "prompts": ["road"]}]}
    (folder / "own.yaml").write_text(json.dumps(own | {"raw_classes": [{"name": "a", "id": 40, "class": "road"}]}))
    calibration |= {
        "taxonomy": "own.yaml",
        "lidar2body": np.eye(4).tolist(),
        "num_columns": 4,
        "motion_compensation": True,
    }
    (folder / "calibration.yaml").write_text(json.dumps(calibration))
    (folder / "splits.json").write_text(json.dumps({"train": ["drive/1"], "val": ["drive/0"]}))
    np.save(folder / "drive" / "labels" / "1.npy", np.full(50, 40))
    (folder / "drive" / "labels" / "1.label").unlink()
    pose = np.eye(4)[:3].ravel().tolist()
    (folder / "drive" / "poses.txt").write_text("\n".join(" ".join(map(str, pose)) for _ in range(2)))


def without_cache(builder: FrameBuilder, data_dir: str, config_name: str | None = None, **kwargs: object) -> None:
    """Makes a builder without the locks that `datasets` writes into its cache, which take longer than the reading."""
    builder.config = FrameConfig(name=config_name or "default", data_dir=data_dir)


def read_all_frames(folder: Path, path: Path, dataset: str = "point_cloud_folder") -> None:
    """Every column of every frame, and the default split."""
    with patch.object(FrameBuilder, "__init__", without_cache):
        frames = load_frames(dataset, "all", data_dir=folder)
        default = partial(load_frames, dataset, data_dir=folder)
        each(default, *(partial(frames.__getitem__, place) for place in range(len(frames))))


def make_bag(folder: Path, kind: str) -> None:
    """Scans with times, two cameras of which one has a lens, odometry, and a tree of coordinate frames."""
    import small_bags

    start, mount, pixels = 1_700_000_000_000_000, np.eye(4), np.zeros((6, 8, 3), np.uint8)
    points = named_points()
    points["t"] *= 1e9
    with small_bags.open_bag(folder, kind) as bag:
        edges = [("base", name, mount) for name in ("lidar", "left", "front")]
        bag.transforms("/tf_static", start, *edges)
        for time in (start, start + 100_000):
            bag.odometry("/odom", time, "odom", "base", mount)
            bag.cloud("/points", time, "lidar", points)
            for name, lens in {"left": [-0.1, 0.01, 0.0, 0.0, 0.0], "front": []}.items():
                bag.camera_info(
                    f"/{name}/camera_info", time, name, (6, 8), np.array([[9.0, 0, 4], [0, 9, 3], [0, 0, 1]]), d=lens
                )
            bag.compressed("/left/image_raw/compressed", time, "left", small_bags.jpeg_of(pixels))
            bag.image("/front/image_raw", time, "front", pixels, "bgr8")
        bag.odometry("/odom", start + 200_000, "odom", "base", mount)


def read_bag(folder: Path, path: Path) -> None:
    from uov_hf.bags.inspection import inspect_bag

    bag = next(own for own in folder.iterdir() if own.name != "rosbag.yaml")
    each(lambda: inspect_bag(bag), lambda: read_all_frames(bag, path, "rosbag"))


def make_nuscenes(folder: Path) -> None:
    import tiny_roots

    tiny_roots.write_nuscenes(folder, {"scene-0061": 1, "scene-0103": 1})
    for path in folder.glob("v1.0-mini/*.json"):  # a table fits an input
        rows = json.loads(path.read_text())
        if path.stem == "sample_data":
            rows = [row for row in rows if "FRONT" in row["filename"] or "LIDAR" in row["filename"]]
        path.write_text(json.dumps(rows))
    (folder / "splits.json").write_text(json.dumps({"own": ["scene-0061"]}))


def make_kitti(folder: Path) -> None:
    import tiny_roots

    tiny_roots.write_semantic_kitti(folder, {"00": 2, "08": 1})
    (folder / "sequences" / "00" / "street.json").write_text(json.dumps({"num_points": {"000000": 50, "000001": 50}}))


def read_kitti(folder: Path, path: Path) -> None:
    with patch.object(FrameBuilder, "__init__", without_cache):
        frames = load_frames("semantic_kitti", "all", data_dir=folder)
    each(lambda: read_all_frames(folder, path, "semantic_kitti"), lambda: merge_scans(frames, 1))


def make_tiny_root(folder: Path, dataset: str) -> None:
    import tiny_roots

    getattr(tiny_roots, f"write_{dataset}")(folder)


def small_frames() -> Frames:
    from halves_teacher import HEIGHT, INTRINSICS, LIDAR2CAM, POINTS, WIDTH, ListSource

    from uov_hf.image_files import encode_pixels

    png = encode_pixels(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "PNG")
    rows = [
        {
            "frame_id": f"a/{place}",
            "sequence_id": "a",
            "timestamp": place,
            "points": POINTS,
            "intensity_max": 255.0,
            "labels": np.array([0, 1, 2, 255], np.uint8),
            "instances": np.arange(4, dtype=np.int32),
            "camera_names": ["CAM_A", "CAM_B"],
            "image_ids": [f"{place}A", f"{place}B"],
            "images": [{"bytes": png, "path": None}] * 2,
            "camera_timestamps": np.array([place, place]),
            "lidar2cam": np.stack([LIDAR2CAM] * 2),
            "intrinsics": np.stack([INTRINSICS] * 2),
            "image_sizes": np.array([[HEIGHT, WIDTH]] * 2, np.int32),
            "lidar2global": np.eye(4),
        }
        for place in range(2)
    ]
    return Frames(ListSource(rows))


class SmallFrames(FrameBuilder):
    """Two frames of a list, to write as Parquet."""

    licence = "Its owner's."

    def open(self) -> object:
        return small_frames().source

    def default_splits(self) -> tuple[str, ...]:
        return ("train",)

    def split_members(self) -> dict[str, list[str]]:
        return {"train": ["a"]}


def make_frames(folder: Path) -> None:
    write_parquet(SmallFrames(data_dir=str(folder), dataset_name="small"), folder)


def read_frames(folder: Path, path: Path) -> None:
    """The file by itself: `datasets`, which finds the files of a folder, keeps copies of a card in its cache."""
    frames = Frames(ParquetFrames([str(path)]))
    each(*(partial(frames.__getitem__, place) for place in range(len(frames))))


def make_label_set(folder: Path) -> None:
    from halves_teacher import HalvesTeacher

    teacher = HalvesTeacher(prompts=NUSCENES.prompts)
    label_set = LabelSet.create(folder, teacher, NUSCENES, {"augmentations": ["flip"]})
    label_set.write(small_frames(), teacher)
    label_points(label_set, small_frames())


def read_label_set(folder: Path, path: Path) -> None:
    label_set = LabelSet(folder)
    labels = label_set.frame_ids
    each(
        lambda: (label_set.prompt_embeds, label_set.num_missing, label_set.teacher_id, label_set.text_model),
        *(partial(label_set.read, frame_id) for frame_id in labels),
        *(partial(label_set.read_identity, frame_id) for frame_id in labels),
        lambda: [(own.read(frame_id)) for own in [PointLabels(folder)] for frame_id in own.frame_ids],
    )


def make_results(folder: Path) -> None:
    """Predictions and truths of `uov-hf eval`, and a submission."""
    classes = [{"name": name, "color": [0, 0, row], "label_id": row + 1} for row, name in enumerate(PROMPTS)]
    for name in ("predicted", "true"):
        (folder / name).mkdir()
        np.save(folder / name / "scan.npy", np.arange(12, dtype=np.uint8) % 3)
        (np.arange(12, dtype=np.uint32) % 3 + 1).tofile(folder / name / "a.label")
        (folder / name / "classes.json").write_text(json.dumps({"classes": classes}))
    (np.arange(12, dtype=np.uint8) % 17).tofile(folder / "true_lidarseg.bin")
    (np.arange(12, dtype=np.uint8) % 17).tofile(folder / "predicted_lidarseg.bin")


def read_results(folder: Path, path: Path) -> None:
    each(
        lambda: compare_files(folder / "predicted", folder / "true"),
        lambda: compare_files(folder / "predicted_lidarseg.bin", folder / "true_lidarseg.bin"),
    )


READERS = {
    "bin": Reader(make_bin, read_scan, ("*.bin",)),
    "npy": Reader(make_npy, read_scan, ("*.npy",)),
    "npz": Reader(make_npz, read_scan, ("*.npz",)),
    "pcd": Reader(make_pcd, read_scan, ("*.pcd",)),
    "ply": Reader(make_ply, read_scan, ("*.ply",)),
    "las": Reader(make_las, read_scan, ("*.las",)),
    "laz": Reader(partial(make_las, suffix=".laz"), read_scan, ("*.laz",)),
    "text": Reader(make_text, read_scan, ("*",)),
    "bag": Reader(partial(make_bag, kind="bag"), read_bag, ("*.bag",)),
    "mcap": Reader(partial(make_bag, kind="mcap"), read_bag, ("*/*",)),
    "db3": Reader(partial(make_bag, kind="db3"), read_bag, ("*/*",)),
    "own car": Reader(make_car, read_all_frames, ("*.*", "*/*.txt", "*/*.csv", "*/labels/*", "*/points/*")),
    "nuscenes": Reader(make_nuscenes, partial(read_all_frames, dataset="nuscenes"), ("*.json", "*/*.json")),
    "kitti": Reader(make_kitti, read_kitti, ("*/00/*.*", "*/00/velodyne/*", "*/00/labels/*")),
    "kitti object": Reader(
        partial(make_tiny_root, dataset="kitti_object"),
        partial(read_all_frames, dataset="kitti_object"),
        ("training/calib/*", "training/image_2/000007.png"),
    ),
    "pandaset": Reader(
        partial(make_tiny_root, dataset="pandaset"),
        partial(read_all_frames, dataset="pandaset"),
        ("001/calib.json", "001/labels/*", "001/camera/*/00.jpg"),
    ),
    "argoverse2": Reader(
        partial(make_tiny_root, dataset="argoverse2"),
        partial(read_all_frames, dataset="argoverse2"),
        ("train/aaaa/**/*.feather",),
    ),
    "frames": Reader(make_frames, read_frames, ("**/*.parquet",)),
    "label set": Reader(make_label_set, read_label_set, ("*.*", "*/*.parquet", "*/*/*.*")),
    "vocabulary": Reader(make_vocabulary, read_vocabulary, ("*.yaml",)),
    "settings": Reader(make_settings, read_settings_files, ("*",), is_users=True),
    "teacher files": Reader(make_teacher_files, read_teacher_files, ("*/*.*", "*/*/*.*")),
    "official": Reader(make_official, read_official_file, ("*.pt",)),
    "checkpoint": Reader(make_checkpoint, read_checkpoint, ("*/*.json", "*/*.safetensors", "*/SHA256SUMS")),
    "results": Reader(make_results, read_results, ("*.bin", "*/*")),
}
