"""From the segments of the images of a sequence to the point labels of its scans."""

from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from transformers.utils import logging

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.frames import BROKEN, Frame, Frames
from uov_hf.geometry.projection import Camera, OcclusionConfig, pair_points_with_pixels, round_to_pixels
from uov_hf.labels.consolidation import Consolidation
from uov_hf.labels.label_set import LabelSet
from uov_hf.labels.segments import SegmentRow, decode_segmentation
from uov_hf.labels.superpoints import find_superpoints, vote_in_superpoints
from uov_hf.labels.time_vote import VoxelVotes, gather_in_voxels, vote_over_time
from uov_hf.labels.votes import Votes, count_votes, decide, rank_classes


logger = logging.get_logger(__name__)

GEOMETRY = ["frame_id", "points", "camera_names", "lidar2cam", "intrinsics", "image_sizes"]
PLACE_AND_TIME = ["lidar2global", "timestamp"]


class Pairs(TypedDict):
    """The pairs of a point and a pixel of one frame, camera by camera."""

    pair_to_point: np.ndarray  # (num_pairs,) int32: row in the cloud
    pair_camera: np.ndarray  # (num_pairs,) int16: place in the frame's `camera_names`
    pair_pixel: np.ndarray  # (num_pairs, 2) int16: column, row
    pair_segment: np.ndarray  # (num_pairs,) int32: segment id of the label set, 0 = none


class PointLabelRow(Pairs):
    """The point labels of one frame. The paper's rule gives one label per point and no soft ones."""

    frame_id: str
    labels: np.ndarray  # (num_points,) uint8: training class, 255 = none
    confidence: np.ndarray  # (num_points,) float16: 0…1
    soft_labels: np.ndarray | None  # (num_points, 3) uint8: the classes with the most votes, in this order
    soft_scores: np.ndarray | None  # (num_points, 3) float16: their confidence


@dataclass(frozen=True)
class ScanVotes:
    """
    The votes on one scan, before other scans and superpoints count.

    Args:
        pairs (`Pairs`): Of its points with pixels.
        class_of_segment (`np.ndarray` of shape `(num_segments + 1,)`): 255 = none; row 0 is "no segment".
        is_finite (`np.ndarray` of shape `(num_points,)`):
            Which points of the scan have a position. Only these have votes, and stand in the fields below.
        votes (`Votes`): On the finite points.
        positions (`np.ndarray` of shape `(num_finite, 3)`): Metres, in the lidar frame.
        placed (`tuple[np.ndarray, VoxelVotes]`, *optional*):
            Where the frame takes part in the vote over time: the global positions `(num_finite, 3)` in metres, and the
            votes in voxels.
    """

    pairs: Pairs
    class_of_segment: np.ndarray
    is_finite: np.ndarray
    votes: Votes
    positions: np.ndarray
    placed: tuple[np.ndarray, VoxelVotes] | None = None


class SequenceLabeller:
    """
    Labels the points of the frames of one sequence. Rows do not depend on the order in which they are made.

    A frame without a pose or a timestamp takes no part in the vote over time; its other votes count. One warning of a
    run reports it.

    Args:
        frames (`Frames`): The sequence.
        label_set (`LabelSet`): Has the segments of these frames.
        rule (`Consolidation`): The votes that count.
    """

    def __init__(self, frames: Frames, label_set: LabelSet, rule: Consolidation):
        self.frames = frames.select_columns([*GEOMETRY, *PLACE_AND_TIME] if rule.time_vote else GEOMETRY)
        self.label_set = label_set
        self.rule = rule
        self._poses = _poses_by_time(frames, label_set) if rule.time_vote else {}
        # Not `lru_cache`: around a bound method it is a cycle, which keeps a finished sequence in memory.
        self._recent: dict[int, ScanVotes] = {}  # the least recently used first
        self._broken: dict[int, Exception] = {}

    def make_row(self, index: int) -> PointLabelRow:
        """
        The point labels of one frame.

        Raises:
            ValueError, OSError, KeyError: a file of the frame is broken, or the label set does not fit the frame.
        """
        if self.rule == Consolidation():
            return self._row_of_last_cameras(self.frames[index])
        scan = self._scan_votes(index)
        votes = self._vote_beyond_the_scan(index, scan).expand(scan.is_finite)
        labels, confidence = decide(votes, self.rule.min_confidence)
        soft_labels, soft_scores = rank_classes(votes)
        pairs = scan.pairs
        if self.rule.clean_pairs:
            agrees = scan.class_of_segment[pairs["pair_segment"]] == labels[pairs["pair_to_point"]]
            pairs = {**pairs, "pair_segment": np.where(agrees, pairs["pair_segment"], 0)}
        return {
            **pairs,
            "frame_id": self.frames.frame_ids[index],
            "labels": labels,
            "confidence": confidence,
            "soft_labels": soft_labels,
            "soft_scores": soft_scores,
        }

    def _row_of_last_cameras(self, frame: Frame) -> PointLabelRow:
        """The paper's rule, without counting: pairs come camera by camera, and numpy keeps a point's last value."""
        segments = self._read_segments(frame)
        pairs = pair_with_segments(frame, segments)
        is_covered = pairs["pair_segment"] > 0  # (num_pairs,)
        point, segment = pairs["pair_to_point"][is_covered], pairs["pair_segment"][is_covered] - 1
        labels = np.full(len(frame["points"]), IGNORED, np.uint8)
        confidence = np.zeros(len(frame["points"]), np.float16)
        labels[point] = self.label_set.prompt_to_class[segments["segment_labels"]][segment]
        confidence[point] = segments["segment_scores"][segment]
        return {
            **pairs,
            "frame_id": frame["frame_id"],
            "labels": labels,
            "confidence": confidence,
            "soft_labels": None,
            "soft_scores": None,
        }

    def _read_segments(self, frame: Frame, *columns: str) -> SegmentRow:
        basic = ["camera_names", "segmentation", "segment_labels", "segment_scores"]
        segments = self.label_set.read(frame["frame_id"], [*basic, *columns])
        if list(frame["camera_names"]) != segments["camera_names"]:
            raise ValueError(
                f"Frame {frame['frame_id']} has the cameras {list(frame['camera_names'])}, "
                f"but the label set was made with {segments['camera_names']}."
            )
        return segments

    def scan_votes(self, index: int) -> ScanVotes:
        """The votes of the segments of one frame, each camera and augmentation on its own."""
        frame, rule = self.frames[index], self.rule
        is_augmented = rule.augmentation_vote and len(self.label_set.augmentations) > 0
        segments = self._read_segments(frame, *["augmented_segmentation"] * is_augmented)
        pairs = pair_with_segments(frame, segments, rule.occlusion)
        segments_of_pairs = [pairs["pair_segment"]]
        if is_augmented:
            num, pngs, num_segments = (
                len(self.label_set.augmentations),
                segments["augmented_segmentation"],
                len(segments["segment_labels"]),
            )
            segments_of_pairs += [
                look_up_segments(pairs, decode_all(frame, pngs[place::num], num_segments)) for place in range(num)
            ]

        class_of_segment = np.append(IGNORED, self.label_set.prompt_to_class[segments["segment_labels"]])
        score_of_segment = np.append(0, segments["segment_scores"]).astype(np.float32)
        point, segment = _votes_of_pairs(pairs["pair_to_point"], segments_of_pairs, rule.camera_vote)
        num_points, num_classes = len(frame["points"]), len(self.label_set.class_names)
        votes = count_votes(point, class_of_segment[segment], score_of_segment[segment], num_points, num_classes)
        is_finite = np.asarray(np.isfinite(frame["points"][:, :3]).all(axis=1))
        votes, positions = votes.select(is_finite), frame["points"][is_finite, :3].astype(np.float64)
        placed = None
        if rule.time_vote and index in self._poses:
            global_positions = _to_global(positions, self._poses[index])
            placed = global_positions, gather_in_voxels(votes, global_positions, rule.time_vote)
        return ScanVotes(pairs, class_of_segment, is_finite, votes, positions, placed)

    def _vote_beyond_the_scan(self, index: int, scan: ScanVotes) -> Votes:
        """The votes on the finite points of a scan, with those of other scans and of superpoints."""
        votes = scan.votes
        if self.rule.time_vote and scan.placed:
            others = self._voxels_of_neighbors(index, self.rule.time_vote.window)
            ranges, is_thing = np.linalg.norm(scan.positions, axis=1), self.label_set.is_thing
            votes = vote_over_time(scan.placed[0], ranges, scan.placed[1], others, is_thing, self.rule.time_vote)
        if self.rule.superpoint_vote:
            votes = vote_in_superpoints(votes, find_superpoints(scan.positions, self.rule.superpoint_vote))
        return votes

    def _voxels_of_neighbors(self, index: int, window: int) -> list[VoxelVotes]:
        """The votes of the frames before and after, in the order of time. The row of a broken frame reports it."""
        by_time, voxels = list(self._poses), []
        place = by_time.index(index)
        for other in by_time[max(0, place - window) : place] + by_time[place + 1 : place + window + 1]:
            with suppress(*BROKEN):
                if placed := self._scan_votes(other).placed:
                    voxels.append(placed[1])
        return voxels

    def _scan_votes(self, index: int) -> ScanVotes:
        """`scan_votes`, once. A frame that is broken for one row is so for all: all count the same votes."""
        if index in self._broken:
            raise copy(self._broken[index])
        try:
            votes = self._recent.pop(index) if index in self._recent else self.scan_votes(index)
        except BROKEN as error:
            self._broken[index] = copy(error)  # without its traceback, which refers to this object
            raise
        self._recent[index] = votes
        window = self.rule.time_vote.window if self.rule.time_vote else 0
        if len(self._recent) > 2 * window + 1:
            del self._recent[next(iter(self._recent))]
        return votes


def pair_with_segments(frame: Frame, segments: SegmentRow, occlusion: OcclusionConfig | None = None) -> Pairs:
    """
    Every pair of a point and a pixel with the segment at the pixel; with `occlusion`, without pairs of hidden points.

    `segments` has `segment_labels`, and in `segmentation` a PNG per camera; a camera without one has no pairs.

    Raises:
        ValueError: as `decode_all`.
    """
    segment_maps = decode_all(frame, segments["segmentation"], len(segments["segment_labels"]))
    shown = [index for index, segment_map in enumerate(segment_maps) if segment_map is not None]
    cameras = [Camera(frame["lidar2cam"][i], frame["intrinsics"][i], frame["image_sizes"][i]) for i in shown]
    found = pair_points_with_pixels(frame["points"], cameras, occlusion=occlusion)
    rows, columns = round_to_pixels(found.pixel_coords)
    pairs: Pairs = {
        "pair_to_point": found.point_index.astype(np.int32),
        "pair_camera": np.array(shown, np.int16)[found.camera_index],
        "pair_pixel": np.stack([columns, rows], axis=1).astype(np.int16),
        "pair_segment": np.zeros(len(rows), np.int32),
    }
    return {**pairs, "pair_segment": look_up_segments(pairs, segment_maps)}


def look_up_segments(pairs: Pairs, segment_maps: Sequence[np.ndarray | None]) -> np.ndarray:
    """The segment `(num_pairs,)` int32 at the pixel of every pair, 0 = none."""
    segments = np.zeros(len(pairs["pair_camera"]), np.int32)
    for camera, segment_map in enumerate(segment_maps):
        if segment_map is not None:
            here = pairs["pair_camera"] == camera
            columns, rows = pairs["pair_pixel"][here].T
            segments[here] = segment_map[rows, columns]
    return segments


def decode_all(frame: Frame, pngs: Sequence[bytes | None], num_segments: int) -> list[np.ndarray | None]:
    """The segment ids `(height, width)` of the PNG of every camera; None stays None.

    Raises:
        ValueError: A PNG is broken, is not of the size of its image, or has ids above `num_segments`; or their number
            is another than that of the cameras. The message names the frame and the camera.
    """
    names, maps = frame["camera_names"], list[np.ndarray | None]()
    if len(pngs) != len(names):
        raise ValueError(f"Frame {frame['frame_id']} has {len(names)} cameras, but {len(pngs)} segmentations.")
    for name, size, png in zip(names, frame["image_sizes"], pngs, strict=True):
        where = f"Frame {frame['frame_id']}, camera {name}:"
        try:
            maps.append(None if png is None else decode_segmentation(png, size))
        except ValueError as error:
            raise ValueError(f"{where} {error}: the label set is damaged, or was made from other images.") from error
        if (ids := maps[-1]) is not None and ids.max(initial=0) > num_segments:
            raise ValueError(f"{where} expected ids up to {num_segments}, the number of segments, got {ids.max()}.")
    return maps


def _votes_of_pairs(point: np.ndarray, segments: list[np.ndarray], camera_vote: str) -> tuple[np.ndarray, np.ndarray]:
    """The point and the segment of every vote. `segments` has one `(num_pairs,)` per prediction of the teacher."""
    points, voters = [], []
    for segment in segments:
        covered = np.flatnonzero(segment)
        if camera_vote == "last":  # pairs come camera by camera: a point's last pair is that of its last camera
            covered = covered[len(covered) - 1 - np.unique(point[covered][::-1], return_index=True)[1]]
        points.append(point[covered])
        voters.append(segment[covered])
    return np.concatenate(points), np.concatenate(voters)


def _poses_by_time(frames: Frames, label_set: LabelSet) -> dict[int, np.ndarray]:
    """The poses `(4, 4)` of the frames with segments, by time. A warning reports those without a pose or a timestamp.

    A frame without segments takes no place in the window: whether `frames` has it depends on the selection to label.
    """
    frames, poses, times = frames.select_columns(PLACE_AND_TIME), {}, {}
    for index, frame_id in enumerate(frames.frame_ids):
        if frame_id not in label_set:
            continue
        with suppress(*BROKEN):  # the row of a broken frame reports it
            frame = frames[index]
            pose, timestamp = frame["lidar2global"], frame["timestamp"]
            if pose is None or timestamp is None or not np.isfinite(pose).all():
                # The same message for every frame and sequence, so that a run logs it once.
                logger.warning_once(
                    f"{label_set.folder}: frames without a pose (`lidar2global`) or a `timestamp` take no part in the "
                    "vote over time. All other votes of the rule count for them."
                )
            else:
                poses[index], times[index] = pose, timestamp
    return {index: poses[index] for index in sorted(times, key=times.__getitem__)}


def _to_global(positions: np.ndarray, lidar2global: np.ndarray) -> np.ndarray:
    return positions @ lidar2global[:3, :3].T + lidar2global[:3, 3]
