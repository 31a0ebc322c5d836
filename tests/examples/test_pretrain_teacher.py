"""pretrain.py uses the text tower and the name of its label set's teacher."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import PartialState
from huggingface_hub import constants
from transformers import CLIPModel

from uov_hf import UOVFeatureExtractor
from uov_hf.labels import LabelSet
from uov_hf.labels.description import to_sealed_json
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


USED, NEWER = "a" * 40, "b" * 40  # commits


@pytest.fixture
def hub(clip_folder, tmp_path, monkeypatch) -> Path:
    """A download cache with two commits of someone/tiny-clip, of which the newer is of no use."""
    repository = tmp_path / "hub" / "models--someone--tiny-clip"
    shutil.copytree(clip_folder, repository / "snapshots" / USED)
    (repository / "snapshots" / NEWER).mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(USED)
    (repository / "refs" / "main").write_text(NEWER)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def make_label_set(folder: Path, model_name_or_path, revision=None) -> LabelSet:
    vocabulary = load_vocabulary("nuscenes")
    small = {"revision": revision, "short_side": 64, "templates": "none"}
    teacher = load_teacher("clip", str(model_name_or_path), prompts=vocabulary.prompts, **small)
    return LabelSet.create(folder, teacher, vocabulary, settings={})


def text_embeds(clip: Path, inputs) -> torch.Tensor:
    return F.normalize(CLIPModel.from_pretrained(clip).get_text_features(**inputs).pooler_output, dim=-1)


@pytest.fixture
def create_model(script):
    """The function of pretrain.py, with the tiny preset."""
    PartialState()  # the script's logger needs it
    names = script("pretrain.py")
    return lambda labels: names.create_model(names.PretrainingArguments(preset="tiny"), labels, UOVFeatureExtractor())


def test_words_are_embedded_by_the_commit_that_made_the_label_set(create_model, hub, clip_folder, tmp_path):
    label_set = make_label_set(tmp_path / "labels", "someone/tiny-clip", revision="v1")
    (hub / "refs" / "v1").unlink()  # a branch moves on; the commit stays
    model, processor = create_model(label_set)
    assert model.config.teacher == model.config.text_tower_source == f"someone/tiny-clip@{USED}"
    assert processor.has_text_tower
    tokens = processor(text=["car", "traffic cone"])
    embeds = model.uov.get_text_features(**tokens).pooler_output
    assert torch.allclose(embeds, text_embeds(clip_folder, tokens), atol=1e-6)


def test_words_are_those_of_the_second_model_where_embeddings_are_its(create_model, clip_folder, tmp_path):
    label_set = make_label_set(tmp_path / "labels", clip_folder)
    description = label_set.description
    description["teacher"] |= {"name": "clipseg", "model_name_or_path": "someone/clipseg"}
    description["teacher"] |= {"embed_model_name_or_path": str(clip_folder), "embed_revision": None}
    (label_set.folder / "label_set.json").write_bytes(to_sealed_json(description))
    model, processor = create_model(LabelSet(label_set.folder))
    assert model.config.teacher == f"someone/clipseg+{clip_folder.name}" and model.config.has_teachers_text_tower
    tokens = processor(text=["car"])
    embeds = model.uov.get_text_features(**tokens).pooler_output
    assert torch.allclose(embeds, text_embeds(clip_folder, tokens), atol=1e-6)


def test_no_path_of_the_trainers_machine_is_in_the_configuration(create_model, clip_folder, tmp_path):
    model, _ = create_model(make_label_set(tmp_path / "labels", clip_folder))
    assert model.config.teacher == clip_folder.name and model.config.has_teachers_text_tower
    assert str(clip_folder.parent) not in json.dumps(model.config.to_dict())


def test_a_teacher_that_is_gone_leaves_its_baked_words(create_model, clip_folder, tmp_path):
    gone = shutil.copytree(clip_folder, tmp_path / "gone")
    label_set = make_label_set(tmp_path / "labels", gone)
    shutil.rmtree(gone)
    model, processor = create_model(label_set)
    assert model.config.teacher == "gone" and not model.config.has_teachers_text_tower
    with pytest.raises(ValueError, match="no text tower"):
        processor(text="car")
