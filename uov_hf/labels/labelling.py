"""From what a teacher said about the images of a sequence to the point labels of its scans."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.broken import BROKEN
from uov_hf.geometry.projection import Camera, OcclusionConfig, pair_points_with_pixels, round_to_pixels
from uov_hf.labels.consolidation import Consolidation
from uov_hf.labels.label_set import LabelSet, decode_segmentation
from uov_hf.labels.shards import Row
from uov_hf.labels.superpoints import find_superpoints, vote_in_superpoints
from uov_hf.labels.time_vote import VoxelVotes, gather_in_voxels, vote_over_time
from uov_hf.labels.votes import Votes, count_votes, decide, rank_classes


FAR = 1e6  # metres
GEOMETRY = ["frame_id", "points", "camera_names", "lidar2cam", "intrinsics", "image_sizes"]


@dataclass(frozen=True)
class Hearing:
    """
    What was said about one scan.

    Args:
        pairs (`dict`): From `pair_with_segments`.
        class_of_segment (`np.ndarray` of shape `(num_segments + 1,)`): 255 = none; row 0 is "no segment".
        votes (`Votes`): On the points.
        positions (`np.ndarray` of shape `(num_points, 3)`): Metres, in the lidar frame; finite.
        global_positions (`np.ndarray` of shape `(num_points, 3)`, *optional*): Where there is a vote over time.
        voxels (`VoxelVotes`, *optional*): Where there is a vote over time.
    """

    pairs: Row
    class_of_segment: np.ndarray
    votes: Votes
    positions: np.ndarray
    global_positions: np.ndarray | None = None
    voxels: VoxelVotes | None = None


class SequenceLabeller:
    """
    The point labels of the frames of one sequence. Rows depend on the frames alone, not on the order of asking.

    Args:
        frames (`Frames`):
            The sequence.
        label_set (`LabelSet`):
            What the teacher said; must know the frames.
        rule (`Consolidation`):
            Who is heard.
    """

    def __init__(self, frames, label_set: LabelSet, rule: Consolidation):
        self.frames = frames.select_columns([*GEOMETRY, "lidar2global"] if rule.time_vote else GEOMETRY)
        self.label_set = label_set
        self.rule = rule
        self._broken: dict[int, Exception] = {}
        window = rule.time_vote.window if rule.time_vote else 0
        self._hear_once = lru_cache(maxsize=2 * window + 1)(self.hear)
        if rule.time_vote:
            timestamps = [row["timestamp"] for row in frames.select_columns(["timestamp"])]
            if None in timestamps:
                raise ValueError(
                    f"Frame {frames.frame_ids[timestamps.index(None)]} has no `timestamp`, which the vote over time "
                    "needs. Give the dataset its timestamps, or use a rule without `time_vote`."
                )
            self._by_time = np.argsort(timestamps, kind="stable").tolist()

    def rows(self) -> Iterator[Row]:
        """A row for each frame, in their order; asking for the row of a broken frame raises, the next is unharmed."""
        return map(self.make_row, range(len(self.frames)))

    def make_row(self, index: int) -> Row:
        """The point labels of one frame."""
        if self.rule.is_the_papers:
            return self._row_of_last_cameras(self.frames[index])
        heard = self._listen(index)
        votes = heard.votes
        if self.rule.time_vote:
            votes = self._vote_over_time(index, heard)
        if self.rule.superpoint_vote:
            votes = vote_in_superpoints(votes, find_superpoints(heard.positions, self.rule.superpoint_vote))
        labels, confidence = decide(votes, self.rule.min_confidence)
        soft_labels, soft_scores = rank_classes(votes)
        pairs = heard.pairs
        if self.rule.clean_pairs:
            agrees = heard.class_of_segment[pairs["pair_segment"]] == labels[pairs["pair_to_point"]]
            pairs = pairs | {"pair_segment": np.where(agrees, pairs["pair_segment"], 0)}
        return {
            "frame_id": self.frames.frame_ids[index],
            **pairs,
            "labels": labels,
            "confidence": confidence,
            "soft_labels": soft_labels,
            "soft_scores": soft_scores,
        }

    def _row_of_last_cameras(self, frame: Row) -> Row:
        """The paper's rule, without counting: pairs come camera by camera, and numpy keeps a point's last value."""
        said = self._read(frame)
        pairs = pair_with_segments(frame, said["segmentation"])
        spoken = pairs["pair_segment"] > 0  # (num_pairs,)
        point, segment = pairs["pair_to_point"][spoken], pairs["pair_segment"][spoken] - 1
        labels, confidence = (np.full(len(frame["points"]), *none) for none in ((IGNORED, np.uint8), (0, np.float16)))
        labels[point] = self.label_set.prompt_to_class[said["segment_labels"]][segment]
        confidence[point] = said["segment_scores"][segment]
        decision = {"labels": labels, "confidence": confidence, "soft_labels": None, "soft_scores": None}
        return {"frame_id": frame["frame_id"], **pairs, **decision}

    def _read(self, frame: Row, *columns: str) -> Row:
        """What the teacher said about a frame, and the columns asked for besides."""
        basic = ["camera_names", "segmentation", "segment_labels", "segment_scores"]
        said = self.label_set.read(frame["frame_id"], [*basic, *columns])
        _check_cameras(frame, said)
        return said

    def hear(self, index: int) -> Hearing:
        """What was said about one scan, each camera and augmentation on its own."""
        frame, rule = self.frames[index], self.rule
        is_augmented = rule.augmentation_vote and len(self.label_set.augmentations) > 0
        said = self._read(frame, *["augmented_segmentation"] * is_augmented)
        pairs = pair_with_segments(frame, said["segmentation"], rule.occlusion)
        segments = [pairs["pair_segment"]]
        if is_augmented:
            segments += self._augmented_segments(pairs, said["augmented_segmentation"])

        class_of_segment = np.append(IGNORED, self.label_set.prompt_to_class[said["segment_labels"]])
        score_of_segment = np.append(0, said["segment_scores"]).astype(np.float32)
        point, segment = _votes_of_pairs(pairs["pair_to_point"], segments, rule.camera_vote)
        num_points, num_classes = len(frame["points"]), len(self.label_set.class_names)
        votes = count_votes(point, class_of_segment[segment], score_of_segment[segment], num_points, num_classes)
        # Points that are not finite are seen by no camera; so far away nobody else is near them either.
        positions = np.nan_to_num(frame["points"][:, :3].astype(np.float64), nan=FAR, posinf=FAR, neginf=FAR)
        if not rule.time_vote:
            return Hearing(pairs, class_of_segment, votes, positions)
        global_positions = _to_global(positions, frame)
        voxels = gather_in_voxels(votes, global_positions, rule.time_vote)
        return Hearing(pairs, class_of_segment, votes, positions, global_positions, voxels)

    def _augmented_segments(self, pairs: Row, pngs: list[bytes | None]) -> list[np.ndarray]:
        """The segment `(num_pairs,)` of every pair in each augmentation."""
        num = len(self.label_set.augmentations)
        return [look_up_segments(pairs, decode_all(pngs[place::num])) for place in range(num)]

    def _vote_over_time(self, index: int, heard: Hearing) -> Votes:
        others = [voxels for neighbor in self._neighbors(index) if (voxels := self._voxels(neighbor)) is not None]
        ranges = np.linalg.norm(heard.positions, axis=1)
        return vote_over_time(
            heard.global_positions, ranges, heard.voxels, others, self.label_set.is_thing, self.rule.time_vote
        )

    def _neighbors(self, index: int) -> list[int]:
        """The frames before and after, in the order of time."""
        place, window = self._by_time.index(index), self.rule.time_vote.window
        return self._by_time[max(0, place - window) : place] + self._by_time[place + 1 : place + window + 1]

    def _voxels(self, index: int) -> VoxelVotes | None:
        """The votes of a frame; None where it is broken, which its own row reports."""
        try:
            return self._listen(index).voxels
        except BROKEN:
            return None

    def _listen(self, index: int) -> Hearing:
        """`hear`, once; a frame that was broken for one row is broken for all, so that all heard the same."""
        if index in self._broken:
            raise self._broken[index]
        try:
            return self._hear_once(index)
        except BROKEN as error:
            self._broken[index] = error
            raise


def pair_with_segments(
    frame: Row, segmentation: list[bytes | None], occlusion: OcclusionConfig | None = None
) -> dict[str, np.ndarray]:
    """
    Every pair of a point and a pixel, camera by camera, with the segment there.

    Args:
        frame (`dict`): `points` and the geometry of the cameras.
        segmentation (`list`): A PNG per camera; a camera without one (`None`) has no pairs.
        occlusion (`OcclusionConfig`, *optional*): Leave out the pairs of hidden points.
    """
    segment_maps = decode_all(segmentation)
    _check_sizes(frame, segment_maps)
    shown = [index for index, segment_map in enumerate(segment_maps) if segment_map is not None]
    cameras = [Camera(frame["lidar2cam"][i], frame["intrinsics"][i], frame["image_sizes"][i]) for i in shown]
    found = pair_points_with_pixels(frame["points"], cameras, occlusion=occlusion)
    rows, columns = round_to_pixels(found.pixel_coords)
    pairs = {
        "pair_to_point": found.point_index.astype(np.int32),
        "pair_camera": np.array(shown, np.int16)[found.camera_index],
        "pair_pixel": np.stack([columns, rows], axis=1).astype(np.int16),
    }
    return pairs | {"pair_segment": look_up_segments(pairs, segment_maps)}


def look_up_segments(pairs: dict[str, np.ndarray], segment_maps: list[np.ndarray | None]) -> np.ndarray:
    """The segment `(num_pairs,)` under every pair, 0 = none."""
    segments = np.zeros(len(pairs["pair_camera"]), np.int32)
    for camera, segment_map in enumerate(segment_maps):
        if segment_map is not None:
            here = pairs["pair_camera"] == camera
            columns, rows = pairs["pair_pixel"][here].T
            segments[here] = segment_map[rows, columns]
    return segments


def decode_all(pngs: list[bytes | None]) -> list[np.ndarray | None]:
    return [None if png is None else decode_segmentation(png) for png in pngs]


def _votes_of_pairs(point: np.ndarray, segments: list[np.ndarray], camera_vote: str) -> tuple[np.ndarray, np.ndarray]:
    """The votes: the point that each is about, and its segment. `segments` has one array per answer of the teacher."""
    points, voters = [], []
    for segment in segments:
        spoken = np.flatnonzero(segment)
        if camera_vote == "last":  # pairs come camera by camera: a point's last pair is that of its last camera
            spoken = spoken[len(spoken) - 1 - np.unique(point[spoken][::-1], return_index=True)[1]]
        points.append(point[spoken])
        voters.append(segment[spoken])
    return np.concatenate(points), np.concatenate(voters)


def _check_cameras(frame: Row, said: Row) -> None:
    if list(frame["camera_names"]) != said["camera_names"]:
        raise ValueError(
            f"Frame {frame['frame_id']} has the cameras {list(frame['camera_names'])}, "
            f"but the label set was made with {said['camera_names']}."
        )


def _check_sizes(frame: Row, segment_maps: list[np.ndarray | None]) -> None:
    for name, size, segment_map in zip(frame["camera_names"], frame["image_sizes"], segment_maps, strict=True):
        if segment_map is not None and segment_map.shape != tuple(size):
            raise ValueError(
                f"Frame {frame['frame_id']}, camera {name}: the image is {tuple(map(int, size))} (height, width), its "
                f"segmentation {segment_map.shape}: the label set was made from other images."
            )


def _to_global(positions: np.ndarray, frame: Row) -> np.ndarray:
    lidar2global = frame["lidar2global"]
    if lidar2global is None:
        raise ValueError(
            f"Frame {frame['frame_id']} has no `lidar2global`, which the vote over time needs. "
            "Give the dataset its poses, or use a preset without `time_vote`."
        )
    return positions @ lidar2global[:3, :3].T + lidar2global[:3, 3]
