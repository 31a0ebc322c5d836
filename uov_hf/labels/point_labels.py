"""Point labels: a label set carried over to the points, once, so that training opens neither JPEG nor PNG."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uov_hf.labels.label_set import LabelSet, decode_segmentation
from uov_hf.labels.shards import Row, Shards, WriteReport, write_atomically, write_shards
from uov_hf.projection import Camera, pair_points_with_pixels, round_to_pixels
from uov_hf.vocabulary import IGNORED


FORMAT_VERSION = 1

SCHEMA = pa.schema(
    {
        "frame_id": pa.string(),
        "pair_to_point": pa.list_(pa.int32()),
        "pair_camera": pa.list_(pa.int16()),
        "pair_pixel": pa.list_(pa.list_(pa.int16(), 2)),
        "pair_segment": pa.list_(pa.int32()),
        "labels": pa.list_(pa.uint8()),
        "confidence": pa.list_(pa.float16()),
    }
)


class PointLabels:
    """
    The pairs of points and pixels of every frame with the segments they fall on, and a label per point.

    Args:
        folder (`str` or `Path`):
            The label set's folder.
        preset (`str`, *optional*, defaults to `"paper"`):
            The rule they were made by.

    Raises:
        FileNotFoundError: they have not been made.
        ValueError: they are of another format version, or made from another label set than the one in the folder.
    """

    def __init__(self, folder: str | Path, preset: str = "paper"):
        self.folder = point_labels_folder(folder, preset)
        path = self.folder / "point_labels.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"There are no point labels in {self.folder}. "
                f"Make them with examples/label_points.py --label_set {folder} --preset {preset}."
            )
        found, wanted = json.loads(path.read_text()), _description(folder, preset)
        if found != wanted:
            raise ValueError(
                f"{path} says {found}, but the label set in {folder} and this code ask for {wanted}. "
                f"Delete {self.folder} and run examples/label_points.py again."
            )
        self.preset = preset
        self._shards = Shards(self.folder)

    @property
    def frame_ids(self) -> list[str]:
        return self._shards.frame_ids

    def read(self, frame_id: str, columns: list[str] | None = None) -> Row:
        """
        The point labels of one frame, read-only.

        Returns:
            Per pair: `pair_to_point` (row in the cloud), `pair_camera` (place in the frame's `camera_names`),
            `pair_pixel` `(num_pairs, 2)` (column, row), `pair_segment` (segment id of the label set, 0 = none).
            Per point: `labels` (training class, 255 = none) and `confidence` (0…1). Or the `columns` asked for.

        Raises:
            KeyError: the frame has not been labelled.
        """
        return self._shards.read(frame_id, columns)


def label_points(label_set: LabelSet, frames, preset: str = "paper", **sharing: Any) -> WriteReport:
    """
    Carry a label set over to the points of every frame that has no point labels yet.

    Args:
        label_set (`LabelSet`):
            What the teacher said; must know all of the frames.
        frames (`Frames`):
            The dataset.
        preset (`str`, *optional*, defaults to `"paper"`):
            A key of `PRESETS`.
        sharing:
            `process_index`, `num_processes`, `on_error` and `show_progress` of `write_shards`.
    """
    folder = point_labels_folder(label_set.folder, preset)
    if (folder / "point_labels.json").exists():
        PointLabels(label_set.folder, preset)  # raises where they are another label set's
    else:
        write_atomically(
            folder / "point_labels.json", json.dumps(_description(label_set.folder, preset), indent=2).encode()
        )
    columns = ["frame_id", "points", "camera_names", "lidar2cam", "intrinsics", "image_sizes"]

    def make_rows(sequence):
        def make_row(index):
            return PRESETS[preset](sequence[index], label_set)

        return map(make_row, range(len(sequence)))

    return write_shards(folder, SCHEMA, frames.select_columns(columns), make_rows, **sharing)


def label_points_as_the_paper(frame: Row, label_set: LabelSet) -> Row:
    """
    The paper's rule (docs/method.md, section 2.5): cameras speak in the frame's order, and the last one that has a
    segment at a point decides. There is no occlusion test.

    A point's confidence is the score of the segment that decided; a background segment decides too, for 255.
    """
    said = label_set.read(frame["frame_id"], ["camera_names", "segmentation", "segment_labels", "segment_scores"])
    if list(frame["camera_names"]) != said["camera_names"]:
        raise ValueError(
            f"Frame {frame['frame_id']} has the cameras {list(frame['camera_names'])}, "
            f"but the label set was made with {said['camera_names']}."
        )
    pairs = pair_with_segments(frame, said["segmentation"])

    spoken = pairs["pair_segment"] > 0  # (num_pairs,)
    point, segment = pairs["pair_to_point"][spoken], pairs["pair_segment"][spoken] - 1
    labels = np.full(len(frame["points"]), IGNORED, np.uint8)
    confidence = np.zeros(len(frame["points"]), np.float16)
    # Pairs come camera by camera; of several values for one point numpy keeps the last.
    labels[point] = label_set.prompt_to_class[said["segment_labels"]][segment]
    confidence[point] = said["segment_scores"][segment]
    return {"frame_id": frame["frame_id"], **pairs, "labels": labels, "confidence": confidence}


def pair_with_segments(frame: Row, segmentation: list[bytes | None]) -> Row:
    """Every pair of a point and a pixel, camera by camera, with the segment there; a camera without PNG has none."""
    labelled = [index for index, png in enumerate(segmentation) if png is not None]
    cameras = [Camera(frame["lidar2cam"][i], frame["intrinsics"][i], frame["image_sizes"][i]) for i in labelled]
    pairs = pair_points_with_pixels(frame["points"], cameras)
    rows, columns = round_to_pixels(pairs.pixel_coords)
    pair_segment = np.zeros(len(rows), np.int32)
    for place, index in enumerate(labelled):
        here = pairs.camera_index == place
        pair_segment[here] = decode_segmentation(segmentation[index])[rows[here], columns[here]]
    return {
        "pair_to_point": pairs.point_index.astype(np.int32),
        "pair_camera": np.array(labelled, np.int16)[pairs.camera_index],
        "pair_pixel": np.stack([columns, rows], axis=1).astype(np.int16),
        "pair_segment": pair_segment,
    }


# The rules by which several cameras' segments become one label per point: name -> (frame, label set) -> row.
PRESETS: dict[str, Callable[[Row, LabelSet], Row]] = {"paper": label_points_as_the_paper}


def point_labels_folder(label_set_folder: str | Path, preset: str) -> Path:
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}; there are: {', '.join(PRESETS)}.")
    return Path(label_set_folder) / "points" / preset


def _description(label_set_folder: str | Path, preset: str) -> dict[str, Any]:
    digest = hashlib.sha256((Path(label_set_folder) / "label_set.json").read_bytes()).hexdigest()
    return {"format_version": FORMAT_VERSION, "preset": preset, "label_set_sha256": digest}
