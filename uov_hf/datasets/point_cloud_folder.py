"""Your own car: a folder of point clouds with, where there are any, images, calibration, poses and labels.

`python dataset_scripts/point_cloud_folder.py --data_dir my_car --check out/check` draws the points over the images and
says whether the calibration is right; with `--output_dir`, the folder becomes Parquet. docs/own_car.md has the layout.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uov_hf.data.frames import FrameBuilder, disjoint_splits, read_splits
from uov_hf.own_car.recordings import Recording


class PointCloudFolder(FrameBuilder):
    """
    `PointCloudFolder(data_dir="my_car").as_frames()`.

    Splits: `all`, and those that a `splits.json` in the folder names (`{"name": ["sequence", …]}`).
    """

    licence = "Your own recordings: the people and number plates in them may have a say."

    def open(self) -> "Folder":
        return Folder(Path(self.config.data_dir))

    def default_splits(self) -> tuple[str, ...]:
        return disjoint_splits(self.split_sequences())

    def split_sequences(self) -> dict[str, list[str]]:
        sequences = list(dict.fromkeys(self.source.sequence_ids))
        path = Path(self.config.data_dir) / "splits.json"
        splits = read_splits(path) if path.is_file() else {}
        absent = sorted({name for members in splits.values() for name in members} - set(sequences))
        if absent:
            raise ValueError(f"{path}: names sequences that are not here: {', '.join(absent)}.")
        return splits | {"all": sequences}


class Folder:
    """
    The recordings in a folder, as a `FrameSource`: sequence by sequence, in the order of time.

    Raises:
        ValueError: something does not fit together, or a file is missing or broken; the message names the file.
    """

    def __init__(self, root: Path):
        folders = [root] if (root / "points").is_dir() else sorted(path.parent for path in root.glob("*/points"))
        if not folders:
            raise ValueError(
                f"{root}: expected a folder for every sequence, with a folder `points` in it (or one `points` for the "
                "only sequence), got none."
            )
        recordings = [Recording(folder, root) for folder in folders]
        self.taxonomy = _only_taxonomy(recordings)
        self._frames = [(recording, name) for recording in recordings for name in recording.frame_names]
        self.frame_ids = [f"{recording.name}/{name}" for recording, name in self._frames]
        self.sequence_ids = [recording.name for recording, _ in self._frames]

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        recording, name = self._frames[index]
        return recording.read(name, columns)


def _only_taxonomy(recordings: Sequence[Recording]) -> str | None:
    by_taxonomy = {recording.calibration.taxonomy: recording.calibration.path for recording in recordings}
    if len(by_taxonomy) > 1:
        says = "; ".join(f"{path}: {taxonomy}" for taxonomy, path in by_taxonomy.items())
        raise ValueError(f"All sequences must have the same `taxonomy`, got {says}.")
    return next(iter(by_taxonomy))
