"""distill.py through its command line: what it leaves behind, and what its switches do."""

import pytest
import torch
from runs import losses
from transformers import AutoModelForSemanticSegmentation

from uov_hf import UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet


@pytest.fixture(scope="session")
def distilled(finished):
    return finished("distill")


def test_self_training_labels_more_points_in_the_last_epochs(distilled):
    labelled = losses(distilled, "num_labelled_voxels").reshape(4, 2).sum(dim=1)  # epochs of two steps
    added = losses(distilled, "num_added").reshape(4, 2).sum(dim=1)
    assert labelled[0] == labelled[1] and (labelled[2:] > labelled[0]).all()
    assert torch.allclose(labelled - added, labelled[0].expand(4))  # of the same frames


def test_the_segmenter_loads_and_predicts_the_label_sets_classes(distilled, street_labels, tiny_street):
    model = AutoModelForSemanticSegmentation.from_pretrained(distilled)
    processor = UOVProcessor.from_pretrained(distilled)
    points = load_frames("nuscenes", "test", data_dir=tiny_street)[0]["points"]
    assert isinstance(model, UOVForSemanticSegmentation)
    label_set = LabelSet(street_labels)
    assert list(model.config.id2label.values()) == label_set.class_names and model.config.prompts == label_set.prompts
    assert model(**processor(points=points)).logits.shape == (len(points), 16)
    card = (distilled / "README.md").read_text()
    assert 'pipeline("point-cloud-segmentation"' in card and "| confidence_weighting | True |" in card


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_text_head_trains_the_way_into_the_text_space_and_has_no_weights(
    settings_of, start_of_distillation, precision, run_script, tmp_path
):
    run_script(*settings_of["distill"], "--head", "text", "--mixed_precision", precision, "--output_dir", tmp_path)
    before, after = UOVModel.from_pretrained(start_of_distillation), UOVModel.from_pretrained(tmp_path)
    assert UOVForSemanticSegmentation.from_pretrained(tmp_path).classifier is None
    assert not torch.equal(after.point_projection.weight, before.point_projection.weight)
    assert torch.equal(after.prompt_embeds, before.prompt_embeds)
    assert losses(tmp_path)[-4:].mean() < losses(tmp_path)[:4].mean()


@pytest.mark.slow
def test_from_scratch_keeps_the_sizes_and_words_of_the_checkpoint_and_none_of_its_weights(
    settings_of, start_of_distillation, run_script, tmp_path
):
    settings = ["--seed", 1, "--max_train_steps", 1, "--learning_rate", 0, "--self_training_epochs", 0]
    run_script(*settings_of["distill"], *settings, "--from_scratch", "--output_dir", tmp_path)
    before, after = UOVModel.from_pretrained(start_of_distillation), UOVModel.from_pretrained(tmp_path)
    weights = [name for name, _ in before.named_parameters() if "norm" not in name and "shortcut.1" not in name]
    assert not any(torch.equal(before.state_dict()[name], after.state_dict()[name]) for name in weights)
    assert before.config.hidden_sizes == after.config.hidden_sizes
    assert torch.equal(before.prompt_embeds, after.prompt_embeds) and before.config.prompts == after.config.prompts


def test_only_an_untrained_network_takes_voxels(script, capsys):
    distill, data = script("distill.py"), ["--dataset", "nuscenes", "--label_set", "labels"]
    with pytest.raises(SystemExit):
        distill.parse(*data, "--voxel_size", 1, 1, 1)
    assert "Only an untrained network takes --voxel_size: give --preset." in capsys.readouterr().err
    args = distill.parse(*data, "--voxel_size", 1, 1, 1, "--preset", "tiny")
    assert args.model_name_or_path is None and args.voxel_settings() == {"voxel_size": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("name", ["distill.py", "finetune.py"])
def test_a_checkpoint_is_not_dropped_for_a_preset(script, capsys, name):
    data = ["--dataset", "nuscenes", *(["--label_set", "labels"] if name == "distill.py" else [])]
    with pytest.raises(SystemExit):
        script(name).parse(*data, "--preset", "tiny", "--model_name_or_path", "out/mine")
    assert "--preset tiny is an untrained network, and --model_name_or_path out/mine " in capsys.readouterr().err
    assert script(name).parse(*data).model_name_or_path == "out/tmp"


def test_a_class_balance_outside_0_to_1_is_refused_before_anything_is_read(script, capsys):
    with pytest.raises(SystemExit):
        script("distill.py").parse("--dataset", "nuscenes", "--label_set", "labels", "--class_balance", 1.5)
    assert "--class_balance must be from 0 to 1, got 1.5." in capsys.readouterr().err
