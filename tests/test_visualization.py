"""Pictures and the viewer show what they were given, and the viewer needs nothing but itself."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from uov_hf.projection import Camera
from uov_hf.visualization import (
    draw_birds_eye_view,
    draw_camera_overlay,
    draw_camera_overlays,
    label_colors,
    value_colors,
    write_viewer,
)


CLASS_NAMES = ["car", "road", "tree <low>"]
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
POINTS = np.array([[5.0, 0, 0, 9], [6, 1, 0, 8], [7, -1, 0, 7], [8, 0, 1, 6], [np.nan, 0, 0, 5]], dtype=np.float32)
SEGMENTATION = np.array([0, 1, 1, 255, 2])
GROUND_TRUTH = np.array([0, 1, 2, 2, 255])


def looking_along_x(height=60, width=80):
    lidar2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    return Camera(lidar2cam, np.array([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]]), (height, width))


def pixels_of(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def traces_of(page):
    """The traces that the page hands to plotly, with their arrays decoded."""

    def decode(node):
        if set(node) >= {"dtype", "bdata"}:
            return np.frombuffer(base64.b64decode(node["bdata"]), node["dtype"])
        return node

    text = page.read_text(encoding="utf-8")
    call = text.index("Plotly.newPlot(", text.rindex('class="plotly-graph-div"'))
    decoder = json.JSONDecoder(object_hook=decode)
    traces, _ = decoder.raw_decode(text, text.index("[", call))
    return {trace["name"]: trace for trace in traces}


def full_viewer(folder):
    return write_viewer(
        folder / "deep" / "viewer.html",
        POINTS,
        SEGMENTATION,
        CLASS_NAMES,
        COLORS,
        scores=np.linspace(0, 1, 5),
        intensity=POINTS[:, 3],
        ground_truth=GROUND_TRUTH,
        title="A <scan>",
    )


def test_points_are_drawn_on_their_pixels_in_their_colors():
    figure = draw_camera_overlay(
        np.full((60, 80, 3), 255, np.uint8),
        np.array([[20.0, 10.0], [60.0, 40.0]]),
        np.array([[255, 0, 0], [0, 0, 255]]),
    )
    picture = pixels_of(figure)
    assert picture.shape == (60, 80, 3)
    assert picture[10, 20].tolist() == [255, 0, 0]
    assert picture[40, 60].tolist() == [0, 0, 255]
    assert picture[30, 30].tolist() == [255, 255, 255]


def test_a_near_point_hides_the_far_one_behind_it():
    points = np.array([[4.0, 0, 0], [30.0, 0, 0]])
    colors = np.array([[255, 0, 0], [0, 0, 255]])
    image = Image.new("RGB", (80, 60))
    for order in ([0, 1], [1, 0]):
        picture = pixels_of(draw_camera_overlays(points[order], [image], [looking_along_x()], colors[order]))
        assert (picture == [255, 0, 0]).all(-1).any()
        assert not (picture == [0, 0, 255]).all(-1).any()


def test_a_sheet_counts_the_points_each_camera_sees():
    camera = looking_along_x()
    turned = Camera(np.diag([-1.0, 1, -1, 1]) @ camera.lidar2cam, camera.intrinsics, camera.image_size)
    figure = draw_camera_overlays(
        POINTS, [Image.new("RGB", (80, 60))] * 2, [camera, turned], camera_names=["FRONT", "BACK"]
    )
    assert [axes.get_title() for axes in figure.axes] == ["FRONT: 4 points", "BACK: 0 points"]


def test_an_image_of_another_size_than_its_camera_is_refused():
    with pytest.raises(ValueError, match=r"calibrated for .*\(60, 80\)"):
        draw_camera_overlays(POINTS, [Image.new("RGB", (40, 30))], [looking_along_x()])
    with pytest.raises(ValueError, match="2 images, 1 cameras"):
        draw_camera_overlays(POINTS, [Image.new("RGB", (80, 60))] * 2, [looking_along_x()])


def test_the_view_from_above_names_the_classes_within_its_extent():
    figure = draw_birds_eye_view(POINTS, SEGMENTATION, CLASS_NAMES, COLORS, extent=7.5)
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert names == ["car (1)", "road (2)"]
    picture = pixels_of(figure)
    assert (picture == COLORS[0]).all(-1).any() and (picture == COLORS[1]).all(-1).any()
    assert not (picture == COLORS[2]).all(-1).any()


def test_the_viewer_loads_nothing_from_elsewhere(tmp_path):
    text = full_viewer(tmp_path).read_text(encoding="utf-8")
    page = re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.S)
    assert not re.search(r"<script[^>]*\ssrc\s*=", text)
    assert not re.search(r"""(src|href)\s*=|url\(|@import""", page)
    assert "plotly.js v" in text and "<title>A &lt;scan&gt;</title>" in page


def test_every_class_is_a_trace_of_its_own_with_all_its_points(tmp_path):
    traces = traces_of(write_viewer(tmp_path / "viewer.html", POINTS, SEGMENTATION, CLASS_NAMES, COLORS))
    assert list(traces) == ["car (1)", "road (2)", "unlabelled (1)"]  # the NaN point, the only tree, is left out
    assert traces["road (2)"]["marker"]["color"] == "rgb(0,255,0)"
    assert np.array_equal(traces["road (2)"]["y"], np.array([1, -1], np.float32))
    assert all(trace["visible"] for trace in traces.values())


def test_errors_are_counted_where_there_is_ground_truth(tmp_path):
    traces = traces_of(full_viewer(tmp_path))
    assert {"right (2)", "wrong (2)"} <= set(traces)
    assert sorted(traces["wrong (2)"]["x"].tolist()) == [7, 8]
    assert "tree &lt;low&gt; (2)" in traces


def test_values_are_colored_by_value(tmp_path):
    traces = traces_of(full_viewer(tmp_path))
    intensity = next(trace for name, trace in traces.items() if name.startswith("intensity"))
    assert intensity["marker"]["color"].tolist() == [9, 8, 7, 6]
    assert intensity["marker"]["cmin"] < intensity["marker"]["cmax"]


def test_every_button_shows_one_view_and_hides_the_others(tmp_path):
    text = full_viewer(tmp_path).read_text(encoding="utf-8")
    buttons, _ = json.JSONDecoder().raw_decode(text, text.rindex('"buttons":') + len('"buttons":'))
    assert [button["label"] for button in buttons] == ["class", "score", "intensity", "ground truth", "error"]
    shown = np.array([button["args"][0]["visible"] for button in buttons])
    assert (shown.sum(axis=0) == 1).all()
    assert shown.sum(axis=1).tolist() == [3, 1, 1, 3, 2]


def test_a_dark_class_is_lightened_in_its_hue():
    assert label_colors(np.array([0, 1]), np.array([[75, 0, 75], [0, 0, 230]])).tolist() == [
        [160, 0, 160],
        [0, 0, 230],
    ]


def test_colors_of_labels_and_values():
    assert label_colors(np.array([1, 255]), COLORS)[0].tolist() == [0, 255, 0]
    shades = value_colors(np.array([0.0, 1.0, np.nan, np.inf]))
    assert shades.shape == (4, 3) and shades.dtype == np.uint8
    assert shades[2].tolist() == shades[3].tolist() == label_colors(np.array([255]), COLORS)[0].tolist()
    assert value_colors(np.zeros(3)).shape == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": POINTS[:, :2]}, r"`points` must have shape .*got \(5, 2\)"),
        ({"segmentation": SEGMENTATION[:3]}, r"`segmentation` must have one value per point.*got \(3,\)"),
        ({"segmentation": np.array([0, 1, 1, 24, 2])}, r"`segmentation` must hold .*0…2.*\[24\].*vocabulary"),
        ({"segmentation": SEGMENTATION.astype(float)}, r"`segmentation` must hold integer class ids"),
        ({"ground_truth": np.full(5, -1)}, r"`ground_truth` must hold .*\[-1\]"),
        ({"scores": np.zeros((5, 3))}, r"`score` must have one value per point.*got \(5, 3\)"),
        ({"colors": COLORS[:2]}, r"`colors` must be integers .*\(3, 3\)"),
        ({"colors": COLORS / 255}, r"`colors` must be integers .*float64"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, arguments, message):
    fitting = {"points": POINTS, "segmentation": SEGMENTATION, "class_names": CLASS_NAMES, "colors": COLORS}
    with pytest.raises(ValueError, match=message):
        write_viewer(tmp_path / "viewer.html", **{**fitting, **arguments})
    assert not (tmp_path / "viewer.html").exists()


def test_a_picture_leaves_the_users_matplotlib_alone():
    import matplotlib.pyplot as pyplot

    before = dict(pyplot.rcParams)
    draw_birds_eye_view(POINTS, SEGMENTATION, CLASS_NAMES, COLORS)
    assert pyplot.get_fignums() == [] and dict(pyplot.rcParams) == before
