"""The row of a label set for one frame: its images through the teacher."""

import io
from collections.abc import Sequence
from itertools import product
from typing import TypedDict

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from uov_hf.array_checks import check_array
from uov_hf.data.frames import Frame
from uov_hf.labels.votes import ROUNDING
from uov_hf.teachers.protocol import Augmentation, ImageSegments, Teacher, TeacherFrame


# Columns of a frame that a teacher reads.
CAMERA_COLUMNS = ["camera_names", "image_ids", "images", "image_sizes"]


class SegmentRow(TypedDict, total=False):
    """The segments of one frame with K cameras and S segments; only the columns that were read are present.

    Segment `v` (v >= 1) is row `v - 1` of the `segment_*` columns; ids are unique within the frame.
    """

    frame_id: str
    camera_names: list[str]  # K
    segmentation: list[bytes | None]  # K PNGs of segment ids, 0 = none; None for a camera that was left out
    augmented_segmentation: list[bytes | None]  # K * A PNGs in the geometry of the plain images: camera * A + a
    segment_camera: np.ndarray  # (S,) int16: place in `camera_names`
    segment_labels: np.ndarray  # (S,) int32: prompt index
    segment_scores: np.ndarray  # (S,) float32
    segment_embeds: np.ndarray  # (S, embed_dim) float16; absent in a label set without embeddings
    fingerprint: str  # with `calibration`, the identity of the frame: labels/identity.py
    calibration: np.ndarray


def segment_frame(
    frame: Frame, teacher: Teacher, cameras: list[str] | None = None, augmentations: Sequence[str] = ()
) -> SegmentRow:
    """
    The row of a label set for one frame with `CAMERA_COLUMNS`. All cameras are segmented unless `cameras` names some.

    The ids of augmented images (see `Augmentation`) follow those of the plain ones.

    Raises:
        ValueError: the frame lacks a camera, or a prediction does not fit its image or the prompts.
    """
    names = list(frame["camera_names"])
    if missing := sorted(set(cameras or []) - set(names)):
        raise ValueError(f"Frame {frame['frame_id']} has no camera {', '.join(missing)}; it has {', '.join(names)}.")
    chosen = [index for index, name in enumerate(names) if cameras is None or name in cameras]
    shown = TeacherFrame(
        frame_id=frame["frame_id"],
        camera_names=[names[i] for i in chosen],
        image_ids=[frame["image_ids"][i] for i in chosen],
        images=[frame["images"][i] for i in chosen],
        image_sizes=np.asarray(frame["image_sizes"], np.int32).reshape(-1, 2)[chosen],
    )

    pngs: dict[tuple[int, str | None], bytes] = {}
    predictions: list[tuple[int, ImageSegments]] = []
    num_segments = 0
    for augmentation in (None, *augmentations):
        for camera, segments in zip(chosen, teacher.segment({**shown, "augmentation": augmentation}), strict=True):
            _check_segments(segments, frame, camera, augmentation, teacher)
            ids = Augmentation.parse(augmentation).restore(segments.segmentation, frame["image_sizes"][camera])
            pngs[camera, augmentation] = encode_segmentation(np.where(ids > 0, ids.astype(np.int64) + num_segments, 0))
            predictions.append((camera, segments))
            num_segments += len(segments.labels)

    parts = [segments for _, segments in predictions]
    embeds = [np.empty((0, teacher.embed_dim), np.float16), *(part.embeds.astype(np.float16) for part in parts)]
    return {
        "frame_id": frame["frame_id"],
        "camera_names": names,
        "segmentation": [pngs.get((camera, None)) for camera in range(len(names))],
        "augmented_segmentation": [pngs.get(key) for key in product(range(len(names)), augmentations)],
        "segment_camera": _concatenate([np.full(len(part.labels), camera) for camera, part in predictions], np.int16),
        "segment_labels": _concatenate([part.labels for part in parts], np.int32),
        "segment_scores": _concatenate([part.scores for part in parts], np.float32),
        "segment_embeds": np.concatenate(embeds),
    }


def encode_segmentation(segmentation: np.ndarray) -> bytes:
    """PNG of segment ids `(height, width)`, with 8 bits where they suffice and 16 where not.

    Raises:
        ValueError: They are no ids from 0 to 65535, or there is no pixel.
    """
    check_array("segmentation", segmentation, ("1 or more", "1 or more"), "iu")
    if segmentation.min() < 0 or segmentation.max() > np.iinfo(np.uint16).max:
        raise ValueError(
            "`segmentation` must contain ids from 0 to 65535, the most segments of a frame, got "
            f"{segmentation.min()} to {segmentation.max()}."
        )
    dtype = np.uint8 if segmentation.max() < 256 else np.uint16
    buffer = io.BytesIO()
    Image.fromarray(segmentation.astype(dtype)).save(buffer, format="png")
    return buffer.getvalue()


def decode_segmentation(png: bytes, size: Sequence[int] | None = None) -> np.ndarray:
    """Segment ids `(height, width)` of a label set's PNG, uint8 or uint16.

    Raises:
        ValueError: It is no whole PNG of ids, or is not of the `size` (height, width), which is checked first.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            found = picture.size[::-1]
            if size is not None and found != tuple(size):
                raise ValueError(f"{found} pixels (height, width), while the image has {tuple(map(int, size))}")
            if picture.mode not in ("L", "P") and not picture.mode.startswith("I"):
                raise ValueError(f"colours, of the mode {picture.mode}")
            return np.asarray(picture)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds
        raise ValueError(f"expected the segment ids of an image as PNG, got: {error}") from error


def _concatenate(arrays: list[np.ndarray], dtype: DTypeLike) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype)


def _check_segments(
    segments: ImageSegments, frame: Frame, camera: int, augmentation: str | None, teacher: Teacher
) -> None:
    where = f"The teacher {teacher.name!r}, frame {frame['frame_id']}, camera {frame['camera_names'][camera]}:"
    image_size = Augmentation.parse(augmentation).augmented_size(frame["image_sizes"][camera])
    if segments.segmentation.shape != image_size:
        raise ValueError(
            f"{where} expected a segmentation of {image_size} (height, width) as the image, got "
            f"{segments.segmentation.shape}."
        )
    if len(segments.labels) and not 0 <= segments.labels.min() <= segments.labels.max() < len(teacher.prompts):
        raise ValueError(
            f"{where} expected labels that are rows of its {len(teacher.prompts)} prompts, "
            f"got {segments.labels.min()}…{segments.labels.max()}."
        )
    if not ((segments.scores >= -ROUNDING) & (segments.scores <= 1 + ROUNDING)).all():  # false for NaN
        raise ValueError(f"{where} expected scores from 0 to 1, got {segments.scores.min()}…{segments.scores.max()}.")
    if segments.embeds.shape[1] != teacher.embed_dim:
        raise ValueError(
            f"{where} expected embeddings of {teacher.embed_dim} dimensions, got {segments.embeds.shape[1]}."
        )
