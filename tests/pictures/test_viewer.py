"""The viewer's page contains the given arrays and loads nothing else, and rerun gets the same arrays."""

import base64
import json
import re
import sys
import zlib

import numpy as np
import pytest

from uov_hf.pictures.viewer import render_viewer, show_in_rerun, write_viewer
from uov_hf_cli.__main__ import main


CLASS_NAMES = ["car", "road", "tree </script><b>"]
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
POINTS = np.array([[5.0, 0, 0, 9], [6, 1, 0, 8], [7, -1, 0, 7], [8, 0, 1, 6], [np.nan, 0, 0, 5]], dtype=np.float32)
SEGMENTATION = np.array([0, 1, 1, 255, 2])
FULL = {
    "segmentation": SEGMENTATION,
    "class_names": CLASS_NAMES,
    "colors": COLORS,
    "scores": np.linspace(0, 1, 5),
    "intensity": POINTS[:, 3],
    "ground_truth": np.array([0, 1, 2, 2, 255]),
    "title": "A <scan>",
}


def scan_of(page):
    return json.loads(re.search(r'<script type="application/json" id="scan">(.*?)</script>', page, re.S).group(1))


def unpack(text, dtype=np.uint8):
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return planes if dtype is np.uint8 else planes.reshape(4, -1).T.copy().view(dtype)[:, 0]


def positions_of(scan):
    return unpack(scan["millimetres"], np.int32).reshape(3, -1).T / 1000 + scan["origin"]


def colorings_of(page):
    return {coloring["name"]: coloring for coloring in scan_of(page)["colorings"]}


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    path = write_viewer(tmp_path / "deep" / "viewer.html", POINTS, **FULL)
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"""\ssrc\s*=|href\s*=|url\(|@import|https?:""", page)
    assert "<title>A &lt;scan&gt;</title>" in page and "{{" not in page
    assert page.count("</script>") == 2  # a class name closes none


def test_positions_are_kept_to_the_millimetre_wherever_the_scan_lies():
    points = np.random.default_rng(0).uniform(-150, 150, (1000, 3)) + [400_000, 5_300_000, 500]
    assert np.abs(positions_of(scan_of(render_viewer(points))) - points).max() < 0.0006
    with pytest.raises(ValueError, match="within 2,000 km"):
        render_viewer(np.array([[0.0, 0, 0], [0, 0, 0], [3e6, 0, 0]]))


def test_every_class_is_counted_and_unlabelled_points_come_last():
    coloring = colorings_of(render_viewer(POINTS, SEGMENTATION, CLASS_NAMES, COLORS))["class"]
    counts = [(group["name"], group["num_points"]) for group in coloring["groups"]]
    assert counts == [("car", 1), ("road", 2), ("unlabelled", 1)]  # the NaN point, the only tree, is left out
    assert coloring["groups"][1]["color"] == [0, 255, 0]
    assert unpack(coloring["ids"]).tolist() == [0, 1, 1, 255]


def test_errors_are_counted_where_there_is_ground_truth():
    colorings = colorings_of(render_viewer(POINTS, **FULL))
    assert {group["name"]: group["num_points"] for group in colorings["error"]["groups"]} == {"right": 2, "wrong": 2}
    assert unpack(colorings["error"]["ids"]).tolist() == [0, 0, 1, 1]
    assert unpack(colorings["ground truth"]["ids"]).tolist() == [0, 1, 2, 2]


def test_only_what_is_given_is_offered():
    everything = ["class", "score", "intensity", "ground truth", "error", "height"]
    assert list(colorings_of(render_viewer(POINTS, **FULL))) == everything
    assert list(colorings_of(render_viewer(POINTS, SEGMENTATION, CLASS_NAMES))) == ["class", "height"]
    assert list(colorings_of(render_viewer(POINTS[:, :3]))) == ["height"]
    assert scan_of(render_viewer(np.zeros((0, 3))))["origin"] == [0, 0, 0]


def test_a_large_cloud_is_packed_at_the_fast_level_of_zlib():
    scan = scan_of(render_viewer(POINTS, **FULL))
    packed = [own.get("values", own.get("ids")) for own in scan["colorings"]] + [scan["millimetres"]]
    # The two highest bits of a stream's second byte are its level (RFC 1950): 0 is the fastest, 3 the slowest.
    assert [base64.b64decode(text)[1] >> 6 for text in packed] == [0] * 7


def test_values_are_kept_as_given():
    intensity = colorings_of(render_viewer(POINTS, **FULL))["intensity"]
    assert unpack(intensity["values"], np.float32).tolist() == [9, 8, 7, 6]
    assert 6 <= intensity["low"] < intensity["high"] <= 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": POINTS[:, :2]}, r"`points` must have shape .*got \(5, 2\)"),
        ({"segmentation": SEGMENTATION[:3]}, r"`segmentation` must have one value per point.*got \(3,\)"),
        ({"segmentation": np.array([0, 1, 1, 24, 2])}, r"`segmentation` must be .*0…2.*\[24\].*vocabulary"),
        ({"segmentation": SEGMENTATION.astype(float)}, r"`segmentation` must be integer class ids"),
        ({"ground_truth": np.full(5, -1)}, r"`ground_truth` must be .*\[-1\]"),
        ({"scores": np.zeros((5, 3))}, r"`score` must have one value per point.*got \(5, 3\)"),
        ({"colors": COLORS[:2]}, r"`colors` must be integers .*\(3, 3\)"),
        ({"colors": COLORS / 255}, r"`colors` must be integers .*float64"),
        ({"class_names": ["a"] * 256, "colors": None}, r"At most 255 classes .*got 256"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_viewer(tmp_path / "viewer.html", **{"points": POINTS, **FULL, **arguments})
    assert not (tmp_path / "viewer.html").exists()


def test_without_rerun_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ImportError, match=re.escape('pip install "uov-hf[rerun]"')):
        show_in_rerun(POINTS, **FULL)


def columns_of(path):
    """The columns of a recording, by entity and name."""
    from rerun.chunk import RrdReader

    columns = {}
    for chunk in RrdReader(path).stream().to_chunks():
        batch = chunk.to_record_batch()
        columns |= {(chunk.entity_path, name): batch.column(name).to_pylist() for name in batch.schema.names}
    return columns


def test_rerun_gets_every_point_with_its_class_and_color(tmp_path):
    pytest.importorskip("rerun", reason="rerun is not installed: pip install rerun-sdk")
    show_in_rerun(POINTS, **FULL, path=tmp_path / "deep" / "scan.rrd")
    columns = columns_of(tmp_path / "deep" / "scan.rrd")
    assert columns["/class", "Points3D:class_ids"] == [[0, 1, 1, 255]]
    assert columns["/ground_truth", "Points3D:class_ids"] == [[0, 1, 2, 2]]
    assert columns["/error", "Points3D:class_ids"] == [[0, 0, 1, 1]]
    assert columns["/height", "Points3D:positions"] == [POINTS[:4, :3].tolist()]
    assert len(set(columns["/intensity", "Points3D:colors"][0])) == 4
    classes = columns["/class", "AnnotationContext:context"][0][0]
    assert [entry["class_description"]["info"]["label"] for entry in classes] == ["car", "road", "unlabelled"]
    assert not any(entity == "/origin" for entity, _ in columns)


def test_a_map_keeps_its_millimetres_in_rerun(tmp_path, capsys):
    pytest.importorskip("rerun", reason="rerun is not installed: pip install rerun-sdk")
    points = np.random.default_rng(0).uniform(-150, 150, (1000, 3)) + [400_000, 5_300_000, 500]
    np.save(tmp_path / "map.npy", points)
    assert main(["view", str(tmp_path / "map.npy"), "--viewer", "rerun", "--output", str(tmp_path / "map.rrd")]) == 0
    columns, printed = columns_of(tmp_path / "map.rrd"), capsys.readouterr().out
    (text,) = next(columns[key] for key in columns if key == ("/origin", "TextDocument:text"))[0]
    origin = [float(number) for number in re.findall(r"[xyz] (-?\d+)", text)]
    assert text in printed and np.abs(np.subtract(origin, points.mean(0))).max() < 20
    positions = np.array(columns["/height", "Points3D:positions"][0])
    assert np.abs(positions + origin - points).max() < 0.001
