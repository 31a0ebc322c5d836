"""What a bag contains for segmentation: when each scan and image was taken, calibrations, transforms, odometry."""

import logging
from collections import defaultdict
from dataclasses import dataclass
from operator import index

import numpy as np
from numpy.typing import NDArray

from uov_hf.bags.images import is_colour_image
from uov_hf.bags.messages import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    ODOMETRY,
    POINT_CLOUD,
    TRANSFORMS,
    CameraInfo,
    Odometry,
    TFMessage,
    matrix_of,
    microseconds,
)
from uov_hf.bags.reading import Bag, Moment
from uov_hf.bags.transforms import NO_ROTATION, Transforms, make_trajectory, pose_of
from uov_hf.geometry.trajectory import Trajectory
from uov_hf.own_car.calibration import MAX_SIDE, Optics, make_optics


logger = logging.getLogger(__name__)

LENS_MODELS = {
    "plumb_bob": "opencv",
    "rational_polynomial": "opencv",
    "equidistant": "opencv_fisheye",
    "fisheye": "opencv_fisheye",
}


@dataclass(frozen=True)
class OdometryTopic:
    """The poses of an odometry topic, by time in microseconds, and the frame that they are the poses of."""

    body: str
    poses: dict[int, NDArray[np.float64]]

    def trajectory(self, source: str) -> Trajectory:
        return make_trajectory(source, self.poses)


@dataclass(frozen=True)
class BagContent:
    """One pass over a bag. Scans and images stay in it."""

    clouds: dict[str, list[Moment]]  # by topic, in the order of time
    images: dict[str, list[Moment]]  # colour images only
    other_images: list[str]  # topics of depth images and of encodings that are not read
    infos: dict[str, CameraInfo]  # the first of each topic
    odometry: dict[str, OdometryTopic]
    transforms: Transforms


def read_content(bag: Bag) -> BagContent:
    """Read every message of the types that count; scans and images only for their times.

    Raises:
        ValueError: The bag is broken.
    """
    clouds, images = bag.of_type(POINT_CLOUD), bag.of_type(IMAGE, COMPRESSED_IMAGE)
    infos, odometry, transforms = bag.of_type(CAMERA_INFO), bag.of_type(ODOMETRY), bag.of_type(*TRANSFORMS)
    moments: dict[str, list[Moment]] = defaultdict(list)
    first_infos: dict[str, CameraInfo] = {}
    trees: list[TFMessage] = []
    poses: dict[str, list[Odometry]] = defaultdict(list)
    others: set[str] = set()
    for moment, message in bag.messages([*clouds, *images, *infos, *odometry, *transforms]):
        topic = moment.topic
        if topic in clouds or topic in images:
            moments[topic].append(moment)
            if topic in images and not is_colour_image(message):
                others.add(topic)
        elif topic in infos:
            first_infos.setdefault(topic, message)
        elif topic in odometry:
            poses[topic].append(message)
        else:
            trees.append(message)
    for of_topic in moments.values():
        of_topic.sort(key=lambda moment: moment.time)  # recorded in another order by a slow network
    return BagContent(
        # The metadata of a bag may count messages that it does not have.
        clouds={topic: moments[topic] for topic in clouds if moments[topic]},
        images={topic: moments[topic] for topic in images if moments[topic] and topic not in others},
        other_images=sorted(others),
        infos=first_infos,
        odometry={topic: found for topic in poses if (found := _odometry(f"{bag.path}, {topic}", poses[topic]))},
        transforms=Transforms(trees, str(bag.path)),
    )


def _odometry(source: str, messages: list[Odometry]) -> OdometryTopic | None:
    """The poses of a topic; None if no message has one."""
    stamped = {microseconds(message): pose_of(message.pose.pose) for message in messages}
    poses = {time: pose for time, pose in stamped.items() if pose is not None}
    if len(poses) < len(stamped):
        logger.warning("%s: %d poses are left out: %s.", source, len(stamped) - len(poses), NO_ROTATION)
    return OdometryTopic(messages[0].child_frame_id.lstrip("/"), poses) if poses else None


def base_of(image_topic: str) -> str:
    """The topic of an image without its transport."""
    return image_topic.removesuffix("/compressed")


def info_topic_of(image_topic: str, content: BagContent) -> str | None:
    """The topic with the calibration of a camera: beside its images, or the only one of the same frame; else None."""
    beside = base_of(image_topic).rsplit("/", 1)[0] + "/camera_info"
    if beside in content.infos:
        return beside
    frame = content.images[image_topic][0].frame
    same = [topic for topic, info in content.infos.items() if info.header.frame_id.lstrip("/") == frame]
    return same[0] if len(same) == 1 else None


def is_rectified(image_topic: str) -> bool:
    """Whether images are without distortion already, by the names of image_proc (`image_rect`, `image_rect_color`)."""
    return "rect" in base_of(image_topic).rsplit("/", 1)[-1]


def optics_of(info: CameraInfo, rectified: bool, source: str) -> Optics:
    """The optics that a `CameraInfo` describes.

    Args:
        info (`CameraInfo`): The message.
        rectified (`bool`): Whether the images are without distortion already.
        source (`str`): The bag and topic, for messages.

    Raises:
        ValueError: The matrix is empty, as of a camera without calibration, or the lens model is another one.
        ImportError: The lens has distortion, and OpenCV is not installed.
    """
    size = index(info.height), index(info.width)  # a bag may define them as texts
    intrinsics = matrix_of(info, "p").reshape(3, 4)[:, :3] if rectified else matrix_of(info, "k").reshape(3, 3)
    if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0 and 0 < min(size) and max(size) <= MAX_SIDE):
        raise ValueError(
            f"{source}: expected the calibration of a camera, got a focal length of {intrinsics[0, 0]:g} and "
            f"{size[0]} x {size[1]} pixels, as of a driver without calibration. Give "
            "`intrinsics` and `image_size` in rosbag.yaml."
        )
    coefficients = np.zeros(0) if rectified else matrix_of(info, "d")
    if not coefficients.any():
        return Optics(intrinsics, size, None)
    if info.distortion_model not in LENS_MODELS:
        raise ValueError(
            f"{source}: expected one of the lens models {', '.join(LENS_MODELS)}, got {info.distortion_model!r}."
        )
    try:
        return make_optics(LENS_MODELS[info.distortion_model], coefficients, intrinsics, size)
    except (ValueError, ImportError) as error:
        raise type(error)(f"{source}: {error}") from error
