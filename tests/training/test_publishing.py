"""What leaves the house: a card without gaps, and only the files of the checkpoint."""

from types import SimpleNamespace

import jinja2
import pytest

from uov_hf.training import publishing


FIELDS = {
    "stage": "pretrain",
    "model_name": "me/tmp",
    "taxonomy": "nuscenes",
    "class_names": ["car", "road"],
    "dataset": "nuscenes",
    "split": "train",
    "num_frames": 2,
    "label_set": SimpleNamespace(prompts=["car", "sedan", "road"], teacher_id="some/clip"),
    "command": "accelerate launch examples/pretrain.py",
    "settings": {"seed": 0},
    "losses": [("total", 2.0, 1.0), ("superpixel-superpoint", 1.0, 0.5)],
    "validation_loss": None,
    "num_broken": 0,
    "license_note": "Other terms hold.",
    "answers_by_words": True,
}


def test_the_card_is_filled_from_top_to_bottom(tmp_path):
    publishing.write_model_card(tmp_path, license="other", **FIELDS)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\n") and "license: other" in card
    assert "2 classes (car, road)" in card and "| seed | 0 |" in card
    assert "| loss | first step | last step |\n|---|---:|---:|\n| total | 2.000 | 1.000 |\n| superpixel" in card
    assert "Validation" not in card and "could not be read" not in card
    assert "{" not in card.replace("{}", "")


def test_the_card_of_a_segmenter_shows_how_to_load_one(tmp_path):
    fields = FIELDS | {"stage": "distill", "answers_by_words": False}
    publishing.write_model_card(tmp_path, license="other", **fields)
    card = (tmp_path / "README.md").read_text()
    assert "open-vocabulary\n" not in card
    assert 'UOVForSemanticSegmentation.from_pretrained("me/tmp")' in card and "UOVModel" not in card


def test_only_the_card_of_a_fine_tuned_model_speaks_of_ground_truth(tmp_path):
    publishing.write_model_card(tmp_path, license="other", **FIELDS)
    assert "No ground truth was used" in (tmp_path / "README.md").read_text()
    publishing.write_model_card(tmp_path, license="other", **FIELDS | {"stage": "finetune", "label_set": None})
    card = (tmp_path / "README.md").read_text()
    assert "The supervision is the ground truth of their points" in card and "teacher" not in card
    assert 'UOVForSemanticSegmentation.from_pretrained("me/tmp")' in card and "{" not in card.replace("{}", "")


def test_a_field_that_was_forgotten_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="dataset"):
        publishing.write_model_card(tmp_path, license="other", **{k: v for k, v in FIELDS.items() if k != "dataset"})


def test_sensor_data_and_run_states_beside_the_checkpoint_are_not_uploaded(tmp_path, monkeypatch):
    uploads = []

    class Hub:
        def create_repo(self, repo_id, exist_ok):
            return type("RepoUrl", (), {"repo_id": f"me/{repo_id}"})

        def upload_folder(self, **arguments):
            uploads.append(arguments)
            return "https://hub/me/tmp"

    monkeypatch.setattr(publishing, "HfApi", Hub)
    for name in ("config.json", "model.safetensors", "street/v1.0-mini/scene.json", "checkpoint-2/optimizer.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert publishing.push_checkpoint(tmp_path, "tmp") == "https://hub/me/tmp"
    (upload,) = uploads
    assert sorted(upload["allow_patterns"]) == ["config.json", "model.safetensors"]
    assert upload["repo_id"] == "me/tmp"
