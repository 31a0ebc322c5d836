"""A bag as frames: scans with the images nearest in time, calibrated cameras and the car's poses."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uov_hf.bags.content import BagContent, read_content
from uov_hf.bags.images import encoded_image_of
from uov_hf.bags.point_cloud2 import fields_of, points_of, times_in
from uov_hf.bags.reading import Bag, Moment, errors_of_bag
from uov_hf.bags.sensors import Body, choose_cameras, choose_lidars, find_body, intensity_max_of, mount_camera
from uov_hf.bags.settings import BagSettings, find_settings
from uov_hf.image_files import EncodedImage
from uov_hf.own_car.calibration import MountedCamera
from uov_hf.own_car.mounted_frames import MountedFrame
from uov_hf.own_car.point_times import times_of_points


logger = logging.getLogger(__name__)

USUAL_INTERVAL = 100_000  # microseconds between scans, where a bag has only one
LONGEST_TURN = 200_000  # microseconds


@dataclass(frozen=True, eq=False)
class Lidar:
    """A lidar of the car."""

    topic: str
    to_first: NDArray[np.float64]  # (4, 4): to the lidar whose frame the points of a frame are in


class BagRecording:
    """The frames of one bag.

    Args:
        bag (`Bag`): The bag.
        content (`BagContent`): From `read_content(bag)`.
        settings (`BagSettings`): What the bag does not contain.
        points_only (`bool`, *optional*, defaults to `False`):
            Whether only points are needed, as for segmentation. Cameras are left out. Scans without poses are frames,
            too; their points stay as they were measured.

    Raises:
        ValueError: A sensor is missing, there are several and none is chosen, or one is not calibrated.
    """

    def __init__(self, bag: Bag, content: BagContent, settings: BagSettings, points_only: bool = False):
        self.bag, self.settings, self._points_only = bag, settings, points_only
        self.name = sequence_name(bag.path)
        topics = choose_lidars(content, settings, bag)
        first = content.clouds[topics[0]]
        frame, time = first[0].frame, first[0].time
        to_first = [content.transforms.motion(content.clouds[topic][0].frame, frame, time) for topic in topics]
        self.lidars = [Lidar(topic, motion) for topic, motion in zip(topics, to_first, strict=True)]
        self.body = self._find_body(content, frame, time)
        cameras = {} if points_only else choose_cameras(content, settings, bag)
        self.mounts = {name: mount_camera(name, camera, content, settings, frame) for name, camera in cameras.items()}
        self.topics = {name: camera.topic for name, camera in cameras.items()}
        self.intensity_max = settings.intensity_max or intensity_max_of(bag, first, settings)
        self.moments = self._combine(content)

    def frames(self) -> list["BagFrame"]:
        """The frames in the order of time."""
        return [BagFrame(self, number, moments) for number, moments in enumerate(self.moments)]

    def _find_body(self, content: BagContent, lidar_frame: str, time: int) -> Body:
        try:
            return find_body(content, self.settings, lidar_frame, time, self.bag.path)
        except ValueError as error:
            if not self._points_only or self.settings.odometry is not None:
                raise
            logger.warning("The scans are not corrected for the car's motion. %s", error)
            return Body(None, np.eye(4))

    def _combine(self, content: BagContent) -> list[dict[str, Moment]]:
        """The scans and images of every frame, by the topic of a lidar or the name of a camera."""
        scans = content.clouds[self.lidars[0].topic]
        if not self._points_only:  # a driver that repeats a time repeats a scan; each gets its labels all the same
            scans = list({scan.time: scan for scan in scans}.values())
        times = np.unique([scan.time for scan in scans])
        interval = float(np.median(np.diff(times))) if len(times) > 1 else USUAL_INTERVAL
        posed = self._with_poses(scans, interval)
        self.times_with_poses = {scan.time for scan in posed}
        scans = scans if self._points_only else posed
        others = {lidar.topic: (content.clouds[lidar.topic], 0) for lidar in self.lidars[1:]}
        for name, topic in self.topics.items():
            others[name] = content.images[topic], self.mounts[name].time_offset
        moments = [{self.lidars[0].topic: scan} for scan in scans]
        for name, (of_sensor, offset) in others.items():
            for here, nearest in zip(moments, _nearest(of_sensor, offset, scans, interval / 2), strict=True):
                if nearest is not None:
                    here[name] = nearest
        return moments

    def _with_poses(self, scans: list[Moment], interval: float) -> list[Moment]:
        """The scans during which the car's pose is known; all without poses."""
        if self.body.trajectory is None:
            return scans
        first, last = self.body.trajectory.limits
        duration = min(interval, LONGEST_TURN)  # a scan is before, around or after its time
        kept = [scan for scan in scans if first + duration <= scan.time <= last - duration]
        if len(kept) < len(scans):
            logger.warning(
                "%s: %d of %d scans are %s, because %s has no poses at their times.",
                *(self.bag.path, len(scans) - len(kept), len(scans)),
                "not corrected for the car's motion" if self._points_only else "left out",
                self.body.trajectory.source,
            )
        if not kept and not self._points_only:
            raise ValueError(
                f"{self.bag.path}: expected poses at the times of the scans, {scans[0].time} to {scans[-1].time} µs, "
                f"got those of {self.body.trajectory.source}, {first:.0f} to {last:.0f} µs. Are the clocks the same?"
            )
        return kept


def open_recording(path: Path, root: Path, points_only: bool = False) -> BagRecording:
    """The recording in a bag, with the settings in its folder or in the root; errors also as of [`BagRecording`].

    Raises:
        ValueError: The bag is broken, or its messages are not those of a drive.
    """
    settings, bag = find_settings(path, root), Bag(path)
    with errors_of_bag(path):
        return BagRecording(bag, read_content(bag), settings, points_only)


class BagFrame(MountedFrame):
    """A scan of a bag with the images nearest in time."""

    def __init__(self, recording: BagRecording, number: int, moments: Mapping[str, Moment]):
        self._recording, self._number, self._moments = recording, number, moments
        mounts = {name: mount for name, mount in recording.mounts.items() if name in moments}
        times = {name: moments[name].time + mount.time_offset for name, mount in mounts.items()}
        time = moments[recording.lidars[0].topic].time
        trajectory = recording.body.trajectory if time in recording.times_with_poses else None
        super().__init__(time, times, mounts, trajectory, recording.body.from_lidar)
        self.sequence_id, self.frame_id = recording.name, f"{recording.name}/{number:06d}"
        self.intensity_max = recording.intensity_max
        self.image_ids = [f"{recording.name}/{camera}/{number:06d}" for camera in mounts]

    @property
    def points(self) -> NDArray[np.float32]:
        """The points of all lidars in the frame of the first, at the time of its scan."""
        return np.concatenate(list(self.clouds.values()))

    def files_of(self, column: str) -> list[Path]:
        return []  # a bag was opened: it is there

    @property
    def clouds(self) -> dict[Moment, NDArray[np.float32]]:
        """The points of every message, as in `points`."""
        moments = [
            (lidar, self._moments[lidar.topic]) for lidar in self._recording.lidars if lidar.topic in self._moments
        ]
        with errors_of_bag(self._recording.bag.path):
            return {moment: self._points_of(lidar, moment) for lidar, moment in moments}

    @property
    def images(self) -> list[EncodedImage]:
        with errors_of_bag(self._recording.bag.path):
            return [self._image(name, mount) for name, mount in self._mounts.items()]

    def _points_of(self, lidar: Lidar, moment: Moment) -> NDArray[np.float32]:
        source = f"{self._recording.bag.path}, {lidar.topic} at {moment.time} µs"
        fields = fields_of(self._recording.bag.read(moment), source)
        points, values = points_of(fields, source), times_in(fields)
        is_first, times = lidar is self._recording.lidars[0], None
        if self._trajectory is not None and self._recording.settings.motion_compensation and values is not None:
            is_echo = np.asarray(np.isfinite(points[:, :3]).all(axis=1))
            times = times_of_points(values, is_echo, moment.time, source)
        if self._trajectory is None and not is_first:
            points[:, :3] = points[:, :3] @ lidar.to_first[:3, :3].T + lidar.to_first[:3, 3]
        if self._trajectory is None or (is_first and times is None):
            return points
        times = np.full(len(points), float(moment.time)) if times is None else times
        return self.move_to_stamp(points, times, self._lidar2body @ lidar.to_first)

    def _image(self, name: str, mount: MountedCamera) -> EncodedImage:
        source = f"{self._recording.bag.path}/{name}/{self._number:06d}"
        return encoded_image_of(self._recording.bag.read(self._moments[name]), mount, source)


def sequence_name(path: Path) -> str:
    """The name of a bag as a sequence."""
    return path.name if path.is_dir() else path.stem


def _nearest(moments: Sequence[Moment], offset: int, scans: Sequence[Moment], tolerance: float) -> list[Moment | None]:
    """The moment nearest to each scan, with `offset` added to its time; None where all are farther away."""
    times, wanted = np.array([moment.time + offset for moment in moments]), np.array([scan.time for scan in scans])
    after = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    place = np.where(wanted - times[before] <= times[after] - wanted, before, after)
    is_near = np.abs(times[place] - wanted) <= tolerance
    return [moments[index] if near else None for index, near in zip(place.tolist(), is_near.tolist(), strict=True)]
