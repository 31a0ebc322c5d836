"""label_points.py through its command line: presets, lists of votes, and the trainings that read their labels."""

import shutil
from types import SimpleNamespace

import pytest

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels
from uov_hf.training.samples import load_labelled_frames


ONE_PROCESS = SimpleNamespace(process_index=0, num_processes=1, is_main_process=True)


@pytest.fixture
def data(tiny_street):
    return ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all"]


@pytest.fixture
def labels(street_labels, tmp_path):
    return shutil.copytree(street_labels, tmp_path / "labels")


def test_point_labels_are_made_for_every_frame(tiny_street, labels, data, run_script):
    output = run_script("label_points.py", "--label_set", labels, "--preset", "consolidated", *data)
    point_labels = PointLabels(labels, "consolidated")
    assert f"Point labels in {point_labels.folder}: 4 frames" in output and "points have a label" in output
    for frame in load_frames("nuscenes", split="all", data_dir=tiny_street):
        row = point_labels.read(frame["frame_id"])
        assert len(row["labels"]) == len(frame["points"]) and (row["labels"] < 16).any()


def test_a_training_reads_the_labels_of_a_list_of_votes(labels, data, run_script, script):
    votes = ["cameras,superpoints", "--min_confidence", 0.3]
    output = run_script("label_points.py", "--label_set", labels, *data, "--rules", *votes)
    votes[1] = "--point_labels_min_confidence"
    args = script("distill.py").parse(*data, "--label_set", labels, "--point_labels_rules", *votes)
    before = {path: path.stat().st_mtime_ns for path in (labels / "points").rglob("*")}
    (loaded,) = load_labelled_frames(ONE_PROCESS, args, args.datasets, [LabelSet(labels)])
    frames, point_labels = loaded.frames, loaded.point_labels
    assert f"Point labels in {point_labels.folder}: 4 frames" in output
    assert {path: path.stat().st_mtime_ns for path in (labels / "points").rglob("*")} == before
    for frame_id in frames.frame_ids:
        row = point_labels.read(frame_id, ["labels", "confidence"])
        assert (row["labels"] < 16).any() and (row["confidence"][row["labels"] < 16] >= 0.3).all()


@pytest.mark.parametrize("name, prefix", [("label_points.py", ""), ("distill.py", "point_labels_")])
@pytest.mark.parametrize(
    "flags, message",
    [
        ({"preset": "paper", "rules": "time"}, "exclude each other"),
        ({"rules": "fog"}, "There is no vote 'fog'; there are: occlusion, cameras, augmentations, time, superpoints"),
        ({"min_confidence": 2}, "must be between 0 and 1, got 2.0"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused_before_anything_is_read(script, capsys, name, prefix, flags, message):
    flags = [word for flag, value in flags.items() for word in (f"--{prefix}{flag}", value)]
    with pytest.raises(SystemExit) as end:
        script(name).parse("--dataset", "nuscenes", "--label_set", "nowhere", *flags)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_labels_that_no_point_has_stop_the_script(labels, data, run_script):
    output = run_script("label_points.py", "--label_set", labels, *data, "--min_confidence", 1, fails=True)
    assert "expected labels at some points, got none at" in output and "--min_confidence is too high" in output


@pytest.mark.parametrize("label_set, output_dir", [("me/labels", []), ("labels/", ["--output_dir", "elsewhere"])])
def test_only_a_label_set_of_the_hub_needs_a_folder(script, capsys, tmp_path, monkeypatch, label_set, output_dir):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        script("label_points.py").parse("--label_set", label_set, *output_dir)
    assert "--output_dir belongs to a --label_set on the Hub" in capsys.readouterr().err
