"""Rows of labels with other columns or values than those of labels are refused by the name of the file."""

import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uov_hf.evaluation.label_statistics import gather_statistics
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.labels.segments import encode_segmentation


SHAPE = (21, 41)
NAN = float("nan")


def change(folder, pattern, column, value, kind=None):
    """Write the files of labels with another value in a column of each row, or without it where `kind` is "absent"."""
    for path in folder.glob(pattern):
        table = pq.read_table(path).replace_schema_metadata(None)
        place = table.schema.get_field_index(column)
        table = table.remove_column(place)
        if kind != "absent":
            table = table.append_column(column, pa.array([value] * len(table), kind))
        path.unlink()  # a new file: the pages of the last one may still be mapped
        pq.write_table(table, path, row_group_size=1)


def png_of(*ids):
    return encode_segmentation(np.resize(np.array(ids), SHAPE))


WHOLE = png_of(1)
INTS, FLOATS = pa.list_(pa.int32()), pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("column", "value", "kind", "message"),
    [
        ("segment_labels", [-1, 0, 0, 0, 0, 0], INTS, "'segment_labels' from 0 to .*, got -1"),
        ("segment_labels", [0, 0, 0, 0, 0, 10**6], INTS, "'segment_labels' from 0 to"),
        ("segment_labels", [0], INTS, "expected as many rows"),
        ("segment_labels", [0.5, 0.5, 0.5], FLOATS, "expected integers of shape .any.* as 'segment_labels'"),
        ("segment_labels", ["a", "b", "c"], None, "expected integers"),
        ("segment_labels", None, INTS, "expected integers .*, got None"),
        ("segment_labels", None, "absent", "expected a column segment_labels"),
        ("segment_scores", [NAN] * 6, FLOATS, "'segment_scores' from .*, got nan"),
        ("segment_scores", [1e30] * 6, FLOATS, "'segment_scores' from"),
        ("segment_scores", [-1.0] * 6, FLOATS, "'segment_scores' from"),
        ("segment_scores", [0.5], FLOATS, "expected as many rows"),
        ("segment_embeds", [[0.5]] * 3, pa.list_(pa.list_(pa.float32(), 1)), "expected numbers of shape .any, 4."),
        ("segment_embeds", [[NAN] * 4] * 6, pa.list_(pa.list_(pa.float32(), 4)), "expected finite numbers as"),
        ("segment_camera", [-1, 0, 0], INTS, "'segment_camera' from 0"),
        ("segmentation", None, pa.list_(pa.binary()), "expected a list of 2 PNGs as 'segmentation', got NoneType"),
        ("segmentation", ["x", "y"], None, "expected a list of 2 PNGs as 'segmentation', got 2 values"),
        ("segmentation", [WHOLE], None, "expected a list of 2 PNGs as 'segmentation', got 1 values"),
        ("augmented_segmentation", None, pa.list_(pa.binary()), "expected a list of 2 PNGs as 'augmented_seg"),
        ("augmented_segmentation", [WHOLE], None, "expected a list of 2 PNGs as 'augmented_segmentation', got 1"),
        ("camera_names", None, pa.list_(pa.string()), "expected a list of text as 'camera_names', got None"),
        ("fingerprint", 1, None, "expected text as 'fingerprint', got 1"),
        ("fingerprint", None, "absent", "expected a column fingerprint"),
        ("calibration", None, FLOATS, "expected numbers of shape .any.* as 'calibration', got None"),
        ("calibration", "a", None, "expected numbers of shape .any.* as 'calibration', got 'a'"),
    ],
)
def test_a_column_of_a_label_set_with_other_values_is_named(
    make_label_set, frames, teacher, column, value, kind, message
):
    folder = make_label_set(frames, teacher, augmentations=["flip"]).folder
    change(folder, "images/*.parquet", column, value, kind)
    label_set = LabelSet(folder)
    with pytest.raises(ValueError, match=rf"labels/images/.*\.parquet: .*{message}"):
        label_set.read("1/0")
    if column not in ("segment_camera", "segment_embeds"):
        with pytest.raises(ValueError, match=rf"labels/images/.*\.parquet: .*{message}"):
            label_points(label_set, frames, "consolidated")


def large_png():
    """A whole PNG of 81 megapixels in a few kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = zlib.compressobj(1)
    content = b"".join(row.compress(bytes(9001)) for _ in range(9000)) + row.flush()
    head = struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("png", "message"),
    [
        (b"x", "expected the segment ids of an image as PNG, got: cannot identify"),
        (WHOLE[:-30], "expected the segment ids of an image as PNG, got: "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 41 21\n", "expected the segment ids .*, got: cannot identify"),
        (
            encode_segmentation(np.ones((3, 4), int)),
            r"expected .*, got: \(3, 4\) pixels .*, while the image has \(21, 41\)",
        ),
        (png_of(1, 200), "expected ids up to [36], the number of segments, got 200"),
    ],
    ids=["no image", "cut", "program", "size", "ids"],
)
@pytest.mark.parametrize("column", ["segmentation", "augmented_segmentation"])
def test_a_png_that_is_none_of_its_image_is_named(make_label_set, frames, teacher, png, message, column):
    folder = make_label_set(frames, teacher, augmentations=["flip"]).folder
    change(folder, "images/*.parquet", column, [WHOLE, png])
    with pytest.raises(ValueError, match=f"Frame 1/0, camera CAM_B: {message}"):
        label_points(LabelSet(folder), frames, "consolidated")


def test_the_pixels_of_a_png_of_another_size_are_not_decoded(make_label_set, frames, teacher, monkeypatch):
    folder = make_label_set(frames, teacher).folder
    change(folder, "images/*.parquet", "segmentation", [large_png()] * 2)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda picture: pytest.fail("its pixels were decoded"))
    with pytest.raises(ValueError, match=r"Frame 1/0, camera CAM_A: .* \(9000, 9000\) pixels"):
        label_points(LabelSet(folder), frames)


PAIRS = pa.list_(pa.list_(pa.int16(), 2))


@pytest.mark.parametrize(
    ("column", "value", "kind", "message"),
    [
        ("pair_to_point", [4, 0, 0, 0, 0, 0], INTS, "expected one of 4 points in 'pair_to_point', got 4"),
        ("pair_to_point", [-1, 0, 0, 0, 0, 0], INTS, "'pair_to_point' from 0"),
        ("pair_to_point", [0], INTS, "expected as many rows"),
        ("pair_to_point", None, "absent", "expected a column pair_to_point"),
        ("pair_segment", [-1, 0, 0, 0, 0, 0], INTS, "'pair_segment' from 0"),
        ("pair_camera", [-1, 0, 0, 0, 0, 0], INTS, "'pair_camera' from 0"),
        ("pair_pixel", [[-1, 0]] * 6, PAIRS, "'pair_pixel' from 0"),
        ("pair_pixel", [0] * 6, INTS, "expected integers of shape .any, 2."),
        ("labels", None, INTS, "expected integers of shape .any.* as 'labels', got None"),
        ("labels", [16] * 4, INTS, "expected one of 16 classes or 255 in 'labels'"),
        ("labels", [-1] * 4, INTS, "'labels' from 0"),
        ("confidence", [NAN] * 4, FLOATS, "'confidence' from"),
        ("soft_scores", None, None, "as 'soft_scores', got None"),
        ("fingerprint", None, "absent", "expected a column fingerprint"),
    ],
)
def test_a_column_of_point_labels_with_other_values_is_named(
    make_label_set, frames, teacher, column, value, kind, message
):
    label_set = make_label_set(frames, teacher)
    label_points(label_set, frames, "consolidated")
    change(label_set.folder, "points/consolidated/*.parquet", column, value, kind)
    point_labels = PointLabels(label_set.folder, "consolidated")
    with pytest.raises(ValueError, match=rf"points/consolidated/.*\.parquet: .*{message}"):
        point_labels.read("1/0")
    if column in ("labels", "fingerprint"):
        with pytest.raises(ValueError, match=rf"points/consolidated/.*\.parquet: .*{message}"):
            label_points(label_set, frames, "consolidated")
    if column in ("labels", "confidence"):
        with pytest.raises(ValueError, match=rf"points/consolidated/.*\.parquet: .*{message}"):
            gather_statistics(frames, label_set, point_labels)
