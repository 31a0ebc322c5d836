"""The documented folder of an own car without its optional files, through the scripts from teacher to evaluation."""

import json
import shutil

import pytest
import small_car
from runs import losses

from uov_hf import UOVForSemanticSegmentation
from uov_hf.labels import LabelSet


pytestmark = pytest.mark.slow

SHORT = ["--max_train_steps", 1, "--per_device_train_batch_size", 1, "--dataloader_num_workers", 0]
TINY = ["--preset", "tiny", "--voxel_size", 0.5, 0.0262, 0.5, "--intensity_scaling", "unit"]


@pytest.fixture
def car(tmp_path):
    return small_car.write_car(tmp_path / "car")


@pytest.fixture
def data(car):
    return ["--dataset", "point_cloud_folder", "--data_dir", car.parent]


@pytest.fixture
def label(data, run_script, tmp_path):
    """`label(with_probs=True)`: the folder of the label set with point labels that count votes over time."""

    def run(with_probs: bool):
        maps = small_car.write_label_maps(tmp_path / "maps", with_probs=with_probs)
        teacher = ["--teacher", "files", "--teacher_model_name_or_path", maps]
        output = run_script("generate_label_set.py", *teacher, *data, "--output_dir", tmp_path / "labels")
        assert ("labels without embeddings" in output) == (not with_probs)
        for preset in ("paper", "consolidated"):
            run_script("label_points.py", "--label_set", tmp_path / "labels", *data, "--preset", preset)
        return tmp_path / "labels"

    return run


@pytest.mark.parametrize("missing", [[], ["timestamps.csv"], ["poses.txt"], ["timestamps.csv", "poses.txt"]])
def test_a_car_without_times_or_poses_goes_through_every_stage(car, data, label, run_script, tmp_path, missing):
    for name in missing:
        (car / name).unlink()
    supervision = [*data, "--label_set", label(with_probs=True), *SHORT]
    run_script("pretrain.py", *supervision, *TINY, "--min_pairs", 5, "--output_dir", tmp_path / "tmp")
    start = ["--model_name_or_path", tmp_path / "tmp"]
    distillation = ["--point_labels_preset", "consolidated", "--head", "text"]
    run_script("distill.py", *supervision, *start, *distillation, "--output_dir", tmp_path / "uov")
    assert len(losses(tmp_path / "uov")) == 1
    evaluation = ["evaluate.py", *data, "--split", "all", "--model_name_or_path", tmp_path / "uov"]
    teacher = ["--label_set", tmp_path / "labels", "--dataloader_num_workers", 0]
    run_script(*evaluation, *teacher, "--output_dir", tmp_path / "eval")
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())


def test_labels_without_embeddings_distil_a_preset_and_stop_pretraining_early(label, data, run_script, tmp_path):
    supervision = [*data, "--label_set", label(with_probs=False), *SHORT]
    output = run_script("pretrain.py", *supervision, *TINY, "--output_dir", tmp_path / "tmp", fails=True)
    assert "has labels without embeddings" in output
    text = ["--head", "text", "--output_dir", tmp_path / "text"]
    output = run_script("distill.py", *supervision, *TINY, *text, fails=True)
    assert "Pre-training and a text head need embeddings" in output
    run_script("distill.py", *supervision, *TINY, "--from_scratch", "--output_dir", tmp_path / "uov")
    model = UOVForSemanticSegmentation.from_pretrained(tmp_path / "uov")
    assert list(model.config.id2label.values()) == LabelSet(tmp_path / "labels").class_names
    assert model.config.teacher is None and len(losses(tmp_path / "uov")) == 1


def test_a_preset_takes_the_words_of_the_label_set(label, data, run_script, tmp_path):
    supervision = [*data, "--label_set", label(with_probs=True), *SHORT]
    run_script("distill.py", *supervision, *TINY, "--head", "text", "--output_dir", tmp_path / "uov")
    model, label_set = UOVForSemanticSegmentation.from_pretrained(tmp_path / "uov"), LabelSet(tmp_path / "labels")
    assert model.config.prompts == label_set.prompts and model.config.projection_dim == label_set.embed_dim == 3
    assert (model.uov.prompt_embeds.numpy() == label_set.prompt_embeds).all()


def test_a_car_without_labels_is_not_evaluated_and_one_without_images_has_no_segments(
    car, data, label, run_script, tmp_path
):
    shutil.rmtree(car / "labels")
    supervision = [*data, "--label_set", label(with_probs=False), *SHORT]
    run_script("distill.py", *supervision, *TINY, "--output_dir", tmp_path / "uov")
    evaluation = ["evaluate.py", *data, "--split", "all", "--model_name_or_path", tmp_path / "uov"]
    output = run_script(*evaluation, "--dataloader_num_workers", 0, "--output_dir", tmp_path / "eval", fails=True)
    assert "Frame drive/0 has no labels to score against" in output
    shutil.rmtree(car / "images")
    teacher = ["--teacher", "files", "--teacher_model_name_or_path", tmp_path / "maps"]
    output = run_script("generate_label_set.py", *teacher, *data, "--output_dir", tmp_path / "none", fails=True)
    assert "expected segments in some images, got none in 3 frames" in output
