"""Trainings on two streets with the same frame ids, through their command lines."""

import json
import shutil
from pathlib import Path

import pytest
import small_car
import torch
from runs import losses

from uov_hf.data import load_frames
from uov_hf.training.checkpoints import STATE_FILE


@pytest.fixture(scope="session")
def on_two_streets(settings_of, tiny_street, street_labels, other_street, other_labels) -> dict[str, list]:
    """By stage, the arguments of an epoch on the four frames of one street and the two test frames of another."""
    data = ["--dataset", "nuscenes", "nuscenes", "--data_dir", tiny_street, other_street, "--split", "all", "test"]
    data += ["--num_train_epochs", 1, "--data_fraction", 1]
    labels = ["--label_set", street_labels, other_labels]
    return {
        "pretrain": [*settings_of["pretrain"], *data, *labels],
        "distill": [*settings_of["distill"], *data, *labels, "--self_training_epochs", 0],
        "finetune": [*settings_of["finetune"], *data],
    }


@pytest.fixture(scope="session")
def distilled_on_two(on_two_streets, run_script, tmp_path_factory) -> Path:
    """Three steps of two micro-batches, with a checkpoint of each and a validation on the second street alone."""
    folder = tmp_path_factory.mktemp("two") / "out"
    options = "--gradient_accumulation_steps 2 --checkpointing_steps 1 --checkpoints_total_limit 9".split()
    run_script(*on_two_streets["distill"], *options, "--validation_split", "", "train", "--output_dir", folder)
    return folder


def num_points(*frames) -> int:
    return sum(len(frame["points"]) for of_dataset in frames for frame in of_dataset)


def test_an_epoch_has_the_frames_of_every_dataset(distilled_on_two, tiny_street, other_street):
    expected = num_points(
        load_frames("nuscenes", "all", data_dir=tiny_street), load_frames("nuscenes", "test", data_dir=other_street)
    )
    assert losses(distilled_on_two, "num_points").sum() == expected
    assert losses(distilled_on_two).shape == (3, 1)


def test_settings_and_card_name_every_dataset_and_label_set(distilled_on_two, street_labels, other_labels):
    state = json.loads((distilled_on_two / "checkpoint-3" / STATE_FILE).read_text())
    settings = state["settings"]
    assert settings["dataset"] == ["nuscenes"] * 2 and settings["label_set"] == [str(street_labels), str(other_labels)]
    assert settings["num_frames"] == 6 and len(settings["frame_ids"]) == len(settings["point_labels"]) == 2
    card = (distilled_on_two / "README.md").read_text()
    street = "The synthetic street of uov-hf"
    assert f"{street}, split `all`, label set `labels`; {street}, split `test`, label set `labels`: 6 frames." in card
    assert "license: apache-2.0" in card and "Validation loss" in card


def test_two_processes_follow_the_curve_of_one(distilled_on_two, on_two_streets, run_script, tmp_path):
    run_script(*on_two_streets["distill"], "--output_dir", tmp_path, num_processes=2)
    assert torch.allclose(losses(tmp_path), losses(distilled_on_two), rtol=1e-5)


def test_a_resumed_run_ends_in_the_same_weights_and_refuses_swapped_datasets(
    distilled_on_two, on_two_streets, other_street, tiny_street, other_labels, street_labels, run_script, tmp_path
):
    options = ["--gradient_accumulation_steps", 2, "--resume_from_checkpoint", distilled_on_two / "checkpoint-1"]
    options += ["--validation_split", "", "train", "--output_dir", tmp_path / "out"]
    run_script(*on_two_streets["distill"], *options)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "out", distilled_on_two)]
    assert weights[0] == weights[1]
    swapped = ["--data_dir", other_street, tiny_street, "--label_set", other_labels, street_labels]
    swapped += ["--split", "test", "all", "--output_dir", tmp_path / "swapped"]
    output = run_script(*on_two_streets["distill"], *options, *swapped, fails=True)
    assert "belongs to a run with other settings" in output and "frame_ids = " in output


def test_pre_training_reads_a_recipe_of_two_datasets(
    on_two_streets, tiny_street, other_street, street_labels, other_labels, run_script, tmp_path
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"datasets:\n- {{dataset: nuscenes, data_dir: {tiny_street}, label_set: {street_labels}, split: all}}\n"
        f"- {{dataset: nuscenes, data_dir: {other_street}, label_set: {other_labels}, split: test}}\n"
        "preset: tiny\nmin_pairs: 20\nnum_train_epochs: 1\nper_device_train_batch_size: 2\ndataloader_num_workers: 0\n"
        "freeze_batch_norm: true\nlearning_rate: 0.02\nnegatives: global\n"
    )
    run_script("pretrain.py", recipe, "--output_dir", tmp_path / "out")
    flags = [*on_two_streets["pretrain"], "--per_device_train_batch_size", 2, "--output_dir", tmp_path / "flags"]
    run_script(*flags)
    assert losses(tmp_path / "out").shape == (3, 1)
    assert losses(tmp_path / "out").equal(losses(tmp_path / "flags"))


def test_fine_tuning_thins_each_sequence_of_every_dataset(
    on_two_streets, tiny_street, other_street, run_script, tmp_path
):
    """Of the first street the first frame of each scene, of the second the first of the test scene."""
    run_script(*on_two_streets["finetune"], "--frame_stride", 2, "--output_dir", tmp_path)
    first, second = (load_frames("nuscenes", "all", data_dir=root) for root in (tiny_street, other_street))
    assert losses(tmp_path, "num_points").sum() == num_points(first.select([0, 2]), second.select([2]))
    card = (tmp_path / "README.md").read_text()
    assert "split `all`; The synthetic street of uov-hf, split `test`: 3 frames." in card


def test_datasets_with_other_classes_are_refused(on_two_streets, other_street, run_script, tmp_path):
    car = small_car.write_car(tmp_path / "car").parent
    data = ["--dataset", "nuscenes", "point_cloud_folder", "--data_dir", other_street, car, "--split", "all"]
    output = run_script(*on_two_streets["finetune"], *data, "--output_dir", tmp_path / "out", fails=True)
    assert "must have the same classes in the same order: nuscenes has ['barrier'" in output


def test_the_label_set_of_the_other_dataset_is_refused(
    on_two_streets, street_labels, other_labels, run_script, tmp_path
):
    labels = [shutil.copytree(folder, tmp_path / name) for name, folder in (("a", street_labels), ("b", other_labels))]
    swapped = ["--label_set", *reversed(labels), "--output_dir", tmp_path / "out"]
    output = run_script(*on_two_streets["distill"], *swapped, fails=True)
    assert "point labels in" in output and "they are of another dataset with the same frame ids" in output
