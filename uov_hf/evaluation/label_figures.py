"""The figures of a label card, drawn from its numbers, and the gallery, drawn from sensor data."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from uov_hf.configuration_uov import IGNORED
from uov_hf.data.frames import decode_image
from uov_hf.evaluation.label_statistics import RANGE_NAMES
from uov_hf.geometry.projection import Camera
from uov_hf.labels.point_labels import PointLabels
from uov_hf.pictures.scan_colors import VERDICT_COLORS, VERDICTS, distinct_colors, label_colors
from uov_hf.pictures.visualization import draw_birds_eye_view, draw_camera_overlays
from uov_hf.vocabulary import available_vocabularies, load_vocabulary


SHARES = {
    "coverage_of_seen": "camera-seen points that have a label",
    "camera_agreement": "agreement between cameras",
    "time_agreement": "agreement over time",
    "accuracy": "accuracy on camera-seen points",
}


def taxonomy_colors(taxonomy: str, num_classes: int) -> np.ndarray:
    """RGB colours `(num_classes, 3)` of a taxonomy; a taxonomy that the package does not have gets distinct ones."""
    return load_vocabulary(taxonomy).colors if taxonomy in available_vocabularies() else distinct_colors(num_classes)


def draw_class_histogram(classes: list[dict[str, Any]], colors: np.ndarray) -> Figure:
    """Points of each label, on a logarithmic scale."""
    names, counts = zip(*((entry["name"].replace("_", " "), entry["num_points"]) for entry in classes), strict=True)
    figure = Figure(figsize=(8, 0.3 * len(names) + 1), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="points", xlim=(0.7, 3 * max(1, *counts)))
    rows = range(len(names))
    bars = axes.barh(rows, np.maximum(counts, 0.7), color=colors / 255, edgecolor="#555555", linewidth=0.5)
    axes.set_yticks(rows, names, parse_math=False)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_shares_by_range(numbers: dict[str, Any]) -> Figure:
    """Coverage, agreement and, where there is a ground truth, accuracy against the distance to the sensor."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(ylabel="%", ylim=(0, 102), xlim=(-0.3, len(RANGE_NAMES) - 0.7))
    for name, title in SHARES.items():
        if numbers[name]["num_trials"]:
            shares = [np.nan if share is None else 100 * share for share in numbers[name]["by_range"].values()]
            axes.plot(RANGE_NAMES, shares, marker="o", label=title)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", frameon=False)
    return figure


def draw_abstention(by_min_confidence: list[dict[str, float | None]]) -> Figure:
    """How many labels are left and how many of them are right, against the least confidence that is asked for."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(ylabel="%", ylim=(0, 102), xlabel="least confidence of a label")
    thresholds = [row["min_confidence"] for row in by_min_confidence]
    titles = {
        "precision": "right, of the points left with a label",
        "coverage": "camera-seen points left with a label",
    }
    for name, title in titles.items():
        shares = [np.nan if row[name] is None else 100 * row[name] for row in by_min_confidence]
        axes.plot(thresholds, shares, marker=".", label=title)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False)
    return figure


def draw_confusion(counts: np.ndarray, class_names: list[str]) -> Figure:
    """What the points of each class are called, in percent; the last column is no label."""
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
    folder: Path, frames, point_labels: PointLabels, class_names: list[str], colors: np.ndarray
) -> list[dict[str, Any]]:
    """
    Pictures of every frame given: its labels over the camera images and from above and, where it has a ground truth
    in these classes, the labels that are wrong.

    Returns:
        For each frame its `frame_id` and `pictures`, title -> file name.
    """
    pages = []
    for number, frame in enumerate(frames, start=1):
        labels = point_labels.read(frame["frame_id"], ["labels"])["labels"]
        views = {"camera images": _draw_overlays(frame, labels, colors)}
        views["from above"] = draw_birds_eye_view(frame["points"], labels, class_names, colors, title="labels")
        if frames.class_names == class_names and frame["labels"] is not None:
            is_scored = (frame["labels"] != IGNORED) & (labels != IGNORED)
            verdicts = np.where(is_scored, labels != frame["labels"], IGNORED)
            title = "labels held against the truth (grey: one of the two is missing)"
            views["wrong labels"] = draw_birds_eye_view(
                frame["points"], verdicts, VERDICTS, VERDICT_COLORS, title=title
            )
        pictures = {title: f"{number}-{title.replace(' ', '-')}.png" for title in views}
        for title, view in views.items():
            view.save(folder / pictures[title])
        pages.append({"frame_id": frame["frame_id"], "pictures": pictures})
    return pages


def _draw_overlays(frame: dict[str, Any], labels: np.ndarray, colors: np.ndarray) -> Image.Image:
    cameras = map(Camera, frame["lidar2cam"], frame["intrinsics"], frame["image_sizes"])
    images = [decode_image(image) for image in frame["images"]]
    shades = label_colors(labels, colors)
    return draw_camera_overlays(frame["points"], images, list(cameras), shades, frame["camera_names"])
