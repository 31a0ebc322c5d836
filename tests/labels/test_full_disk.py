"""A label set on a full disk: the file is named, no row is half-written, and the next run continues."""

import pytest
from full_disk import room_for

from uov_hf.labels import LabelSet, PointLabels, label_points


@pytest.mark.parametrize("num_bytes", [0, 100, 2_000])  # of a row: about 5,000
@pytest.mark.parametrize("kind", ["images", "points"])
def test_a_run_on_a_full_disk_names_the_file_and_the_next_run_continues(
    make_label_set, frames, teacher, vocabulary, tmp_path, kind, num_bytes
):
    whole, label_set = make_label_set(frames, teacher, "whole"), make_label_set(frames[:1], teacher)

    def write(label_set: LabelSet) -> None:
        if kind == "images":
            label_set.write(frames, teacher)
        else:
            label_points(label_set, frames[:1])

    message = rf"{label_set.folder}/.*could not be written: .*run the same command again"
    with room_for(num_bytes), pytest.raises(OSError, match=message):
        write(label_set)
    assert not list(label_set.folder.rglob("*.tmp"))
    write(label_set)
    write(whole)
    ours, theirs = ((LabelSet if kind == "images" else PointLabels)(one.folder) for one in (label_set, whole))
    assert ours.frame_ids == frames.frame_ids[: len(frames) if kind == "images" else 1]
    for frame_id in ours.frame_ids:
        assert repr(ours.read(frame_id)) == repr(theirs.read(frame_id))
