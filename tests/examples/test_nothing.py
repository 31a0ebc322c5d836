"""Trainings and evaluations of nothing through their command lines: they stop, and leave no result behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet
from uov_hf.teachers import ImageSegments, load_teacher
from uov_hf.training.tracking import LOG_FILE, read_log
from uov_hf.vocabulary import load_vocabulary


VOCABULARY = load_vocabulary("nuscenes")
NO_LABEL = "num_labelled_voxels is 0 in the optimiser steps 1 to 2 (frames per step: 2)"


def write_ids(root: Path, scene: str, raw_id: int, dtype: str) -> None:
    """Give every point of a scene one raw id."""
    frames = load_frames("nuscenes", scene, data_dir=root)
    for frame in frames.select_columns(["frame_id", "points"]):
        (path,) = (root / "lidarseg").rglob(f"{frame['frame_id']}_lidarseg.bin")
        np.full(len(frame["points"]), raw_id, dtype).tofile(path)


@pytest.fixture(scope="module")
def void_street(tiny_street, tmp_path_factory) -> Path:
    """The tiny street; in its town `train` every point is `noise`, which no class has."""
    root = tmp_path_factory.mktemp("void") / "street"
    shutil.copytree(tiny_street, root)
    write_ids(root, "train", raw_id=0, dtype="u1")
    return root


@pytest.fixture(scope="module")
def empty_labels(tiny_street, tmp_path_factory) -> Path:
    """A label set whose teacher found no segment in any image."""
    teacher = load_teacher("synthetic", prompts=VOCABULARY.prompts, data_dir=str(tiny_street))
    nothing = np.empty(0, np.int64), np.empty(0, np.float32), np.empty((0, teacher.embed_dim), np.float32)
    teacher.segment = lambda frame: [ImageSegments(np.zeros(size, int), *nothing) for size in frame["image_sizes"]]
    label_set = LabelSet.create(tmp_path_factory.mktemp("empty") / "labels", teacher, VOCABULARY, {"cameras": None})
    label_set.write(load_frames("nuscenes", "all", data_dir=tiny_street), teacher)
    return label_set.folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """A segmenter with the classes of nuScenes; no point beyond 100 m has a voxel."""
    folder = tmp_path_factory.mktemp("untrained")
    network = UOVModel(UOVConfig.from_preset("tiny", projection_dim=8))
    model = UOVForSemanticSegmentation.from_backbone(network, "linear", VOCABULARY.class_names)
    extractor = UOVFeatureExtractor(point_cloud_range=[0, -np.pi, -10, 100, np.pi, 10])
    save_checkpoint(folder, model, UOVProcessor.from_teacher(extractor))
    return folder


@pytest.fixture
def refused(run_script, tmp_path):
    """`refused("finetune.py", …)` -> its output; it fails, and leaves no checkpoint and no metrics."""

    def run(script: str, *arguments, num_processes: int = 1) -> str:
        steps = [] if script == "evaluate.py" else ["--per_device_train_batch_size", 2 // num_processes]
        out = ["--dataset", "nuscenes", "--dataloader_num_workers", 0, "--output_dir", tmp_path / "out"]
        output = run_script(script, *out, *steps, *arguments, num_processes=num_processes, fails=True)
        written = {path.name for path in (tmp_path / "out").iterdir()}
        assert not written & {"config.json", "model.safetensors", "README.md", "metrics.json", "table.md"}
        return output

    return run


@pytest.mark.parametrize("switch", [["--preset", "tiny"], ["--linear_probe"]])
def test_annotations_that_are_all_ignored_stop_a_fine_tuning_and_a_linear_probe(
    switch, void_street, untrained, refused, tmp_path
):
    start = [] if "--preset" in switch else ["--model_name_or_path", untrained]
    data = [*start, "--data_dir", void_street, "--split", "train", *switch]
    output = refused("finetune.py", *data, "--num_train_epochs", 3)
    assert "num_labelled_voxels is 0 in the optimiser steps 1 to 1 (frames per step: 2)" in output
    assert "another taxonomy, or another type or byte order" in output and "Give an annotated --split" in output
    assert read_log(tmp_path / "out" / LOG_FILE) == []


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fewer_steps_than_an_epoch_on_nothing_stop_too_on_every_process(num_processes, void_street, refused):
    data = ["--data_dir", void_street, "--split", "train", "--preset", "tiny"]
    steps = ["--max_train_steps", 1, "--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 1]
    output = refused("finetune.py", *data, *steps, num_processes=num_processes)
    assert output.count("ValueError: There is nothing to train on") == num_processes
    assert f"1 to 1 (frames per step: {num_processes})" in output


def test_half_of_the_annotations_are_enough(void_street, run_script, tmp_path):
    data = ["--dataset", "nuscenes", "--data_dir", void_street, "--split", "all", "--validation_split", "train"]
    steps = ["--preset", "tiny", "--per_device_train_batch_size", 1, "--num_train_epochs", 1]
    output = run_script("finetune.py", *data, *steps, "--dataloader_num_workers", 0, "--output_dir", tmp_path)
    counts = [record["num_labelled_voxels"] for record in read_log(tmp_path / LOG_FILE)]
    assert sorted(count > 0 for count in counts) == [False, False, True, True]
    assert (tmp_path / "model.safetensors").is_file()
    # The validation split has no label: it has no loss, instead of a loss of 0.
    assert "No validation loss: num_labelled_voxels is 0 in --validation_split" in output
    assert not any("validation_loss" in record for record in read_log(tmp_path / LOG_FILE))


SELF_TRAINING = ["--self_training_epochs", 2, "--self_training_confidence", 0]


@pytest.mark.parametrize("switches", [[], ["--confidence_weighting"], SELF_TRAINING])
def test_a_label_set_without_labels_stops_a_distillation_even_if_it_would_label_itself(
    switches, tiny_street, empty_labels, start_of_distillation, refused
):
    data = ["--model_name_or_path", start_of_distillation, "--data_dir", tiny_street, "--split", "all"]
    output = refused("distill.py", *data, "--label_set", empty_labels, "--num_train_epochs", 2, *switches)
    assert NO_LABEL in output and "the teacher predicted no segment" in output
    assert "python -m uov_hf.evaluation.label_card" in output


def test_a_label_set_without_segments_stops_pre_training(tiny_street, empty_labels, refused):
    data = ["--data_dir", tiny_street, "--split", "all", "--label_set", empty_labels, "--preset", "tiny"]
    output = refused("pretrain.py", *data, "--min_pairs", 20, "--num_train_epochs", 2)
    assert "num_superpoints is 0 in the optimiser steps 1 to 2" in output
    assert "Expected segments of the teacher that points fall on" in output


def test_an_evaluation_stops_where_no_point_has_a_true_or_a_predicted_label(void_street, untrained, refused, tmp_path):
    data = ["--model_name_or_path", untrained, "--data_dir", void_street]
    output = refused("evaluate.py", *data, "--split", "train")
    assert "No point can be scored" in output and "Give an annotated --split" in output

    beyond = Path(shutil.copytree(untrained, tmp_path / "beyond"))
    settings = json.loads((beyond / "processor_config.json").read_text())
    settings["feature_extractor"]["point_cloud_range"] = [900, -np.pi, -10, 1000, np.pi, 10]
    (beyond / "processor_config.json").write_text(json.dumps(settings))
    data = ["--model_name_or_path", beyond, "--data_dir", void_street, "--split", "test"]
    for switch in ([], ["--export", "nuscenes"]):
        assert "Expected a predicted label at some points, got none" in refused("evaluate.py", *data, *switch)
    assert not list((tmp_path / "out").rglob("submission.json"))


@pytest.mark.slow
def test_two_processes_of_an_evaluation_stop_together(void_street, untrained, refused):
    data = ["--model_name_or_path", untrained, "--data_dir", void_street, "--split", "train"]
    assert refused("evaluate.py", *data, num_processes=2).count("ValueError: No point can be scored") == 2


def test_a_teacher_without_labels_is_not_scored(tiny_street, empty_labels, untrained, run_script, tmp_path):
    data = ["--model_name_or_path", untrained, "--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "test"]
    labels = ["--label_set", empty_labels, "--dataloader_num_workers", 0, "--output_dir", tmp_path, "--no_update_card"]
    output = run_script("evaluate.py", *data, *labels)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "The teacher is not scored" in output and "teacher_seen_points" not in metrics
    assert metrics["seen_points"]["num_points"]


def test_a_label_set_without_segments_is_recognised(script, empty_labels, street_labels):
    has_segments = script("generate_label_set.py").has_segments
    assert not has_segments(LabelSet(empty_labels)) and has_segments(LabelSet(street_labels))
