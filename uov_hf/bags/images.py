"""Images of ROS as encoded images, without lens distortion."""

import io
from operator import index
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uov_hf.bags.messages import CompressedImage, RawImage
from uov_hf.image_files import EncodedImage, decode_image, encode_pixels
from uov_hf.own_car.calibration import MountedCamera


# Channels of an encoding, and which of them are red, green and blue.
ENCODINGS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
    "8UC3": (3, (2, 1, 0)),  # OpenCV's order
}


def is_colour_image(message: RawImage | CompressedImage) -> bool:
    """Whether `encoded_image_of` can read a message; depth images are no pictures."""
    if isinstance(message, RawImage):
        return message.encoding in ENCODINGS
    return "compressedDepth" not in message.format


def pixels_of(message: RawImage, source: str) -> NDArray[np.uint8]:
    """The colours of a raw image, `(height, width, 3)`.

    Raises:
        ValueError: The encoding is another one, or the data is shorter than the message declares.
    """
    if message.encoding not in ENCODINGS:
        raise ValueError(
            f"{source}: expected an image in one of {', '.join(ENCODINGS)}, got {message.encoding!r}. Bayer images "
            "become colours by image_proc's debayer node; record its topic."
        )
    num_channels, colours = ENCODINGS[message.encoding]
    height, width, step = index(message.height), index(message.width), index(message.step)  # a bag may define texts
    rows = np.ascontiguousarray(message.data[: height * step])
    if len(rows) < height * step or step < width * num_channels:
        raise ValueError(
            f"{source}: expected {height} rows of {width} pixels in {step} bytes, got {len(message.data)} bytes "
            "in all."
        )
    image = rows.reshape(height, step)[:, : width * num_channels]
    return np.ascontiguousarray(image.reshape(height, width, num_channels)[..., list(colours)])


def encoded_image_of(message: RawImage | CompressedImage, mount: MountedCamera, source: str) -> EncodedImage:
    """A message as an image of the pinhole camera of its mount.

    A compressed image without lens distortion keeps its bytes. A raw one becomes a PNG.

    Args:
        message (`RawImage` or `CompressedImage`): The message.
        mount (`MountedCamera`): Its camera.
        source (`str`): The name of the image, for messages and for the files of Parquet.

    Raises:
        ValueError: The image is broken, or has another size than its calibration.
    """
    expected = mount.camera.image_size
    size: tuple[int, ...] | None
    if isinstance(message, RawImage):
        name, kind = f"{source}.png", "PNG"
        pixels = pixels_of(message, source)
        content, size = None, pixels.shape[:2]
    else:
        content = message.data.tobytes()
        kind = "PNG" if content.startswith(b"\x89PNG") else "JPEG"
        name = f"{source}.{'png' if kind == 'PNG' else 'jpg'}"
        size = _stored_size(content)
        # A turned image has the sides of the calibration; one of another size may have gigabytes of pixels.
        if size is None or sorted(size) == sorted(expected):
            pixels = np.asarray(decode_image({"bytes": content, "path": name}))
            size = pixels.shape[:2]
    if size != expected:
        raise ValueError(
            f"{name}: calibrated for (height, width) {expected}, the image has {size}. "
            "If the driver bins or crops the image, give its `image_size` and `intrinsics` in rosbag.yaml."
        )
    if mount.lens is not None:
        pixels, content = mount.lens.straighten(pixels), None
    return {"bytes": encode_pixels(pixels, kind) if content is None else content, "path": str(PurePath(name))}


def _stored_size(content: bytes) -> tuple[int, int] | None:
    """Height and width in the header of an image file; None if it has none, which `decode_image` names."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.height, picture.width
    except Exception:  # of each kind of image file, another
        return None
