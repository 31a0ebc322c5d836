"""A SemanticKITTI root of 50 points and one small picture per scan, with a calibration that one can work out."""

from pathlib import Path

import numpy as np
from PIL import Image


NUM_POINTS = 50
IMAGE_SIZE = (12, 16)  # height, width
# x ahead, y left, z up → x right, y down, z ahead; the camera sits 0.5 m below and 0.25 m ahead of the lidar.
TR = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.5], [1, 0, 0, -0.25]])
PROJECTIONS = {
    "P0": [[10, 0, 8, 0], [0, 10, 6, 0], [0, 0, 1, 0]],
    "P2": [[20, 0, 8, -20 * 0.75 + 8 * 0.125], [0, 20, 6, 6 * 0.125], [0, 0, 1, 0.125]],  # 0.75 m to the right
}


def write_root(root: Path, sequences: dict[str, int], camera: str | None = "image_2", labels: bool = True) -> Path:
    """Sequences by name, with their numbers of scans; each scan is 1 m ahead of the one before, and 0.1 s after it."""
    rng = np.random.default_rng(0)
    for name, num_scans in sequences.items():
        folder = root / "sequences" / name
        for sub in ["velodyne", *([camera] if camera else []), *(["labels"] if labels else [])]:
            (folder / sub).mkdir(parents=True)
        for index in range(num_scans):
            write_scan(folder, f"{index:06d}", rng, camera, labels)
        lines = {"Tr": TR} | {name: np.array(matrix) for name, matrix in PROJECTIONS.items()}
        (folder / "calib.txt").write_text("".join(f"{name}: {text_of(matrix)}\n" for name, matrix in lines.items()))
        poses = [np.column_stack([np.eye(3), [0, 0, index]]) for index in range(num_scans)]
        (folder / "poses.txt").write_text("".join(f"{text_of(pose)}\n" for pose in poses))
        (folder / "times.txt").write_text("".join(f"{0.1 * index:e}\n" for index in range(num_scans)))
    return root


def write_scan(folder: Path, stem: str, rng: np.random.Generator, camera: str | None, labels: bool):
    points = np.column_stack([rng.normal(0, 20, (NUM_POINTS, 3)), rng.random(NUM_POINTS)]).astype(np.float32)
    points.tofile(folder / "velodyne" / f"{stem}.bin")
    if camera:
        pixels = rng.integers(0, 256, (*IMAGE_SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / camera / f"{stem}.png")
    if labels:
        words = rng.choice([0, 10, 11, 40, 70, 252], NUM_POINTS) | (rng.integers(0, 300, NUM_POINTS) << 16)
        words.astype(np.uint32).tofile(folder / "labels" / f"{stem}.label")


def text_of(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.12e}" for value in np.asarray(matrix).reshape(-1))
