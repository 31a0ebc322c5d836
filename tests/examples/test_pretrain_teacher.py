"""pretrain.py uses the text tower and the name of its label set's teacher."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from huggingface_hub import constants
from transformers import CLIPModel

from uov_hf import UOVFeatureExtractor
from uov_hf.labels import LabelSet
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


EXAMPLES = Path(__file__).parents[2] / "examples"
USED, NEWER = "a" * 40, "b" * 40  # commits


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teachers") / "tiny_clip"
    runpy.run_path(str(EXAMPLES / "make_tiny_clip.py"))["save_tiny_clip"](str(folder))
    return folder


@pytest.fixture
def hub(tiny_clip, tmp_path, monkeypatch) -> Path:
    """A download cache with two commits of someone/tiny-clip, of which the newer is of no use."""
    repository = tmp_path / "hub" / "models--someone--tiny-clip"
    shutil.copytree(tiny_clip, repository / "snapshots" / USED)
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


def create_model(label_set: LabelSet):
    PartialState()  # the script's logger needs it
    script = runpy.run_path(str(EXAMPLES / "pretrain.py"))
    return script["create_model"](script["PretrainingArguments"](preset="tiny"), label_set, UOVFeatureExtractor())


def test_words_are_embedded_by_the_commit_that_made_the_label_set(hub, tiny_clip, tmp_path):
    label_set = make_label_set(tmp_path / "labels", "someone/tiny-clip", revision="v1")
    (hub / "refs" / "v1").unlink()  # a branch moves on; the commit stays
    model, processor = create_model(label_set)
    assert model.config.teacher == model.config.text_tower_source == f"someone/tiny-clip@{USED}"
    assert processor.has_text_tower
    tokens = processor(text=["car", "traffic cone"])
    expected = CLIPModel.from_pretrained(tiny_clip).get_text_features(**tokens).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert torch.allclose(model.uov.get_text_features(**tokens).pooler_output, expected, atol=1e-6)


def test_words_are_those_of_the_second_model_where_embeddings_are_its(tiny_clip, tmp_path):
    label_set = make_label_set(tmp_path / "labels", tiny_clip)
    description = label_set.description
    description["teacher"] |= {"name": "clipseg", "model_name_or_path": "someone/clipseg"}
    description["teacher"] |= {"embed_model_name_or_path": str(tiny_clip), "embed_revision": None}
    (label_set.folder / "label_set.json").write_text(json.dumps(description))
    model, processor = create_model(LabelSet(label_set.folder))
    assert model.config.teacher == "someone/clipseg+tiny_clip" and model.config.has_teachers_text_tower
    expected = CLIPModel.from_pretrained(tiny_clip).get_text_features(**processor(text=["car"])).pooler_output
    embeds = model.uov.get_text_features(**processor(text=["car"])).pooler_output
    assert torch.allclose(embeds, torch.nn.functional.normalize(expected, dim=-1), atol=1e-6)


def test_no_path_of_the_trainers_machine_is_in_the_configuration(tiny_clip, tmp_path):
    model, _ = create_model(make_label_set(tmp_path / "labels", tiny_clip))
    assert model.config.teacher == "tiny_clip" and model.config.has_teachers_text_tower
    assert str(tiny_clip.parent) not in json.dumps(model.config.to_dict())


def test_a_teacher_that_is_gone_leaves_its_baked_words(tiny_clip, tmp_path):
    gone = shutil.copytree(tiny_clip, tmp_path / "gone")
    label_set = make_label_set(tmp_path / "labels", gone)
    shutil.rmtree(gone)
    model, processor = create_model(label_set)
    assert model.config.teacher == "gone" and not model.config.has_teachers_text_tower
    with pytest.raises(ValueError, match="no text tower"):
        processor(text="car")
