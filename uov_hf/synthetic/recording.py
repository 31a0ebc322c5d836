"""One drive through one town: the sensor files of its scene, and the rows they have in nuScenes's tables."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uov_hf.synthetic.cameras import CAMERAS, CameraMount, Picture, take_picture
from uov_hf.synthetic.drives import FRAME_INTERVAL, DriveSettings
from uov_hf.synthetic.lidar import LIDAR_TO_EGO, RANGE_NOISE, Scan, scan
from uov_hf.synthetic.surfaces import Snapshot, Surfaces
from uov_hf.synthetic.tables import (
    LOCATIONS,
    Tables,
    attribute_of,
    chain,
    make_token,
    transform_columns,
    visibility_of,
)
from uov_hf.synthetic.views import PinholeView


FIRST_TIME = 1_700_000_000_000_000  # µs
FIRST_SCENE = 9001  # nuScenes's own scenes end at 1110: no official split holds one of ours
BOX_MARGIN = 2.5 * RANGE_NOISE  # metres around a thing, so that its box holds all its points
PROBES = np.stack(np.meshgrid(*[np.linspace(-0.8, 0.8, 3)] * 3), axis=-1).reshape(-1, 3)  # places in a box


def scene_name(index: int) -> str:
    return f"scene-{FIRST_SCENE + index:04d}"


def record_scene(settings: DriveSettings, index: int) -> tuple[Tables, dict[str, Any]]:
    """Write the sensor files of scene number `index`; returns its table rows and its segments' classes."""
    recorder = Recorder(settings, index, settings.surfaces(index))
    for frame in range(settings.frames_per_scene):
        recorder.record_frame(frame)
    return recorder.finish(), recorder.segments()


@dataclass
class Recorder:
    """Collects the rows of one scene while its files are written."""

    settings: DriveSettings
    index: int
    surfaces: Surfaces
    tables: dict[str, list] = field(default_factory=lambda: defaultdict(list))

    @property
    def name(self) -> str:
        return scene_name(self.index)

    @property
    def log_name(self) -> str:
        return f"street-{self.settings.seed}-{self.index}"

    def token(self, *names: Any) -> str:
        return make_token(self.settings.seed, self.name, *names)

    @cached_property
    def annotated(self) -> list[int]:
        """Things that have a box."""
        return self.surfaces.movable

    def record_frame(self, frame: int) -> None:
        time = FRAME_INTERVAL * frame
        sample = self.token("sample", frame)
        self.tables["sample"].append(
            {"token": sample, "timestamp": self._timestamp(time), "scene_token": self.token("scene")}
        )
        town, rng = self.surfaces.town, self.settings.rng(self.index, frame)
        snapshot = self.surfaces.at(time)
        captured = scan(rng, snapshot, town.ego_pose(time) @ LIDAR_TO_EGO, self.settings.azimuth_steps)
        self._write_scan(frame, time, captured)
        visible = np.zeros(len(self.annotated))
        for camera in self.settings.cameras:
            then = self.surfaces.at(time + camera.delay)
            pose = town.ego_pose(time + camera.delay) @ camera.to_ego()
            view = PinholeView(pose, camera.intrinsics(self.settings.image_size), self.settings.image_size)
            picture = take_picture(rng, then, view)
            self._write_picture(frame, time + camera.delay, camera, picture)
            visible = np.maximum(visible, self._visible_share(then, view, picture))
        self._annotate(frame, snapshot, captured, visible)

    def _timestamp(self, time: float) -> int:
        return FIRST_TIME + self.index * 1_000_000_000 + round(time * 1e6)

    def _add_sample_data(self, frame, time, channel, extension, image_size) -> tuple[str, Path]:
        """Rows of a sensor file and of the ego pose at its time; returns its token and its path."""
        token, timestamp = self.token(channel, frame), self._timestamp(time)
        filename = f"samples/{channel}/{self.log_name}__{channel}__{timestamp}.{extension}"
        pose = transform_columns(self.surfaces.town.ego_pose(time))
        self.tables["ego_pose"].append({"token": token, "timestamp": timestamp, **pose})
        self.tables["sample_data"].append(
            {
                "token": token,
                "sample_token": self.token("sample", frame),
                "ego_pose_token": token,
                "calibrated_sensor_token": self.token("calibrated_sensor", channel),
                "timestamp": timestamp,
                "fileformat": extension.split(".")[0],
                "is_key_frame": True,
                "height": image_size[0],
                "width": image_size[1],
                "filename": filename,
            }
        )
        path = self.settings.root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return token, path

    def _write_scan(self, frame: int, time: float, captured: Scan) -> None:
        token, path = self._add_sample_data(frame, time, "LIDAR_TOP", "pcd.bin", (0, 0))
        captured.points.astype("<f4").tofile(path)
        filename = f"lidarseg/{self.settings.version}/{token}_lidarseg.bin"
        self.tables["lidarseg"].append({"token": token, "sample_data_token": token, "filename": filename})
        path = self.settings.root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        self.surfaces.raw_class[self.surfaces.segment[captured.surface]].tofile(path)

    def _write_picture(self, frame: int, time: float, camera: CameraMount, picture: Picture) -> None:
        token, path = self._add_sample_data(frame, time, camera.channel, "jpg", self.settings.image_size)
        Image.fromarray(picture.image).save(path, quality=90)
        path = self.settings.root / "synthetic" / "segmentation" / f"{token}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.segmentation).save(path, compress_level=1)

    def _visible_share(self, snapshot: Snapshot, view: PinholeView, picture: Picture) -> np.ndarray:
        """Share of each annotated thing's box that nothing hides, from places within it."""
        low, high = np.moveaxis(self._bounds, 1, 0)
        inside = (low + high)[:, None] / 2 + PROBES * (high - low)[:, None] / 2
        poses = snapshot.poses[self.annotated]
        points = np.einsum("nij,npj->npi", poses[:, :3, :3], inside) + poses[:, None, :3, 3] - view.pose[:3, 3]
        x, y, z = np.moveaxis(points @ view.pose[:3, :3], 2, 0)
        in_front = z > 0.5
        z = np.where(in_front, z, 1)
        height, width = self.settings.image_size
        column = np.rint(x / z * view.intrinsics[0, 0] + view.intrinsics[0, 2])
        row = np.rint(y / z * view.intrinsics[1, 1] + view.intrinsics[1, 2])
        in_view = in_front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        row, column = np.where(in_view, row, 0).astype(int), np.where(in_view, column, 0).astype(int)
        own = picture.segmentation[row, column] == self.surfaces.segment_of(self.annotated)[:, None]
        free = own | (picture.distance[row, column] > np.linalg.norm(points, axis=2))
        return (in_view & free).mean(axis=1)

    @cached_property
    def _bounds(self):
        return np.stack([self.surfaces.things[number].model.bounds for number in self.annotated])

    def _annotate(self, frame: int, snapshot: Snapshot, captured: Scan, visible: np.ndarray) -> None:
        """Boxes of the things that the lidar has met."""
        segments = self.surfaces.segment[captured.surface]
        num_points = np.bincount(segments, minlength=len(self.surfaces.categories) + 1)
        for number, share in zip(self.annotated, visible, strict=True):
            thing = self.surfaces.things[number]
            count = int(num_points[number + 1])
            if count == 0:
                continue
            low, high = thing.model.bounds
            pose = snapshot.poses[number].copy()
            pose[:3, 3] += pose[:3, :3] @ ((low + high) / 2)
            length, width, height = (high - low + 2 * BOX_MARGIN).tolist()
            self.tables["sample_annotation"].append(
                {
                    "token": self.token("annotation", frame, number),
                    "sample_token": self.token("sample", frame),
                    "instance_token": self.token("instance", number),
                    "visibility_token": visibility_of(share),
                    "attribute_tokens": attribute_of(thing.model.category, thing.speed),
                    **transform_columns(pose),
                    "size": [width, length, height],
                    "num_lidar_pts": count,
                    "num_radar_pts": 0,
                }
            )

    def finish(self) -> Tables:
        """The scene's rows, linked; its map is written here."""
        self._add_calibration()
        self._add_instances()
        self._add_log_and_map()
        samples = self.tables["sample"]
        self.tables["scene"].append(
            {
                "token": self.token("scene"),
                "log_token": self.token("log"),
                "nbr_samples": len(samples),
                "first_sample_token": samples[0]["token"],
                "last_sample_token": samples[-1]["token"],
                "name": self.name,
                "description": "Synthetic street",
            }
        )
        chain(samples)
        for sensor in self.tables["calibrated_sensor"]:
            data = self.tables["sample_data"]
            chain([row for row in data if row["calibrated_sensor_token"] == sensor["token"]])
        return dict(self.tables)

    def _add_calibration(self):
        mounts = [("LIDAR_TOP", LIDAR_TO_EGO, [])]
        for camera in CAMERAS:
            intrinsics = camera.intrinsics(self.settings.image_size).tolist()
            mounts.append((camera.channel, camera.to_ego(), intrinsics))
        for channel, pose, intrinsics in mounts:
            self.tables["calibrated_sensor"].append(
                {
                    "token": self.token("calibrated_sensor", channel),
                    "sensor_token": make_token("sensor", channel),
                    **transform_columns(pose),
                    "camera_intrinsic": intrinsics,
                }
            )

    def _add_instances(self):
        by_instance = defaultdict(list)
        for annotation in self.tables["sample_annotation"]:
            by_instance[annotation["instance_token"]].append(annotation)
        for number in self.annotated:
            annotations = by_instance.get(self.token("instance", number))
            if not annotations:
                continue
            chain(annotations)
            self.tables["instance"].append(
                {
                    "token": self.token("instance", number),
                    "category_token": make_token("category", self.surfaces.things[number].model.category),
                    "nbr_annotations": len(annotations),
                    "first_annotation_token": annotations[0]["token"],
                    "last_annotation_token": annotations[-1]["token"],
                }
            )

    def _add_log_and_map(self):
        """The map is nuScenes's mask of driveable ground: 0.1 m per pixel, north up."""
        log, mask = self.token("log"), self.token("map")
        location = LOCATIONS[(self.settings.seed + self.index) % len(LOCATIONS)]
        row = {"token": log, "logfile": self.log_name, "vehicle": "street", "date_captured": "2023-11-14"}
        self.tables["log"].append({**row, "location": location})
        filename = f"maps/{mask}.png"
        row = {"token": mask, "category": "semantic_prior", "filename": filename, "log_tokens": [log]}
        self.tables["map"].append(row)
        ground = self.surfaces.town.ground
        driveable = np.array([patch.category == "flat.driveable_surface" for patch in ground.patches])
        path = self.settings.root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * driveable[ground.painting[::-1]].astype(np.uint8)).save(path)

    def segments(self) -> dict[str, list]:
        """Raw class and instance token of every id of this scene's segmentations; row 0 is the sky."""
        boxed = set(self.annotated)
        instances = [self.token("instance", n) if n in boxed else "" for n in range(len(self.surfaces.categories))]
        return {"raw_class": self.surfaces.raw_class.tolist(), "instance": ["", *instances]}
