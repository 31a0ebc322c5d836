"""Pictures of labelled scans: points over camera images, a bird's-eye view, the range image of the scanner."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from uov_hf.geometry.occlusion import OcclusionConfig
from uov_hf.geometry.projection import Camera, project_points, visible_points
from uov_hf.pictures.scan_colors import (
    check_labels,
    check_palette,
    check_points,
    check_values,
    label_colors,
    present_classes,
    value_colors,
)


BACKGROUND, FOREGROUND = "#111317", "#e6e6e6"
HIDDEN = (255, 0, 255)  # points that a camera cannot see


def draw_camera_overlay(
    image: Image.Image | np.ndarray, pixel_coords: np.ndarray, point_colors: np.ndarray, point_size: float = 4.0
) -> Figure:
    """An image with points over it, as large as the image itself; `figure.savefig(path)` writes it.

    Args:
        pixel_coords (`np.ndarray` of shape `(num_points, 2)`):
            Column and row of each point. Later points are drawn over earlier ones.
        point_colors (`np.ndarray` of shape `(num_points, 3)`):
            RGB, 0…255: see [`label_colors`] and [`value_colors`].
        point_size (`float`, *optional*, defaults to 4.0):
            Diameter of a point, in pixels of the image.
    """
    image = np.asarray(image)
    figure = Figure(figsize=(image.shape[1] / 72, image.shape[0] / 72), dpi=72)  # a point is a pixel
    _overlay(figure.add_axes((0, 0, 1, 1)), image, pixel_coords, point_colors, point_size)
    return figure


def draw_camera_overlays(
    points: np.ndarray,
    images: Sequence[Image.Image | np.ndarray],
    cameras: Sequence[Camera],
    point_colors: np.ndarray | None = None,
    camera_names: Sequence[str] | None = None,
) -> Figure:
    """The camera images of a frame on one sheet, each with the points it sees, near points over far ones.

    The picture to look at before anything else: where calibration or timestamps are wrong, points do not lie on what
    they show. A narrow fringe at near edges is parallax between the sensors, not an error.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns):
            Metres, in the lidar frame.
        images, cameras, camera_names (sequences of `PIL.Image.Image`, of `Camera`, of `str`):
            All in the same order; names are optional.
        point_colors (`np.ndarray` of shape `(num_points, 3)`, *optional*):
            RGB, 0…255. Without it points are coloured by their depth in each camera, near ones red.
    """
    points = check_points(points)[:, :3]
    names = camera_names or [f"camera {number}" for number in range(len(cameras))]
    if not images or not len(images) == len(cameras) == len(names):
        raise ValueError(
            "Every image needs a camera and, if any has one, a name: "
            f"got {len(images)} images, {len(cameras)} cameras, {len(names)} names."
        )
    num_columns = min(3, len(images))
    num_rows = -(-len(images) // num_columns)
    figure = Figure(figsize=(6.4 * num_columns, 3.9 * num_rows), facecolor=BACKGROUND, layout="tight")
    for number, (name, image, camera) in enumerate(zip(names, images, cameras, strict=True), start=1):
        image = np.asarray(image)
        if image.shape[:2] != camera.image_size:
            raise ValueError(
                f"{name}: calibrated for (height, width) {camera.image_size}, image is {image.shape[:2]}."
            )
        pixel_coords, in_view = project_points(points, camera)
        seen, shades = _far_to_near(points, camera, in_view)
        shades = shades if point_colors is None else point_colors[seen]
        axes = figure.add_subplot(num_rows, num_columns, number)
        _overlay(axes, image, pixel_coords[seen], shades, point_size=1.6)
        axes.set_title(f"{name}: {len(seen):,} points", parse_math=False, color=FOREGROUND, fontsize=10)
    return figure


def draw_calibrations(points: np.ndarray, image: Image.Image | np.ndarray, cameras: Mapping[str, Camera]) -> Figure:
    """An image with the points over it, once for each calibration; what the camera cannot see is set apart.

    Points that it sees are coloured by their depth, near ones red, and must lie on what they show. Magenta points are
    behind something nearer: the lidar looks past it, the camera does not. That is parallax, and no error.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns):
            Metres, in the lidar frame.
        image (`PIL.Image.Image` or `np.ndarray`):
            Of the camera.
        cameras (mapping of `str` to `Camera`):
            The calibrations, each with its title.
    """
    points, image = check_points(points)[:, :3], np.asarray(image)
    height = 12.8 * image.shape[0] / image.shape[1] + 0.4
    figure = Figure(figsize=(12.8, height * len(cameras)), facecolor=BACKGROUND, layout="tight")
    for number, (title, camera) in enumerate(cameras.items(), start=1):
        pixel_coords, in_view = project_points(points, camera)
        visible = visible_points(points, camera, OcclusionConfig())
        seen, shades = _far_to_near(points, camera, visible)
        hidden = np.flatnonzero(in_view & ~visible)
        order = np.concatenate([seen, hidden])
        shades = np.concatenate([shades, np.tile(np.array(HIDDEN, np.uint8), (len(hidden), 1))])
        axes = figure.add_subplot(len(cameras), 1, number)
        _overlay(axes, image, pixel_coords[order], shades, point_size=2)
        axes.set_title(
            f"{title}: {len(hidden):,} of {in_view.sum():,} points hidden",
            parse_math=False,
            color=FOREGROUND,
            fontsize=11,
        )
    return figure


def draw_birds_eye_view(
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    colors: np.ndarray,
    extent: float = 50.0,
    title: str = "",
) -> Figure:
    """The scan from above, within `extent` metres of the sensor, with the classes in view and their point counts.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns):
            Metres, in the lidar frame; x to the right of the picture, y up.
        labels (`np.ndarray` of shape `(num_points,)`):
            Class ids 0…C−1; 255 is grey.
        class_names (sequence of `str`), colors (`np.ndarray` of shape `(C, 3)`):
            Name and RGB colour, 0…255, of each class.
    """
    points = check_points(points)
    labels = check_labels("labels", labels, len(points), len(class_names))
    colors = check_palette(colors, len(class_names))
    shades = label_colors(labels, colors)
    shown = np.flatnonzero(np.abs(points[:, :2]).max(axis=1) < extent)
    shown = shown[np.argsort(points[shown, 2])]  # what is above is drawn last
    figure = Figure(figsize=(11.5, 8), facecolor=BACKGROUND, layout="constrained")
    axes = figure.add_subplot(facecolor=BACKGROUND, aspect="equal", xlim=(-extent, extent), ylim=(-extent, extent))
    axes.scatter(*points[shown, :2].T, s=1.2, c=shades[shown] / 255, linewidths=0)
    axes.plot(0, 0, marker="+", color=FOREGROUND, markersize=10)  # the sensor
    axes.set_title(title, parse_math=False, color=FOREGROUND)
    axes.set_xlabel("x (m)", color=FOREGROUND)
    axes.set_ylabel("y (m)", color=FOREGROUND)
    axes.tick_params(colors=FOREGROUND)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=np.divide(color, 255), label=f"{name} ({count:,})")
        for _, name, color, count in present_classes(labels[shown], class_names, colors, "unlabelled")
    ]
    add_legend(figure, handles, loc="outside right upper", labelcolor=FOREGROUND)
    return figure


def add_legend(figure: Figure, handles: Sequence[Artist], **options) -> None:
    """A legend without a frame that shows the labels of `handles` as they stand: a `$` in a name is no formula."""
    for text in figure.legend(handles=handles, frameon=False, **options).get_texts():
        text.set_parse_math(False)


def draw_range_image(
    points: np.ndarray,
    point_colors: np.ndarray | None = None,
    ring: np.ndarray | None = None,
    num_rows: int = 64,
    num_columns: int = 1024,
    title: str = "",
) -> Figure:
    """The scan as its sensor sees it, all around: a row for each beam, a column for each direction, near over far.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns):
            Metres, in the lidar frame. Points that are not finite are left out.
        point_colors (`np.ndarray` of shape `(num_points, 3)`, *optional*):
            RGB, 0…255: see [`label_colors`] and [`value_colors`]. Without it points are coloured by their distance,
            near ones red.
        ring (`np.ndarray` of shape `(num_points,)`, *optional*):
            The beam of each point, as the fifth column of nuScenes' files has it. Without it there are `num_rows` rows
            of equal elevation, and beams that are not evenly spread share rows or leave some black.
        num_columns (`int`, *optional*, defaults to 1024):
            Directions of the full turn; the x axis of the lidar is in the middle, its left side on the left.
    """
    points = check_points(points)[:, :3]
    kept = np.isfinite(points).all(axis=1)
    distance = np.linalg.norm(points[kept].astype(np.float64), axis=1).clip(1e-9)
    elevation, azimuth = np.arcsin(points[kept, 2] / distance), np.arctan2(points[kept, 1], points[kept, 0])
    if ring is None:
        row = _elevation_rows(elevation, num_rows)
    else:
        row = _ring_rows(check_values("ring", ring, len(points))[kept], elevation)
        num_rows = row.max(initial=0) + 1
    column = ((np.pi - azimuth) / (2 * np.pi) * num_columns).astype(int) % num_columns
    shades = value_colors(np.log(distance), "turbo_r") if point_colors is None else np.asarray(point_colors)[kept]
    picture = np.zeros((num_rows, num_columns, 3), dtype=np.uint8)
    order = np.argsort(-distance)  # where several fall into a cell, the last one written stays
    picture[row[order], column[order]] = shades[order]
    figure = Figure(figsize=(16, 3.4), facecolor=BACKGROUND, layout="constrained")
    axes = figure.add_subplot(facecolor=BACKGROUND)
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=(180, -180, num_rows, 0))
    axes.set_title(title, parse_math=False, color=FOREGROUND)
    axes.set_xlabel("azimuth from the x axis, left is positive (°)", color=FOREGROUND)
    axes.set_ylabel("beam" if ring is not None else "elevation", color=FOREGROUND)
    axes.set_xticks(range(180, -181, -45))
    axes.set_yticks([])
    axes.tick_params(colors=FOREGROUND)
    return figure


def _elevation_rows(elevation: np.ndarray, num_rows: int) -> np.ndarray:
    """Row of each point, the highest first; single points far above or below the others do not squeeze them."""
    if not len(elevation):
        return np.zeros(0, dtype=int)
    low, high = np.percentile(elevation, (0.1, 99.9))
    share = (high - elevation) / max(high - low, 1e-9)
    return (share * num_rows).astype(int).clip(0, num_rows - 1)


def _ring_rows(ring: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Row of each point, the highest beam first, however the sensor numbers its beams."""
    _, beam, counts = np.unique(ring, return_inverse=True, return_counts=True)
    mean_elevation = np.bincount(beam, weights=elevation) / counts
    return np.argsort(np.argsort(-mean_elevation))[beam]


def _far_to_near(points: np.ndarray, camera: Camera, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen points, farthest first, and their colours by depth."""
    rows = np.flatnonzero(chosen)
    depth = points[rows] @ camera.lidar2cam[2, :3] + camera.lidar2cam[2, 3]
    order = np.argsort(-depth)
    return rows[order], value_colors(np.log(depth[order]), "rainbow_r")


def _overlay(axes: Axes, image: np.ndarray, pixel_coords: np.ndarray, colors: np.ndarray, point_size: float) -> None:
    if np.shape(pixel_coords) != (len(colors), 2):
        raise ValueError(
            f"`pixel_coords` must have one (column, row) for each of the {len(colors)} rows of `point_colors`, "
            f"got shape {np.shape(pixel_coords)}. Index both with the same `in_view`."
        )
    axes.imshow(image)
    axes.scatter(*np.transpose(pixel_coords), s=point_size**2, c=np.divide(colors, 255), linewidths=0)
    axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    axes.axis("off")
