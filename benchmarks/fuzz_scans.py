"""Small scans of every format, and a call that reads all that is read of a scan."""

from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import plyfile
import pypcd4

from uov_hf.own_car.point_times import read_point_times
from uov_hf.point_files import read_cloud, read_points
from uov_hf.results import SegmentedScan, read_labels, write_result
from uov_hf.vocabulary import load_vocabulary


MAX_POINTS = 10_000
NUSCENES = load_vocabulary("nuscenes")
OWN_FORMATS = (".ply", ".pcd", ".las", ".laz")  # of which a result keeps all fields
POINTS = np.random.default_rng(0).uniform(-20, 20, (12, 4)).astype(np.float32)


def each(*calls: Callable[[], object]) -> None:
    """Call all, also after a documented error, which is raised at the end."""
    errors = []
    for call in calls:
        try:
            call()
        except (ValueError, OSError) as error:
            errors.append(error)
    if errors:
        raise errors[0]


def read_scan(folder: Path, path: Path) -> None:
    """All that is read of a scan: points, labels and times, and its fields for a result beside it."""

    def read() -> None:
        cloud = read_cloud(path, max_points=MAX_POINTS)
        num_points = len(cloud.points)
        labels, scores = np.zeros(num_points, np.uint8), np.ones(num_points, np.float32)
        scan = SegmentedScan(path, folder, cloud.points, cloud.origin, labels, scores, ["car"])
        each(
            lambda: read_points(path, max_points=MAX_POINTS),
            lambda: read_point_times(path, num_points),
            *([lambda: write_result(folder / f"result{path.suffix}", scan)] if path.suffix in OWN_FORMATS else []),
        )

    each(read, lambda: read_point_times(path, 12), lambda: read_labels(path, NUSCENES))


def make_bin(folder: Path) -> None:
    POINTS.tofile(folder / "a.bin")
    np.random.default_rng(0).normal(size=(100, 5)).cumsum(0).astype(np.float32).tofile(folder / "b.pcd.bin")
    POINTS.astype(np.float64).tofile(folder / "c.bin")


def named_points() -> np.ndarray:
    points = np.zeros(12, [*((name, "f4") for name in ("x", "y", "z", "intensity")), ("t", "f8"), ("label", "u1")])
    for name, column in zip("xyz", POINTS.T, strict=False):
        points[name] = column
    points["t"] = np.arange(12) / 120
    return points


def make_npy(folder: Path) -> None:
    np.save(folder / "a.npy", POINTS)
    np.save(folder / "b.npy", named_points())
    np.save(folder / "c.npy", np.arange(12, dtype=np.uint8))
    np.save(folder / "d.npy", np.asfortranarray(POINTS.astype(">f8")))


def make_npz(folder: Path) -> None:
    np.savez(folder / "a.npz", points=POINTS[:, :3], intensity=POINTS[:, 3], stamp=np.array([1.0]))
    np.savez(folder / "b.npz", **dict(zip("xyz", POINTS.T, strict=False)), t=np.arange(12))
    np.savez_compressed(folder / "c.npz", named_points())


def make_pcd(folder: Path) -> None:
    names, types = ("x", "y", "z", "intensity", "t", "label"), (*[np.float32] * 4, np.float64, np.uint8)
    cloud = pypcd4.PointCloud.from_points([named_points()[name] for name in names], names, types)
    for encoding in pypcd4.Encoding:
        cloud.save(folder / f"{encoding.value}.pcd", encoding)


def make_ply(folder: Path) -> None:
    faces = np.array([([0, 1, 2], 5)], [("vertex_indices", "i4", (3,)), ("n", "u1")])
    elements = [plyfile.PlyElement.describe(named_points(), "vertex"), plyfile.PlyElement.describe(faces, "face")]
    for name, options in {"text": {"text": True}, "little": {}, "big": {"byte_order": ">"}}.items():
        plyfile.PlyData(elements, **options).write(folder / f"{name}.ply")


def make_las(folder: Path, suffix: str = ".las", num_points: int = 12) -> None:
    for version, kind in (("1.2", 3), ("1.4", 7)):
        header = laspy.LasHeader(point_format=kind, version=version)
        header.add_extra_dims([laspy.ExtraBytesParams("ring", "u2"), laspy.ExtraBytesParams("normal", "3f4")])
        cloud = laspy.LasData(header)
        cloud.x, cloud.y, cloud.z, cloud.intensity = (POINTS[:num_points] * (1, 1, 1, 50)).clip(-20, None).T.clip(-20)
        cloud.vlrs.append(laspy.VLR("somebody", 7, "their own", b"\1\2\3"))
        if version == "1.4":
            cloud.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("somebody", 8, "at the end", b"\4" * 20)])
        cloud.write(folder / f"v{version}{suffix}")


def make_text(folder: Path) -> None:
    rows = [" ".join(f"{number:g}" for number in row) for row in POINTS]
    (folder / "a.xyz").write_text("\n".join(rows))
    (folder / "b.asc").write_text("//X Y Z Intensity\n" + "\n".join(rows))
    (folder / "c.pts").write_text(f"{len(rows)}\n" + "\n".join(rows))
    (folder / "d.csv").write_text("x,y,z,refl,class\n" + "\n".join(f"{row},car".replace(" ", ",") for row in rows))
    (folder / "e.txt").write_bytes("x;y;z;t\r\n1,5;2,5;n/a;1\r\n2;3;4;5\r\n3;4;5;6\r\n".encode("utf-16"))
