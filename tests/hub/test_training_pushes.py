"""Training from the Hub to the Hub by the command line: frames and labels by id, checkpoints and their cards back."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from uov_hf import UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.data.publishing import push_dataset
from uov_hf.data.writing import write_parquet
from uov_hf.datasets.nuscenes import NuScenes
from uov_hf.labels import LabelSet, label_points, push_label_set
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ["--max_train_steps", "1", "--per_device_train_batch_size", "1", "--dataloader_num_workers", "0"]


@pytest.fixture
def start(hub, tmp_path):
    """A script on the Hub of this test, with its owner's token or with none; its output, and whether it went well."""

    def start(script: str, *arguments: str, token: bool = True) -> tuple[str, bool]:
        environment = os.environ | hub.env | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        if not token:
            del environment["HF_TOKEN"]
        command = [sys.executable, str(EXAMPLES / script), *arguments]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, cwd=tmp_path, env=environment, **output)
        return done.stdout, done.returncode == 0

    return start


@pytest.fixture
def published(hub, tiny_street, tmp_path):
    """The tiny street and what the synthetic teacher says about it, on the Hub as me/street and me/labels."""
    builder = NuScenes(data_dir=str(tiny_street))
    write_parquet(builder, tmp_path / "parquet")
    push_dataset(builder, tmp_path / "parquet", "me/street")
    vocabulary, frames = load_vocabulary("nuscenes"), load_frames("nuscenes", "all", data_dir=tiny_street)
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(tiny_street))
    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    push_label_set(label_set, "me/labels")
    return ["--dataset", "me/street", "--split", "all", "--label_set", "me/labels"]


def assert_same_weights(folder: Path, pulled):
    saved = type(pulled).from_pretrained(folder).state_dict()
    assert all(torch.equal(saved[name], weight) for name, weight in pulled.state_dict().items())


@pytest.mark.slow
def test_pretraining_and_distillation_go_from_ids_to_ids(hub, start, published, tmp_path):
    pretrain = [*published, "--preset", "tiny", "--min_pairs", "1", "--output_dir", "tmp"]
    printed, went_well = start("pretrain.py", *pretrain, *SHORT, "--push_to_hub", "--hub_model_id", "me/start")
    assert went_well, printed
    assert f"Pushed to {hub.endpoint}/me/start/commit/" in printed
    assert_same_weights(tmp_path / "tmp", UOVModel.from_pretrained("me/start"))
    distill = ["--model_name_or_path", "me/start", *published, "--head", "text", "--output_dir", "uov"]
    private = ["--push_to_hub", "--hub_private_repo", "--hub_revision", "v1"]
    printed, went_well = start("distill.py", *distill, *SHORT, *private)
    assert went_well, printed
    assert hub.repos["models", "me/uov"].private
    model = UOVForSemanticSegmentation.from_pretrained("me/uov", revision="v1")
    assert_same_weights(tmp_path / "uov", model)
    scan = load_frames("me/street", "all")[0]["points"]
    inputs = UOVProcessor.from_pretrained("me/uov", revision="v1")(points=scan, intensity_max=255)
    assert np.isfinite(model(**inputs).logits.detach().numpy()).all()

    files = hub.files("me/uov", revision="v1")
    assert {"README.md", "pipeline_uov.py", "train_log.jsonl"} <= set(files)
    assert not any(str(tmp_path).encode() in content for content in files.values())
    card = ModelCard(files["README.md"].decode())
    assert card.data.datasets == ["me/street"] and card.data.base_model == "me/start"
    assert "--label_set me/labels" in card.text and 'model="me/uov"' in card.text
    assert "accelerate launch examples/distill.py --model_name_or_path me/start" in card.text


@pytest.mark.slow
def test_without_a_token_a_run_that_is_to_be_pushed_does_not_start(hub, start, tmp_path):
    printed, went_well = start("pretrain.py", "--push_to_hub", "--output_dir", "tmp", token=False)
    assert not went_well and "Token is required" in printed and "hf auth login" in printed
    assert not (tmp_path / "tmp").exists() and not hub.repos
