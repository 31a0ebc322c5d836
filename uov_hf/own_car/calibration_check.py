"""Checks whether the cameras of a dataset are calibrated: a verdict, the best correction, and a picture of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uov_hf.data.frames import Frames
from uov_hf.geometry.projection import Camera
from uov_hf.geometry.trajectory import velocity_between
from uov_hf.image_files import decode_image
from uov_hf.own_car.correction import Correction, as_correction, best_correction, is_better, score_of
from uov_hf.own_car.outlines import Outlines, View
from uov_hf.pictures.visualization import draw_calibrations


# Smaller errors are not called wrong: a few frames of 32 beams do not determine them.
TOLERANCE = np.array([0.5, 0.5, 1.0, 0.02])  # degrees about x, y, z, and seconds
TOLERATED_PIXELS = 2.0  # a rotation that moves points by so little is not called wrong, either
SURE = 3.0  # standard errors by which a calibration must be off to be called wrong
LEAST_JUMPS = 100
LEAST_SPEED = 1.0  # m/s
NAMES = ("pitch", "yaw", "roll", "time")  # about the camera's x, y and z
COLUMNS = ["points", "camera_names", "images", "lidar2cam", "intrinsics", "image_sizes"]


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """The error of a calibration, as far as the views determine it.

    Standard errors are infinite if the views do not determine an angle, and NaN if they do not determine the time: the
    car stood, its motion is unknown, or the camera looks in the direction of travel.
    """

    correction: Correction  # the best one
    errors: NDArray[np.float64]  # (4,): standard errors of the angles in degrees and of the time offset in seconds
    num_jumps: int  # compared pairs of neighbours across an outline
    parallax: float  # share of the points in view that are hidden from the camera
    score: float  # how much more colours differ across outlines than on surfaces, as calibrated
    best_score: float  # the same with the correction
    is_better: bool  # whether the scores differ by more than three standard errors
    tolerance: NDArray[np.float64]  # (4,): `TOLERANCE`, or larger angles where two pixels are more

    @property
    def wrong(self) -> list[str]:
        """Which of pitch, yaw, roll and time are off by more than `tolerance` and by three standard errors."""
        values = np.append(self.correction.rotation, self.correction.time_offset)
        is_off = np.abs(values) > np.maximum(self.tolerance, SURE * self.errors)  # False where an error is NaN
        return [name for name, off in zip(NAMES, is_off, strict=True) if off and self.is_better]

    @property
    def verdict(self) -> str:
        """`"right"`, `"wrong"`, or `"undecided"` if the views do not determine an error as small as `tolerance`."""
        if self.wrong:
            return "wrong"
        within = np.maximum(np.abs(self.correction.rotation), self.errors[:3]) < self.tolerance[:3]
        return "right" if within.all() else "undecided"

    def __str__(self) -> str:
        if self.num_jumps < LEAST_JUMPS:
            return f"undecided; {self.num_jumps} outlines, at least {LEAST_JUMPS} are needed"
        rows = zip(NAMES, self.correction.rotation, self.errors, strict=False)
        angles = [f"{name} {value:+.2f} ± {error:.2f}°" for name, value, error in rows]
        time = f"time {1000 * self.correction.time_offset:+.0f} ± {1000 * self.errors[3]:.0f} ms"
        best = ", ".join([*angles, "time unknown" if np.isnan(self.errors[3]) else time])
        verdict = f"wrong ({', '.join(self.wrong)})" if self.wrong else self.verdict
        return (
            f"{verdict}; best correction: {best} ({self.num_jumps} outlines, score {self.score:.2f} → "
            f"{self.best_score:.2f}); parallax: {self.parallax:.1%} of the points in view are hidden from the camera"
        )


def check_calibration(views: Sequence[View]) -> CalibrationReport:
    """Compare outlines in the scans with outlines in the images, and find the correction with which they fit best.

    Rotations are searched first, then rotations with a time offset. A more distant optimum replaces a nearer one only
    if its score is better by two standard errors and it lies within the searched range. A parameter is wrong if it is
    off by more than the tolerance and by three standard errors, and the score is better by three. All standard errors
    are jackknife estimates: an eighth of the pairs is left out in turn.

    Args:
        views (sequence of `View`): Of one camera; about ten, from different places. More views give smaller errors.

    Raises:
        ValueError: There are no views.
    """
    if not views:
        raise ValueError("Expected views of a camera, got none: no frame has an image of it.")
    outlines, as_calibrated = Outlines(views), np.zeros(4)
    best, errors, is_known = as_calibrated, np.full(4, np.nan), outlines.is_jump.sum() >= LEAST_JUMPS
    velocity = outlines.velocity  # None where that of a view is unknown
    moves = velocity is not None and bool(np.linalg.norm(velocity[:, :3], axis=1).max() > LEAST_SPEED)
    if is_known:
        best, errors = best_correction(outlines, with_time=moves)
    few_pixels = np.degrees(TOLERATED_PIXELS / views[0].camera.intrinsics[0, 0])
    return CalibrationReport(
        correction=as_correction(best),
        errors=errors,
        num_jumps=int(outlines.is_jump.sum()),
        parallax=outlines.num_hidden / max(outlines.num_in_view, 1),
        score=score_of(outlines, as_calibrated) if is_known else np.nan,
        best_score=score_of(outlines, best) if is_known else np.nan,
        is_better=bool(is_known and is_better(outlines, best, as_calibrated, SURE)),
        tolerance=np.append(TOLERANCE[:3] * max(1.0, few_pixels / TOLERANCE[0]), TOLERANCE[3]),
    )


class CameraCheck(NamedTuple):
    """The calibration check of one camera of a dataset."""

    camera: str
    num_frames: int  # that were compared
    report: CalibrationReport
    picture: Path  # the points over the image of the first frame

    def __str__(self) -> str:
        line = f"{self.camera}, {self.num_frames} frames: {self.report}; picture: {self.picture}"
        return f"{line}\n{_advice(self.report)}" if self.report.verdict == "wrong" else line


def check_cameras(frames: Frames, num_frames: int, folder: Path) -> Iterator[CameraCheck]:
    """Check every camera of a dataset, and save a picture of its first frame as `folder/<camera>.png`.

    Args:
        frames (`Frames`): Frames with images.
        num_frames (`int`): Number of frames to compare, spread evenly over all.
        folder (`Path`): Where the pictures go.

    Raises:
        ValueError: The frames have no images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for camera, views in views_of_cameras(frames, num_frames):
        report = check_calibration(views)
        picture = folder / f"{camera}.png"
        _draw(views[0], report).save(picture)
        yield CameraCheck(camera, len(views), report, picture)


def views_of_cameras(frames: Frames, num_frames: int) -> Iterator[tuple[str, list[View]]]:
    """Every camera with its views in up to `num_frames` frames, spread evenly over all.

    Raises:
        ValueError: The frames have no images.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(num_frames, len(frames))).round().astype(int)).tolist()
    names = [frames.select_columns(["camera_names"])[index]["camera_names"] for index in chosen]
    cameras = list(dict.fromkeys(camera for here in names for camera in here))
    if not cameras:
        raise ValueError("The calibration check needs images: expected frames with cameras, got none.")
    for camera in cameras:
        indices = [index for index, here in zip(chosen, names, strict=True) if camera in here]
        yield camera, [_view(frames, index, camera) for index in indices]


def _view(frames: Frames, index: int, camera: str) -> View:
    frame = frames.select_columns(COLUMNS)[index]
    place = frame["camera_names"].index(camera)
    return View(
        points=frame["points"],
        image=np.asarray(decode_image(frame["images"][place])),
        camera=Camera(frame["lidar2cam"][place], frame["intrinsics"][place], frame["image_sizes"][place]),
        velocity=_velocity(frames, index),
    )


def _velocity(frames: Frames, index: int) -> NDArray[np.float64] | None:
    """The lidar's velocity at a frame, from the poses of the adjacent frames; None without poses or times."""
    sequences = frames.sequence_ids
    beside = [i for i in (index - 1, index, index + 1) if 0 <= i < len(frames) and sequences[i] == sequences[index]]
    first, last = (frames.select_columns(["timestamp", "lidar2global"])[i] for i in (beside[0], beside[-1]))
    before, after = first["lidar2global"], last["lidar2global"]
    if len(beside) < 2 or before is None or after is None or first["timestamp"] is None or last["timestamp"] is None:
        return None
    return velocity_between(before, after, (last["timestamp"] - first["timestamp"]) / 1e6)


def _draw(view: View, report: CalibrationReport) -> Image.Image:
    cameras = {"as calibrated": view.camera}
    if report.verdict == "wrong":
        cameras["with the best correction"] = report.correction.apply(view.camera, view.velocity)
    return draw_calibrations(view.points, view.image, cameras)


def _advice(report: CalibrationReport) -> str:
    turn = np.array2string(report.correction.turn, separator=", ", precision=6, suppress_small=True)
    lines = ["  To correct it, replace `lidar2cam` in the calibration by `turn @ lidar2cam`, where turn is"]
    lines += [f"  {line}" for line in turn.splitlines()]
    if np.isfinite(report.errors[3]):
        microseconds = 1e6 * report.correction.time_offset
        lines.append(f"  and add {microseconds:.0f} to the camera's `time_offset` (microseconds).")
    return "\n".join(lines)
