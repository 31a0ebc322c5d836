"""One drive in the synthetic street, as an own-car folder and as bags: a rolling lidar, two cameras, odometry."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import small_bags
import yaml
from PIL import Image
from pypcd4 import PointCloud
from rolling_street import RollingScan, body_pose, make_surfaces, rolling_scan
from scipy.spatial.transform import Rotation
from small_bags import jpeg_of

from uov_hf.synthetic.cameras import CAMERAS, take_picture
from uov_hf.synthetic.lidar import LIDAR_TO_EGO
from uov_hf.synthetic.views import PinholeView


START = 1_700_000_000_000_000  # µs
INTERVAL, DELAY = 100_000, 20_000  # µs between scans, and from a scan to its images
IMAGE_SIZE = (36, 64)
MOUNTS = {"left": CAMERAS[5], "front": CAMERAS[0]}
DISTORTION = {"left": [-0.1, 0.01, 0.001, -0.001, 0.0], "front": []}
CLOUD = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "t", "ring"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u4", "<u2"],
        "offsets": [0, 4, 8, 16, 20, 24],
        "itemsize": 32,
    }
)


@dataclass(frozen=True, eq=False)
class Drive:
    scans: list[RollingScan]
    images: dict[str, list[np.ndarray]]
    pose_times: list[int]
    poses: list[np.ndarray]

    @property
    def times(self) -> list[int]:
        return [START + INTERVAL * number for number in range(len(self.scans))]


def make_drive(num_scans: int = 3) -> Drive:
    surfaces, rng = make_surfaces(), np.random.default_rng(0)
    seconds = [number * INTERVAL / 1e6 for number in range(num_scans)]
    scans = [rolling_scan(surfaces, second, num_sectors=6) for second in seconds]
    images: dict[str, list[np.ndarray]] = {name: [] for name in MOUNTS}
    for name, mount in MOUNTS.items():
        for second in seconds:
            then = second + DELAY / 1e6
            pose = body_pose(surfaces, then) @ mount.to_ego()
            view = PinholeView(pose, mount.intrinsics(IMAGE_SIZE), IMAGE_SIZE)
            images[name].append(take_picture(rng, surfaces.at(then), view).image)
    pose_times = list(range(START - 20_000, START + num_scans * INTERVAL + 20_000, 20_000))
    return Drive(scans, images, pose_times, [body_pose(surfaces, (time - START) / 1e6) for time in pose_times])


def write_folder(drive: Drive, root: Path) -> Path:
    """`left` are JPEGs with distortion, `front` are PNGs without."""
    folder = root / "drive"
    for name in ("points", "images/left", "images/front"):
        (folder / name).mkdir(parents=True)
    rows = ["frame,lidar,left,front"]
    for number, (time, scan) in enumerate(zip(drive.times, drive.scans, strict=True)):
        columns = [*scan.points.T, np.rint(1e9 * scan.seconds).astype(np.uint32)]
        types = (np.float32,) * 4 + (np.uint32,)
        cloud = PointCloud.from_points(columns, ("x", "y", "z", "intensity", "t"), types)
        cloud.save(folder / f"points/{number:06d}.pcd")
        (folder / f"images/left/{number:06d}.jpg").write_bytes(jpeg_of(drive.images["left"][number]))
        Image.fromarray(drive.images["front"][number]).save(folder / f"images/front/{number:06d}.png")
        rows.append(f"{number:06d},{time},{time + DELAY},{time + DELAY}")
    (folder / "timestamps.csv").write_text("\n".join(rows))
    lines = []
    for time, pose in zip(drive.pose_times, drive.poses, strict=True):
        numbers = [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
        lines.append(f"{time // 1_000_000}.{time % 1_000_000:06d} {' '.join(repr(float(value)) for value in numbers)}")
    (folder / "poses.txt").write_text("\n".join(lines))
    cameras = {
        name: {
            "image_size": list(IMAGE_SIZE),
            "intrinsics": mount.intrinsics(IMAGE_SIZE).tolist(),
            "lidar2cam": (np.linalg.inv(mount.to_ego()) @ LIDAR_TO_EGO).tolist(),
        }
        for name, mount in MOUNTS.items()
    }
    cameras["left"]["distortion"] = {"model": "opencv", "coefficients": DISTORTION["left"]}
    calibration = {"intensity_max": 255, "cameras": cameras, "lidar2body": LIDAR_TO_EGO.tolist()}
    (root / "calibration.yaml").write_text(yaml.safe_dump(calibration))
    return root


def write_bag(drive: Drive, folder: Path, kind: str, poses_by: str = "odometry") -> Path:
    """Poses by `odometry`, by `tf`, or by `none`. Below the body, the lidar hangs on a rack."""
    rack = np.eye(4)
    rack[:3, 3] = [0, 0, 1.5]
    with small_bags.open_bag(folder, kind) as bag:
        mounts = [("base_link", "rack", rack), ("rack", "lidar", np.linalg.inv(rack) @ LIDAR_TO_EGO)]
        mounts += [("base_link", name, mount.to_ego()) for name, mount in MOUNTS.items()]
        bag.transforms("/tf_static", START, *mounts)
        for time, pose in zip(drive.pose_times, drive.poses, strict=True):
            if poses_by == "odometry":
                bag.odometry("/odom", time, "odom", "base_link", pose)
            elif poses_by == "tf":
                bag.transforms("/tf", time, ("odom", "base_link", pose), ("map", "odom", np.eye(4)))
        for number, (time, scan) in enumerate(zip(drive.times, drive.scans, strict=True)):
            bag.cloud("/lidar/points", time, "lidar", as_cloud(scan))
            for name, mount in MOUNTS.items():
                size, intrinsics = IMAGE_SIZE, mount.intrinsics(IMAGE_SIZE)
                bag.camera_info(f"/{name}/camera_info", time + DELAY, name, size, intrinsics, d=DISTORTION[name])
            bag.compressed("/left/image_raw/compressed", time + DELAY, "left", jpeg_of(drive.images["left"][number]))
            pixels = np.ascontiguousarray(drive.images["front"][number][..., ::-1])
            bag.image("/front/image_raw", time + DELAY, "front", pixels, "bgr8")
    return small_bags.path_of(folder, kind)


def as_cloud(scan: RollingScan) -> np.ndarray:
    cloud = np.zeros(len(scan.points), CLOUD)
    for column, name in enumerate(("x", "y", "z", "intensity")):
        cloud[name] = scan.points[:, column]
    cloud["t"] = np.rint(1e9 * scan.seconds)
    return cloud
