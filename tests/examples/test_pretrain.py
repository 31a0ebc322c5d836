"""pretrain.py through its command line: what it leaves behind, and what it does with a broken scan."""

import json
import shutil

import pytest
import torch
from runs import losses
from transformers import AutoModel, AutoProcessor

from uov_hf import UOVForPreTraining, UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.order import TrainingOrder
from uov_hf.training.samples import TMPSamples
from uov_hf.training.tracking import read_log


NUM_STEPS = 8


def test_the_checkpoint_loads_and_predicts_in_the_vocabulary(pretrained, tiny_street):
    model, processor = UOVModel.from_pretrained(pretrained), UOVProcessor.from_pretrained(pretrained)
    frame = load_frames("nuscenes", "test", data_dir=tiny_street)[0]
    outputs = model(**processor(points=frame["points"]))
    assert torch.allclose(outputs.point_embeds.norm(dim=1), torch.ones(len(frame["points"])), atol=1e-5)
    assert model.class_scores(outputs.point_embeds).shape == (len(frame["points"]), 16)
    assert model.config.id2label[3] == "car" and model.config.teacher == "synthetic"
    assert isinstance(AutoModel.from_pretrained(pretrained), UOVModel)
    assert isinstance(AutoProcessor.from_pretrained(pretrained), UOVProcessor)


def test_the_card_has_the_data_the_command_and_the_limits(pretrained):
    card = (pretrained / "README.md").read_text()
    loss = read_log(pretrained / "train_log.jsonl")[-1]["loss"]
    parts = ("license: apache-2.0", "`synthetic`", "4 frames", "--negatives global", "## Limits", f"| {loss:.3f} |")
    for part in parts:
        assert part in card


def test_only_the_last_checkpoints_stay_and_they_load_too(pretrained):
    found = sorted(path.name for path in pretrained.iterdir() if path.is_dir())
    assert found == ["checkpoint-6", "checkpoint-8"]
    assert json.loads((pretrained / "checkpoint-6" / "trainer_state.json").read_text())["step"] == 6
    last = UOVForPreTraining.from_pretrained(pretrained / "checkpoint-8").uov.state_dict()
    final = UOVModel.from_pretrained(pretrained).state_dict()
    assert last.keys() == final.keys() and all(torch.equal(last[name], final[name]) for name in final)


def test_every_point_of_the_augmented_scans_is_trained_on(pretrained, tiny_street, street_labels):
    frames, label_set = load_frames("nuscenes", "all", data_dir=tiny_street), LabelSet(street_labels)
    extractor = UOVProcessor.from_pretrained(pretrained).feature_extractor
    point_labels, augmentation = PointLabels(street_labels), AugmentationConfig(min_pairs=20)
    samples = TMPSamples(frames, label_set, point_labels, extractor, augmentation, seed=0)
    order = TrainingOrder(num_frames=4, num_processes=2)
    keys = [key for step in range(NUM_STEPS) for key in order.step_keys(step)]
    num_points = sum(len(samples[key]["point_to_voxel"]) for key in keys)
    state = json.loads((pretrained / f"checkpoint-{NUM_STEPS}" / "trainer_state.json").read_text())
    assert state["trained_points"] == num_points == losses(pretrained, "num_points").sum()


@pytest.mark.slow
def test_a_broken_scan_stops_the_run_with_its_state_saved_or_is_skipped_and_counted(
    settings_of, tiny_street, run_script, tmp_path
):
    root = shutil.copytree(tiny_street, tmp_path / "street")
    scan = sorted((root / "samples" / "LIDAR_TOP").iterdir())[-1]
    scan.write_bytes(scan.read_bytes()[:-7])
    settings = [*settings_of["pretrain"], "--data_dir", root, "--output_dir", tmp_path, "--checkpointing_steps", 100]
    output = run_script(*settings, num_processes=2, fails=True)  # one rank reads it, both stop
    assert scan.name in output
    num_done = len(read_log(tmp_path / "train_log.jsonl"))
    assert num_done < 2 and (tmp_path / f"checkpoint-{num_done}").is_dir()

    resume = ["--resume_from_checkpoint", "latest", "--on_error", "skip"]
    run_script(*settings, *resume, num_processes=2)
    assert len(read_log(tmp_path / "train_log.jsonl")) == NUM_STEPS
    assert "4 times a frame could not be read" in (tmp_path / "README.md").read_text()
