"""Whether the cameras of a dataset are calibrated: a verdict for each, and a picture to look at."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from uov_hf.data.frames import Frames, decode_image
from uov_hf.geometry.projection import Camera
from uov_hf.own_car.calibration_check import CalibrationReport, check_calibration
from uov_hf.own_car.calibration_evidence import View, velocity_between
from uov_hf.pictures.visualization import draw_calibrations


COLUMNS = ["points", "camera_names", "images", "lidar2cam", "intrinsics", "image_sizes"]


class CameraCheck(NamedTuple):
    """The calibration check of one camera.

    Args:
        camera (`str`): Name of the camera.
        num_frames (`int`): Number of frames that were compared.
        report (`CalibrationReport`): Verdict and best correction.
    """

    camera: str
    num_frames: int
    report: CalibrationReport

    def __str__(self) -> str:
        line = f"{self.camera}, {self.num_frames} frames: {self.report}"
        return f"{line}\n{_advice(self.report)}" if self.report.verdict == "wrong" else line


def check_cameras(frames: Frames, num_frames: int, folder: Path) -> Iterator[CameraCheck]:
    """Check every camera of a dataset, and save a picture of its first frame as `folder/<camera>.png`.

    Args:
        frames (`Frames`): Frames with images.
        num_frames (`int`): Number of frames to compare, spread evenly over all.
        folder (`Path`): Where the pictures go.

    Raises:
        ValueError: the frames have no images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for camera, views in views_of_cameras(frames, num_frames):
        report = check_calibration(views)
        _draw(views[0], report).save(folder / f"{camera}.png")
        yield CameraCheck(camera, len(views), report)


def views_of_cameras(frames: Frames, num_frames: int) -> Iterator[tuple[str, list[View]]]:
    """
    Every camera with its views of up to `num_frames` frames, which are spread evenly over all.

    Raises:
        ValueError: there are no images.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(num_frames, len(frames))).round().astype(int)).tolist()
    names = [frames.select_columns(["camera_names"])[index]["camera_names"] for index in chosen]
    cameras = list(dict.fromkeys(camera for here in names for camera in here))
    if not cameras:
        raise ValueError("There is no calibration to check: the frames have no images.")
    for camera in cameras:
        yield (
            camera,
            [_view(frames, index, camera) for index, here in zip(chosen, names, strict=True) if camera in here],
        )


def _view(frames: Frames, index: int, camera: str) -> View:
    frame = frames.select_columns(COLUMNS)[index]
    place = frame["camera_names"].index(camera)
    return View(
        points=frame["points"],
        image=np.asarray(decode_image(frame["images"][place])),
        camera=Camera(frame["lidar2cam"][place], frame["intrinsics"][place], frame["image_sizes"][place]),
        velocity=_velocity(frames, index),
    )


def _velocity(frames: Frames, index: int) -> np.ndarray | None:
    """Of the lidar at a frame, from the poses of the frames beside it; None where these are not known."""
    sequences = frames.sequence_ids
    beside = [i for i in (index - 1, index, index + 1) if 0 <= i < len(frames) and sequences[i] == sequences[index]]
    first, last = (frames.select_columns(["timestamp", "lidar2global"])[i] for i in (beside[0], beside[-1]))
    if len(beside) < 2 or any(frame[column] is None for frame in (first, last) for column in frame):
        return None
    return velocity_between(
        first["lidar2global"], last["lidar2global"], (last["timestamp"] - first["timestamp"]) / 1e6
    )


def _draw(view: View, report: CalibrationReport) -> Image.Image:
    cameras = {"as calibrated": view.camera}
    if report.verdict == "wrong":
        cameras["with the best correction"] = report.correction.apply(view.camera, view.velocity)
    return draw_calibrations(view.points, view.image, cameras)


def _advice(report: CalibrationReport) -> str:
    turn = np.array2string(report.correction.turn, separator=", ", precision=6, suppress_small=True)
    lines = ["  To correct it, put into the calibration `turn @ lidar2cam` in place of `lidar2cam`, where turn is"]
    lines += [f"  {line}" for line in turn.splitlines()]
    if np.isfinite(report.errors[3]):
        lines.append(
            f"  and add {1e6 * report.correction.time_offset:.0f} to the camera's `time_offset` (microseconds)."
        )
    return "\n".join(lines)
