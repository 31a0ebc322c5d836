"""--frame_stride through the command lines of the teacher stage, the point labels and the evaluation."""

import json

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels


def test_a_stride_thins_every_sequence_in_every_stage(tiny_street, start_of_distillation, run_script, tmp_path):
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all", "--frame_stride", 2]
    labels = tmp_path / "labels"
    run_script("generate_label_set.py", *data, "--output_dir", labels)
    kept = load_frames("nuscenes", "all", data_dir=tiny_street, frame_stride=2)
    assert kept.sequence_ids == ["scene-9001", "scene-9002"] and LabelSet(labels).frame_ids == kept.frame_ids

    output = run_script("label_points.py", *data, "--label_set", labels, "--preset", "consolidated")
    assert PointLabels(labels, "consolidated").frame_ids == kept.frame_ids and ": 2 frames" in output

    evaluation = ["--model_name_or_path", start_of_distillation, "--no_update_card", "--output_dir", tmp_path / "eval"]
    run_script("evaluate.py", *data, *evaluation, "--dataloader_num_workers", 0)
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["num_frames"] == 2 and metrics["settings"] == {"frame_stride": 2}


def test_an_evaluation_takes_one_dataset(run_script, tiny_street):
    two = ["--dataset", "nuscenes", "nuscenes", "--data_dir", tiny_street]
    output = run_script("evaluate.py", *two, fails=True)
    assert "unrecognized arguments: nuscenes. The argument takes one value here." in output
