"""What a run over frames wrote and skipped, and when broken frames stop it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from uov_hf.data.frames import BROKEN, MAX_BROKEN_IN_A_ROW


OnError = Literal["raise", "skip"]
Row = TypeVar("Row")


@dataclass
class WriteReport:
    """What a run wrote.

    Args:
        num_frames (`int`): Frames written by this run.
        num_bytes (`int`): Bytes of the rows written.
        seconds (`float`): Time it took.
        num_done_before (`int`): Frames that an earlier run had written.
        skipped (`dict[str, str]`): Frame id -> error, under `on_error="skip"`; those of earlier runs included.
    """

    num_frames: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    num_done_before: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: "WriteReport") -> "WriteReport":
        """The sum of two processes that ran side by side."""
        return WriteReport(
            num_frames=self.num_frames + other.num_frames,
            num_bytes=self.num_bytes + other.num_bytes,
            seconds=max(self.seconds, other.seconds),
            num_done_before=self.num_done_before + other.num_done_before,
            skipped=self.skipped | other.skipped,
        )

    def __str__(self) -> str:
        first = f"{self.num_frames} frames in {self.seconds:.1f} s, {self.num_bytes / 1e6:.1f} MB"
        if self.num_done_before:
            first += f"; {self.num_done_before} were there already"
        if self.skipped:
            first += f"; {len(self.skipped)} broken and skipped:"
        return "\n".join([first, *(f"  {frame_id}: {error}" for frame_id, error in self.skipped.items())])


class TooManyBrokenFrames(RuntimeError):
    """So many frames in a row are broken that the fault is not theirs."""


@dataclass
class Attempts:
    """
    Makes the rows of frames, and decides what a broken frame does to the run.

    A broken frame raises one of `BROKEN` (data/frames.py). Any other exception is a fault of the program, or of the
    machine as lack of memory, and always stops the run.

    Args:
        on_error (`str`): `"skip"` leaves a broken frame out, `"raise"` stops the run.
        streak (`list[str]`): The frames that were broken one after another, up to now.
    """

    on_error: OnError
    streak: list[str] = field(default_factory=list)

    def make(self, frame_id: str, make_row: Callable[[], Row]) -> Row | str:
        """
        The row of a frame, or its error as a text if the frame is to be skipped.

        Raises:
            ValueError, OSError, KeyError: the frame is broken, and `on_error` is `"raise"`.
            TooManyBrokenFrames: `MAX_BROKEN_IN_A_ROW` frames in a row were broken.
        """
        try:
            row = make_row()
        except BROKEN as error:
            if self.on_error == "raise":
                raise
            self.streak.append(frame_id)
            if len(self.streak) == MAX_BROKEN_IN_A_ROW:
                raise TooManyBrokenFrames(
                    f"{MAX_BROKEN_IN_A_ROW} frames in a row are broken, from {self.streak[0]} to {frame_id}: is the "
                    f"disk gone, or is this the folder of another dataset? The last error: {describe(error)}"
                ) from error
            return describe(error)
        self.streak.clear()
        return row


def describe(error: Exception) -> str:
    """`ValueError: message`"""
    return f"{type(error).__name__}: {error}"
