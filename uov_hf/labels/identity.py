"""What identifies a frame: labels are not joined with another frame of the same id."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa

from uov_hf.data.frames import BROKEN, Frame, Frames


IDENTITY_COLUMNS = (
    "frame_id",
    "sequence_id",
    "timestamp",
    "camera_names",
    "image_ids",
    "image_sizes",
    "lidar2cam",
    "intrinsics",
)
IDENTITY_SCHEMA = {"fingerprint": pa.string(), "calibration": pa.list_(pa.float32())}
# Two computers may compute the same calibration with differences near 1e-12.
TOLERANCE = 1e-4
# Sequences whose first frame is checked when labels that are there are joined with frames: each costs a read, perhaps
# from the Hub.
NUM_CHECKED = 32


class Identity(TypedDict):
    """What identifies a frame with K cameras."""

    fingerprint: str  # digest of its id, sequence, time, and of the names and sizes of its images
    calibration: np.ndarray  # (K * 25,) float32: `lidar2cam`, then `intrinsics`


class DatasetIdentity(TypedDict):
    """What identifies the frames of a run."""

    name: str
    config: str | None
    num_frames: int
    fingerprint: str  # digest of the ids of all frames and of the identity of the first frame of each sequence


def identify(frame: Frame) -> Identity:
    """The identity of a frame with `IDENTITY_COLUMNS`."""
    timestamp = None if frame["timestamp"] is None else int(frame["timestamp"])
    facts = [frame["frame_id"], frame["sequence_id"], timestamp]
    images = [list(frame["camera_names"]), list(frame["image_ids"]), np.asarray(frame["image_sizes"]).tolist()]
    matrices = [np.asarray(frame["lidar2cam"]).ravel(), np.asarray(frame["intrinsics"]).ravel()]
    return {
        "fingerprint": hashlib.sha256(json.dumps([*facts, *images]).encode()).hexdigest()[:16],
        "calibration": np.concatenate(matrices).astype(np.float32),
    }


def identify_dataset(frames: Frames, name: str, config: str | None) -> DatasetIdentity:
    """The identity of a dataset's frames; `name` and `config` go into the label set."""
    digest = hashlib.sha256(json.dumps(frames.frame_ids).encode())
    for sequence in frames.select_columns(IDENTITY_COLUMNS).by_sequence():
        identity = identify(sequence[0])
        digest.update(identity["fingerprint"].encode() + np.round(identity["calibration"], 2).tobytes())
    return {"name": name, "config": config, "num_frames": len(frames), "fingerprint": digest.hexdigest()[:16]}


def check_identity(frame: Frame, found: Identity, folder: Path, calibration_changed: bool = False) -> None:
    """
    Check that a row of labels belongs to a frame.

    Args:
        frame (`Frame`): Has `IDENTITY_COLUMNS`.
        found (`Identity`): The identity in the row.
        folder (`Path`): Of the labels, for the message.
        calibration_changed (`bool`, *optional*, defaults to `False`):
            Whether another calibration is expected: the segments of the images do not depend on it.

    Raises:
        ValueError: it is another frame of the same id.
    """
    own = identify(frame)
    if own["fingerprint"] != found["fingerprint"]:
        raise ValueError(
            f"Frame {frame['frame_id']} is not the frame of this id that {folder} was made from: its time, sequence "
            "or images differ. Give the dataset that the labels were made from, or another folder for new labels."
        )
    same_size = own["calibration"].shape == found["calibration"].shape
    if not calibration_changed and not (
        same_size and np.allclose(own["calibration"], found["calibration"], rtol=TOLERANCE, atol=TOLERANCE)
    ):
        raise ValueError(
            f"Frame {frame['frame_id']} has another calibration than when {folder} was made. If this is another "
            "dataset with the same frame ids, give another folder. If the calibration was corrected, the segments of "
            "the images stay valid: run this again with --calibration_changed; delete point labels that are there "
            "(the folder `points`), and make them again with label_points.py --calibration_changed."
        )


def check_first_frames(
    frames: Frames,
    has_labels: Callable[[str], bool],
    read: Callable[[str], Identity],
    folder: Path,
    calibration_changed: bool,
) -> None:
    """
    Check the first frame with labels of up to `NUM_CHECKED` sequences.

    Args:
        frames (`Frames`): The frames to be joined with the labels.
        has_labels, read (`Callable`): Whether a frame has labels, by its id; their identity.
        folder, calibration_changed: As of `check_identity`.

    Raises:
        ValueError: it is another frame of the same id.
    """
    for frame in read_first_frames(frames.select_columns(IDENTITY_COLUMNS), has_labels):
        check_identity(frame, read(frame["frame_id"]), folder, calibration_changed)


def read_first_frames(frames: Frames, has_labels: Callable[[str], bool]) -> Iterator[Frame]:
    """The first frame with labels of up to `NUM_CHECKED` sequences, evenly spaced, without those that are broken."""
    first: dict[str, int] = {}
    for index, (sequence_id, frame_id) in enumerate(zip(frames.sequence_ids, frames.frame_ids, strict=True)):
        if sequence_id not in first and has_labels(frame_id):
            first[sequence_id] = index
    for index in list(first.values())[:: -(-len(first) // NUM_CHECKED) or 1]:
        try:
            frame = frames[index]
        except BROKEN:  # the run that needs the frame reports it, or skips it
            continue
        yield frame
