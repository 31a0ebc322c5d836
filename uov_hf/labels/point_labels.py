"""Point labels: the segments of a label set carried over to the points, so that training opens no image."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack, cast

import pyarrow as pa

from uov_hf.data.frames import Frames, places_by_name
from uov_hf.data.parquet import Shards
from uov_hf.data.shard_file import write_atomically
from uov_hf.data.shards import Plan, Sharing, write_shards
from uov_hf.data.write_report import WriteReport
from uov_hf.digests import file_digest
from uov_hf.labels.consolidation import PRESETS, Consolidation, rule_of_preset
from uov_hf.labels.description import read_description, read_json
from uov_hf.labels.identity import (
    IDENTITY_COLUMNS,
    IDENTITY_SCHEMA,
    Identity,
    check_identity,
    identify,
    read_first_frames,
)
from uov_hf.labels.label_set import LabelSet
from uov_hf.labels.labelling import PointLabelRow, SequenceLabeller
from uov_hf.labels.row_checks import check_point_row
from uov_hf.labels.votes import NUM_SOFT_LABELS


logger = logging.getLogger(__name__)

FORMAT_VERSION = 4

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
        **IDENTITY_SCHEMA,
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
            way = (
                "the same --rules and --min_confidence" if isinstance(preset, Consolidation) else f"--preset {preset}"
            )
            raise FileNotFoundError(
                f"There are no point labels in {self.folder}. Make them with examples/label_points.py --label_set "
                f"{folder} and {way}."
            )
        found, wanted = read_json(path), _description(folder, preset)
        if found != wanted:
            raise ValueError(
                f"{path}: expected {wanted}, which fits the label set in {folder} and this version, got {found}. "
                f"Delete {self.folder} and make them again."
            )
        self.preset = preset
        self._num_classes = len(read_description(Path(folder) / "label_set.json")["class_names"])
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
            ValueError: the row has other columns or values than point labels; the message names its file.
        """
        row = self._shards.read(frame_id, SCHEMA.names if columns is None else columns)
        check_point_row(row, self._shards.file_of(frame_id), self._num_classes)
        return cast(PointLabelRow, row)


def label_points(
    label_set: LabelSet,
    frames: Frames,
    preset: str | Consolidation = "paper",
    *,
    calibration_changed: bool = False,
    **sharing: Unpack[Sharing],
) -> WriteReport:
    """
    Carry a label set over to the points of every frame that has no point labels yet.

    With a vote over time, all frames of the dataset that the label set has vote, also those that are not in `frames`:
    the labels of a frame do not depend on a selection. If the label set has got more frames of a sequence, the point
    labels of this sequence are made again.

    Args:
        label_set (`LabelSet`): Has the segments of all of the frames.
        frames (`Frames`): The frames to label.
        preset (`str` or `Consolidation`, *optional*, defaults to `"paper"`):
            A key of `PRESETS`, or a rule of one's own.
        calibration_changed (`bool`, *optional*, defaults to `False`):
            Whether the calibration was corrected after the label set was made.
        sharing: As of [`~uov_hf.data.shards.write_shards`].

    Raises:
        ValueError: the folder has point labels of another label set, or a frame does not fit the label set.
        KeyError: the label set lacks a frame.
        PermissionError: point labels are missing, and the label set is in the cache of the Hub.
        RuntimeError, OSError: as `write_shards`.
    """
    rule, folder = _rule(preset), point_labels_folder(label_set.folder, preset)
    if (folder / "point_labels.json").exists():
        _check_joined(frames, PointLabels(label_set.folder, preset))  # raises if they belong to another label set
    voters = Voters(frames, label_set)
    made_from = voters.count if rule.time_vote else lambda sequence: 0
    if label_set.is_cached and Plan(folder, frames, made_from, sharing.get("on_error", "raise")).parts:
        label_set.check_may_be_written()
    if not (folder / "point_labels.json").exists():
        description = _description(label_set.folder, preset)
        write_atomically(folder / "point_labels.json", json.dumps(description, indent=2).encode())
    if rule.augmentation_vote and not label_set.augmentations:
        logger.info("No vote of augmentations: %s was made without --augmentations.", label_set.folder)

    def open_sequence(sequence: Frames) -> Callable[[int], Mapping[str, Any]]:
        whole = voters.of(sequence)
        places = {name: place for place, name in enumerate(whole.frame_ids)}
        labeller = SequenceLabeller(whole, label_set, rule)
        identities = sequence.select_columns(IDENTITY_COLUMNS)

        def make_row(place: int) -> Mapping[str, Any]:
            frame = identities[place]
            check_identity(frame, label_set.read_identity(frame["frame_id"]), label_set.folder, calibration_changed)
            return {**labeller.make_row(places[frame["frame_id"]]), **identify(frame)}

        return make_row

    return write_shards(folder, SCHEMA, frames, open_sequence, made_from=made_from, **sharing)


class Voters:
    """
    The frames whose segments count for the points of a sequence: all of the dataset that the label set has.

    Args:
        frames (`Frames`): The frames to label, perhaps a selection.
        label_set (`LabelSet`): Their segments.
    """

    def __init__(self, frames: Frames, label_set: LabelSet):
        self.source = frames.source
        self.label_set = label_set
        self.indices = places_by_name(frames.source.sequence_ids)

    def of(self, sequence: Frames) -> Frames:
        """The voters of a sequence, and the frames of it that are to be labelled."""
        wanted, frame_ids = {*sequence.frame_ids}, self.source.frame_ids
        indices = self.indices[sequence.sequence_ids[0]]
        return Frames(self.source, [i for i in indices if frame_ids[i] in self.label_set or frame_ids[i] in wanted])

    def count(self, sequence: Frames) -> int:
        """How many frames of a sequence have segments."""
        return sum(self.source.frame_ids[index] in self.label_set for index in self.indices[sequence.sequence_ids[0]])


def _check_joined(frames: Frames, point_labels: PointLabels) -> None:
    """Check frames that have point labels: their identity, and the number of their points."""
    frames = frames.select_columns([*IDENTITY_COLUMNS, "points"])  # in one read, perhaps from the Hub
    for frame in read_first_frames(frames, {*point_labels.frame_ids}.__contains__):
        row = point_labels.read(frame["frame_id"], [*IDENTITY_SCHEMA, "labels"])
        check_identity(frame, cast(Identity, row), point_labels.folder)
        num_points, num_labels = len(frame["points"]), len(row["labels"])
        if num_points != num_labels:
            raise ValueError(
                f"Frame {frame['frame_id']} has {num_points} points, but {num_labels} point labels in "
                f"{point_labels.folder}:"
                " they are of another dataset with the same frame ids. Give that dataset, or another label set."
            )


def point_labels_folder(label_set_folder: str | Path, preset: str | Consolidation) -> Path:
    """`points/<preset>` in the folder of the label set; for a rule of one's own, a digest of its settings."""
    rule = _rule(preset)
    names = [name for name, known in PRESETS.items() if known == rule]
    digest = hashlib.sha256(json.dumps(asdict(rule)).encode()).hexdigest()
    return Path(label_set_folder) / "points" / (names[0] if names else f"custom-{digest[:12]}")


def _rule(preset: str | Consolidation) -> Consolidation:
    return preset if isinstance(preset, Consolidation) else rule_of_preset(preset)


def _description(label_set_folder: str | Path, preset: str | Consolidation) -> dict[str, Any]:
    digest = file_digest(Path(label_set_folder) / "label_set.json")
    return {"format_version": FORMAT_VERSION, "rule": asdict(_rule(preset)), "label_set_sha256": digest}
