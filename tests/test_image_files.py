"""Images of every kind become upright RGB with 8 bits, or an error names the file."""

import io
import struct

import numpy as np
import pytest
from broken_images import png_with_a_hole
from PIL import Image

from uov_hf.image_files import decode_image, read_image_size, read_whole_image


RNG = np.random.default_rng(0)
RAMP = np.tile(np.arange(256), (4, 1))
# How an upright picture lies in the file, for each EXIF orientation.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def decoded(path) -> np.ndarray:
    return np.asarray(decode_image({"bytes": None, "path": str(path)}))


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 255, (6, 8, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_an_image_is_decoded_from_bytes_or_from_its_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    for image in ({"bytes": jpeg(), "path": "a.jpg"}, {"bytes": None, "path": str(tmp_path / "a.jpg")}):
        picture = decode_image(image)
        assert (picture.mode, picture.size) == ("RGB", (8, 6))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_an_image_is_turned_upright_as_opencv_turns_it(tmp_path, orientation, suffix):
    """Blocks of one colour each, which survive a JPEG."""
    upright = np.kron(RNG.integers(0, 255, (2, 3, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    path, exif = tmp_path / f"turned.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    best = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(path, exif=exif, **best)
    np.testing.assert_allclose(decoded(path).astype(int), upright, atol=3 if suffix == "jpg" else 0)
    assert read_image_size(path) == (32, 48)
    assert read_whole_image({"bytes": None, "path": str(path)}) == (path.read_bytes(), (32, 48))
    if suffix in ("jpg", "png"):
        cv2 = pytest.importorskip("cv2")
        np.testing.assert_allclose(decoded(path).astype(int), cv2.imread(str(path))[..., ::-1], atol=3)


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        ((RAMP * 257).astype(np.uint16), "png"),
        ((RAMP * 257).astype(np.uint16), "tiff"),
        ((RAMP * 257).astype(">u2"), "tiff"),
        ((RAMP * 257).astype(np.int32), "tiff"),
        ((RAMP / 255).astype(np.float32), "tiff"),
        (RAMP.astype(np.uint8), "png"),
        (RAMP.astype(np.uint8), "tiff"),
    ],
    ids=["png16", "tiff16", "tiff16 big-endian", "tiff int32", "tiff float", "png8", "tiff8"],
)
def test_full_scale_becomes_255(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"grey.{suffix}")
    np.testing.assert_array_equal(decoded(tmp_path / f"grey.{suffix}"), np.repeat(RAMP[..., None], 3, axis=2))


def test_a_tiff_of_12_bits_has_its_own_full_scale(tmp_path):
    """Two samples in three bytes, which Pillow reads and does not write."""
    values = np.array([0, 4095, 2048, 257])
    packed = bytes(b for one, other in values.reshape(2, 2) for b in ((one << 12 | other).item()).to_bytes(3, "big"))
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in tags)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "grey.tiff").write_bytes(header + packed + directory)
    assert decoded(tmp_path / "grey.tiff")[0, :, 0].tolist() == [0, 255, 128, 16]


@pytest.mark.parametrize("value", [300.0, -0.1, np.nan])
def test_a_float_image_that_is_not_within_0_and_1_is_refused(tmp_path, value):
    Image.fromarray(np.array([[0, value]], np.float32)).save(tmp_path / "depth.tiff")
    with pytest.raises(ValueError, match="depth.tiff: .*grey values from .* not inside 0 to 1"):
        decoded(tmp_path / "depth.tiff")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK"])
def test_other_kinds_of_images_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (4, 3), (255, 255, 255)).convert("L").convert(mode)
    path = tmp_path / ("white.tiff" if mode in ("CMYK", "PA") else "white.png")
    image.save(path)
    assert decoded(path).shape == (3, 4, 3) and (decoded(path) == 255).all()


READERS = [decoded, lambda path: read_whole_image({"bytes": None, "path": str(path)})]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [None, b"", b"no image", jpeg()[:-200], jpeg()[:40], png_with_a_hole()])
def test_a_missing_or_broken_image_is_named(tmp_path, content, read):
    path = tmp_path / "front.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="front.jpg: expected a whole image file"):
        read(path)


@pytest.mark.parametrize("read", [*READERS, read_image_size])
@pytest.mark.parametrize("limit", [40, 20], ids=["Pillow warns", "Pillow raises"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_oversized_image_is_named(tmp_path, monkeypatch, limit, read):
    (tmp_path / "front.jpg").write_bytes(jpeg())  # 48 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match="front.jpg: expected a whole image file, got: .*pixels"):
        read(tmp_path / "front.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tiff", "gif", "ppm", "jp2"])
def test_every_usual_format_is_read_whatever_the_name(tmp_path, suffix):
    Image.new("RGB", (8, 6), (255, 255, 255)).save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.image")
    assert (decoded(tmp_path / "a.image") == 255).all()


def test_an_image_of_another_format_is_refused_with_the_way_out(tmp_path):
    """Pillow unpacks a FITS without limit."""
    Image.new("RGB", (8, 6)).save(tmp_path / "a.tga")
    with pytest.raises(ValueError, match=r"a.tga: expected a whole .* of the formats JPEG, .*; convert it to PNG"):
        decoded(tmp_path / "a.tga")


def compressed_bmp(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    palette = bytes(4) + bytes([255]) * 1020
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


def test_a_compressed_bmp_is_read_unless_it_can_skip_more_pixels_than_memory_has(tmp_path):
    (tmp_path / "a.bmp").write_bytes(compressed_bmp(4, 3, bytes([4, 1, 0, 0] * 3 + [0, 1])))
    assert (decoded(tmp_path / "a.bmp") == 255).all()
    (tmp_path / "a.bmp").write_bytes(compressed_bmp(100_000, 1, bytes([0, 2, 60, 1] * 2)))
    with pytest.raises(ValueError, match="a.bmp: expected a whole image file, got: a compressed BMP of width 100000"):
        decoded(tmp_path / "a.bmp")


def test_no_program_is_run_to_read_an_image(tmp_path, monkeypatch):
    """Pillow runs Ghostscript for an EPS, whatever the name of the file."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **options: pytest.fail("a program is run"))
    with pytest.raises(ValueError, match="a.png: expected a whole image file"):
        decode_image({"path": str(tmp_path / "a.png"), "bytes": None})
