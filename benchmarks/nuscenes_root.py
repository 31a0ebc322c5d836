"""A nuScenes root of any size, random in content: tables with the columns and sweeps of the real ones, and scans."""

import io
import json
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import numpy as np
from PIL import Image

from uov_hf.vocabulary import load_vocabulary


# Where the cameras look, in degrees to the left of straight ahead.
CAMERAS = {
    "CAM_FRONT": 0,
    "CAM_FRONT_RIGHT": -55,
    "CAM_BACK_RIGHT": -110,
    "CAM_BACK": 180,
    "CAM_BACK_LEFT": 110,
    "CAM_FRONT_LEFT": 55,
}
RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
# Sweeps after a key frame: 77 rows of sample_data a sample, so that 34,149 samples have 2.63 million, as trainval.
SWEEPS = dict.fromkeys(CAMERAS, 5) | {"LIDAR_TOP": 9} | dict.fromkeys(RADARS, 5) | {"RADAR_FRONT": 6}

MAP = "maps/one_pixel.png"
INTRINSICS = [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]
SAMPLE_DATA = """{{
"token": "{token}",
"sample_token": "{sample}",
"ego_pose_token": "{token}",
"calibrated_sensor_token": "{mount}",
"timestamp": {timestamp},
"fileformat": "{fileformat}",
"is_key_frame": {is_key_frame},
"height": {height},
"width": {width},
"filename": "{filename}",
"prev": "",
"next": ""
}}"""
EGO_POSE = """{{
"token": "{token}",
"timestamp": {timestamp},
"rotation": [
0.5720320396729045,
-0.0016977771610471074,
0.011798001930183783,
-0.8201446642457809
],
"translation": [
{x:.15f},
1180.8910923120241,
0.0
]
}}"""


def write_root(
    root: Path, num_scenes: int, num_samples: int, num_points: int = 0, picture: Image.Image | None = None
) -> Path:
    """
    Tables of `num_samples` samples in `num_scenes` scenes, as v1.0-trainval, without boxes.

    Args:
        root (`Path`):
            The folder to write.
        num_scenes, num_samples (`int`):
            How many; trainval has 850 and 34,149. Scenes are called scene-0001, scene-0002, ….
        num_points (`int`):
            Points of a scan; with 0, only the first sample has a file, of the 34,688 points of a real one.
        picture (`Image`, *optional*):
            What every camera sees; without, there are no images.
    """
    tables = root / "v1.0-trainval"
    tables.mkdir(parents=True)
    (root / MAP).parent.mkdir()
    Image.new("L", (1, 1)).save(root / MAP)
    labels = root / "lidarseg/v1.0-trainval"
    labels.mkdir(parents=True)
    for channel in ("LIDAR_TOP", *CAMERAS):
        (root / "samples" / channel).mkdir(parents=True)
    for name, rows in _small_tables(num_scenes, num_samples).items():
        (tables / f"{name}.json").write_text(json.dumps(rows, indent=0))
    rng, jpeg = np.random.default_rng(0), io.BytesIO()
    width, height = (1600, 900) if picture is None else picture.size
    if picture is not None:
        picture.save(jpeg, "JPEG", quality=90)
    with open(tables / "sample_data.json", "w") as data, open(tables / "ego_pose.json", "w") as poses:
        for number, row in enumerate(_captures(num_samples, (height, width))):
            data.write(("[\n" if number == 0 else ",\n") + SAMPLE_DATA.format(**row))
            poses.write(("[\n" if number == 0 else ",\n") + EGO_POSE.format(**row, x=number * 1e-3))
            if row["is_key_frame"] == "true" and "LIDAR" in row["filename"] and (num_points or number < 100):
                _scan(rng, num_points or 34688).tofile(root / row["filename"])
                rng.integers(0, 32, num_points or 34688, np.uint8).tofile(labels / f"{row['token']}_lidarseg.bin")
            if row["is_key_frame"] == "true" and row["fileformat"] == "jpg" and picture is not None:
                (root / row["filename"]).write_bytes(jpeg.getvalue())
        data.write("\n]")
        poses.write("\n]")
    return root


def _small_tables(num_scenes: int, num_samples: int) -> dict[str, list[dict]]:
    scenes = [f"scene-{number + 1:04d}" for number in range(num_scenes)]
    of_scene = [scenes[number * num_scenes // num_samples] for number in range(num_samples)]
    sensors = [{"token": _token(channel), "channel": channel, "modality": _modality(channel)} for channel in SWEEPS]
    mounts = [
        {
            "token": _token(f"mount {channel}"),
            "sensor_token": _token(channel),
            "translation": [0.9, 0.0, 1.8],
            "rotation": _rotation(CAMERAS[channel]) if channel in CAMERAS else [1.0, 0.0, 0.0, 0.0],
            "camera_intrinsic": INTRINSICS if channel in CAMERAS else [],
        }
        for channel in SWEEPS
    ]
    samples = [
        {"token": _token(f"sample {number}"), "timestamp": number * 500_000, "scene_token": _token(scene)}
        for number, scene in enumerate(of_scene)
    ]
    names = load_vocabulary("nuscenes").raw_names
    empty = ("attribute", "visibility", "instance", "sample_annotation", "log")  # the devkit opens these, too
    return dict.fromkeys(empty, []) | {
        "map": [{"token": _token("map"), "log_tokens": [], "filename": MAP}],
        "category": [{"token": _token(name), "name": name, "index": index} for index, name in enumerate(names)],
        "sensor": sensors,
        "calibrated_sensor": mounts,
        "scene": [{"token": _token(scene), "name": scene} for scene in scenes],
        "sample": samples,
    }


def _captures(num_samples: int, image_size: tuple[int, int]) -> Iterator[dict]:
    """Sample after sample, each sensor's key frame and then its sweeps."""
    mounts = {channel: _token(f"mount {channel}") for channel in SWEEPS}
    for number in range(num_samples):
        sample = _token(f"sample {number}")
        for channel, num_sweeps in SWEEPS.items():
            is_camera = channel in CAMERAS
            for sweep in range(num_sweeps + 1):
                token = _token(f"{channel} {number} {sweep}")
                folder, suffix = ("sweeps" if sweep else "samples"), ("jpg" if is_camera else "pcd.bin")
                yield {
                    "token": token,
                    "sample": sample,
                    "mount": mounts[channel],
                    "timestamp": number * 500_000 + sweep * 500_000 // (num_sweeps + 1),
                    "fileformat": "jpg" if is_camera else "pcd",
                    "is_key_frame": "false" if sweep else "true",
                    "height": image_size[0] if is_camera else 0,
                    "width": image_size[1] if is_camera else 0,
                    "filename": f"{folder}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{token}.{suffix}",
                }


def _rotation(degrees: float) -> list[float]:
    """The quaternion of a camera (z ahead, x to the right) that is turned to the left by so many degrees."""
    cos, sin = np.cos(np.radians(degrees) / 2), np.sin(np.radians(degrees) / 2)
    return [float(part) for part in (0.5 * (cos + sin), -0.5 * (cos + sin), 0.5 * (cos - sin), -0.5 * (cos - sin))]


def _scan(rng: np.random.Generator, num_points: int) -> np.ndarray:
    """x, y, z, intensity, ring of points that thin out with distance."""
    angle, distance = rng.uniform(-np.pi, np.pi, num_points), rng.gamma(2, 8, num_points)
    ring = np.arange(num_points) % 32
    z = rng.normal(-1.5, 1, num_points)
    intensity = rng.integers(0, 256, num_points)
    columns = [distance * np.cos(angle), distance * np.sin(angle), z, intensity, ring]
    return np.stack(columns, axis=1).astype(np.float32)


def _modality(channel: str) -> str:
    return {"CAM": "camera", "LID": "lidar", "RAD": "radar"}[channel[:3]]


def _token(name: str) -> str:
    return md5(name.encode(), usedforsecurity=False).hexdigest()
