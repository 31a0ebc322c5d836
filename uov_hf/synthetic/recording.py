"""One drive through one town as a scene of nuScenes: its sensor files and its table rows."""

from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uov_hf.synthetic.cameras import CAMERAS, CameraMount, Picture, take_picture
from uov_hf.synthetic.drives import FRAME_INTERVAL, DriveSettings
from uov_hf.synthetic.lidar import LIDAR_TO_EGO, RANGE_NOISE, Scan, scan
from uov_hf.synthetic.surfaces import Snapshot
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
FIRST_SCENE = 9001  # nuScenes's own scenes end at 1110, so that no official split contains one of these
BOX_MARGIN = 2.5 * RANGE_NOISE  # metres around an object, so that its box contains all its points
# The readers recognise the street by this description: it lies in the tables that are read, scene by scene.
DESCRIPTION = "A synthetic street of uov-hf"
PROBES = np.stack(np.meshgrid(*[np.linspace(-0.8, 0.8, 3)] * 3), axis=-1).reshape(-1, 3)  # places in a box


class Segments(TypedDict):
    """Raw class and instance token of every segment id of a scene; id 0 is the sky."""

    raw_class: list[int]
    instance: list[str]


def scene_name(index: int) -> str:
    return f"scene-{FIRST_SCENE + index:04d}"


def record_scene(settings: DriveSettings, index: int) -> tuple[Tables, Segments]:
    """Write the sensor files of scene number `index`; returns its table rows and its segments."""
    recorder = Recorder(settings, index)
    for frame in range(settings.frames_per_scene):
        recorder.record_frame(frame)
    return recorder.finish(), recorder.segments()


class Recorder:
    """Collects the rows of one scene while its files are written."""

    def __init__(self, settings: DriveSettings, index: int):
        self.settings, self.index, self.surfaces = settings, index, settings.surfaces(index)
        self.name, self.log_name = scene_name(index), f"street-{settings.seed}-{index}"
        self.tables: Tables = defaultdict(list)

    def token(self, *names: Any) -> str:
        return make_token(self.settings.seed, self.name, *names)

    def add(self, table: str, token: str, **columns: Any) -> None:
        self.tables[table].append({"token": token, **columns})

    def open_path(self, filename: str) -> Path:
        """The path of a file in the root, whose folder exists then."""
        path = self.settings.root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record_frame(self, frame: int) -> None:
        time = FRAME_INTERVAL * frame
        self.add(
            "sample", self.token("sample", frame), timestamp=self._timestamp(time), scene_token=self.token("scene")
        )
        town, rng = self.surfaces.town, self.settings.rng(self.index, frame)
        snapshot = self.surfaces.at(time)
        captured = scan(rng, snapshot, town.ego_pose(time) @ LIDAR_TO_EGO, self.settings.azimuth_steps)
        self._write_scan(frame, time, captured)
        visible = np.zeros(len(self.surfaces.movable))
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

    def _add_sample_data(
        self, frame: int, time: float, channel: str, extension: str, image_size: tuple[int, int]
    ) -> tuple[str, Path]:
        """Rows of a sensor file and of the ego pose at its time; returns its token and its path."""
        token, timestamp = self.token(channel, frame), self._timestamp(time)
        filename = f"samples/{channel}/{self.log_name}__{channel}__{timestamp}.{extension}"
        pose = transform_columns(self.surfaces.town.ego_pose(time))
        self.add("ego_pose", token, timestamp=timestamp, **pose)
        self.add(
            "sample_data",
            token,
            sample_token=self.token("sample", frame),
            ego_pose_token=token,
            calibrated_sensor_token=self.token("calibrated_sensor", channel),
            timestamp=timestamp,
            fileformat=extension.split(".")[0],
            is_key_frame=True,
            height=image_size[0],
            width=image_size[1],
            filename=filename,
        )
        return token, self.open_path(filename)

    def _write_scan(self, frame: int, time: float, captured: Scan) -> None:
        token, path = self._add_sample_data(frame, time, "LIDAR_TOP", "pcd.bin", (0, 0))
        captured.points.astype("<f4").tofile(path)
        filename = f"lidarseg/{self.settings.version}/{token}_lidarseg.bin"
        self.add("lidarseg", token, sample_data_token=token, filename=filename)
        self.surfaces.raw_class[self.surfaces.segment[captured.surface]].tofile(self.open_path(filename))

    def _write_picture(self, frame: int, time: float, camera: CameraMount, picture: Picture) -> None:
        token, path = self._add_sample_data(frame, time, camera.channel, "jpg", self.settings.image_size)
        Image.fromarray(picture.image).save(path, quality=90)
        for folder, content in (("segmentation", picture.segmentation), ("places", picture.place)):
            Image.fromarray(content).save(self.open_path(f"synthetic/{folder}/{token}.png"), compress_level=1)

    def _visible_share(self, snapshot: Snapshot, view: PinholeView, picture: Picture) -> NDArray[np.float64]:
        """Visible share of the box of each movable object, from sample points in it."""
        low, high = np.moveaxis(self._bounds, 1, 0)
        inside = (low + high)[:, None] / 2 + PROBES * (high - low)[:, None] / 2
        poses = snapshot.poses[self.surfaces.movable]
        points = np.einsum("nij,npj->npi", poses[:, :3, :3], inside) + poses[:, None, :3, 3] - view.pose[:3, 3]
        x, y, z = np.moveaxis(points @ view.pose[:3, :3], 2, 0)
        in_front = z > 0.5
        z = np.where(in_front, z, 1)
        height, width = self.settings.image_size
        column = np.rint(x / z * view.intrinsics[0, 0] + view.intrinsics[0, 2])
        row = np.rint(y / z * view.intrinsics[1, 1] + view.intrinsics[1, 2])
        in_view = in_front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        row, column = np.where(in_view, row, 0).astype(int), np.where(in_view, column, 0).astype(int)
        own = picture.segmentation[row, column] == np.array(self.surfaces.movable)[:, None] + 1
        free = own | (picture.distance[row, column] > np.linalg.norm(points, axis=2))
        return (in_view & free).mean(axis=1)

    @cached_property
    def _bounds(self) -> NDArray[np.floating]:
        return np.stack([self.surfaces.things[number].model.bounds for number in self.surfaces.movable])

    def _annotate(self, frame: int, snapshot: Snapshot, captured: Scan, visible: NDArray[np.float64]) -> None:
        """Boxes of the objects with lidar points."""
        segments = self.surfaces.segment[captured.surface]
        num_points = np.bincount(segments, minlength=len(self.surfaces.categories) + 1)
        for number, share in zip(self.surfaces.movable, visible.tolist(), strict=True):
            thing = self.surfaces.things[number]
            if (count := int(num_points[number + 1])) == 0:
                continue
            low, high = thing.model.bounds
            pose = snapshot.poses[number].copy()
            pose[:3, 3] += pose[:3, :3] @ ((low + high) / 2)
            length, width, height = (high - low + 2 * BOX_MARGIN).tolist()
            self.add(
                "sample_annotation",
                self.token("annotation", frame, number),
                sample_token=self.token("sample", frame),
                instance_token=self.token("instance", number),
                visibility_token=visibility_of(share),
                attribute_tokens=attribute_of(thing.model.category, thing.speed),
                **transform_columns(pose),
                size=[width, length, height],
                num_lidar_pts=count,
                num_radar_pts=0,
            )

    def finish(self) -> Tables:
        """The scene's rows, linked; its map is written here."""
        for channel, pose, intrinsics in [
            ("LIDAR_TOP", LIDAR_TO_EGO, []),
            *((c.channel, c.to_ego(), c.intrinsics(self.settings.image_size).tolist()) for c in CAMERAS),
        ]:
            columns = {"sensor_token": make_token("sensor", channel), **transform_columns(pose)}
            self.add(
                "calibrated_sensor", self.token("calibrated_sensor", channel), **columns, camera_intrinsic=intrinsics
            )
        self._add_instances()
        self._add_log_and_map()
        samples = self.tables["sample"]
        self.add(
            "scene",
            self.token("scene"),
            log_token=self.token("log"),
            nbr_samples=len(samples),
            first_sample_token=samples[0]["token"],
            last_sample_token=samples[-1]["token"],
            name=self.name,
            description=DESCRIPTION,
        )
        chain(samples)
        for sensor in self.tables["calibrated_sensor"]:
            data = self.tables["sample_data"]
            chain([row for row in data if row["calibrated_sensor_token"] == sensor["token"]])
        return dict(self.tables)

    def _add_instances(self) -> None:
        by_instance = defaultdict(list)
        for annotation in self.tables["sample_annotation"]:
            by_instance[annotation["instance_token"]].append(annotation)
        for number in self.surfaces.movable:
            if not (annotations := by_instance.get(self.token("instance", number))):
                continue
            chain(annotations)
            self.add(
                "instance",
                self.token("instance", number),
                category_token=make_token("category", self.surfaces.things[number].model.category),
                nbr_annotations=len(annotations),
                first_annotation_token=annotations[0]["token"],
                last_annotation_token=annotations[-1]["token"],
            )

    def _add_log_and_map(self) -> None:
        """The map is nuScenes's mask of driveable ground: 0.1 m per pixel, north up."""
        log, mask = self.token("log"), self.token("map")
        location = LOCATIONS[(self.settings.seed + self.index) % len(LOCATIONS)]
        self.add("log", log, logfile=self.log_name, vehicle="street", date_captured="2023-11-14", location=location)
        filename = f"maps/{mask}.png"
        self.add("map", mask, category="semantic_prior", filename=filename, log_tokens=[log])
        ground = self.surfaces.town.ground
        driveable = np.array([patch.category == "flat.driveable_surface" for patch in ground.patches])
        pixels = 255 * driveable[ground.painting[::-1]].astype(np.uint8)
        Image.fromarray(pixels).save(self.open_path(filename))

    def segments(self) -> Segments:
        movable = set(self.surfaces.movable)
        instances = [self.token("instance", n) if n in movable else "" for n in range(len(self.surfaces.categories))]
        return {"raw_class": self.surfaces.raw_class.tolist(), "instance": ["", *instances]}
