"""Label files of any formats are scored against each other."""

import json

import numpy as np
import pytest

from uov_hf.evaluation.compared_files import compare_files, pair_files
from uov_hf.point_files import read_points
from uov_hf.results import SegmentedScan, find_label_ids, read_labels, to_asprs, write_result
from uov_hf.results.class_colors import class_colors
from uov_hf.results.classes import write_classes
from uov_hf.vocabulary import load_map, load_vocabulary
from uov_hf_cli.__main__ import main


RNG = np.random.default_rng(0)
NUM_POINTS = 400
POINTS = RNG.uniform(-9, 9, (NUM_POINTS, 4)).astype(np.float32)
KITTI = load_vocabulary("semantic_kitti")
RAW = RNG.choice([10, 40, 70, 0], NUM_POINTS).astype(np.uint32)  # car, road, vegetation, unlabelled
WORDS = ["vegetation", "car", "road"]
PREDICTED = RNG.choice([0, 1, 2, 255], NUM_POINTS).astype(np.uint8)


def write_prediction(folder, suffix, names=WORDS, labels=PREDICTED):
    """A result with its classes.json."""
    folder.mkdir(exist_ok=True)
    result = SegmentedScan(folder / "scan.bin", folder, POINTS, np.zeros(3), labels, np.ones(NUM_POINTS, "f4"), names)
    result.scan.write_bytes(POINTS.tobytes())
    write_classes(folder / "classes.json", {}, names, class_colors(names), result.points_per_class())
    if suffix == ".npy":
        np.save(folder / "scan.npy", labels)
    else:
        write_result(folder / f"scan{suffix}", result)
    return folder / f"scan{suffix}"


def iou_by_hand(predicted, true):
    """IoU of each class `(num_points,)` names; a point without a true class does not count."""
    scored = [(p, t) for p, t in zip(predicted, true, strict=True) if t is not None]
    return {
        name: sum(p == t == name for p, t in scored) / sum(name in (p, t) for p, t in scored)
        for name in sorted({t for _, t in scored})
    }


PREDICTED_NAMES = [None if label == 255 else WORDS[label] for label in PREDICTED]
TRUE_NAMES = [{10: "car", 40: "road", 70: "vegetation", 0: None}[raw] for raw in RAW.tolist()]


@pytest.mark.parametrize("suffix", [".npy", ".label", ".ply", ".pcd", ".las", ".laz"])
def test_every_format_has_the_same_score_against_raw_labels(suffix, tmp_path):
    RAW.tofile(tmp_path / "truth.label")
    compared = compare_files(write_prediction(tmp_path / "out", suffix), tmp_path / "truth.label")
    found = dict(zip(compared.class_names, compared.metrics["per_category_iou"], strict=True))
    expected = iou_by_hand(PREDICTED_NAMES, TRUE_NAMES)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert compared.metrics["mean_iou"] == pytest.approx(np.mean([*expected.values()]))
    assert compared.metrics["num_points"] == np.sum(RAW > 0)


def test_a_map_scores_the_common_classes(tmp_path):
    RAW.tofile(tmp_path / "truth.label")
    nuscenes = load_vocabulary("nuscenes").class_names
    labels = np.array([nuscenes.index(name) for name in ("vegetation", "car", "driveable_surface", "trailer")])
    path = write_prediction(tmp_path / "out", ".ply", nuscenes, labels[PREDICTED.clip(0, 3)].astype(np.uint8))
    compared = compare_files(path, tmp_path / "truth.label", None, load_map("nuscenes_semantic_kitti"))
    names = {"road": "driveable surface"}
    expected = iou_by_hand(*([names.get(name, name) for name in own] for own in (PREDICTED_NAMES, TRUE_NAMES)))
    found = dict(zip(compared.class_names, compared.metrics["per_category_iou"], strict=True))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    with pytest.raises(ValueError, match="got also barrier, .* Give --map nuscenes_semantic_kitti"):
        compare_files(path, tmp_path / "truth.label")


def test_codes_of_las_are_the_truth_of_any_words(tmp_path):
    laspy = pytest.importorskip("laspy")
    cloud = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    cloud.x, cloud.y, cloud.z = POINTS[:, :3].T
    codes = {10: 1, 40: 2, 70: 3, 0: 0}  # a car has no code; the road is ground, the vegetation low
    cloud.classification = np.array([codes[raw] for raw in RAW.tolist()], np.uint8)
    cloud.write(tmp_path / "truth.las")
    true = [{40: "ground", 70: "vegetation"}.get(raw) for raw in RAW.tolist()]
    predicted = [{"road": "ground", "vegetation": "vegetation"}.get(name) for name in PREDICTED_NAMES]
    # The last result is beside the truth, with its classes.json, which are not the classes of the truth.
    for folder, suffix in ((tmp_path / "out", ".label"), (tmp_path / "out", ".laz"), (tmp_path, ".laz")):
        compared = compare_files(write_prediction(folder, suffix), tmp_path / "truth.las")
        found = dict(zip(compared.class_names, compared.metrics["per_category_iou"], strict=True))
        expected = iou_by_hand(predicted, true)
        assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_files_of_two_folders_are_paired_by_the_names_of_their_scans(tmp_path):
    for name in ("truth/00/labels/000001.label", "truth/00/velodyne/000001.bin", "truth/01/labels/000001.label",
                 "out/00/velodyne/000001/labels.npy", "out/00/velodyne/000001/scores.npy",
                 "out/01/velodyne/000001.laz"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pairs = pair_files(tmp_path / "out", tmp_path / "truth")
    assert [tuple(path.relative_to(tmp_path).as_posix() for path in pair) for pair in pairs] == [
        ("out/00/velodyne/000001/labels.npy", "truth/00/labels/000001.label"),
        ("out/01/velodyne/000001.laz", "truth/01/labels/000001.label"),
    ]
    (tmp_path / "truth/01/labels/000002.label").touch()
    with pytest.raises(ValueError, match="each of the 3 files in .* got none for 1 of them, such as 01/labels/000002"):
        pair_files(tmp_path / "out", tmp_path / "truth")
    with pytest.raises(ValueError, match="Expected two files or two folders"):
        pair_files(tmp_path / "out", tmp_path / "truth/01/labels/000002.label")


def test_the_command_prints_a_table_and_writes_the_metrics(tmp_path, capsys):
    RAW.tofile(tmp_path / "truth.label")
    path = write_prediction(tmp_path / "out", ".label")
    assert main(["eval", str(path), str(tmp_path / "truth.label"), "--output", str(tmp_path / "metrics.json")]) == 0
    printed, metrics = capsys.readouterr().out, json.loads((tmp_path / "metrics.json").read_text())
    expected = iou_by_hand(PREDICTED_NAMES, TRUE_NAMES)
    assert metrics["mean_iou"] == pytest.approx(np.mean([*expected.values()]))
    assert f"| car | {100 * expected['car']:.1f}" in printed
    assert f"{np.sum(RAW > 0)} points with a true class" in printed


def test_what_cannot_be_compared_is_named(tmp_path, capsys):
    path = write_prediction(tmp_path / "out", ".npy")
    RAW[:-1].tofile(tmp_path / "short.label")
    np.zeros(NUM_POINTS, np.uint32).tofile(tmp_path / "empty.label")
    np.full(NUM_POINTS, 12345, np.uint32).tofile(tmp_path / "other.label")
    (tmp_path / "cut.label").write_bytes(b"12345")
    np.save(tmp_path / "ids.npy", PREDICTED)
    for truth, message in [
        ("short.label", "scan.npy: expected labels of 399 points"),
        ("empty.label", "empty.label: expected a true class at some points, got none"),
        ("other.label", "other.label: The labels contain ids that semantic_kitti does not have"),
        ("cut.label", "cut.label: expected 4 bytes for each point, got 5 bytes"),
        ("ids.npy", "ids.npy: its classes are unknown: there is no classes.json beside it"),
        ("absent.label", "absent.label: expected a file with labels, got none"),
        ("truth.txt", "truth.txt: expected labels in a file that ends in one of .label"),
    ]:
        assert main(["eval", str(path), str(tmp_path / truth)]) == 1
        assert message in capsys.readouterr().err


def test_ids_of_a_label_file_are_those_of_semantic_kitti_where_it_has_every_class(tmp_path):
    assert find_label_ids(["car", "street", "bush"])[:3].tolist() == [10, 40, 70]
    assert find_label_ids(KITTI.class_names)[: len(KITTI.class_names)].tolist() == [
        KITTI.raw_ids[KITTI.raw_names.index(name)] for name in KITTI.class_names
    ]
    assert find_label_ids(["car", "unicorn"])[[0, 1, 255]].tolist() == [1, 2, 0]
    path = write_prediction(tmp_path, ".label", ["car", "unicorn", "tree"])
    assert read_labels(path).labels.tolist() == PREDICTED.tolist()
    assert to_asprs(["driveable_surface", "unicorn"])[[0, 1, 255]].tolist() == [11, 1, 1]
    np.testing.assert_array_equal(read_points(tmp_path / "scan.bin", num_columns=4), POINTS)


@pytest.mark.parametrize(
    "change", [{"name": True}, {"label_id": [1]}, {"label_id": -1}, {"label_id": 2**40}, {"color": [1, 2, 300]}]
)
def test_classes_of_another_type_are_refused(tmp_path, change):
    path = write_prediction(tmp_path, ".label")
    content = json.loads((tmp_path / "classes.json").read_text())
    content["classes"][0] |= change
    (tmp_path / "classes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="classes.json: expected `classes`"):
        read_labels(path)
