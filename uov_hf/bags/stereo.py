"""From the coordinate frame of a camera's images to the camera: rectification, and stereo pairs with one frame.

ROS has two conventions for the second camera of a stereo pair. `image_geometry` requires that both cameras have the
frame of the first, because `P` projects points in that frame. Other drivers publish a frame for each camera, and fill
in `P` all the same. The transform between both frames has the offset of `P` then.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from uov_hf.bags.content import BagContent
from uov_hf.bags.messages import CameraInfo, frame_of, matrix_of
from uov_hf.bags.reading import Moment
from uov_hf.bags.settings import SETTINGS_NAME
from uov_hf.geometry.rotation import inverse_motion, rigid_motion


logger = logging.getLogger(__name__)

SHORTEST_BASELINE = 1e-3  # metres: less is rounding


def frame_to_camera(
    source: str, info: CameraInfo, image: Moment, content: BagContent, rectified: bool
) -> NDArray[np.float64]:
    """The motion (4, 4) from the coordinate frame of a camera's images to the camera.

    Args:
        source (`str`): The bag and camera, for messages.
        info (`CameraInfo`): Of the camera.
        image (`Moment`): One of its images.
        content (`BagContent`): Of the bag. It has the first camera of a stereo pair.
        rectified (`bool`): Whether the images are rectified. A rectified camera is turned, and not moved.
    """
    turn = rigid_motion(_rectification(info), np.zeros(3))
    first = _first_with_this_frame(source, info, image, content)
    if first is None:
        return turn if rectified else np.eye(4)
    to_rectified = rigid_motion(_rectification(first), _offset(info))
    return to_rectified if rectified else inverse_motion(turn) @ to_rectified


def _first_with_this_frame(source: str, info: CameraInfo, image: Moment, content: BagContent) -> CameraInfo | None:
    """The first camera of a stereo pair, if the images of the second have its frame; None if they have their own."""
    baseline = float(np.linalg.norm(_offset(info)))
    if baseline < SHORTEST_BASELINE:
        return None
    firsts = [other for other in content.infos.values() if _is_first(other, info)]
    distances = [_distance(image, first, content) for first in firsts]
    nearest = min(distances, default=np.inf)
    if nearest < baseline / 2:
        return firsts[distances.index(nearest)]
    if nearest > 1.5 * baseline:  # neither at the first camera nor at the second
        logger.warning(
            "%s: its `P` is that of the second camera of a stereo pair, %.3f m from the first. The CameraInfo or the "
            "place of the first is not in the bag. The frame %r is taken as that of the second camera. If it is that "
            "of the first, give `lidar2cam` in %s.",
            *(source, baseline, image.frame, SETTINGS_NAME),
        )
    return None


def _is_first(other: CameraInfo, second: CameraInfo) -> bool:
    """Whether a camera has no offset, and the focal lengths of the second one: those of a rectified pair are equal."""
    focal_lengths = matrix_of(second, "p")[[0, 5]]
    return not _offset(other).any() and np.allclose(matrix_of(other, "p")[[0, 5]], focal_lengths, rtol=1e-3)


def _distance(image: Moment, info: CameraInfo, content: BagContent) -> float:
    """Metres from the frame of an image to that of a camera; infinite if tf does not join both."""
    try:
        return float(np.linalg.norm(content.transforms.motion(image.frame, frame_of(info), image.time)[:3, 3]))
    except ValueError:
        return np.inf


def _offset(info: CameraInfo) -> NDArray[np.float64]:
    """The position (3,) of the first camera of a stereo pair in the rectified second one, metres; 0 for others."""
    projection = matrix_of(info, "p").reshape(3, 4)
    if not projection[:, :3].diagonal().all():  # of a driver that fills in `K` and `D` only
        return np.zeros(3)
    offset: NDArray[np.float64] = np.linalg.inv(projection[:, :3]) @ projection[:, 3]
    return offset


def _rectification(info: CameraInfo) -> NDArray[np.float64]:
    """The rotation (3, 3) from a camera to its rectified images."""
    rotation = matrix_of(info, "r").reshape(3, 3)
    return rotation if rotation.any() else np.eye(3)
