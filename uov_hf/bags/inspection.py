"""What a bag contains, how its sensors relate in time, and what is missing for each stage."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from uov_hf.bags.content import BagContent, read_content
from uov_hf.bags.messages import IMAGE
from uov_hf.bags.point_cloud2 import fields_of, scalar_fields, times_in
from uov_hf.bags.reading import Bag, Moment, Topic, errors_of_bag
from uov_hf.bags.recording import BagRecording
from uov_hf.bags.sensors import Body, choose_cameras, choose_lidars, find_body, mount_camera
from uov_hf.bags.settings import BagSettings, find_settings
from uov_hf.point_fields import INTENSITY_NAMES, find_field


Found = TypeVar("Found")

OTHER_CLOCK = 1_000_000  # microseconds: no recorder takes so long to receive a message


TRAIN = (
    "uov-hf train --data_dir {} --teacher clip --teacher_model_name_or_path openai/clip-vit-large-patch14-336 "
    "--vocabulary cityscapes --output_dir out/car"
)


@dataclass(frozen=True)
class Stage:
    """A stage of the method, and what the bag lacks for it; empty if it has everything."""

    name: str
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {f'missing: {self.missing}' if self.missing else 'ready'}"


@dataclass(frozen=True)
class BagReport:
    """The report of one bag; `lines` prints it."""

    path: Path
    kind: str  # ROS 1 or ROS 2
    seconds: float
    topics: list[Topic]
    sensors: list[str]  # a line each
    frames: str
    stages: list[Stage]
    next_command: str
    segment_command: str  # empty if scans cannot be segmented, or if it is the next command
    train_command: str  # empty without calibrated images

    def lines(self) -> Iterator[str]:
        num_messages = sum(topic.num_messages for topic in self.topics)
        yield f"{self.path}: {self.kind}, {self.seconds:.1f} s, {num_messages:,} messages"
        yield "topics"
        width = max((len(topic.name) for topic in self.topics), default=0)
        for topic in self.topics:
            rate = topic.num_messages / self.seconds if self.seconds else 0.0
            short_type = topic.type.replace("/msg/", "/")
            yield f"  {topic.name:{width}}  {topic.num_messages:8,}  {rate:7.1f} Hz  {short_type}"
        yield from ("sensors", *(f"  {line}" for line in self.sensors))
        yield from (f"frames: {self.frames}", "stages", *(f"  {stage}" for stage in self.stages))
        yield f"next: {self.next_command}"
        if self.segment_command:
            yield f"to segment: {self.segment_command}"
        if self.train_command:
            yield f"to train: {self.train_command}"


def inspect_bag(path: Path) -> BagReport:
    """Read a bag once, and try what each stage needs of it.

    Raises:
        ValueError: It is no whole bag.
        ImportError: `rosbags` is not installed.
    """
    bag, settings = Bag(path), find_settings(path, path.parent)
    with errors_of_bag(path):
        return _report(bag, settings)


def _report(bag: Bag, settings: BagSettings) -> BagReport:
    path, content = bag.path, read_content(bag)
    lidars, _ = _try(lambda: choose_lidars(content, settings, bag))
    lidar = (lidars or list(content.clouds))[:1]
    scans = content.clouds[lidar[0]] if lidar else []
    cameras, no_cameras = _inspect_cameras(bag, content, settings, scans)
    body, no_body = None, "scans"
    if scans:
        body, no_body = _try(lambda: find_body(content, settings, scans[0].frame, scans[0].time, path))
    poses = _missing_poses(body, no_body)
    no_times = _missing_times(bag, scans)
    _, no_points = _try(lambda: BagRecording(bag, content, settings, points_only=True))
    recording, no_frames = _try(lambda: BagRecording(bag, content, settings))
    segment = f"uov-hf segment {path} --format bag --model_name_or_path CHECKPOINT --output_dir out/segmented"
    next_command = _next(path, settings, recording) or segment
    stages = [
        Stage("segment scans", no_points),
        Stage("label set, training (images and their calibration)", no_points or no_cameras or no_body),
        Stage("motion compensation (poses and times of points)", no_points or poses or no_times),
        Stage("vote over time (poses)", no_points or poses),
        Stage("evaluation, fine-tuning", "labels of points, which a bag does not have"),
    ]
    lines = [_lidar_line(bag, topic, content.clouds[topic]) for topic in lidars or content.clouds]
    lines += [*cameras, f"poses: {poses or _body_line(body)}"]
    return BagReport(
        path=path,
        kind="ROS 2" if bag.is_ros2 else "ROS 1",
        seconds=bag.seconds,
        topics=list(bag.topics.values()),
        sensors=lines,
        frames=f"none, because {no_frames}" if recording is None else _frames_line(recording),
        stages=stages,
        next_command=next_command,
        segment_command="" if no_points or next_command == segment else segment,
        train_command=TRAIN.format(path) if recording and recording.mounts else "",
    )


def _try(find: Callable[[], Found]) -> tuple[Found | None, str]:
    """What is found, or the message of the error."""
    try:
        return find(), ""
    except (ValueError, ImportError) as error:
        return None, str(error)


def _inspect_cameras(
    bag: Bag, content: BagContent, settings: BagSettings, scans: list[Moment]
) -> tuple[list[str], str]:
    """A line for each camera, and what is missing to use them."""
    cameras, missing = _try(lambda: choose_cameras(content, settings, bag))
    lines, problems = [], [missing] if missing else []
    frame = scans[0].frame if scans else ""
    for name, camera in (cameras or {}).items():
        mount, problem = _try(partial(mount_camera, name, camera, content, settings, frame))
        moments = content.images[camera.topic]
        line = f"camera {name} ({camera.topic}): {_rate(moments)}, {_offset(moments, camera.time_offset, scans)}"
        if mount is not None:
            height, width = mount.camera.image_size
            lens = "no distortion" if mount.lens is None else f"lens {mount.lens.model}"
            lines.append(f"{line}; {width} x {height}, {lens}{_clock(moments)}")
            lines.append(f"  lidar2cam: {np.round(mount.camera.lidar2cam, 6).tolist()}")
        else:
            lines.append(f"{line}; not usable: {problem}{_clock(moments)}")
            needs_package = "pip install" in problem
            problems.append(f"OpenCV for the lens of {name}" if needs_package else f"calibration of {name}")
    lines += [f"not read: {topic}, depth or an encoding that is not read" for topic in content.other_images]
    if not lines:
        problems = [f"images ({IMAGE} or CompressedImage)"]
    return lines, "; ".join(problems)


def _missing_poses(body: Body | None, problem: str) -> str:
    if body is None:
        return problem or "poses"
    return "" if body.trajectory is not None else "poses (nav_msgs/Odometry, or a moving frame in /tf)"


def _missing_times(bag: Bag, scans: list[Moment]) -> str:
    fields, problem = _try(lambda: fields_of(bag.read(scans[0]), scans[0].topic)) if scans else (None, "scans")
    if fields is None or _has_times(fields):
        return problem
    return "times of points (a field such as `t`, `time` or `timestamp`)"


def _has_times(fields: NDArray[np.void]) -> bool:
    """Whether the points of a scan have different times."""
    values = times_in(fields)
    return values is not None and len(values) > 0 and bool(np.ptp(values) > 0)


def _intensity_in(fields: NDArray[np.void]) -> str:
    names = scalar_fields(fields)
    found = find_field(names, INTENSITY_NAMES)
    return f"no intensity among {', '.join(names)}" if found is None else f"intensity `{found}`"


def _lidar_line(bag: Bag, topic: str, scans: list[Moment]) -> str:
    fields, problem = _try(lambda: fields_of(bag.read(scans[0]), topic))
    if fields is not None:
        times = "a time for each point" if _has_times(fields) else "no times of points"
        problem = f"{_intensity_in(fields)}, {times}"
    return f"lidar {topic} (frame {scans[0].frame}): {_rate(scans)}, {problem}{_clock(scans)}"


def _body_line(body: Body | None) -> str:
    if body is None or body.trajectory is None:
        return "none"
    times = body.trajectory.times
    rate = 1e6 * (len(times) - 1) / max(int(times[-1] - times[0]), 1)
    return f"{body.trajectory.source}, {len(times):,} at {rate:.1f} Hz"


def _rate(moments: list[Moment]) -> str:
    steps = np.diff([moment.time for moment in moments]) / 1e6
    if not len(steps) or not np.median(steps) > 0:
        return f"{len(moments)} messages"
    return f"{1 / np.median(steps):.1f} Hz, longest gap {steps.max():.2f} s"


def _offset(images: list[Moment], time_offset: int, scans: list[Moment]) -> str:
    """The time from each scan to its nearest image."""
    if not scans:
        return "no scans"
    times = np.array([image.time + time_offset for image in images])
    nearest = [times[np.abs(times - scan.time).argmin()] - scan.time for scan in scans]
    low, middle, high = np.percentile(nearest, [5, 50, 95]) / 1000
    return f"image {middle:+.0f} ms from the scan ({low:+.0f} to {high:+.0f})"


def _clock(moments: list[Moment]) -> str:
    """A warning where the times of a sensor are not of the recorder's clock."""
    delay = float(np.median([moment.log_time / 1000 - moment.time for moment in moments]))
    if abs(delay) < OTHER_CLOCK:
        return ""
    return f"; OTHER CLOCK: its times are {delay / 1e6:+.1f} s before the times of recording"


def _frames_line(recording: BagRecording) -> str:
    counts = {name: sum(name in moments for moments in recording.moments) for name in recording.mounts}
    with_image = "".join(f", {count} with an image of {name}" for name, count in counts.items())
    return f"{len(recording.moments)}{with_image}; intensity_max {recording.intensity_max:g}"


def _next(path: Path, settings: BagSettings, recording: BagRecording | None) -> str:
    """The command for training; empty if the bag is only to be segmented."""
    if recording is None:
        return (
            f"install what is missing, or write {settings.path} with what the bag does not contain, then run "
            f"`uov-hf inspect {path}` again"
        )
    if recording.mounts:
        return f"python dataset_scripts/rosbag.py --data_dir {path} --check out/check"
    return ""
