"""Your own car: a folder of point clouds and, optionally, images, calibration, poses and labels."""

from pathlib import Path

from uov_hf.data.frames import OWN_LICENCE, FrameBuilder, disjoint_splits
from uov_hf.data.raw_folders import RawFrames, own_splits, splits_in
from uov_hf.leftovers import data_files, is_leftover
from uov_hf.own_car.calibration import CALIBRATION_NAMES
from uov_hf.own_car.recordings import Recording


class PointCloudFolder(FrameBuilder):
    """`PointCloudFolder(data_dir="my_car").as_frames()`.

    Splits: `all`, and those of a `splits.json` in the folder (`{"name": ["sequence", "sequence/frame", …]}`).
    """

    pretty_name = "Own recordings"
    licence = OWN_LICENCE
    settings_patterns = tuple(
        folder + name for folder in ("", "*/") for name in (*CALIBRATION_NAMES, "timestamps.csv", "poses.txt")
    )

    def open(self) -> RawFrames:
        root = Path(self.config.data_dir)
        folders = [root] if (root / "points").is_dir() else [path.parent for path in data_files(root, "*/points")]
        folders = [folder for folder in folders if not is_leftover(folder)]
        if not folders:
            raise ValueError(
                f"{root}: expected a folder for every sequence, with a folder `points` in it (or one `points` for the "
                "only sequence), got none."
            )
        recordings = [Recording(folder, root) for folder in folders]
        taxonomies = {recording.calibration.taxonomy: recording.calibration.path for recording in recordings}
        if len(taxonomies) > 1:
            got = "; ".join(f"{path}: {taxonomy}" for taxonomy, path in taxonomies.items())
            raise ValueError(f"All sequences must have the same `taxonomy`, got {got}.")
        frames = [frame for recording in recordings for frame in recording.frames()]
        return RawFrames(frames, next(iter(taxonomies)))

    def default_splits(self) -> tuple[str, ...]:
        return disjoint_splits(self.split_members())

    def split_members(self) -> dict[str, list[str]]:
        own = own_splits(Path(self.config.data_dir), self.source)
        return splits_in(self.source, own)
