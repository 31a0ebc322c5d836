"""The cost of a run over frames, in time and in space, estimated from its first frames."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path


NUM_MEASURED = 3  # frames; the first includes the warm-up and is left out of the time per frame


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a run.

    Args:
        num_frames (`int`): Frames it will write, over all processes.
        num_processes (`int`): How many share them.
        seconds (`float`): Time from start to end.
        num_bytes (`int`): Space on disk.
    """

    num_frames: int
    num_processes: int
    seconds: float
    num_bytes: int

    def __str__(self) -> str:
        workers = f"{self.num_processes} process{'es' if self.num_processes > 1 else ''}"
        size, time = format_size(self.num_bytes), format_duration(self.seconds)
        return f"{self.num_frames:,} frames: about {time} on {workers}, {size}"


class Forecast:
    """Measures the first frames of a run and estimates once what the whole run costs.

    Args:
        folder (`Path`): The folder that the run writes to.
        num_frames (`int`): Frames that all processes together will write.
        own_share (`int`): Those that this process will write.
        num_processes (`int`): The processes that share the work.
    """

    def __init__(self, folder: Path, num_frames: int, own_share: int, num_processes: int):
        self.folder = folder
        self.num_frames = num_frames
        self.own_share = own_share
        self.num_processes = num_processes
        self._moments: list[float] = [time.perf_counter()]

    def frame_written(self, num_bytes: int) -> Estimate | None:
        """
        Count a frame; `num_bytes` is what this process has written so far.

        Returns:
            The estimate after the last measured frame, if more frames follow; else None.

        Raises:
            OSError: the disk has no room for the rest of the run.
        """
        if len(self._moments) > NUM_MEASURED:
            return None
        self._moments.append(time.perf_counter())
        if len(self._moments) <= NUM_MEASURED or self.own_share <= NUM_MEASURED:
            return None
        seconds_per_frame = (self._moments[-1] - self._moments[1]) / (NUM_MEASURED - 1)
        estimate = Estimate(
            num_frames=self.num_frames,
            num_processes=self.num_processes,
            seconds=self._moments[1] - self._moments[0] + seconds_per_frame * (self.own_share - 1),
            num_bytes=round(num_bytes / NUM_MEASURED * self.num_frames),
        )
        check_space(self.folder, estimate.num_bytes - num_bytes, estimate)
        return estimate


def check_space(folder: Path, num_bytes: int, purpose: object) -> None:
    """
    Check that the disk of `folder` has `num_bytes` free, for a `purpose` that the message names.

    Raises:
        OSError: it has less.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise OSError(
            f"{folder} has {format_size(free)} free, and {format_size(num_bytes)} more are needed ({purpose}). "
            "Free some space, or write to another disk. Finished files are kept."
        )


def format_size(num_bytes: float) -> str:
    """`9.1 GB`, in powers of ten"""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.{0 if unit == 'B' else 1}f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def format_duration(seconds: float) -> str:
    """`3 h 20 min`, `12 min` or `35 s`"""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
