"""The interactive viewer of a labelled scan in one HTML file, and the same scan in rerun."""

import base64
import html
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.pictures.scan_colors import (
    VERDICT_COLORS,
    VERDICTS,
    check_labels,
    check_palette,
    check_points,
    check_values,
    distinct_colors,
    present_classes,
    value_colors,
    value_range,
)
from uov_hf.point_files import find_origin


TEMPLATE = Path(__file__).with_suffix(".html")
RAMP = value_colors(np.linspace(0, 1, IGNORED)).tolist()  # row 255: no value


def write_viewer(path: str | Path, points: np.ndarray, *args: Any, **kwargs: Any) -> Path:
    """Write the page that [`render_viewer`] returns for the same arguments, and return its path."""
    page = render_viewer(points, *args, **kwargs)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def render_viewer(
    points: np.ndarray,
    segmentation: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    colors: np.ndarray | None = None,
    *,
    scores: np.ndarray | None = None,
    intensity: np.ndarray | None = None,
    ground_truth: np.ndarray | None = None,
    title: str = "LiDAR segmentation",
) -> str:
    """One HTML page that shows the scan in any browser, offline: rotate, zoom, switch classes on and off.

    Points are coloured by height or by any given array: class, score, intensity, ground truth or error. Positions are
    rounded to millimetres, other values are not changed. Points that are not finite are left out.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or more columns): Metres, in the lidar frame.
        segmentation (`np.ndarray` of shape `(num_points,)`, *optional*): Class ids 0…C−1; 255 is unlabelled.
        class_names (sequence of `str`), colors (`np.ndarray` of shape `(C, 3)`, *optional*):
            Name and RGB colour, 0…255, of each class. Without `colors`, classes get distinct ones.
        scores, intensity (`np.ndarray` of shape `(num_points,)`, *optional*):
            Any scale; colours span the 1st to the 99th percentile.
        ground_truth (`np.ndarray` of shape `(num_points,)`, *optional*):
            Class ids 0…C−1; 255 is ignored, and never an error. An unlabelled point with a ground truth is wrong.
        title (`str`, *optional*): Title of the page.

    Raises:
        ValueError: If an argument does not fit the points or the classes.
    """
    points = check_points(points)
    kept = np.isfinite(points[:, :3]).all(axis=1)
    positions = points[kept, :3].astype(np.float64)
    origin = find_origin(positions, distance=0)  # also the middle of the first view
    values = {"scores": scores, "intensity": intensity, "ground_truth": ground_truth}
    colorings = _colorings(points, segmentation, class_names, colors, **values)
    scan = {
        "millimetres": _pack_words(_millimetres(positions - origin).T),  # all x, then all y, then all z
        "origin": origin.tolist(),
        "radius": float(np.percentile(np.abs(positions - origin).max(axis=1), 80)) if len(positions) else 1.0,
        "ramp": RAMP,
        "colorings": [_packed(coloring, kept) for coloring in colorings],
    }
    page = TEMPLATE.read_text(encoding="utf-8").replace("{{title}}", html.escape(title))
    return page.replace("{{scan}}", json.dumps(scan).replace("<", "\\u003c"))  # no name may close the script


class Coloring(NamedTuple):
    """A colouring of all points of a scan, by class or by value."""

    name: str
    array: np.ndarray  # (num_points,) class ids, or values
    class_names: Sequence[str] = ()
    colors: np.ndarray | None = None  # (C, 3); None for values
    ignored_name: str = "unlabelled"


def _colorings(
    points: np.ndarray,
    segmentation: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    colors: np.ndarray | None = None,
    *,
    scores: np.ndarray | None = None,
    intensity: np.ndarray | None = None,
    ground_truth: np.ndarray | None = None,
) -> list[Coloring]:
    """The colourings of the given arrays, checked, in the order of the page's menu; height is always last."""
    num_points, num_classes = len(points), len(class_names)
    colors = check_palette(distinct_colors(num_classes) if colors is None else colors, num_classes)
    found = []
    if segmentation is not None:
        predictions = check_labels("segmentation", segmentation, num_points, num_classes)
        found.append(Coloring("class", predictions, class_names, colors))
    for name, values in (("score", scores), ("intensity", intensity)):
        if values is not None:
            found.append(Coloring(name, check_values(name, values, num_points)))
    if ground_truth is not None:
        truth = check_labels("ground_truth", ground_truth, num_points, num_classes)
        found.append(Coloring("ground truth", truth, class_names, colors, "ignored"))
        if segmentation is not None:
            wrong = np.where(truth == IGNORED, IGNORED, predictions != truth)
            found.append(Coloring("error", wrong, VERDICTS, VERDICT_COLORS, "ignored"))
    return [*found, Coloring("height", points[:, 2])]


def _packed(coloring: Coloring, kept: np.ndarray) -> dict[str, Any]:
    """The colouring of the kept points, in the format of the page."""
    array = coloring.array[kept]
    if coloring.colors is None:
        low, high = value_range(array)
        return {"name": coloring.name, "low": low, "high": high, "values": _pack_words(array.astype(np.float32))}
    groups = present_classes(array, coloring.class_names, coloring.colors, coloring.ignored_name)
    ids = _pack(array.astype(np.uint8).tobytes())
    return {"name": coloring.name, "ids": ids, "groups": [group._asdict() for group in groups]}


def _millimetres(metres: np.ndarray) -> np.ndarray:
    millimetres = np.rint(1000 * metres)
    if np.abs(millimetres).max(initial=0) >= 2**31:
        raise ValueError(
            "`points` must be metres and lie within 2,000 km of each other, got a distance of "
            f"{np.abs(metres).max():.3g} m."
        )
    return millimetres.astype(np.int32)


def _pack_words(words: np.ndarray) -> str:
    """32-bit numbers as four planes of bytes, lowest first; high bytes of neighbours are similar and compress well."""
    words = np.ascontiguousarray(words).astype(words.dtype.newbyteorder("<"))
    return _pack(words.reshape(-1).view(np.uint8).reshape(-1, 4).T.tobytes())


def _pack(data: bytes) -> str:
    # Above level 1, zlib searches long chains of matches where a plane has few values, such as the bytes of whole
    # numbers: at level 9 the intensities of two million points take a minute, and the page is 8 % smaller.
    return base64.b64encode(zlib.compress(data, level=1)).decode("ascii")


def show_in_rerun(
    points: np.ndarray, *args: Any, title: str = "LiDAR segmentation", path: str | Path | None = None, **kwargs: Any
) -> np.ndarray:
    """Show the scan in a window of rerun, one tab for each colouring. Arguments are those of [`render_viewer`].

    Positions in rerun are float32. Those of a map are relative to an origin, which is text in a tab of its own.

    Args:
        path (`str` or `Path`, *optional*): A `.rrd` file to write instead of opening a window; `rerun FILE` opens it.

    Returns:
        `np.ndarray` of shape `(3,)`, float64: The origin; zero for a scan in the frame of its sensor.

    Raises:
        ImportError: If rerun is not installed.
    """
    try:
        import rerun
        from rerun import blueprint
    except ImportError as error:
        raise ImportError(
            'rerun is not installed: `pip install "uov-hf[rerun]"`, or use the HTML viewer, which needs no package.'
        ) from error
    points = check_points(points)
    kept = np.isfinite(points[:, :3]).all(axis=1)
    origin = find_origin(points)
    positions = points[kept, :3] - origin
    colorings = _colorings(points, *args, **kwargs)
    entities = [coloring.name.replace(" ", "_") for coloring in colorings]
    tabs: list[Any] = [blueprint.Spatial3DView(origin=entity, name=entity) for entity in entities]
    if origin.any():
        tabs.append(blueprint.TextDocumentView(origin="origin", name="origin"))
    recording = rerun.RecordingStream("uov-hf")  # rerun warns of an application with a dot in its name
    if path is None:
        recording.spawn()
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        recording.save(path)
    recording.send_recording_name(title)
    recording.send_blueprint(blueprint.Blueprint(blueprint.Tabs(*tabs)))
    if origin.any():
        recording.log("origin", rerun.TextDocument(describe_origin(origin)), static=True)
    for entity, coloring in zip(entities, colorings, strict=True):
        array = coloring.array[kept]
        if coloring.colors is None:
            shades: dict[str, Any] = {"colors": value_colors(array)}
        else:
            groups = present_classes(array, coloring.class_names, coloring.colors, coloring.ignored_name)
            context = rerun.AnnotationContext([(group.id, group.name, group.color) for group in groups])
            recording.log(entity, context, static=True)
            shades = {"class_ids": array}
        recording.log(entity, rerun.Points3D(positions, radii=rerun.Radius.ui_points(1.5), **shades))
    recording.flush()
    return origin


def describe_origin(origin: np.ndarray) -> str:
    return f"positions are relative to x {origin[0]:.0f}, y {origin[1]:.0f}, z {origin[2]:.0f} m"
