"""The figures of a label card, which show its numbers, and the gallery, which shows sensor data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.frames import Frame, Frames
from uov_hf.evaluation.label_statistics import RANGE_NAMES, AbstentionNumbers, ClassNumbers, LabelNumbers
from uov_hf.geometry.projection import Camera
from uov_hf.image_files import decode_image
from uov_hf.labels.point_labels import PointLabels
from uov_hf.pictures.scan_colors import VERDICT_COLORS, VERDICTS, distinct_colors, label_colors
from uov_hf.pictures.visualization import draw_birds_eye_view, draw_camera_overlays
from uov_hf.vocabulary import available_vocabularies, load_vocabulary


class GalleryPage(TypedDict):
    """A frame of the gallery; `pictures` are titles and file names."""

    frame_id: str
    pictures: dict[str, str]


def taxonomy_colors(taxonomy: str, num_classes: int) -> np.ndarray:
    """RGB colours `(num_classes, 3)` of a taxonomy; a taxonomy that the package does not have gets distinct ones."""
    return load_vocabulary(taxonomy).colors if taxonomy in available_vocabularies() else distinct_colors(num_classes)


def draw_class_histogram(classes: list[ClassNumbers], colors: np.ndarray) -> Figure:
    """Points of each label, on a logarithmic scale."""
    names = [entry["name"].replace("_", " ") for entry in classes]
    counts = [entry["num_points"] for entry in classes]
    figure = Figure(figsize=(8, 0.3 * len(names) + 1), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="points", xlim=(0.7, 3 * max(1, *counts)))
    rows = range(len(names))
    bars = axes.barh(rows, np.maximum(counts, 0.7), color=colors / 255, edgecolor="#555555", linewidth=0.5)
    axes.set_yticks(rows, names, parse_math=False)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_shares_by_range(numbers: LabelNumbers) -> Figure:
    """Coverage, agreement and, with a ground truth, accuracy against the distance to the sensor."""
    curves = {
        "camera-seen points that have a label": numbers["coverage_of_seen"],
        "agreement between cameras": numbers["camera_agreement"],
        "agreement over time": numbers["time_agreement"],
        "accuracy on camera-seen points": numbers["accuracy"],
    }
    shares = {
        title: (RANGE_NAMES, list(curve["by_range"].values()))
        for title, curve in curves.items()
        if curve["num_trials"]
    }
    return _draw_percents(shares, "o", "best", xlim=(-0.3, len(RANGE_NAMES) - 0.7))


def draw_abstention(by_min_confidence: list[AbstentionNumbers]) -> Figure:
    """Share of labels left, and share of right ones among them, against the least confidence of a label."""
    thresholds = [row["min_confidence"] for row in by_min_confidence]
    curves = {
        "right, of the points left with a label": (thresholds, [row["precision"] for row in by_min_confidence]),
        "camera-seen points left with a label": (thresholds, [row["coverage"] for row in by_min_confidence]),
    }
    return _draw_percents(curves, ".", "lower left", xlabel="least confidence of a label")


def _draw_percents(
    curves: Mapping[str, tuple[Sequence[str | float], Sequence[float | None]]], marker: str, legend: str, **axis: Any
) -> Figure:
    """Curves of shares in percent: title → x and share; None leaves a gap."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(ylabel="%", ylim=(0, 102), **axis)
    for title, (x, shares) in curves.items():
        axes.plot(x, [np.nan if share is None else 100 * share for share in shares], marker=marker, label=title)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc=legend, frameon=False)
    return figure


def draw_confusion(counts: np.ndarray, class_names: list[str]) -> Figure:
    """Labels given to the points of each class, in percent; the last column is no label.

    Args:
        counts (`np.ndarray` of shape `(num_labels, num_labels + 1)`): From a `ConfusionMatrix`.
        class_names (`list[str]`): In the order of their ids.
    """
    counts, names = counts.astype(float), [name.replace("_", " ") for name in class_names]
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    figure = Figure(figsize=(0.5 * len(names) + 3, 0.42 * len(names) + 2), layout="constrained")
    axes = figure.add_subplot(xlabel="label", ylabel="truth")
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(names) + 1), [*names, "no label"], rotation=60, ha="right", parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5:
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 60 else "black")
    return figure


def write_gallery(
    folder: Path, frames: Frames, point_labels: PointLabels, class_names: list[str], colors: np.ndarray
) -> list[GalleryPage]:
    """Write pictures of every frame: its labels over the camera images and from above, and the wrong labels.

    The picture of wrong labels needs a ground truth in these classes.
    """
    pages: list[GalleryPage] = []
    for number, frame in enumerate(frames, start=1):
        labels = point_labels.read(frame["frame_id"], ["labels"])["labels"]
        views = {"camera images": _draw_overlays(frame, labels, colors)}
        views["from above"] = draw_birds_eye_view(frame["points"], labels, class_names, colors, title="labels")
        if frames.class_names == class_names and frame["labels"] is not None:
            is_scored = (frame["labels"] != IGNORED) & (labels != IGNORED)
            verdicts = np.where(is_scored, labels != frame["labels"], IGNORED)
            title = "labels compared with the truth (grey: one of the two is missing)"
            verdict = (verdicts, VERDICTS, VERDICT_COLORS)
            views["wrong labels"] = draw_birds_eye_view(frame["points"], *verdict, title=title)
        pictures = {title: f"{number}-{title.replace(' ', '-')}.png" for title in views}
        for title, view in views.items():
            view.save(folder / pictures[title])
        pages.append({"frame_id": frame["frame_id"], "pictures": pictures})
    return pages


def _draw_overlays(frame: Frame, labels: np.ndarray, colors: np.ndarray) -> Image.Image:
    cameras = map(Camera, frame["lidar2cam"], frame["intrinsics"], frame["image_sizes"])
    images = [decode_image(image) for image in frame["images"]]
    shades = label_colors(labels, colors)
    return draw_camera_overlays(frame["points"], images, list(cameras), shades, frame["camera_names"])
