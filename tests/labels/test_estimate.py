"""What a run will cost is said from its first frames, and a disk that is too small is refused before the rest."""

import logging
import shutil

import numpy as np
import pyarrow as pa
import pytest

from uov_hf.labels import LabelSet
from uov_hf.labels import estimate as module
from uov_hf.labels.estimate import Estimate, Forecast, check_space, format_duration, format_size
from uov_hf.labels.shards import write_shards


@pytest.fixture
def clock(monkeypatch):
    """A clock that one turns by hand."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_the_estimate_comes_once_and_leaves_the_warm_up_out_of_the_rate(clock, tmp_path):
    """The first frame takes 60 s, the others 2 s: 1000 of 4000 frames take 60 + 999 · 2 s."""
    forecast, said = Forecast(tmp_path, num_frames=4000, own_share=1000, num_processes=4), []
    for number, seconds in enumerate([60, 2, 2, 2, 2], start=1):
        clock.now += seconds
        said.append(forecast.frame_written(num_bytes=1000 * number))
    assert said[:2] == [None, None] and said[3:] == [None, None]
    assert said[2] == Estimate(num_frames=4000, num_processes=4, seconds=60 + 999 * 2, num_bytes=4_000_000)
    assert str(said[2]) == "4,000 frames: about 34 min on 4 processes, 4.0 MB"


def test_a_run_of_three_frames_needs_no_estimate(clock, tmp_path):
    forecast = Forecast(tmp_path, num_frames=3, own_share=3, num_processes=1)
    assert [forecast.frame_written(1) for _ in range(3)] == [None] * 3


def test_a_disk_that_is_too_small_is_refused_with_the_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**10, 0, 3 * 10**9))
    check_space(tmp_path, 3 * 10**9, "")
    forecast = Forecast(tmp_path, num_frames=1000, own_share=1000, num_processes=1)
    forecast.frame_written(4 * 10**6)
    forecast.frame_written(8 * 10**6)
    with pytest.raises(OSError, match=r"has 3.0 GB free, and 4.0 GB more are needed \(1,000 frames.*kept"):
        forecast.frame_written(12 * 10**6)


def test_a_run_that_will_not_fit_stops_after_the_first_frames(label_set, frames, teacher, monkeypatch):
    monkeypatch.setattr(module, "NUM_MEASURED", 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**10, 10**10, 100))
    with pytest.raises(OSError, match=r"images has 100 B free, and .* more are needed \(3 frames: about"):
        label_set.write(frames, teacher)
    assert list((label_set.folder / "images").iterdir()) == []


@pytest.fixture
def label_set(tmp_path, teacher, vocabulary):
    return LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={})


def test_a_run_says_what_it_will_cost_and_counts_what_is_there(frames, tmp_path, caplog, monkeypatch):
    """Two frames of sequence `one` are missing, that of `t/wo` is there; the estimate comes after the first."""
    monkeypatch.setattr(module, "NUM_MEASURED", 2)
    schema = pa.schema({"frame_id": pa.string(), "data": pa.list_(pa.float32())})
    frames = frames.select([0, 1, 0, 1, 2])
    row = {"data": np.zeros(250_000, np.float32)}

    def run(part):
        return write_shards(
            tmp_path,
            schema,
            part,
            lambda sequence: [row | {"frame_id": frame_id} for frame_id in sequence.frame_ids],
            show_progress=True,
        )

    assert run(frames.select([4])).num_frames == 1
    with caplog.at_level(logging.INFO, logger="uov_hf"):
        report = run(frames)
    assert (report.num_frames, report.num_done_before) == (4, 1)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("4 frames: about 1 s on 1 process, ")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (35.2, "35 s"), (130, "2 min"), (3599, "1 h 0 min"), (12_010, "3 h 20 min")]
)
def test_durations_are_for_people(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(12, "12 B"), (9100, "9.1 kB"), (999_900, "1.0 MB"), (9.1e9, "9.1 GB"), (2e12, "2.0 TB")]
)
def test_sizes_are_for_people(num_bytes, text):
    assert format_size(num_bytes) == text
