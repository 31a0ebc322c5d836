"""Drives as ROS records them: a bag, or a folder of bags, of ROS 1 (`.bag`) or ROS 2 (`.mcap`, `.db3`)."""

from pathlib import Path

from uov_hf.bag_paths import find_bags
from uov_hf.bags.recording import open_recording, sequence_name
from uov_hf.bags.settings import find_settings
from uov_hf.data.frames import OWN_LICENCE, FrameBuilder, disjoint_splits
from uov_hf.data.raw_folders import RawFrames, own_splits, splits_in
from uov_hf.leftovers import data_files


class RosBag(FrameBuilder):
    """`RosBag(data_dir="drive.mcap").as_frames()`; each bag is a sequence.

    Splits: `all`, and those of a `splits.json` in a folder of bags (`{"name": ["drive", "drive/000000", …]}`).
    """

    pretty_name = "Own recordings"
    licence = OWN_LICENCE

    def settings_files(self) -> list[Path]:
        """`splits.json`, the files of the bags, which contain their calibration, and the `rosbag.yaml` of each."""
        root, files = Path(str(self.config.data_dir)), super().settings_files()
        for bag in find_bags(root):
            settings = find_settings(bag, root).path
            files += [*(data_files(bag, "*") if bag.is_dir() else [bag]), *([settings] if settings.is_file() else [])]
        return list(dict.fromkeys(files))

    def open(self) -> RawFrames:
        root = Path(self.config.data_dir)
        bags = find_bags(root)
        names = [sequence_name(path) for path in bags]
        if twice := [path for path, name in zip(bags, names, strict=True) if names.count(name) > 1]:
            raise ValueError(f"{root}: expected bags with different names, got {', '.join(map(str, twice))}.")
        return RawFrames([frame for path in bags for frame in open_recording(path, root).frames()], None)

    def default_splits(self) -> tuple[str, ...]:
        return disjoint_splits(self.split_members())

    def split_members(self) -> dict[str, list[str]]:
        return splits_in(self.source, own_splits(Path(self.config.data_dir), self.source))
