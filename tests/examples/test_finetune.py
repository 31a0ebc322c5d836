"""finetune.py: what starts from what, what is frozen, and what it leaves behind."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs import losses

from uov_hf import UOVConfig, UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.training.loop import set_train_mode
from uov_hf.training.optimization import create_optimizer, segmenter_groups
from uov_hf.vocabulary import load_vocabulary


CLASS_NAMES = load_vocabulary("nuscenes").class_names


@pytest.fixture
def finetune(script):
    """The script; its `parse` has `--dataset nuscenes`."""
    names = script("finetune.py")
    names.parse = partial(names.parse, "--dataset", "nuscenes")
    return names


@pytest.fixture(scope="module")
def finetuned(finished) -> Path:
    return finished("finetune")


def test_fine_tuning_on_a_fraction_reads_no_other_frames(finetuned, tiny_street):
    train = load_frames("nuscenes", "all", data_dir=tiny_street, data_fraction=0.5)
    points_per_epoch = sum(len(frame["points"]) for frame in train)
    assert losses(finetuned, "num_points")[0] == points_per_epoch


def test_the_fine_tuned_segmenter_loads_and_its_card_names_its_supervision(finetuned, tiny_street):
    model = UOVForSemanticSegmentation.from_pretrained(finetuned)
    points = load_frames("nuscenes", "test", data_dir=tiny_street)[0]["points"]
    assert model(**UOVProcessor.from_pretrained(finetuned)(points=points)).logits.shape == (len(points), 16)
    assert list(model.config.id2label.values()) == CLASS_NAMES
    card = (finetuned / "README.md").read_text()
    assert "The supervision is the ground truth of their points" in card and "| preset | tiny |" in card


def test_a_fine_tuning_is_not_resumed_with_other_settings(settings_of, finetuned, run_script, tmp_path):
    checkpoint = ["--resume_from_checkpoint", finetuned / "checkpoint-8", "--output_dir", tmp_path]
    changes = ["--gradient_accumulation_steps", 2, "--learning_rate", 0.5, "--intensity_scaling", "unit"]
    output = run_script(*settings_of["finetune"], *changes, *checkpoint, fails=True)
    assert "learning_rate = 0.02, now 0.5; " in output
    assert 'feature_extractor.intensity_scaling = "raw", now "unit"' in output


def test_the_defaults_are_the_papers(finetune):
    args = finetune.parse()
    assert (args.learning_rate, args.head_learning_rate, args.num_train_epochs) == (0.02, 2.0, 30)
    assert not args.freeze_batch_norm
    probe = finetune.parse("--linear_probe")
    assert probe.head_learning_rate == 0.05 and probe.freeze_batch_norm


def test_the_head_is_new_unless_reuse_head_is_given(finetune, finetuned):
    start = UOVForSemanticSegmentation.from_pretrained(finetuned)
    new, same = (
        finetune.create_model(finetune.parse("--model_name_or_path", finetuned, *switch), CLASS_NAMES)
        for switch in ([], ["--reuse_head"])
    )
    assert torch.equal(same.classifier.weight, start.classifier.weight)
    assert not torch.equal(new.classifier.weight, start.classifier.weight)
    for model in (new, same):
        assert torch.equal(model.uov.point_projection.weight, start.uov.point_projection.weight)


def test_a_head_for_other_classes_or_none_and_one_that_is_not_there_are_refused(
    finetune, finetuned, start_of_distillation
):
    args = finetune.parse("--reuse_head", "--model_name_or_path", finetuned)
    with pytest.raises(ValueError, match=r"the dataset has \['road', 'car'\]. Leave out the switch"):
        finetune.create_model(args, ["road", "car"])
    args.reuse_head = False
    assert finetune.create_model(args, ["road", "car"]).classifier.out_features == 2
    args = finetune.parse("--reuse_head", "--model_name_or_path", start_of_distillation)
    with pytest.raises(ValueError, match="has no head"):
        finetune.create_model(args, CLASS_NAMES)


@pytest.mark.parametrize("map_between", [[], ["--map", "cityscapes_nuscenes"]])
def test_a_dataset_without_annotation_is_refused(finetune, map_between):
    args = finetune.parse("--model_name_or_path", "unread", *map_between)
    with pytest.raises(ValueError, match="nuscenes has no class names"):
        finetune.choose_classes(args, SimpleNamespace(class_names=[], taxonomy=None))


def test_from_scratch_keeps_the_sizes_and_no_weights_and_no_words(finetune, start_of_distillation):
    args = finetune.parse("--from_scratch", "--model_name_or_path", start_of_distillation)
    torch.manual_seed(1)  # the seed of the checkpoint is 0
    model, start = finetune.create_model(args, ["road", "car"]), UOVModel.from_pretrained(start_of_distillation)
    assert model.config.hidden_sizes == start.config.hidden_sizes and model.config.prompts == []
    assert not torch.equal(model.uov.point_projection.weight, start.point_projection.weight)


def test_a_preset_needs_no_checkpoint(finetune):
    args = finetune.parse("--preset", "tiny")
    assert args.model_name_or_path is None
    config = finetune.create_model(args, ["road", "car"]).config
    assert config.hidden_sizes == UOVConfig.from_preset("tiny").hidden_sizes and config.batch_norm_momentum == 0.05
    args.batch_norm_momentum = 0.02
    assert finetune.create_model(args, ["road", "car"]).config.batch_norm_momentum == 0.02


def test_a_linear_probe_changes_the_head_alone(finetune, start_of_distillation, tiny_street):
    args = finetune.parse("--linear_probe", "--model_name_or_path", start_of_distillation)
    model = finetune.create_model(args, CLASS_NAMES)
    set_train_mode(model, args.freeze_batch_norm)
    frame = load_frames("nuscenes", "test", data_dir=tiny_street)[0]
    inputs = UOVProcessor.from_pretrained(start_of_distillation)(points=frame["points"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = create_optimizer("sgd", segmenter_groups(model, args.head_learning_rate), 0.1, 0.0)
    model(**inputs, labels=torch.from_numpy(frame["labels"].astype("int64"))).loss.backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.slow
def test_two_processes_fine_tune_a_reused_head_along_the_curve_of_one(finetuned, tiny_street, run_script, tmp_path):
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all", "--dataloader_num_workers", 0]
    steps = ["--max_train_steps", 3, "--per_device_train_batch_size", 1, "--freeze_batch_norm", *data]
    rates = ["--learning_rate", 0.01, "--head_learning_rate", 0.02]
    reuse = ["finetune.py", "--model_name_or_path", finetuned, "--reuse_head", *rates, *steps]
    run_script(*reuse, "--gradient_accumulation_steps", 2, "--output_dir", tmp_path / "one")
    run_script(*reuse, "--output_dir", tmp_path / "two", num_processes=2)
    assert losses(tmp_path / "two").shape == (3, 1)
    assert torch.allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)


@pytest.mark.slow
def test_words_as_a_head_are_fine_tuned_and_cannot_be_probed(
    start_of_distillation, street_labels, tiny_street, run_script, tmp_path
):
    steps = ["--max_train_steps", 2, "--per_device_train_batch_size", 1, "--dataloader_num_workers", 0]
    steps += ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all"]
    start_from = ["--model_name_or_path", start_of_distillation, "--label_set", street_labels, "--head", "text"]
    run_script("distill.py", *start_from, *steps, "--output_dir", tmp_path / "text")
    reuse = ["finetune.py", "--model_name_or_path", tmp_path / "text", "--reuse_head", *steps]
    refused = run_script(*reuse, "--linear_probe", "--output_dir", tmp_path / "probe", fails=True)
    assert "prompts, which have no weights to train" in refused
    run_script(*reuse, "--output_dir", tmp_path / "tuned")
    before, after = (UOVForSemanticSegmentation.from_pretrained(tmp_path / name) for name in ("text", "tuned"))
    assert after.classifier is None and torch.equal(after.uov.prompt_embeds, before.uov.prompt_embeds)
    assert not torch.equal(after.uov.point_projection.weight, before.uov.point_projection.weight)
