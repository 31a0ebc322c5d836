"""demo.py through its command line, at its smallest: what it leaves behind."""

import json

import pytest

from uov_hf.point_files import read_points


REGIONS = ("all_points", "seen_points", "unseen_points")


@pytest.mark.slow
def test_the_demo_leaves_a_table_of_every_contestant_and_a_viewer(run_script, tmp_path):
    size = ["--train_scenes", 2, "--test_scenes", 1, "--frames_per_scene", 2]
    size += ["--set", "pretrain.max_train_steps=2", "distill.max_train_steps=2"]
    output = run_script("demo.py", *size, "--output_dir", tmp_path / "demo", timeout=1500)
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert len(results["class_names"]) == 16
    stages = {"towns", "generate_label_set", "label_points", "pretrain", "distill"}
    assert set(results["stages"]) == stages and all(cost["seconds"] > 0 for cost in results["stages"].values())
    assert 0.1 < results["stages"]["pretrain"]["gigabytes"] < 10
    contestants = ("majority_class", "point_classifier", "student")
    for name in [
        "untrained",
        "teacher_seen_points",
        "distilled",
        "distilled_afi",
        "distilled_afi_unseen_points",
        *(f"{who}_{region}" for who in contestants for region in REGIONS),
    ]:
        assert 0 <= results[name]["mean_iou"] <= 1, name
        assert len(results[name]["per_category_iou"]) == 16
    assert results["teacher_seen_points"]["mean_iou"] > results["untrained"]["mean_iou"]
    assert "| **mean of the classes with truth** |" in output  # the table that is printed is that of the file
    viewer = (tmp_path / "demo" / "viewer.html").read_text()
    assert "motorcycle" in viewer
    assert len(read_points(tmp_path / "demo" / "scan.bin")) > 10_000
