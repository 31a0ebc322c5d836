"""The cost of a run is estimated from its first frames; test_shards.py has the disk that is too small."""

import pytest

from uov_hf.data import estimate as module
from uov_hf.data.estimate import Estimate, Forecast, format_duration, format_size


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
    forecast, estimates = Forecast(tmp_path, num_frames=4000, own_share=1000, num_processes=4), []
    for number, seconds in enumerate([60, 2, 2, 2, 2], start=1):
        clock.now += seconds
        estimates.append(forecast.frame_written(num_bytes=1000 * number))
    assert estimates[:2] == [None, None] and estimates[3:] == [None, None]
    assert estimates[2] == Estimate(num_frames=4000, num_processes=4, seconds=60 + 999 * 2, num_bytes=4_000_000)
    assert str(estimates[2]) == "4,000 frames: about 34 min on 4 processes, 4.0 MB"


def test_a_run_of_three_frames_needs_no_estimate(clock, tmp_path):
    forecast = Forecast(tmp_path, num_frames=3, own_share=3, num_processes=1)
    assert [forecast.frame_written(1) for _ in range(3)] == [None] * 3


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
