"""The recipe for a dataset without a recipe file: the paper's, or that for one camera or a few."""

from dataclasses import dataclass
from pathlib import Path

from uov_hf.data import Frames, load_frames
from uov_hf.data.loading import find_builder
from uov_hf.recipe.programs import scripts_folder
from uov_hf.recipe.recipes import Content
from uov_hf.training.argument_files import read_mapping


PAPER_CAMERAS = 6
NUM_COUNTED = 50  # frames, evenly spaced, whose cameras are counted
# Of the file for one camera: what the recipe sets itself.
PATHS = ("dataset", "data_dir", "label_set", "output_dir")
VALIDATION_SPLITS = ("val", "mini_val", "test")
# What is in the root folder of a dataset.
MARKS = {
    "nuscenes": ["v1.0-*/sample.json"],
    "semantic_kitti": ["sequences/*/velodyne"],
    "kitti_object": ["training/velodyne"],
    "pandaset": ["*/lidar/poses.json"],
    "argoverse2": ["sensors/lidar", "*/sensors/lidar", "*/*/sensors/lidar"],
    "rosbag": ["*.bag", "*.mcap", "*.db3", "*/metadata.yaml"],
    "point_cloud_folder": ["calibration.*", "points", "*/points"],
}


@dataclass(frozen=True)
class DefaultRecipe:
    """A recipe, and why it is the one for a dataset.

    Args:
        content (`dict`): As in a recipe file.
        reason (`str`): A sentence.
    """

    content: Content
    reason: str


def default_recipe(dataset: str | None, data_dir: str | None, dataset_config: str | None = None) -> DefaultRecipe:
    """The recipe for a dataset: with six cameras or more the paper's, with fewer that for one camera or a few.

    Args:
        dataset (`str`, *optional*): As of the scripts. By default the kind that the files in `data_dir` show.
        data_dir (`str`, *optional*): Root folder of the raw dataset.
        dataset_config (`str`, *optional*): Such as `v1.0-mini`.

    Returns:
        [`DefaultRecipe`]; its content lacks `output_dir` and the teacher.

    Raises:
        ValueError: The dataset cannot be read, its kind cannot be found, or it has no cameras.
    """
    if dataset is None:
        dataset = find_kind(data_dir)
    frames = load_frames(dataset, "all", data_dir, dataset_config, download=False)
    num_cameras = _count_cameras(frames)
    if not num_cameras:
        raise ValueError(
            f"{data_dir or dataset}: expected frames with camera images, which a teacher labels, got none."
        )
    content: Content = {"dataset": dataset, "data_dir": data_dir, "dataset_config": dataset_config}
    content |= {"generate_label_set": {"split": "all"}, "label_points": {"split": "all"}, "label_card": {}}
    file = scripts_folder() / "configs" / "one_camera" / "distill.yaml"
    if num_cameras >= PAPER_CAMERAS:
        content |= {"pretrain": {}, "distill": {}}
        reason = f"The paper's recipe; a frame has {num_cameras} cameras"
    else:
        settings = {name: value for name, value in read_mapping(str(file)).items() if name not in PATHS}
        # Its learning rate is for steps of one frame: several processes would make them larger.
        content["distill"] = {**settings, "num_processes": 1}
        reason = f"The recipe for one camera or a few (one_camera/distill.yaml); a frame has {num_cameras}"
    split, train_split = _choose_splits(dataset, data_dir, dataset_config, frames)
    if split is not None:
        for stage in ("pretrain", "distill"):
            if stage in content and train_split is not None:
                content[stage]["split"] = train_split
        content["evaluate"] = {"split": split, "refine": "afi"}
        return DefaultRecipe(content, f"{reason}. It is evaluated on the split {split}.")
    return DefaultRecipe(
        content,
        f"{reason}. It is not evaluated, because the dataset has no split {' or '.join(VALIDATION_SPLITS)} with "
        "annotation.",
    )


def find_kind(data_dir: str | None) -> str:
    """The short name of the dataset in a folder, by the files that it has.

    Raises:
        ValueError: There is no folder, or it is of no known kind.
    """
    if data_dir is None or not Path(data_dir).exists():
        raise ValueError(f"--data_dir: expected the root folder of a dataset, got {data_dir}. Or give --dataset.")
    root = Path(data_dir)
    for kind, patterns in MARKS.items():
        # A single file is a recording; otherwise the folder has some.
        if any(root.match(pattern) if root.is_file() else next(root.glob(pattern), None) for pattern in patterns):
            return kind
    raise ValueError(f"{data_dir}: expected the files of {' or '.join(MARKS)}, got none of them. Give --dataset.")


def _count_cameras(frames: Frames) -> int:
    """The largest number of cameras of a frame; the first scans of a recording may precede its first image."""
    names, step = frames.select_columns(["camera_names"]), max(1, len(frames) // NUM_COUNTED)
    return max((len(names[index]["camera_names"]) for index in range(0, len(frames), step)), default=0)


def _choose_splits(
    dataset: str, data_dir: str | None, dataset_config: str | None, frames: Frames
) -> tuple[str | None, str | None]:
    """The split to evaluate on, if there is one with labels, and that to train on, if the trainings' default is it."""
    class_of_builder = find_builder(dataset)
    if class_of_builder is None or not frames.taxonomy:
        return None, None
    builder = class_of_builder(data_dir=data_dir, config_name=dataset_config)
    members = builder.split_members()
    split = next((name for name in VALIDATION_SPLITS if name in members), None)
    if split is None or load_frames(dataset, split, data_dir, dataset_config)[0]["labels"] is None:
        return None, None
    if builder.default_splits()[0] != split:
        return split, None
    others = [name for name in members if name not in (split, "all")]
    return (split, others[0]) if others else (None, None)
