"""A nuScenes root of 300 points and six small pictures per frame, with what real tables hold beside key frames."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from uov_hf.vocabulary import load_vocabulary


CHANNELS = [
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_BACK_RIGHT",
    "CAM_FRONT",
    "CAM_FRONT_LEFT",
    "CAM_FRONT_RIGHT",
    "LIDAR_TOP",
]
NUM_POINTS = 300


def write_root(
    root: Path, scenes: dict[str, int], version: str = "v1.0-mini", lidarseg: bool = True, seed: int = 0
) -> Path:
    """Scenes by name, with their numbers of samples. Rows are not in the order of time; sweeps and a radar join."""
    rng = np.random.default_rng(seed)
    tables = {
        name: [] for name in ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor", "category")
    }
    for channel in [*CHANNELS, "RADAR_FRONT"]:
        tables["sensor"].append({"token": f"sensor-{channel}", "channel": channel, "modality": channel[:3].lower()})
        intrinsics = [[20.0 + len(channel), 0, 8], [0, 20.0, 6], [0, 0, 1]] if channel.startswith("CAM") else []
        mount = {"token": f"mount-{channel}", "sensor_token": f"sensor-{channel}", "camera_intrinsic": intrinsics}
        tables["calibrated_sensor"].append(mount | random_pose(rng, 1))
    for scene, num_samples in scenes.items():
        tables["scene"].append({"token": f"token-{scene}", "name": scene, "nbr_samples": num_samples})
        for index in range(num_samples):
            write_sample(root, version, tables, rng, scene, index, lidarseg)
    for index, name in enumerate(load_vocabulary("nuscenes").raw_names):
        tables["category"].append({"token": name, "name": name} | ({"index": index} if lidarseg else {}))
    (root / version).mkdir()
    for name, rows in tables.items():
        (root / version / f"{name}.json").write_text(json.dumps(rows[::-1] if name != "scene" else rows))
    return root


def write_sample(root, version, tables, rng, scene, index, lidarseg):
    sample = f"{scene}-{index}"
    tables["sample"].append({"token": sample, "timestamp": index * 500_000, "scene_token": f"token-{scene}"})
    for shift, channel in enumerate([*CHANNELS, "RADAR_FRONT"]):
        for is_key_frame in (True, False):
            token = f"{sample}-{channel}" if is_key_frame else f"{sample}-{channel}-sweep"
            timestamp = index * 500_000 + 1000 * shift + (0 if is_key_frame else 50_000)
            folder = "samples" if is_key_frame else "sweeps"
            suffix = "jpg" if channel.startswith("CAM") else "pcd.bin"
            row = {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": token,
                "calibrated_sensor_token": f"mount-{channel}",
                "timestamp": timestamp,
                "is_key_frame": is_key_frame,
                "height": 12 if suffix == "jpg" else 0,
                "width": 16 if suffix == "jpg" else 0,
                "filename": f"{folder}/{channel}/{token}.{suffix}",
            }
            tables["sample_data"].append(row)
            tables["ego_pose"].append({"token": token, "timestamp": timestamp} | random_pose(rng, 1000))
            if is_key_frame:
                write_file(root / row["filename"], rng)
    if lidarseg:
        folder = root / "lidarseg" / version
        folder.mkdir(parents=True, exist_ok=True)
        rng.integers(0, 32, NUM_POINTS, np.uint8).tofile(folder / f"{sample}-LIDAR_TOP_lidarseg.bin")


def write_file(path: Path, rng: np.random.Generator):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    else:
        points = np.concatenate([rng.normal(0, 20, (NUM_POINTS, 3)), rng.integers(0, 32, (NUM_POINTS, 2))], axis=1)
        points.astype(np.float32).tofile(path)


def random_pose(rng: np.random.Generator, spread: float) -> dict[str, list[float]]:
    rotation = rng.normal(size=4)
    return {
        "rotation": (rotation / np.linalg.norm(rotation)).tolist(),
        "translation": rng.normal(0, spread, 3).tolist(),
    }
