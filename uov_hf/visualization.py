"""Pictures of labelled scans: points over camera images, a bird's-eye view, an interactive viewer in one HTML file."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from .occlusion import OcclusionConfig
from .projection import Camera, project_points, visible_points
from .vocabulary import IGNORED


BACKGROUND, FOREGROUND, FAINT = "#111317", "#e6e6e6", (90, 96, 105)
HIDDEN = (255, 0, 255)  # points that a camera cannot see
LEAST_BRIGHTNESS = 160  # of the brightest channel, on the dark background
VERDICTS, VERDICT_COLORS = ("right", "wrong"), np.array([(70, 130, 180), (240, 60, 50)])

AXIS = {"showbackground": False, "gridcolor": "#2a2e35", "zeroline": False, "color": "#8a9099"}
BUTTON_ROW = {"type": "buttons", "direction": "right", "x": 0.01, "y": 0.99, "xanchor": "left", "bgcolor": "#8a9099"}
BUTTON_ROW["font"] = {"color": BACKGROUND}  # the pressed button is white


def label_colors(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """One RGB colour per point, `(num_points, 3)` uint8, from class ids 0…C−1 (255: grey) and `colors` `(C, 3)`."""
    colors = _palette(colors, len(colors))
    labels = _check_labels("labels", labels, len(labels), len(colors))
    palette = np.full((IGNORED + 1, 3), FAINT, dtype=np.uint8)
    palette[: len(colors)] = colors
    return palette[labels]


def value_colors(values: np.ndarray, colormap: str = "turbo") -> np.ndarray:
    """One RGB colour per point, `(num_points, 3)` uint8, from a depth, a score or an intensity; not finite: grey."""
    values = np.asarray(values, dtype=np.float64)
    low, high = _value_range(values)
    shades = colormaps[colormap]((values - low) / (high - low), bytes=True)[..., :3]
    shades[~np.isfinite(values)] = FAINT
    return shades


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
    points = _check_points(points)[:, :3]
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
        axes.set_title(f"{name}: {len(seen):,} points", color=FOREGROUND, fontsize=10)
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
    points, image = _check_points(points)[:, :3], np.asarray(image)
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
        axes.set_title(f"{title}: {len(hidden):,} of {in_view.sum():,} points hidden", color=FOREGROUND, fontsize=11)
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
    points = _check_points(points)
    labels = _check_labels("labels", labels, len(points), len(class_names))
    colors = _palette(colors, len(class_names))
    shades = label_colors(labels, colors)
    shown = np.flatnonzero(np.abs(points[:, :2]).max(axis=1) < extent)
    shown = shown[np.argsort(points[shown, 2])]  # what is above is drawn last
    figure = Figure(figsize=(11.5, 8), facecolor=BACKGROUND, layout="constrained")
    axes = figure.add_subplot(facecolor=BACKGROUND, aspect="equal", xlim=(-extent, extent), ylim=(-extent, extent))
    axes.scatter(*points[shown, :2].T, s=1.2, c=shades[shown] / 255, linewidths=0)
    axes.plot(0, 0, marker="+", color=FOREGROUND, markersize=10)  # the sensor
    axes.set_title(title, color=FOREGROUND)
    axes.set_xlabel("x (m)", color=FOREGROUND)
    axes.set_ylabel("y (m)", color=FOREGROUND)
    axes.tick_params(colors=FOREGROUND)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=np.divide(color, 255), label=f"{name} ({count:,})")
        for _, name, color, count in _present_classes(labels[shown], class_names, colors, "unlabelled")
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, labelcolor=FOREGROUND)
    return figure


def write_viewer(
    path: str | Path,
    points: np.ndarray,
    segmentation: np.ndarray,
    class_names: Sequence[str],
    colors: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    intensity: np.ndarray | None = None,
    ground_truth: np.ndarray | None = None,
    title: str = "LiDAR segmentation",
) -> Path:
    """Writes one HTML file that shows the scan in any browser, offline: turn, zoom, switch classes on and off.

    Buttons colour the points by class and, where given, by score, intensity, ground truth and error. Points that are
    not finite are left out.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns):
            Metres, in the lidar frame.
        segmentation (`np.ndarray` of shape `(num_points,)`):
            Class ids 0…C−1; 255 is unlabelled.
        class_names (sequence of `str`), colors (`np.ndarray` of shape `(C, 3)`):
            Name and RGB colour, 0…255, of each class.
        scores, intensity (`np.ndarray` of shape `(num_points,)`, *optional*):
            Any scale; colours span the 1st to the 99th percentile.
        ground_truth (`np.ndarray` of shape `(num_points,)`, *optional*):
            Class ids 0…C−1; 255 is ignored, and never an error. An unlabelled point with a ground truth is wrong.
    """
    points = _check_points(points)
    kept = np.isfinite(points[:, :3]).all(axis=1)
    colors = _palette(colors, len(class_names))
    predictions = _check_labels("segmentation", segmentation, len(points), len(class_names))[kept]
    views = {"class": _class_traces(points[kept], predictions, class_names, colors, "unlabelled")}
    for name, values in (("score", scores), ("intensity", intensity)):
        if values is not None:
            views[name] = [_value_trace(points[kept], _check_values(name, values, len(points))[kept], name)]
    if ground_truth is not None:
        truth = _check_labels("ground_truth", ground_truth, len(points), len(class_names))[kept]
        wrong = np.where(truth == IGNORED, IGNORED, predictions != truth)
        views["ground truth"] = _class_traces(points[kept], truth, class_names, colors, "ignored")
        views["error"] = _class_traces(points[kept], wrong, VERDICTS, VERDICT_COLORS, "ignored")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(_viewer_figure(views, title), title), encoding="utf-8")
    return path


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


def _present_classes(labels: np.ndarray, class_names: Sequence[str], colors: np.ndarray, ignored_name: str):
    """Id, name, colour and number of points of every class that occurs; the points without a class come last."""
    ids = [*range(len(class_names)), IGNORED]
    counts = np.bincount(labels, minlength=IGNORED + 1)[ids].tolist()
    rows = zip(ids, [*class_names, ignored_name], [*colors, np.array(FAINT)], counts, strict=True)
    return [row for row in rows if row[-1]]


def _class_traces(
    points: np.ndarray, labels: np.ndarray, class_names: Sequence[str], colors: np.ndarray, ignored_name: str
) -> list[go.Scatter3d]:
    """One trace per class, so that the legend switches classes on and off."""
    return [
        _trace(points[labels == label], html.escape(name), f"{count:,}", color="rgb({},{},{})".format(*color))
        for label, name, color, count in _present_classes(labels, class_names, colors, ignored_name)
    ]


def _value_trace(points: np.ndarray, values: np.ndarray, name: str) -> go.Scatter3d:
    low, high = _value_range(values)
    scale = {"cmin": low, "cmax": high, "colorscale": "Turbo", "colorbar": {"title": {"text": name}, "len": 0.6}}
    trace = _trace(points, name, "%{marker.color:.3g}", color=values.astype(np.float32), **scale)
    return trace.update(showlegend=False)


def _trace(points: np.ndarray, name: str, detail: str, **marker) -> go.Scatter3d:
    x, y, z = np.ascontiguousarray(points[:, :3].T, dtype=np.float32)
    label = f"{name} ({detail})"
    hover = f"{label}<br>%{{x:.2f}}, %{{y:.2f}}, %{{z:.2f}} m<extra></extra>"
    trace = go.Scatter3d(x=x, y=y, z=z, mode="markers", name=label, hovertemplate=hover, visible=False)
    return trace.update(marker={"size": 1.8, **marker})


def _viewer_figure(views: Mapping[str, list[go.Scatter3d]], title: str) -> go.Figure:
    """All views' traces in one figure; a button shows one view's and hides the others'."""
    owners = [name for name, traces in views.items() for _ in traces]
    buttons = [
        {"label": name, "method": "restyle", "args": [{"visible": [owner == name for owner in owners]}]}
        for name in views
    ]
    for trace in views["class"]:
        trace.visible = True
    return go.Figure([trace for traces in views.values() for trace in traces]).update_layout(
        title={"text": html.escape(title), "x": 0.5},
        paper_bgcolor=BACKGROUND,
        font_color=FOREGROUND,
        margin={"l": 0, "r": 0, "t": 48, "b": 0},
        legend_itemsizing="constant",
        scene={f"{name}axis": {**AXIS, "title": f"{name} (m)"} for name in "xyz"},
        scene_aspectmode="data",  # a metre is as long on every axis
        scene_camera={"eye": {"x": -0.35, "y": -0.6, "z": 0.35}, "center": {"x": 0, "y": 0, "z": -0.1}},
        updatemenus=[{**BUTTON_ROW, "buttons": buttons}],
    )


def _page(figure: go.Figure, title: str) -> str:
    """The figure and plotly.js itself in one page: nothing is fetched when it is opened."""
    plot = figure.to_html(full_html=False, default_height="100vh", config={"displaylogo": False})
    style = f"<style>body {{margin: 0; background: {BACKGROUND}}}</style>"
    head = f'<head><meta charset="utf-8"><title>{html.escape(title)}</title>{style}</head>'
    return f'<!doctype html>\n<html lang="en">\n{head}\n<body>{plot}</body>\n</html>\n'


def _value_range(values: np.ndarray) -> tuple[float, float]:
    """1st and 99th percentile of the finite values, never equal: single outliers must not flatten the colours."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (1, 99)) if len(finite) else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def _check_points(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"`points` must have shape (num_points, 3) or more columns (x, y, z, …), got {points.shape}.")
    return points


def _check_values(name: str, values: np.ndarray, num_points: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (num_points,):
        raise ValueError(f"`{name}` must have one value per point, shape ({num_points},), got {values.shape}.")
    return values


def _check_labels(name: str, labels: np.ndarray, num_points: int, num_classes: int) -> np.ndarray:
    labels = _check_values(name, labels, num_points)
    strangers = np.setdiff1d(labels, [*range(num_classes), IGNORED])
    if labels.dtype.kind not in "iu" or len(strangers):
        raise ValueError(
            f"`{name}` must hold integer class ids 0…{num_classes - 1}, or {IGNORED} where there is none, "
            f"got {labels.dtype} with {strangers[:5].tolist()}. Raw ids of a dataset go through its vocabulary first."
        )
    return labels.astype(np.int64)


def _palette(colors: np.ndarray, num_classes: int) -> np.ndarray:
    """The colours, checked; dark ones, such as nuScenes' sidewalk, lightened in their hue until they can be seen."""
    colors = np.asarray(colors)
    if colors.shape != (num_classes, 3) or colors.dtype.kind not in "iu":
        raise ValueError(
            f"`colors` must be integers 0…255 of shape ({num_classes}, 3), got {colors.dtype} of shape {colors.shape}."
        )
    brightness = colors.max(axis=1, keepdims=True).clip(1)  # (num_classes, 1)
    return (colors * np.maximum(1, LEAST_BRIGHTNESS / brightness)).astype(np.uint8)
