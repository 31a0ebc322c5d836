"""Cards without gaps: every stage's own, the Hub's YAML at the head, how to use it first, and no path of home."""

import json
import os

import jinja2
import pytest
from card_rules import card_errors
from huggingface_hub import ModelCard

from uov_hf.hub.cards import read_card, write_default_card, write_model_card
from uov_hf.training.publishing import command_line


FIELDS = {
    "stage": "pretrain",
    "model_name": "me/tmp",
    "taxonomy": "nuscenes",
    "class_names": ["car", "road"],
    "training_datasets": ["nuscenes, split `train`", "kitti, split `val`"],
    "num_frames": 2,
    "num_prompts": 3,
    "embed_dim": 12,
    "teacher_id": "some/clip",
    "command": "accelerate launch examples/pretrain.py",
    "settings": {"seed": 0},
    "losses": [("total", 2.0, 1.0), ("superpixel-superpoint", 1.0, 0.5)],
    "validation_loss": None,
    "num_broken": 0,
    "license_note": "other terms hold.",
    "data_license": "CC BY-NC-SA 4.0.",
    "answers_by_words": True,
}
# Of a run on ground truth.
NO_TEACHER = {"num_prompts": None, "embed_dim": None, "teacher_id": None, "answers_by_words": False}


def model_card(folder, **fields) -> str:
    write_model_card(folder, license="other", **FIELDS | fields)
    return (folder / "README.md").read_text()


def test_the_card_is_filled_from_top_to_bottom(tmp_path):
    card = model_card(tmp_path)
    assert card.startswith("---\n") and "license: other" in card
    assert "3 prompts for 2 classes (car, road)" in card and "| seed | 0 |" in card
    assert "| loss | first step | last step |\n|---|---:|---:|\n| total | 2.000 | 1.000 |\n| superpixel" in card
    assert "Validation" not in card and "could not be read" not in card
    assert "nuscenes, split `train`; kitti, split `val`: 2 frames. No ground truth was used." in card
    assert "Weights: other terms hold." in card and "Training data: CC BY-NC-SA 4.0." in card
    assert_no_gap(card)


def assert_no_gap(card):
    """Braces are the BibTeX entry's only, and no line of a table or text was left empty twice."""
    body, bibtex = card.split("```bibtex")
    assert "{" not in body and "None" not in body and "\n\n\n" not in body and "arXiv:2405.15286" in bibtex


@pytest.mark.parametrize("stage", ["pretrain", "distill", "finetune"])
def test_three_lines_of_the_pipeline_come_first(tmp_path, stage):
    first = model_card(tmp_path, stage=stage).split("```python\n")[1].split("```")[0]
    lines = [line for line in first.splitlines() if line]
    assert len(lines) == 3 and lines[1].startswith('segmenter = pipeline("point-cloud-segmentation", model="me/tmp"')
    compile(first, "card", "exec")


def test_the_head_names_licence_data_and_start_as_the_hub_reads_them(tmp_path):
    model_card(tmp_path, datasets=["me/street"], base_model="me/tmp")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.datasets, data.base_model) == ("transformers", ["me/street"], "me/tmp")
    assert card_errors(data.to_yaml(), "model") == [] and data.license_link == "LICENSE.md"
    assert "other terms hold." in (tmp_path / "LICENSE.md").read_text()
    assert {"lidar", "point-cloud", "open-vocabulary"} <= set(data.tags)


def test_a_run_that_is_killed_while_it_writes_a_card_leaves_the_earlier_one(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "LICENSE.md").write_text("of an earlier run")
    replace = os.replace

    def replace_or_stop(source, target):
        if target.name == "README.md":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("uov_hf.written_together.os.replace", replace_or_stop)
    with pytest.raises(KeyboardInterrupt):
        model_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_the_card_of_a_segmenter_shows_how_to_load_one(tmp_path):
    card = model_card(tmp_path, stage="distill", answers_by_words=False)
    assert "open-vocabulary\n" not in card
    assert 'model="me/tmp"' in card and "UOVModel" not in card and "candidate_labels" not in card
    assert_no_gap(card)


def test_only_the_card_of_a_fine_tuned_model_names_ground_truth_as_supervision(tmp_path):
    assert "No ground truth was used" in model_card(tmp_path)
    card = model_card(tmp_path, **NO_TEACHER, stage="finetune")
    assert "The supervision is the ground truth of their points" in card and "teacher" not in card
    assert_no_gap(card)


def test_a_field_that_was_forgotten_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="training_datasets"):
        write_model_card(tmp_path, license="other", **{k: v for k, v in FIELDS.items() if k != "training_datasets"})


def test_a_checkpoint_without_a_card_gets_one_that_says_how_little_is_known(tmp_path):
    config = {"architectures": ["UOVForSemanticSegmentation"], "head": "linear", "id2label": {"1": "road", "0": "car"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_default_card(tmp_path)
    card = read_card(tmp_path)
    assert "How it was trained was not recorded." in card and ": car, road." in card and "not stated." in card
    assert ModelCard(card).data.license == "other"
    assert_no_gap(card)


def test_a_label_set_shows_the_card_in_its_folder_and_a_folder_without_one_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no card in {tmp_path}"):
        read_card(tmp_path)
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("# Point labels\n")
    assert read_card(tmp_path) == "# Point labels\n"


def test_the_command_on_a_card_says_nothing_about_where_things_lie(tmp_path):
    home = str(tmp_path)
    shown = command_line(
        [f"{home}/examples/pretrain.py", "--data_dir", f"{home}/nuscenes", f"--label_set={home}/labels", "--seed", "1"]
    )
    assert shown == "accelerate launch examples/pretrain.py --data_dir nuscenes --label_set=labels --seed 1"
