"""evaluate.py through its command line: what it scores and writes, and that several processes count the same."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from runs import contents

from uov_hf import UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.data.writer_lock import writer_lock
from uov_hf.evaluation.corruptions import CORRUPTIONS
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.evaluation.predictions import Segmenter
from uov_hf.evaluation.robustness import NO_BASELINE
from uov_hf.evaluation.scans import LabelledScans
from uov_hf.labels import PointLabels


REGIONS = ["all_points", "seen_points", "unseen_points", "teacher_seen_points"]
EVERYTHING = ["--refine", "afi", "--test_time_augmentation", 2, "--min_range", 2, "--export", "nuscenes"]


@pytest.fixture
def checkpoint(pretrained, tmp_path_factory) -> Path:
    """A copy, because an evaluation writes into the card."""
    folder = tmp_path_factory.mktemp("evaluated") / "tmp"
    return Path(shutil.copytree(pretrained, folder, ignore=shutil.ignore_patterns("checkpoint-*")))


@pytest.fixture
def evaluate(script, checkpoint, monkeypatch, tmp_path):
    """`evaluate("--split", "all")`: the script's `main` in this process, into `tmp_path`."""

    def run(*arguments):
        words = ["--model_name_or_path", checkpoint, "--dataset", "nuscenes", "--split", "test", *arguments]
        words += ["--dataloader_num_workers", 0, "--output_dir", tmp_path / "out"]
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        script("evaluate.py").main()

    return run


def test_the_view_of_a_camera_needs_a_camera_and_no_label_set(evaluate, tiny_street, tmp_path, script, capsys):
    calibration = tmp_path / "calibration.yaml"
    calibration.write_text("intensity_max: 255\n")
    with pytest.raises(ValueError, match="--camera_view: .*calibration.yaml has no `cameras`"):
        evaluate("--data_dir", tiny_street, "--camera_view", calibration)
    with pytest.raises(SystemExit):
        script("evaluate.py").parse("--dataset", "a", "--split", "b", "--camera_view", "c.yaml", "--label_set", "d")
    assert "--camera_view and --label_set exclude each other" in capsys.readouterr().err


def test_a_second_evaluation_into_a_folder_is_refused(tiny_segmenter, tiny_street, evaluate, tmp_path):
    with writer_lock(tmp_path / "out"), pytest.raises(RuntimeError, match="out is being written by process"):
        evaluate("--data_dir", tiny_street, "--model_name_or_path", tiny_segmenter)


def test_one_process_and_two_score_and_write_the_same_predictions(
    checkpoint, tiny_street, street_labels, run_script, tmp_path
):
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all", "--label_set", street_labels]
    evaluation = ["evaluate.py", "--model_name_or_path", checkpoint, *data, "--dataloader_num_workers", 0, *EVERYTHING]
    output = run_script(*evaluation, "--output_dir", tmp_path / "alone")
    run_script(*evaluation, "--output_dir", tmp_path / "together", num_processes=2)
    alone, together = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "together"))
    assert alone == together
    assert (tmp_path / "alone" / "table.md").read_text() in output
    assert (tmp_path / "alone" / "confusion_matrix.png").stat().st_size > 10_000

    submission, other = (tmp_path / name / "submission" for name in ("alone", "together"))
    assert contents(submission) == contents(other)
    model, processor = UOVModel.from_pretrained(checkpoint).eval(), UOVProcessor.from_pretrained(checkpoint)
    frames = load_frames("nuscenes", "all", data_dir=tiny_street)
    expected, segmenter = ConfusionMatrix(16), Segmenter(model, processor, "afi")
    for scan in map(LabelledScans(frames, processor.feature_extractor, None, 2.0, num_views=2).__getitem__, range(4)):
        answer = segmenter(scan).labels
        expected.update(answer, scan.labels)
        written = np.fromfile(submission / "lidarseg" / "all" / f"{scan.frame_id}_lidarseg.bin", np.uint8)
        assert (written == answer + 1)[answer != 255].mean() > 0.99 and written.min() >= 1 and written.max() <= 16

    metrics = alone["all_points"]
    assert metrics["num_points"] == expected.compute()["num_points"]
    assert metrics["mean_iou"] == pytest.approx(expected.compute()["mean_iou"], abs=5e-3)
    assert [name for name in alone if name.endswith("_points")] == REGIONS
    assert alone["seen_points"]["num_points"] + alone["unseen_points"]["num_points"] == metrics["num_points"]
    assert alone["teacher_seen_points"]["num_points"] == alone["seen_points"]["num_points"]
    assert sum(result["num_points"] for result in alone["by_range"].values()) == metrics["num_points"]
    assert 0 <= alone["calibration"]["expected_calibration_error"] <= 1 and "panoptic" not in alone
    assert alone["num_frames"] == 4 and alone["broken_frames"] == []
    assert alone["settings"] == {"min_range": 2.0, "test_time_augmentation": 2, "refine": "afi"}

    card = ModelCard.load(checkpoint / "README.md")
    found = {result.metric_type: result for result in card.data.eval_results}
    assert found["mean_iou"].metric_value == metrics["mean_iou"] and len(card.data.eval_results) == 3
    assert found["mean_iou"].dataset_name == "the synthetic street of uov-hf"  # and not nuScenes
    assert (tmp_path / "alone" / "table.md").read_text().strip() in card.text and "Not evaluated yet" not in card.text
    assert card.text.index("## Evaluation") < card.text.index("## Limits")


def test_corruptions_are_evaluated_after_the_clean_scans_and_compared_with_a_baseline(
    checkpoint, tiny_street, evaluate, run_script, tmp_path
):
    evaluate("--data_dir", tiny_street, "--corruptions", "fog", "beam_missing", "--no_update_card")
    alone = json.loads((tmp_path / "out" / "metrics.json").read_text())
    robustness = alone["robustness"]
    assert list(robustness["corruptions"]) == ["fog", "beam_missing"] and robustness["mean_corruption_error"] is None
    assert robustness["clean"]["all_points"] == alone["all_points"] and "fog" not in alone["settings"]
    clean, lost = alone["all_points"]["num_points"], robustness["corruptions"]["beam_missing"]["severities"]
    assert clean > lost["light"]["all_points"]["num_points"] > lost["heavy"]["all_points"]["num_points"] > 0
    assert NO_BASELINE in (tmp_path / "out" / "table.md").read_text()

    evaluation = [
        "evaluate.py",
        "--model_name_or_path",
        checkpoint,
        "--dataset",
        "nuscenes",
        "--data_dir",
        tiny_street,
    ]
    evaluation += ["--split", "test", "--dataloader_num_workers", 0, "--corruptions", "fog", "beam_missing"]
    evaluation += ["--corruption_baseline", tmp_path / "out" / "metrics.json", "--output_dir", tmp_path / "together"]
    run_script(*evaluation, num_processes=2)
    together = json.loads((tmp_path / "together" / "metrics.json").read_text())["robustness"]
    assert together["mean_corruption_error"] == pytest.approx(1) and together["baseline"] == checkpoint.name
    for name, corruption in together["corruptions"].items():
        assert corruption["severities"] == robustness["corruptions"][name]["severities"]


def test_corruptions_without_a_name_are_all_and_wrong_ones_are_refused(script, capsys):
    parse = script("evaluate.py").parse
    dataset = ("--dataset", "nuscenes", "--split", "test")
    assert parse(*dataset).corruptions is None
    assert parse(*dataset, "--corruptions").corruptions == list(CORRUPTIONS)
    assert parse(*dataset, "--corruptions", "fog", "snow").corruptions == ["fog", "snow"]
    for arguments, message in (
        (["--corruptions", "rain"], "The corruptions are fog, wet_ground, snow"),
        (["--corruptions", "fog", "--export", "nuscenes"], "--corruptions and --export exclude each other"),
        (["--corruption_baseline", "a.json"], "--corruption_baseline needs --corruptions"),
    ):
        with pytest.raises(SystemExit):
            parse(*dataset, *arguments)
        assert message in capsys.readouterr().err


def test_scans_without_annotation_are_exported_and_not_scored(checkpoint, tiny_street, evaluate, tmp_path):
    root = tmp_path / "street"
    shutil.copytree(tiny_street, root, ignore=shutil.ignore_patterns("lidarseg", "samples", "synthetic"))
    shutil.copytree(tiny_street / "samples" / "LIDAR_TOP", root / "samples" / "LIDAR_TOP")
    card = (checkpoint / "README.md").read_text()
    evaluate("--data_dir", root, "--export", "nuscenes")
    written = {path.name for path in (tmp_path / "out").iterdir()} - {"logs"}
    assert written == {"run.json", "submission"}
    written = sorted((tmp_path / "out" / "submission" / "lidarseg" / "test").iterdir())
    frames = load_frames("nuscenes", "test", data_dir=root)
    assert [path.name for path in written] == sorted(f"{frame_id}_lidarseg.bin" for frame_id in frames.frame_ids)
    assert (tmp_path / "out" / "submission" / "test" / "submission.json").is_file()
    assert (checkpoint / "README.md").read_text() == card

    with pytest.raises(ValueError, match="has no labels to score against"):
        evaluate("--data_dir", root)


def test_void_is_refused_where_there_is_none(tiny_street, evaluate):
    with pytest.raises(ValueError, match="--predict_void needs a converted official head"):
        evaluate("--data_dir", tiny_street, "--predict_void")


def test_the_points_that_a_camera_saw_are_scored_without_a_label_set(pretrained, tiny_street, street_labels):
    extractor = UOVProcessor.from_pretrained(pretrained).feature_extractor
    frames = load_frames("nuscenes", "test", data_dir=tiny_street)
    scan = LabelledScans(frames, extractor)[0]
    labelled = LabelledScans(frames, extractor, PointLabels(street_labels))[0]
    assert scan.teacher_labels is None and list(scan.regions) == REGIONS[:3]
    assert all(np.array_equal(scan.regions[region], labelled.regions[region]) for region in REGIONS[:3])
    assert 0 < scan.regions["seen_points"].mean() < 1


def test_a_missing_argument_is_named(script, capsys):
    for arguments, message in (
        (["--dataset", "my/dataset"], "--split is needed"),
        (["--model_name_or_path", "no/such/run"], "--dataset is needed: there is no synthetic street in no/such/run"),
    ):
        with pytest.raises(SystemExit):
            script("evaluate.py").parse(*arguments)
        assert message in capsys.readouterr().err
