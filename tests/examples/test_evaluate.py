"""evaluate.py through its command line: what it scores, and that several processes count the same."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from uov_hf import UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.evaluation.segmentation import LabelledScans, segment


EXAMPLES = Path(__file__).parents[2] / "examples"
REGIONS = ["all_points", "seen_points", "unseen_points", "teacher_seen_points"]


@pytest.fixture(scope="module")
def evaluation(pretrained, tiny_street, street_labels) -> list:
    return ["evaluate.py", "--model_name_or_path", pretrained, "--dataset", "nuscenes", "--data_dir", tiny_street] + [
        "--split",
        "all",
        "--label_set",
        street_labels,
        "--min_range",
        2,
        "--dataloader_num_workers",
        0,
    ]


def test_metrics_are_those_of_the_models_answers_on_one_process_and_on_two(
    evaluation, pretrained, tiny_street, run_script, tmp_path
):
    output = run_script(*evaluation, "--output_dir", tmp_path / "alone")
    run_script(*evaluation, "--output_dir", tmp_path / "together", num_processes=2)
    alone, together = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "together"))
    assert alone == together
    assert (tmp_path / "alone" / "table.md").read_text() in output

    model = UOVModel.from_pretrained(pretrained).eval()
    extractor = UOVProcessor.from_pretrained(pretrained).feature_extractor
    expected = ConfusionMatrix(16)
    for frame in load_frames("nuscenes", "all", data_dir=tiny_street):
        scored = np.hypot(*frame["points"][:, :2].T) >= 2
        expected.update(segment(model, extractor(frame["points"]))[scored], frame["labels"][scored])
    assert alone["all_points"]["num_points"] == expected.compute()["num_points"]
    assert alone["all_points"]["mean_iou"] == pytest.approx(expected.compute()["mean_iou"], abs=1e-3)
    assert [name for name in alone if name.endswith("_points")] == REGIONS
    assert (
        alone["seen_points"]["num_points"] + alone["unseen_points"]["num_points"] == alone["all_points"]["num_points"]
    )
    assert alone["teacher_seen_points"]["num_points"] == alone["seen_points"]["num_points"]
    assert alone["num_frames"] == 4 and alone["broken_frames"] == []


def test_a_segmenter_answers_by_its_head(pretrained, tiny_street, tmp_path):
    segmenter = UOVForSemanticSegmentation.from_backbone(UOVModel.from_pretrained(pretrained).eval())
    segmenter.save_pretrained(tmp_path)
    loaded = runpy.run_path(str(EXAMPLES / "evaluate.py"))["load_model"](tmp_path).eval()
    scan = UOVProcessor.from_pretrained(pretrained).feature_extractor(
        load_frames("nuscenes", "test", data_dir=tiny_street)[0]["points"]
    )
    expected = segmenter(**scan).logits.argmax(dim=1)
    assert np.array_equal(segment(loaded, scan), expected)


def test_one_needs_no_label_set_to_score_all_points(pretrained, tiny_street):
    extractor = UOVProcessor.from_pretrained(pretrained).feature_extractor
    scan = LabelledScans(load_frames("nuscenes", "test", data_dir=tiny_street), extractor)[0]
    assert list(scan.regions) == ["all_points"] and scan.teacher_labels is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset", "my/dataset"], "--split is needed"),
        (["--model_name_or_path", "no/such/run"], "--dataset is needed: there is no synthetic street in no/such/run"),
    ],
)
def test_missing_arguments_are_asked_for(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLES / "evaluate.py"))["parse_args"]()
    assert message in capsys.readouterr().err
