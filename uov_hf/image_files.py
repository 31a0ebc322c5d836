"""Camera images and photos from files: upright, RGB with 8 bits, or an error that names the file.

All readers of images decode here, so that a teacher, a lens, a calibration and a picture have the same pixels.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError


SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations of an image that lies on its side
# Pillow reads more: for an EPS it runs Ghostscript, and a FITS it unpacks without limit, whatever the file's name.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")
MAX_BMP_WIDTH = 65535  # of a compressed one: 4 bytes of the file can skip 255 rows, for which Pillow makes pixels
BITS_PER_SAMPLE = 258  # a tag of TIFF


class EncodedImage(TypedDict):
    """An encoded image: its path, or its content where it is stored inside another file."""

    path: str | None
    bytes: bytes | None


def read_image(image: EncodedImage) -> bytes:
    """The encoded content of an image."""
    if image["bytes"] is not None:
        return image["bytes"]
    if image["path"] is None:
        raise ValueError("Expected an image with `bytes` or with a `path`, got neither.")
    return Path(image["path"]).read_bytes()


def decode_image(image: EncodedImage) -> Image.Image:
    """The RGB picture of an encoded image, upright; see `upright_rgb`.

    Raises:
        ValueError: the file is missing, broken, too large or no image; it names the file.
    """
    with _named(image["path"]), _opened(io.BytesIO(read_image(image))) as picture:
        return upright_rgb(picture)


def encode_pixels(pixels: NDArray[np.uint8], kind: str) -> bytes:
    """An encoded RGB image `(height, width, 3)`: `"PNG"`, which keeps the pixels, or `"JPEG"` of quality 95."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=95, compress_level=1)  # each kind ignores the other's option
    return buffer.getvalue()


def read_whole_image(image: EncodedImage) -> tuple[bytes, tuple[int, int]]:
    """The content of an image that `decode_image` can decode, and its upright height and width.

    Raises:
        ValueError: as `decode_image`.
    """
    with _named(image["path"]), _opened(io.BytesIO(content := read_image(image))) as picture:
        size = _upright_size(picture)
        picture.draft("RGB", (1, 1))  # a JPEG at an eighth of its size, in half the time
        upright_rgb(picture)  # the pixels too: a truncated file has a whole header
        return content, size


def read_image_size(path: Path) -> tuple[int, int]:
    """Upright height and width, from the header of a file.

    Raises:
        ValueError: the file is missing, too large or no image; it names the file.
    """
    with open_image(path) as picture:
        return _upright_size(picture)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An opened file, with its pixels as they are stored; for segment ids, which are no colours.

    Raises:
        ValueError: on opening or in the block, the file is missing, broken, too large or no image; it names the file.
    """
    with _named(str(path)), _opened(path) as picture:
        yield picture


def read_pixels(path: Path, size: tuple[int, int]) -> tuple[str, NDArray[Any]]:
    """The mode and the pixels of a file as they are stored; decoded only if they have this height and width.

    Raises:
        ValueError: the file is missing, broken, no image or of another size; it names the file.
    """
    with open_image(path) as picture:
        found = picture.size[::-1]
        if found == size:
            return picture.mode, np.asarray(picture)
    raise ValueError(f"{path} is {found} (height, width), but its image is {size}: they must have one size.")


def upright_rgb(picture: Image.Image) -> Image.Image:
    """A picture as RGB with 8 bits, turned upright by its EXIF orientation, as by `cv2.imread`.

    Full scale becomes 255: it is 65535 of grey with 16 bits (4095 of a TIFF with 12), and 1 of floating-point grey.
    Transparency is dropped.

    Raises:
        ValueError: values are negative, above full scale or not finite.
    """
    bits = getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
    picture = ImageOps.exif_transpose(picture)  # always a copy
    if picture.mode == "RGB":
        return picture
    if picture.mode != "F" and not picture.mode.startswith("I"):
        return picture.convert("RGB")
    # Pillow's own conversion clips at 255: an image of 16 bits would be nearly white.
    full_scale = 1 if picture.mode == "F" else 2 ** min(bits, 16) - 1
    values = np.asarray(picture, np.float64)
    if not (values.min() >= 0 and values.max() <= full_scale):  # NaN fails both
        raise ValueError(f"grey values from {values.min():g} to {values.max():g}, not inside 0 to {full_scale}")
    return Image.fromarray(np.rint(values * (255 / full_scale)).astype(np.uint8)).convert("RGB")


@contextmanager
def _opened(file: Path | io.BytesIO) -> Iterator[Image.Image]:
    try:
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"cannot identify an image of the formats {', '.join(FORMATS)}; convert it to PNG") from error
    with opened as picture:
        if picture.format == "BMP" and picture.info.get("compression") in (1, 2) and picture.width > MAX_BMP_WIDTH:
            raise ValueError(f"a compressed BMP of width {picture.width}, more than {MAX_BMP_WIDTH}")
        limit = Image.MAX_IMAGE_PIXELS  # Pillow warns above it, and raises at twice as many
        if limit is not None and picture.width * picture.height > limit:
            raise ValueError(
                f"{picture.width} x {picture.height} pixels, more than `PIL.Image.MAX_IMAGE_PIXELS` = {limit}"
            )
        yield picture


@contextmanager
def _named(path: str | None) -> Iterator[None]:
    try:
        yield
    except MemoryError:  # of the machine, not of the file
        raise
    except Exception as error:  # each of Pillow's decoders raises errors of its own, most without the file
        name = path or "An image without a path"
        raise ValueError(f"{name}: expected a whole image file, got: {error}") from error


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    # Not `picture.getexif()`: that of a PNG decodes all pixels, in search of metadata behind them.
    orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation)
    # Pillow turns a TIFF itself.
    is_turned = orientation in SWAPS_SIDES and picture.format != "TIFF"
    return picture.size if is_turned else picture.size[::-1]
