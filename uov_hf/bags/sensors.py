"""The lidars, cameras and poses of a bag: found by type, chosen by the settings where there are several."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uov_hf.bags.content import (
    BagContent,
    base_of,
    info_topic_of,
    is_rectified,
    optics_of,
)
from uov_hf.bags.messages import POINT_CLOUD
from uov_hf.bags.point_cloud2 import fields_of, points_of
from uov_hf.bags.reading import Bag, Moment
from uov_hf.bags.settings import BagSettings, CameraSettings
from uov_hf.bags.stereo import frame_to_camera
from uov_hf.bags.transforms import make_trajectory
from uov_hf.geometry.trajectory import Trajectory
from uov_hf.own_car.calibration import MountedCamera
from uov_hf.voxel_grid import guess_full_scale


@dataclass(frozen=True, eq=False)
class Body:
    """The part of the car whose poses are known."""

    trajectory: Trajectory | None  # None without poses
    from_lidar: NDArray[np.float64]  # (4, 4)


def choose_lidars(content: BagContent, settings: BagSettings, bag: Bag) -> list[str]:
    """The topics of the lidars: those of the settings, or the only one.

    Raises:
        ValueError: There is none, or several and no settings, or the settings name another topic.
    """
    if not content.clouds:
        others = ", ".join(f"{topic.name} ({topic.type})" for topic in bag.topics.values()) or "no topic"
        raise ValueError(
            f"{bag.path}: expected scans of the type {POINT_CLOUD}, got {others}. Packets of a lidar become such "
            "scans by its driver: play the bag through it and record its topic."
        )
    topics = settings.lidars or list(content.clouds)
    if wrong := [topic for topic in topics if topic not in content.clouds]:
        raise ValueError(
            f"{settings.path}: {bag.path} has no scans on {wrong[0]}, only on {', '.join(content.clouds)}."
        )
    if settings.lidars is None and len(topics) > 1:
        raise ValueError(
            f"{bag.path}: expected one topic with scans, got {', '.join(topics)}. Choose in {settings.path}: "
            f"`lidars: [{topics[0]}]`; the points of several are merged in the frame of the first."
        )
    return topics


def choose_cameras(content: BagContent, settings: BagSettings, bag: Bag) -> dict[str, CameraSettings]:
    """The cameras by name: those of the settings, or one for each camera in the bag.

    Raises:
        ValueError: The settings name a topic without images.
    """
    if settings.cameras is None:
        return {name: CameraSettings(topic) for name, topic in _cameras_in(content).items()}
    for name, camera in settings.cameras.items():
        if camera.topic not in content.images:
            known = ", ".join(content.images) or "none"
            raise ValueError(
                f"{settings.path}: camera {name!r} has the topic {camera.topic}, on which {bag.path} has no colour "
                f"images. It has them on: {known}."
            )
    return dict(settings.cameras)


def mount_camera(
    name: str, camera: CameraSettings, content: BagContent, settings: BagSettings, lidar_frame: str
) -> MountedCamera:
    """A camera with its optics (of the settings, or of its `CameraInfo`) and its place (of the settings, or of tf).

    Raises:
        ValueError: Neither is there.
        ImportError: The lens has distortion, and OpenCV is not installed.
    """
    topic = info_topic_of(camera.topic, content)
    way_out = (
        f"give it in {settings.path} under `cameras: {name}:`, with `topic: {camera.topic}`; or list there only the "
        "cameras to use (`cameras: {}` for none)."
    )
    source = f"{content.transforms.source}, camera {name!r} ({camera.topic})"
    rectified = is_rectified(camera.topic)
    if camera.optics is None and topic is None:
        raise ValueError(f"{source}: expected a calibration (sensor_msgs/CameraInfo), got none; {way_out}")
    lidar2cam, optics = camera.lidar2cam, camera.optics
    if optics is None and topic is not None:
        optics = optics_of(content.infos[topic], rectified, f"{content.transforms.source}, {topic}")
    if lidar2cam is None:
        first = content.images[camera.topic][0]
        try:
            lidar2cam = content.transforms.motion(lidar_frame, first.frame, first.time)
        except ValueError as error:
            raise ValueError(f"{source}: its place on the car is unknown; {way_out} {error}") from error
        if topic is not None:
            lidar2cam = frame_to_camera(source, content.infos[topic], first, content, rectified) @ lidar2cam
    if optics is None:
        raise ValueError(f"{source}: expected optics, got none.")
    return optics.mount(lidar2cam, camera.time_offset)


def find_body(content: BagContent, settings: BagSettings, lidar_frame: str, time: int, path: Path) -> Body:
    """The car's poses: of the topic or tf frame in the settings, of the only odometry topic, or of tf.

    Raises:
        ValueError: There are several odometry topics and no settings, or no transform joins their body and the lidar.
    """
    wanted, transforms = settings.odometry, content.transforms
    topics = [wanted] if wanted in content.odometry else list(content.odometry) if wanted is None else []
    if len(topics) > 1:
        raise ValueError(
            f"{path}: expected one topic with odometry, got {', '.join(topics)}. Choose in {settings.path}: "
            f"`odometry: {topics[0]}`, or a frame of tf to take the poses in."
        )
    if topics:
        odometry = content.odometry[topics[0]]
        mount = settings.lidar2body
        if mount is None:
            mount = transforms.motion(lidar_frame, odometry.body, time)
        return Body(odometry.trajectory(f"{path}, {topics[0]}"), mount)
    part = transforms.moving_part(lidar_frame)
    trajectory = None if part is None else transforms.trajectory_of(part)
    if part is None or trajectory is None:
        if wanted is not None:
            known = ", ".join(content.odometry) or "none"
            raise ValueError(f"{settings.path}: {path} has no odometry {wanted}; its odometry topics: {known}.")
        return Body(None, np.eye(4))
    if wanted not in (None, transforms.parents[part]):
        poses = {int(at): transforms.motion(part, wanted, int(at)) for at in trajectory.times}
        trajectory = make_trajectory(f"{path}, tf of {part} in {wanted}", poses)
    return Body(trajectory, transforms.motion(lidar_frame, part, time))


def intensity_max_of(bag: Bag, scans: list[Moment], settings: BagSettings) -> float:
    """The full scale of the intensity, by the first, the middle and the last scan: 1, 255 or 65535.

    Raises:
        ValueError: It is none of them.
    """
    source = f"{bag.path}, {scans[0].topic}"
    chosen = (scans[0], scans[len(scans) // 2], scans[-1])
    clouds = [points_of(fields_of(bag.read(scan), source), source) for scan in chosen]
    try:
        return guess_full_scale(np.concatenate(clouds)[:, 3])
    except ValueError as error:
        raise ValueError(f"{source}: {error} Give it in {settings.path}: `intensity_max: …`.") from error


def _cameras_in(content: BagContent) -> dict[str, str]:
    """The topic of every camera by a name from its namespace; of several with one calibration, the fullest."""
    by_camera: dict[str, str] = {}
    for topic in sorted(content.images, key=lambda topic: (-len(content.images[topic]), topic)):
        by_camera.setdefault(info_topic_of(topic, content) or base_of(topic), topic)
    chosen = sorted(by_camera.values())
    short = {topic: _short_name(topic) for topic in chosen}
    is_unique = len(set(short.values())) == len(short)
    return {short[topic] if is_unique else base_of(topic).strip("/").replace("/", "_"): topic for topic in chosen}


def _short_name(topic: str) -> str:
    namespace, _, last = base_of(topic).rpartition("/")
    return namespace.strip("/").replace("/", "_") or last
