"""Arguments: flags and files give the same, flags override files, and a wrong file is refused with its key."""

import json
import sys
from dataclasses import asdict, dataclass, replace

import pytest
import yaml

from uov_hf.training import arguments
from uov_hf.training.arguments import DataArguments, LabelSetArguments, TrainingArguments, option, parse_arguments


@dataclass(kw_only=True)
class Arguments(LabelSetArguments, TrainingArguments):
    stage, frames_per_step = "pretrain", 4
    voxel_size: list[float] | None = option(None, "Three numbers.")


STREET = {"num_train_epochs": 7, "learning_rate": 1e-3}
GIVEN = {"dataset": "nuscenes", "label_set": ["labels"], "learning_rate": 0.25, "voxel_size": [1.0, 2.0, 3.0]}
GIVEN |= {"streaming": True, "max_train_steps": 5, "mixed_precision": "no", "push_to_hub": False}


@pytest.fixture
def parse(monkeypatch):
    def parse(*words) -> Arguments:
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
        return parse_arguments(Arguments, "A script.", STREET)

    return parse


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "recipe.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def refusal(parse, capsys, *words) -> str:
    """The message of arguments that are refused."""
    with pytest.raises(SystemExit) as end:
        parse(*words)
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "name, dump", [("recipe.yaml", yaml.safe_dump), ("recipe.yml", json.dumps), ("a.json", json.dumps)]
)
def test_a_file_gives_what_the_flags_give_and_flags_after_it_override_it(parse, write, name, dump):
    flags = ["--dataset", "nuscenes", "--label_set", "labels", "--learning_rate", 0.25, "--voxel_size", 1, 2, 3]
    flags += ["--streaming", "--max_train_steps", 5, "--mixed_precision", "no"]
    path = write(dump(GIVEN), name)
    assert parse(path) == parse(*flags)
    assert asdict(parse(path, "--seed", 3, "--streaming", "false")) == asdict(parse(*flags)) | {
        "seed": 3,
        "streaming": False,
    }


def test_yaml_numbers_in_any_notation_are_floats(parse, write):
    args = parse(write("learning_rate: 1e-4\nweight_decay: 1\n"))
    assert (args.learning_rate, args.weight_decay) == (1e-4, 1.0) and type(args.weight_decay) is float


def test_without_a_dataset_the_defaults_of_the_street_hold_unless_the_file_or_a_flag_has_others(parse, write):
    assert parse().num_train_epochs == 7
    assert parse(write("num_train_epochs: 2")).num_train_epochs == parse("--num_train_epochs", 2).num_train_epochs == 2
    assert parse("--dataset", "nuscenes", "--label_set", "labels").num_train_epochs == 1
    assert parse(write("dataset: nuscenes\nlabel_set: labels")).num_train_epochs == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rat: 1", "there is no argument `learning_rat`. Did you mean learning_rate?"),
        ("stage: pretrain", "there is no argument `stage`"),
        ("learning_rate: fast", "`learning_rate` must be float, got 'fast'."),
        ("seed: 1.5", "`seed` must be int, got 1.5."),
        ("streaming: 1", "`streaming` must be bool, got 1."),
        ("max_train_steps: true", "`max_train_steps` must be int | None, got True."),
        ("voxel_size: [1, a]", "`voxel_size` must be float, got 'a'."),
        ("on_error: stop", "`on_error` must be Literal['raise', 'skip'], got 'stop'."),
        ("mixed_precision: no", "got False. YAML reads an unquoted yes, no, on or off as a truth value."),
        ("- seed", "expected `name: value` for each argument, got list."),
        ("seed: [", "expected YAML or JSON, got: "),
        ("dataset: nuscenes", "--dataset needs --label_set: make one with examples/generate_label_set.py."),
    ],
)
def test_a_wrong_file_is_refused_by_key_with_what_was_expected(parse, write, capsys, text, message):
    path = write(text)
    error = refusal(parse, capsys, path)
    assert message in error and (str(path) in error or message.startswith("--"))


@pytest.mark.parametrize(
    ("name", "wrong", "minimum"),
    [
        ("max_train_steps", 0, 1),
        ("num_train_epochs", -1, 1),
        ("eval_steps", 0, 1),
        ("dataloader_num_workers", -1, 0),
        ("frame_stride", 0, 1),
    ],
)
def test_a_count_that_is_too_small_is_refused(parse, write, capsys, name, wrong, minimum):
    message = f"--{name}: expected a whole number of at least {minimum}, got {wrong}."
    assert message in refusal(parse, capsys, f"--{name}", wrong)
    assert message in refusal(parse, capsys, write(f"{name}: {wrong}"))
    assert getattr(parse(f"--{name}", minimum), name) == minimum


TWO = ["--dataset", "nuscenes", "user/cars", "--data_dir", "data/nuscenes", "", "--label_set", "labels/a", "labels/b"]


def test_every_dataset_has_its_own_values_or_the_one_for_all(parse):
    args = parse(*TWO, "--split", "train", "--validation_split", "val", "", "--frame_stride", 3)
    first, second = args.datasets
    assert (first.dataset, first.data_dir, first.split) == ("nuscenes", "data/nuscenes", "train")
    assert (second.dataset, second.data_dir, second.split) == ("user/cars", None, "train")
    assert first.frame_stride == second.frame_stride == 3 and first.dataset_config is None
    held_out, none = args.validation_datasets
    assert none is None and held_out == replace(first, split="val")


RECIPE = """
datasets:
- dataset: nuscenes
  data_dir: data/nuscenes
  label_set: labels/a
  validation_split: val
- {dataset: user/cars, label_set: labels/b, split: train}
"""


@pytest.mark.parametrize(
    "text",
    [
        RECIPE,
        "dataset: [nuscenes, user/cars]\ndata_dir: [data/nuscenes, null]\nlabel_set: [labels/a, labels/b]\n"
        "validation_split: [val, null]\nsplit: [null, train]",
    ],
)
def test_a_recipe_has_a_list_of_datasets_or_lists_of_values(parse, write, text):
    flags = parse(*TWO, "--split", "", "train", "--validation_split", "val", "")
    assert parse(write(text)) == flags
    assert [one.split for one in flags.datasets] == [None, "train"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--dataset_config", "a", "b", "c"],
            "--dataset_config has 3 values (a, b, c), --dataset has 2 (nuscenes, user",
        ),
        (["--validation_split", "a", "b", "c"], "Give --validation_split one value for all datasets, or one for each"),
        (["--label_set", "labels/a"], "Every dataset needs its own label set: got --dataset nuscenes user/cars and"),
        (["--label_set", "labels/a", ""], "Every dataset needs its own label set"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(parse, capsys, flags, message):
    assert message in refusal(parse, capsys, *TWO, *flags)


@pytest.mark.parametrize(
    "text, message",
    [
        ("datasets: nuscenes", "`datasets` must be a list with `dataset: …` in each entry, got 'nuscenes'."),
        ("datasets: [{data_dir: a}]", "`datasets` must be a list with `dataset: …` in each entry"),
        ("datasets: [{dataset: a, seed: 1}]", "an entry, and none of them outside, got `seed`."),
        ("split: train\ndatasets: [{dataset: a, split: b}]", "none of them outside, got `split`."),
    ],
)
def test_a_wrong_list_of_datasets_is_refused(parse, write, capsys, text, message):
    assert message in refusal(parse, capsys, write(text))


def test_a_script_of_one_dataset_refuses_two(write, capsys, monkeypatch):
    def parse_one(*words):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        return parse_arguments(DataArguments, "A script.")

    way_out = "The argument takes one value here. Only trainings take several datasets."
    assert f"unrecognized arguments: b. {way_out}" in refusal(parse_one, capsys, "--dataset", "a", "b")
    error = refusal(parse_one, capsys, write("dataset: [a, b]"))
    assert f"`dataset` must be str | None, got ['a', 'b']. {way_out}" in error
    assert "there is no argument `datasets`" in refusal(parse_one, capsys, write(RECIPE))


def test_a_missing_file_and_an_unknown_flag_are_named(parse, capsys):
    assert "nowhere.yaml" in refusal(parse, capsys, "nowhere.yaml")
    assert "unrecognized arguments: --sede 3" in refusal(parse, capsys, "--sede", 3)


def test_an_upload_without_a_token_is_refused_before_the_training(parse, capsys, monkeypatch):
    def whoami():
        raise OSError("Token is required")

    monkeypatch.setattr(arguments, "whoami", whoami)
    assert "Token is required" in refusal(parse, capsys, "--push_to_hub")
