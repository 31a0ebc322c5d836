"""A car's recording small enough to draw: a wall in front of it, two cameras, a drive at 10 m/s to the right."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image


IMAGE_SIZE = (48, 64)
INTRINSICS = np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
# The lidar looks along x, with y to the left and z up; both cameras look ahead, 1 m to the left and right of it.
LIDAR2CAM = {
    "left": np.array([[0.0, -1, 0, 1], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    "right": np.array([[0.0, -1, 0, -1], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
}
SPEED = 10.0  # m/s, along −y
INTERVAL, DELAY = 100_000, 20_000  # µs between scans, and from a scan to its images


def points_of(frame: int) -> np.ndarray:
    rng = np.random.default_rng(frame)
    wall = np.column_stack([np.full(50, 10.0), rng.uniform(-5, 5, (50, 2)), rng.integers(0, 200, 50)])
    return wall.astype(np.float32)


def calibration() -> dict:
    cameras = {
        name: {"image_size": list(IMAGE_SIZE), "intrinsics": INTRINSICS.tolist(), "lidar2cam": motion.tolist()}
        for name, motion in LIDAR2CAM.items()
    }
    return {"intensity_max": 200, "taxonomy": "semantic_kitti", "cameras": cameras}


def write_calibration(folder: Path, content: dict) -> Path:
    (folder / "calibration.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "calibration.yaml"


def write_car(root: Path, num_frames: int = 3, sequence: str = "drive") -> Path:
    """A folder with one sequence in which everything optional is there; returns the folder of the sequence."""
    folder = root / sequence
    for name in ("points", "labels", "images/left", "images/right"):
        (folder / name).mkdir(parents=True)
    write_calibration(root, calibration())
    rows = ["frame,lidar,left,right"]
    poses = []
    for frame in range(num_frames):
        points_of(frame).tofile(folder / "points" / f"{frame}.bin")
        (np.full(50, 40, np.uint32) + (frame << 16)).tofile(folder / "labels" / f"{frame}.label")
        for name in LIDAR2CAM:
            picture(frame).save(folder / "images" / name / f"{frame}.png")
        time = INTERVAL * frame
        rows.append(f"{frame},{time},{time + DELAY},{time + DELAY}")
        pose = np.eye(4)
        pose[1, 3] = -SPEED * time / 1e6
        poses.append(" ".join(map(str, pose[:3].ravel())))
    (folder / "timestamps.csv").write_text("\n".join(rows))
    (folder / "poses.txt").write_text("\n".join(poses))
    return folder


def picture(frame: int) -> Image.Image:
    pixels = np.random.default_rng(frame).integers(0, 255, (*IMAGE_SIZE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_label_maps(folder: Path, num_frames: int = 3, with_probs: bool = False, sequence: str = "drive") -> Path:
    """Label maps of the car's images, in the layout `semantic`: a car at the left, a road at the right."""
    labels, probs = np.zeros(IMAGE_SIZE, np.uint8), np.full((2, 6, 8), 55, np.uint8)
    labels[:, 32:] = 1
    probs[0, :, :4] = probs[1, :, 4:] = 200
    for name in LIDAR2CAM:
        (folder / sequence / name).mkdir(parents=True)
        for frame in range(num_frames):
            Image.fromarray(labels).save(folder / sequence / name / f"{frame}_labels.png")
            if with_probs:
                np.savez(folder / sequence / name / f"{frame}_probs.npz", probs=probs)
    (folder / "classes.json").write_text(json.dumps(["car", "road"]))
    return folder
