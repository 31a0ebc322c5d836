"""Pictures of labelled scans: points over camera images, a bird's-eye view, the range image of the scanner."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


BACKGROUND, FOREGROUND = (17, 19, 23), (230, 230, 230)
HIDDEN = (255, 0, 255)  # points that a camera cannot see
LINE_HEIGHT = 22  # pixels of a line of text
SHEET_WIDTH = 1280  # pixels of a calibration; several cameras in a row have half of it each
VIEW_SIZE = 800  # pixels of the view from above


def draw_camera_overlay(
    image: Image.Image | np.ndarray, pixel_coords: np.ndarray, point_colors: np.ndarray, point_size: float = 4.0
) -> Image.Image:
    """An image with points over it, as large as the image itself.

    Args:
        image (`PIL.Image.Image` or `np.ndarray`): RGB.
        pixel_coords (`np.ndarray` of shape `(num_points, 2)`):
            Column and row of each point. Later points are drawn over earlier ones.
        point_colors (`np.ndarray` of shape `(num_points, 3)`): RGB, 0…255: see [`label_colors`] and [`value_colors`].
        point_size (`float`, *optional*, defaults to 4.0): Diameter of a point, in pixels of the image.
    """
    picture = np.array(image)
    if np.shape(pixel_coords) != (len(point_colors), 2):
        raise ValueError(
            f"`pixel_coords` must have one (column, row) for each of the {len(point_colors)} rows of `point_colors`, "
            f"got shape {np.shape(pixel_coords)}. Index both with the same `in_view`."
        )
    reach = np.arange(-int(point_size // 2), int(point_size // 2) + 1)
    disc = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(-1, 2)
    disc = disc[(disc**2).sum(axis=1) <= (point_size / 2) ** 2]
    cells = np.rint(pixel_coords).astype(int)[:, None] + disc  # (num_points, num_pixels, 2)
    column, row = cells.reshape(-1, 2).T
    inside = (column >= 0) & (column < picture.shape[1]) & (row >= 0) & (row < picture.shape[0])
    # Where several points share a pixel, numpy keeps the last one.
    picture[row[inside], column[inside]] = np.repeat(point_colors, len(disc), axis=0)[inside]
    return Image.fromarray(picture)


def draw_camera_overlays(
    points: np.ndarray,
    images: Sequence[Image.Image | np.ndarray],
    cameras: Sequence[Camera],
    point_colors: np.ndarray | None = None,
    camera_names: Sequence[str] | None = None,
) -> Image.Image:
    """The camera images of a frame on one sheet, each with the points it sees, near points over far ones.

    Look at this picture first: where calibration or timestamps are wrong, points do not lie on their objects. A narrow
    fringe at near edges is parallax between the sensors, not an error.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns): Metres, in the lidar frame.
        images, cameras, camera_names (sequences of `PIL.Image.Image`, of `Camera`, of `str`):
            All in the same order; names are optional.
        point_colors (`np.ndarray` of shape `(num_points, 3)`, *optional*):
            RGB, 0…255. Without it points are coloured by their depth in each camera, near ones red.

    Raises:
        ValueError: the numbers of images, cameras and names differ, or an image has another size than its camera.
    """
    points = check_points(points)[:, :3]
    names = camera_names or [f"camera {number}" for number in range(len(cameras))]
    if not images or not len(images) == len(cameras) == len(names):
        raise ValueError(
            "Every image needs a camera and, if any has one, a name: "
            f"got {len(images)} images, {len(cameras)} cameras, {len(names)} names."
        )
    tiles = []
    for name, image, camera in zip(names, images, cameras, strict=True):
        height, width = np.asarray(image).shape[:2]
        if (height, width) != camera.image_size:
            raise ValueError(f"{name}: calibrated for (height, width) {camera.image_size}, image is {height, width}.")
        pixel_coords, in_view = project_points(points, camera)
        seen, shades = _far_to_near(points, camera, in_view)
        shades = shades if point_colors is None else point_colors[seen]
        picture = _overlay(image, SHEET_WIDTH // 2, pixel_coords[seen], shades, point_size=2)
        tiles.append(_with_title(picture, f"{name}: {len(seen):,} points"))
    return tile(tiles, num_columns=min(3, len(tiles)))


def draw_calibrations(
    points: np.ndarray, image: Image.Image | np.ndarray, cameras: Mapping[str, Camera]
) -> Image.Image:
    """An image with the points over it, once for each calibration; points hidden from the camera are magenta.

    Points that the camera sees are coloured by their depth, near ones red, and must lie on their objects. A magenta
    point is behind something nearer, past which the lidar looks and the camera does not. That is parallax, not an
    error.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns): Metres, in the lidar frame.
        image (`PIL.Image.Image` or `np.ndarray`): Of the camera.
        cameras (mapping of `str` to `Camera`): The calibrations, each with its title.
    """
    points = check_points(points)[:, :3]
    tiles = []
    for title, camera in cameras.items():
        pixel_coords, in_view = project_points(points, camera)
        visible = visible_points(points, camera, OcclusionConfig())
        seen, shades = _far_to_near(points, camera, visible)
        hidden = np.flatnonzero(in_view & ~visible)
        order = np.concatenate([seen, hidden])
        shades = np.concatenate([shades, np.tile(np.array(HIDDEN, np.uint8), (len(hidden), 1))])
        picture = _overlay(image, SHEET_WIDTH, pixel_coords[order], shades, point_size=2)
        tiles.append(_with_title(picture, f"{title}: {len(hidden):,} of {in_view.sum():,} points hidden"))
    return tile(tiles, num_columns=1)


def draw_birds_eye_view(
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    colors: np.ndarray,
    extent: float = 50.0,
    title: str = "",
) -> Image.Image:
    """The scan from above, within `extent` metres of the sensor, with the classes in view and their point counts.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns):
            Metres, in the lidar frame; x to the right of the picture, y up.
        labels (`np.ndarray` of shape `(num_points,)`): Class ids 0…C−1; 255 is grey.
        class_names (sequence of `str`), colors (`np.ndarray` of shape `(C, 3)`):
            Name and RGB colour, 0…255, of each class.
        extent (`float`, *optional*, defaults to 50.0): Metres from the sensor to each edge of the picture.
    """
    points = check_points(points)
    labels = check_labels("labels", labels, len(points), len(class_names))
    colors = check_palette(colors, len(class_names))
    shown = np.flatnonzero(np.abs(points[:, :2]).max(axis=1) < extent)
    shown = shown[np.argsort(points[shown, 2])]  # what is above is drawn last
    pixel_coords = (points[shown, :2] * [1, -1] / extent + 1) * VIEW_SIZE / 2
    canvas = np.full((VIEW_SIZE, VIEW_SIZE, 3), BACKGROUND, np.uint8)
    view = draw_camera_overlay(canvas, pixel_coords, label_colors(labels, colors)[shown], point_size=1)
    draw = ImageDraw.Draw(view)
    _write(draw, (VIEW_SIZE // 2, VIEW_SIZE // 2), "+", anchor="mm")  # the sensor
    # A tenth of the width, so that distances can be read off.
    draw.line([(10, VIEW_SIZE - 10), (10 + VIEW_SIZE // 10, VIEW_SIZE - 10)], FOREGROUND, width=2)
    _write(draw, (10, VIEW_SIZE - 14), f"{extent / 5:g} m", anchor="lb")
    classes = present_classes(labels[shown], class_names, colors, "unlabelled")
    legend = draw_legend([(f"{name} ({count:,})", color) for _, name, color, count in classes])
    return _with_title(tile([view, legend], num_columns=2), title)


def draw_legend(entries: Sequence[tuple[str, Sequence[int]]]) -> Image.Image:
    """A list of names, each beside a square of its RGB colour 0…255."""
    font = _font(14)
    width = int(max((font.getlength(name) for name, _ in entries), default=0))
    picture = Image.new("RGB", (width + 40, LINE_HEIGHT * len(entries) + 10), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for row, (name, color) in enumerate(entries):
        top = 5 + LINE_HEIGHT * row
        draw.rectangle((10, top + 4, 22, top + 16), fill=tuple(int(value) for value in color))
        _write(draw, (30, top + 10), name, anchor="lm")
    return picture


def tile(pictures: Sequence[Image.Image], num_columns: int) -> Image.Image:
    """The pictures row by row on one sheet; each column is as wide, and each row as high, as its largest picture."""
    rows = [pictures[start : start + num_columns] for start in range(0, len(pictures), num_columns)]
    widths = [max(picture.width for picture in pictures[column::num_columns]) for column in range(num_columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths), sum(heights)), BACKGROUND)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, num_columns)
        sheet.paste(picture, (sum(widths[:column]), sum(heights[:row])))
    return sheet


def draw_range_image(
    points: np.ndarray,
    point_colors: np.ndarray | None = None,
    ring: np.ndarray | None = None,
    num_rows: int = 64,
    num_columns: int = 1024,
) -> Image.Image:
    """The scan as its sensor sees it, all around: a row for each beam, a column for each direction, near over far.

    The x axis of the lidar is in the middle, its left side on the left. Each cell is a block of pixels, so that beams
    are thick enough to see.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns):
            Metres, in the lidar frame. Points that are not finite are left out.
        point_colors (`np.ndarray` of shape `(num_points, 3)`, *optional*):
            RGB, 0…255: see [`label_colors`] and [`value_colors`]. Without it points are coloured by their distance,
            near ones red.
        ring (`np.ndarray` of shape `(num_points,)`, *optional*):
            The beam of each point, as the fifth column of nuScenes' files has it. Without it there are `num_rows` rows
            of equal elevation, and beams that are not evenly spread share rows or leave some black.
        num_rows (`int`, *optional*, defaults to 64): Rows without `ring`.
        num_columns (`int`, *optional*, defaults to 1024): Directions of the full turn.
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
    shades = value_colors(-np.log(distance)) if point_colors is None else np.asarray(point_colors)[kept]
    picture = np.zeros((num_rows, num_columns, 3), dtype=np.uint8)
    order = np.argsort(-distance)  # where several fall into a cell, the last one written stays
    picture[row[order], column[order]] = shades[order]
    block = max(1, 300 // num_rows), max(1, 1600 // num_columns)  # pixels
    return Image.fromarray(picture.repeat(block[0], axis=0).repeat(block[1], axis=1))


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
    return rows[order], value_colors(-np.log(depth[order]))


def _overlay(
    image: Image.Image | np.ndarray, width: int, pixel_coords: np.ndarray, colors: np.ndarray, point_size: float
) -> Image.Image:
    """The image at another width, with points over it whose pixels are those of the image as it was."""
    image = Image.fromarray(np.asarray(image))
    scale = width / image.width
    resized = image.convert("RGB").resize((width, max(1, round(image.height * scale))))
    return draw_camera_overlay(resized, (pixel_coords + 0.5) * scale - 0.5, colors, point_size)


def _with_title(picture: Image.Image, title: str) -> Image.Image:
    """The picture below a line of text."""
    sheet = Image.new("RGB", (picture.width, picture.height + LINE_HEIGHT), BACKGROUND)
    sheet.paste(picture, (0, LINE_HEIGHT))
    _write(ImageDraw.Draw(sheet), (6, LINE_HEIGHT // 2), title, anchor="lm")
    return sheet


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, anchor: str) -> None:
    draw.text(place, text, FOREGROUND, _font(14), anchor=anchor)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)  # it has accents, Greek and Cyrillic
    except OSError:
        return ImageFont.load_default(size)  # Pillow's own: ASCII only
