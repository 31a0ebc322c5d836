"""Frames are a view: they read what is asked for, when it is asked for."""

import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from uov_hf.data import FRAME_FEATURES, Frames


class CountingSource:
    """Five frames of two sequences that say what was read of them."""

    taxonomy = "nuscenes"
    frame_ids = [f"frame-{index}" for index in range(5)]
    sequence_ids = ["a", "a", "a", "b", "b"]

    def __init__(self):
        self.reads = []

    def read(self, index, columns):
        self.reads.append((index, list(columns)))
        row = {"frame_id": self.frame_ids[index], "points": np.full((index + 1, 4), index, np.float32)}
        return {column: row.get(column) for column in columns}


def test_nothing_is_read_before_a_frame_is_asked_for():
    frames = Frames(CountingSource())
    assert (len(frames), frames.frame_ids[4], frames.sequence_ids) == (5, "frame-4", ["a", "a", "a", "b", "b"])
    assert frames.source.reads == []
    assert frames[3]["points"].shape == (4, 4)
    assert frames.source.reads == [(3, list(FRAME_FEATURES))]
    assert list(frames.select_columns(["points"])[1]) == ["points"]
    assert frames.source.reads[1:] == [(1, ["points"])]


def test_selections_follow_one_another():
    frames = Frames(CountingSource()).select([4, 2, 0]).select([2, 0]).select_columns(["frame_id"])
    assert [frame["frame_id"] for frame in frames] == frames.frame_ids == ["frame-0", "frame-4"]
    assert frames[1:].frame_ids == ["frame-4"] and len(frames.select([])) == len(frames[:0]) == 0


def test_an_unknown_column_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no column pixels.*points"):
        Frames(CountingSource()).select_columns(["points", "pixels"])


def test_the_taxonomy_names_the_classes():
    frames = Frames(CountingSource())
    assert frames.taxonomy == "nuscenes" and frames.class_names[3] == "car"


def test_frames_go_to_worker_processes():
    assert pickle.loads(pickle.dumps(Frames(CountingSource())))[2]["points"].shape == (3, 4)


def test_a_stream_has_a_shard_for_each_sequence_and_the_same_rows():
    frames = Frames(CountingSource()).select_columns(["frame_id", "points"])
    stream = frames.stream()
    assert stream.num_shards == 2
    for streamed, frame in zip(stream, frames, strict=True):
        assert streamed["frame_id"] == frame["frame_id"]
        np.testing.assert_array_equal(streamed["points"], frame["points"])
        assert streamed["points"].dtype == np.float32
    assert [frame["frame_id"] for frame in stream.shard(num_shards=2, index=1)] == ["frame-3", "frame-4"]


class StaysHere(CountingSource):
    """A source as large as tables are: whoever pickles or hashes it is told."""

    def __reduce_ex__(self, protocol):
        raise AssertionError("the source was pickled")


def test_a_stream_does_not_pickle_its_source_also_with_workers():
    stream = Frames(StaysHere()).select_columns(["frame_id", "points"]).stream()
    assert [row["frame_id"] for row in stream.shuffle(seed=0, buffer_size=1)] != []
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(row["frame_id"] for row in loader) == CountingSource.frame_ids
