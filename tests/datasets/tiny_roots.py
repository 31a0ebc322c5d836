"""Raw folders small enough to work out by hand: a few dozen points and one small picture per camera."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import feather

from uov_hf.vocabulary import load_vocabulary


NUM_POINTS = 50
IMAGE_SIZE = (12, 16)  # height, width
CHANNELS = (
    "CAM_BACK CAM_BACK_LEFT CAM_BACK_RIGHT CAM_FRONT CAM_FRONT_LEFT CAM_FRONT_RIGHT LIDAR_TOP RADAR_FRONT".split()
)
# x ahead, y left, z up → x right, y down, z ahead; the camera is mounted 0.5 m below and 0.25 m ahead of the lidar.
TR = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.5], [1, 0, 0, -0.25]])
PROJECTIONS = {
    "P0": np.array([[10, 0, 8, 0], [0, 10, 6, 0], [0, 0, 1, 0]]),
    "P2": np.array([[20, 0, 8, -20 * 0.75 + 8 * 0.125], [0, 20, 6, 6 * 0.125], [0, 0, 1, 0.125]]),  # 0.75 m right
}


def write_points(path: Path, rng: np.random.Generator, num_columns: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    points = np.column_stack([rng.normal(0, 20, (NUM_POINTS, 3)), rng.integers(0, 32, (NUM_POINTS, num_columns - 3))])
    points.astype(np.float32).tofile(path)


def write_labels(path: Path, labels: np.ndarray, dtype: type = np.uint32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels.astype(dtype).tofile(path)


def write_picture(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*IMAGE_SIZE, 3), np.uint8)).save(path)


def write_matrices(path: Path, matrices: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}: {text_of(matrix)}\n" for name, matrix in matrices.items()))


def text_of(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.12e}" for value in np.asarray(matrix).reshape(-1))


def write_nuscenes(
    root: Path, scenes: dict[str, int], version: str = "v1.0-mini", lidarseg: bool = True, seed: int = 0
) -> Path:
    """Scenes by name, with their numbers of samples. Rows are not in the order of time; sweeps and a radar join."""
    rng = np.random.default_rng(seed)
    names = ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor", "category")
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for channel in CHANNELS:
        tables["sensor"].append({"token": f"sensor-{channel}", "channel": channel, "modality": channel[:3].lower()})
        intrinsics = [[20.0 + len(channel), 0, 8], [0, 20.0, 6], [0, 0, 1]] if channel.startswith("CAM") else []
        mount = {"token": f"mount-{channel}", "sensor_token": f"sensor-{channel}", "camera_intrinsic": intrinsics}
        tables["calibrated_sensor"].append(mount | random_pose(rng, 1))
    for scene, num_samples in scenes.items():
        tables["scene"].append({"token": f"token-{scene}", "name": scene, "nbr_samples": num_samples})
        for index in range(num_samples):
            write_sample(root, tables, rng, scene, index)
            if lidarseg:
                path = root / "lidarseg" / version / f"{scene}-{index}-LIDAR_TOP_lidarseg.bin"
                write_labels(path, rng.permutation(NUM_POINTS) % 32, np.uint8)  # each raw class
    for index, name in enumerate(load_vocabulary("nuscenes").raw_names):
        tables["category"].append({"token": name, "name": name} | ({"index": index} if lidarseg else {}))
    (root / version).mkdir()
    for name, rows in tables.items():
        (root / version / f"{name}.json").write_text(json.dumps(rows[::-1] if name != "scene" else rows))
    return root


def write_sample(
    root: Path, tables: dict[str, list[dict[str, Any]]], rng: np.random.Generator, scene: str, index: int
) -> None:
    sample = f"{scene}-{index}"
    tables["sample"].append({"token": sample, "timestamp": index * 500_000, "scene_token": f"token-{scene}"})
    for shift, channel in enumerate(CHANNELS):
        for is_key_frame in (True, False):
            token = f"{sample}-{channel}" if is_key_frame else f"{sample}-{channel}-sweep"
            timestamp = index * 500_000 + 1000 * shift + (0 if is_key_frame else 50_000)
            folder, is_camera = "samples" if is_key_frame else "sweeps", channel.startswith("CAM")
            row = {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": token,
                "calibrated_sensor_token": f"mount-{channel}",
                "timestamp": timestamp,
                "is_key_frame": is_key_frame,
                "height": IMAGE_SIZE[0] if is_camera else 0,
                "width": IMAGE_SIZE[1] if is_camera else 0,
                "filename": f"{folder}/{channel}/{token}.{'jpg' if is_camera else 'pcd.bin'}",
            }
            tables["sample_data"].append(row)
            tables["ego_pose"].append({"token": token, "timestamp": timestamp} | random_pose(rng, 1000))
            path = root / f"{folder}/{channel}/{token}.{'jpg' if is_camera else 'pcd.bin'}"
            if is_key_frame and is_camera:
                write_picture(path, rng)
            elif is_key_frame:
                write_points(path, rng, num_columns=5)


def random_pose(rng: np.random.Generator, spread: float) -> dict[str, list[float]]:
    rotation = rng.normal(size=4)
    rotation /= np.linalg.norm(rotation)
    return {"rotation": rotation.tolist(), "translation": rng.normal(0, spread, 3).tolist()}


def write_semantic_kitti(
    root: Path, sequences: dict[str, int], camera: str | None = "image_2", labels: bool = True
) -> Path:
    """Sequences by name, with their numbers of scans; each scan is 1 m ahead of the one before, and 0.1 s after it."""
    rng = np.random.default_rng(0)
    for name, num_scans in sequences.items():
        folder = root / "sequences" / name
        for stem in (f"{index:06d}" for index in range(num_scans)):
            write_points(folder / "velodyne" / f"{stem}.bin", rng)
            if camera:
                write_picture(folder / camera / f"{stem}.png", rng)
            if labels:
                words = rng.choice([0, 10, 11, 40, 70, 252], NUM_POINTS) | (rng.integers(0, 300, NUM_POINTS) << 16)
                write_labels(folder / "labels" / f"{stem}.label", words)
        write_matrices(folder / "calib.txt", PROJECTIONS | {"Tr": TR})
        poses = [np.column_stack([np.eye(3), [0, 0, index]]) for index in range(num_scans)]
        (folder / "poses.txt").write_text("".join(f"{text_of(pose)}\n" for pose in poses))
        (folder / "times.txt").write_text("".join(f"{0.1 * index:e}\n" for index in range(num_scans)))
    return root


def write_kitti_object(root: Path) -> Path:
    """Two training scans of one hundred, one of another, one testing scan."""
    rng = np.random.default_rng(0)
    turned = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # R0_rect undoes it
    matrices = {"P2": PROJECTIONS["P2"], "R0_rect": turned.T, "Tr_velo_to_cam": turned @ TR}
    for frame_id in ("training/000007", "training/000099", "training/000100", "testing/000000"):
        split, stem = frame_id.split("/")
        write_points(root / split / "velodyne" / f"{stem}.bin", rng)
        write_matrices(root / split / "calib" / f"{stem}.txt", matrices)
        write_picture(root / split / "image_2" / f"{stem}.png", rng)
    return root


def write_pandaset(root: Path) -> Path:
    """A labelled sequence of two scans and one of one scan without labels; the car moves 2 m between the scans."""
    rng = np.random.default_rng(0)
    for sequence, num_scans in (("001", 2), ("002", 1)):
        folder, stems = root / sequence, [f"{index:02d}" for index in range(num_scans)]
        for stem in stems:
            write_points(folder / "lidar" / f"{stem}.bin", rng)
            write_picture(folder / "camera/front_camera" / f"{stem}.jpg", rng)
            if sequence == "001":
                write_labels(folder / "labels" / f"{stem}.label", rng.integers(0, 43, NUM_POINTS))
        calibration = {"camera": "front_camera", "width": IMAGE_SIZE[1], "height": IMAGE_SIZE[0]}
        calibration["cam_intrinsic"] = [[20.0, 0, 8], [0, 20.0, 6], [0, 0, 1]]
        calibration["frames"] = {stem: moment_of(index) for index, stem in enumerate(stems)}
        (folder / "calib.json").write_text(json.dumps(calibration))
    return root


def moment_of(index: int) -> dict[str, Any]:
    motion = np.eye(4)
    motion[1, 3] = 2 * index
    return {
        "lidar_timestamp": 1557539924.5 + 0.1 * index,
        "camera_timestamp": 1557539924.25 + 0.1 * index,
        "lidar2world": motion.tolist(),
        "lidar2cam": [[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0.1 * index], [0, 0, 0, 1]],
    }


def write_argoverse2(root: Path) -> Path:
    """Two logs of train and one of val in the official layout, each of two sweeps, with two ring cameras at 20 Hz."""
    rng = np.random.default_rng(0)
    for log in ("train/aaaa", "train/bbbb", "val/cccc"):
        folder = root / log
        (folder / "calibration").mkdir(parents=True)
        cameras = ("ring_front_center", "ring_side_left")
        write_feather(
            folder / "calibration/egovehicle_SE3_sensor.feather",
            [{"sensor_name": name, **argoverse_pose(rng, 1)} for name in ("up_lidar", "down_lidar", *cameras)],
        )
        optics = {"fx_px": 20.0, "fy_px": 21.0, "cx_px": 8.0, "cy_px": 6.0, "k1": -0.2, "k2": 0.1, "k3": 0.0}
        size = {"height_px": IMAGE_SIZE[0], "width_px": IMAGE_SIZE[1]}
        rows = [{"sensor_name": name, **optics, **size} for name in cameras]
        write_feather(folder / "calibration/intrinsics.feather", rows)
        times = []
        for index in range(2):
            sweep = 315966000_000000000 + 100_000_000 * index
            points = np.column_stack([rng.normal(0, 20, (NUM_POINTS, 3)), rng.integers(0, 256, (NUM_POINTS, 3))])
            columns = dict(zip("x y z intensity laser_number offset_ns".split(), points.T, strict=True))
            types = (np.float16, np.float16, np.float16, np.uint8, np.uint8, np.int32)
            (folder / "sensors/lidar").mkdir(parents=True, exist_ok=True)
            table = {name: values.astype(form) for (name, values), form in zip(columns.items(), types, strict=True)}
            feather.write_feather(pyarrow.table(table), folder / f"sensors/lidar/{sweep}.feather")
            images = [sweep + 7_000_000, sweep + 57_000_000]
            for name in cameras:
                for image in images:
                    write_picture(folder / f"sensors/cameras/{name}/{image}.jpg", rng)
            times += [sweep, *images]
        write_feather(
            folder / "city_SE3_egovehicle.feather", [{"timestamp_ns": t, **argoverse_pose(rng, 1000)} for t in times]
        )
    return root


def write_feather(path: Path, rows: list[dict[str, Any]]) -> None:
    feather.write_feather(pyarrow.Table.from_pylist(rows), path)


def argoverse_pose(rng: np.random.Generator, spread: float) -> dict[str, float]:
    pose = random_pose(rng, spread)
    return dict(zip("qw qx qy qz tx_m ty_m tz_m".split(), [*pose["rotation"], *pose["translation"]], strict=True))
