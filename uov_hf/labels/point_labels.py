"""Point labels: the segments of a label set carried over to the points, so that training opens no image."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack, cast

import pyarrow as pa

from uov_hf.data.frames import Frames
from uov_hf.data.parquet import Shards
from uov_hf.data.shards import Sharing, WriteReport, write_atomically, write_shards
from uov_hf.labels.consolidation import PRESETS, Consolidation
from uov_hf.labels.label_set import LabelSet
from uov_hf.labels.labelling import PointLabelRow, SequenceLabeller
from uov_hf.labels.votes import NUM_SOFT_LABELS


logger = logging.getLogger(__name__)

FORMAT_VERSION = 2

SCHEMA = pa.schema(
    {
        "frame_id": pa.string(),
        "pair_to_point": pa.list_(pa.int32()),
        "pair_camera": pa.list_(pa.int16()),
        "pair_pixel": pa.list_(pa.list_(pa.int16(), 2)),
        "pair_segment": pa.list_(pa.int32()),
        "labels": pa.list_(pa.uint8()),
        "confidence": pa.list_(pa.float16()),
        "soft_labels": pa.list_(pa.list_(pa.uint8(), NUM_SOFT_LABELS)),
        "soft_scores": pa.list_(pa.list_(pa.float16(), NUM_SOFT_LABELS)),
    }
)


class PointLabels:
    """
    The pairs of points and pixels of every frame with the segments they fall on, and a label per point.

    Args:
        folder (`str` or `Path`): The label set's folder.
        preset (`str` or `Consolidation`, *optional*, defaults to `"paper"`): The rule that made them.

    Raises:
        FileNotFoundError: there are none by this rule.
        ValueError: they have another format version, or were made from another label set than the one in the folder.
    """

    def __init__(self, folder: str | Path, preset: str | Consolidation = "paper"):
        self.folder = point_labels_folder(folder, preset)
        path = self.folder / "point_labels.json"
        if not path.is_file():
            script = f"examples/label_points.py --label_set {folder} --preset {preset}"
            way = "`label_points` and the same rule" if isinstance(preset, Consolidation) else script
            raise FileNotFoundError(f"There are no point labels in {self.folder}. Make them with {way}.")
        found, wanted = json.loads(path.read_text()), _description(folder, preset)
        if found != wanted:
            raise ValueError(
                f"{path}: expected {wanted}, which fits the label set in {folder} and this version, got {found}. "
                f"Delete {self.folder} and make them again."
            )
        self.preset = preset
        self._shards = Shards(self.folder)

    @property
    def frame_ids(self) -> list[str]:
        """The id of every frame that has point labels."""
        return self._shards.frame_ids

    def read(self, frame_id: str, columns: list[str] | None = None) -> PointLabelRow:
        """
        The point labels of one frame, by default all columns of [`PointLabelRow`]; arrays are read-only.

        Raises:
            KeyError: the frame has no point labels.
        """
        return cast(PointLabelRow, self._shards.read(frame_id, columns))


def label_points(
    label_set: LabelSet, frames: Frames, preset: str | Consolidation = "paper", **sharing: Unpack[Sharing]
) -> WriteReport:
    """
    Carry a label set over to the points of every frame that has no point labels yet.

    Args:
        label_set (`LabelSet`): Has the segments of all of the frames.
        frames (`Frames`): The dataset.
        preset (`str` or `Consolidation`, *optional*, defaults to `"paper"`):
            A key of `PRESETS`, or a rule of one's own.
        sharing:
            `process_index`, `num_processes`, `on_error` and `show_progress` of `write_shards`.

    Raises:
        ValueError: the folder has point labels of another label set, or a frame does not fit the label set.
        KeyError: the label set lacks a frame.
    """
    rule, folder = _rule(preset), point_labels_folder(label_set.folder, preset)
    if rule.augmentation_vote and not label_set.augmentations:
        logger.info("No vote of augmentations: %s was made without --augmentations.", label_set.folder)
    if (folder / "point_labels.json").exists():
        PointLabels(label_set.folder, preset)  # raises if they belong to another label set
    else:
        description = _description(label_set.folder, preset)
        write_atomically(folder / "point_labels.json", json.dumps(description, indent=2).encode())

    def open_sequence(sequence: Frames) -> Callable[[int], Mapping[str, Any]]:
        return SequenceLabeller(sequence, label_set, rule).make_row

    # With a vote over time a row depends on its neighbours: rows from before a frame was added are made again.
    return write_shards(folder, SCHEMA, frames, open_sequence, keeps_rows=rule.time_vote is None, **sharing)


def point_labels_folder(label_set_folder: str | Path, preset: str | Consolidation) -> Path:
    """`points/<preset>` in the folder of the label set; for a rule of one's own, a digest of its settings."""
    rule = _rule(preset)
    names = [name for name, known in PRESETS.items() if known == rule]
    digest = hashlib.sha256(json.dumps(asdict(rule)).encode()).hexdigest()
    return Path(label_set_folder) / "points" / (names[0] if names else f"custom-{digest[:12]}")


def _rule(preset: str | Consolidation) -> Consolidation:
    if isinstance(preset, Consolidation):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}; there are: {', '.join(PRESETS)}.")
    return PRESETS[preset]


def _description(label_set_folder: str | Path, preset: str | Consolidation) -> dict[str, Any]:
    digest = hashlib.sha256((Path(label_set_folder) / "label_set.json").read_bytes()).hexdigest()
    return {"format_version": FORMAT_VERSION, "rule": asdict(_rule(preset)), "label_set_sha256": digest}
