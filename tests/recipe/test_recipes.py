"""Recipes: errors name file, section and way out before anything runs; runs and kills."""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path

import forks
import pytest
import small_car
import yaml

from uov_hf.data.writer_lock import writer_lock
from uov_hf.evaluation.label_card import parse_args
from uov_hf.recipe.recipes import Recipe, make_recipe
from uov_hf.recipe.sections import LabelCardArguments
from uov_hf.recipe.stage import RECORD
from uov_hf_cli.__main__ import main


REPOSITORY = Path(__file__).resolve().parents[2]


def recipe_of(content: dict) -> Recipe:
    return make_recipe(content, "recipe.yaml")


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"pretrain": {"learning_rat": 1}},
            "section `pretrain`: there is no argument `learning_rat`. Did you mean learning_",
        ),
        ({"pretrain": {"preset": "huge"}}, "section `pretrain`: `preset` must be .*minkunet34.*got 'huge'"),
        ({"pretrain": {"max_train_steps": 0}}, "section `pretrain`: --max_train_steps: expected .* at least 1"),
        ({"pretrain": {"output_dir": "x"}}, "section `pretrain`: `output_dir` stands outside the sections"),
        (
            {"pretrain": {"resume_from_checkpoint": "x"}},
            "section `pretrain`: `resume_from_checkpoint` is no setting of a recipe",
        ),
        ({"resume_from_checkpoint": "latest"}, "`resume_from_checkpoint` is no setting of a recipe"),
        ({"pretrain": [1]}, "section `pretrain`: expected `argument: value`"),
        ({"label_card": {"max_frames": 0}}, "section `label_card`: --max_frames"),
        ({"label_points": {"rules": "cameras", "preset": "paper"}}, "section `label_points`: .*exclude each other"),
        ({"distil": {}}, "`distil` is neither a section nor an argument .* Did you mean distill"),
        ({"seeds": 1}, "`seeds` is neither .* Did you mean seed"),
        ({"num_processes": 0}, "`num_processes` must be a whole number of at least 1, got 0"),
        ({"dataset": None}, "`dataset` is missing"),
        ({"data_dir": "nowhere"}, "section `generate_label_set`: .*nowhere"),
        ({"evaluate": {"split": "vall"}}, "section `evaluate`: .*expected one of the splits .*got 'vall'"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(content, changes, message):
    with pytest.raises(ValueError, match=f"(?s)^recipe.yaml: {message}"):
        recipe_of(content | changes)


def test_a_stage_without_a_start_is_refused(content):
    del content["pretrain"]
    with pytest.raises(ValueError, match="section `distill`: expected a section pretrain .* or `preset`"):
        recipe_of(content)
    stages = recipe_of(content | {"distill": content["distill"] | {"preset": "tiny"}}).stages
    assert "--model_name_or_path" not in stages[3].stage.words and stages[3].arguments.preset == "tiny"


def test_a_car_without_annotation_needs_a_vocabulary_and_has_no_evaluation(content, tmp_path):
    car = tmp_path / "car"
    small_car.write_car(car)
    shutil.rmtree(car / "drive" / "labels")
    calibration = small_car.calibration()
    del calibration["taxonomy"]
    small_car.write_calibration(car, calibration)
    content |= {"dataset": "point_cloud_folder", "data_dir": str(car)}
    with pytest.raises(ValueError, match="section `generate_label_set`: .*no `taxonomy`. Give `vocabulary`"):
        recipe_of(content)
    (tmp_path / "words.yaml").write_text("name: words\nclasses:\n  - name: car\n    prompts: [1990]\n")
    content["generate_label_set"]["vocabulary"] = str(tmp_path / "words.yaml")
    with pytest.raises(ValueError, match="section `generate_label_set`: .*words.yaml, line 4: expected a prompt"):
        recipe_of(content)
    content["generate_label_set"]["vocabulary"] = "semantic_kitti"
    content["pretrain"]["split"] = content["distill"]["split"] = content["evaluate"]["split"] = "all"
    with pytest.raises(ValueError, match="section `evaluate`: the dataset has no ground truth"):
        recipe_of(content)


def test_stages_get_shared_settings_the_rule_of_the_labels_and_the_results_of_earlier_ones(content, tmp_path):
    stages = {made.stage.name: made for made in recipe_of(content | {"seed": 7, "num_processes": 2}).stages}
    folder = tmp_path / "run"
    assert stages["pretrain"].arguments.seed == stages["evaluate"].arguments.seed == 7
    assert stages["distill"].arguments.point_labels_preset == "consolidated"
    assert stages["distill"].arguments.label_set == [str(folder / "labels")]
    assert stages["distill"].arguments.model_name_or_path == str(folder / "tmp")
    assert stages["evaluate"].arguments.model_name_or_path == str(folder / "uov")
    assert stages["label_card"].stage.words[:3] == ["-m", "uov_hf.evaluation.label_card", str(folder / "labels")]
    assert "consolidated" in stages["label_card"].stage.words
    assert {made.num_processes for name, made in stages.items() if name != "label_card"} == {2}


def test_a_changed_setting_or_dataset_changes_all_later_stages(content, other_street):
    def digests(changed: dict) -> dict[str, str]:
        return {made.stage.name: made.stage.digest for made in recipe_of(changed).stages}

    before = digests(content)
    after = digests(content | {"pretrain": content["pretrain"] | {"learning_rate": 1e-3}})
    assert [name for name in before if before[name] != after[name]] == ["pretrain", "distill", "evaluate"]
    assert digests(content | {"output_dir": "elsewhere"}) == before
    fewer = digests(content | {"frame_stride": 2})
    assert not [name for name in before if before[name] == fewer[name]]


def test_two_runs_in_one_folder_are_refused(content, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    with writer_lock(tmp_path / "run"):
        assert main(["train", str(path)]) == 1
    assert "is being written by process" in capsys.readouterr().err


def test_sigterm_ends_a_run_with_status_75_and_leaves_no_handler(content, tmp_path, capsys, monkeypatch):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))

    def interrupt(*_, **options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            yield "not reached"
        finally:  # here a run waits for the checkpoint
            during.append(signal.getsignal(signal.SIGTERM))

    during: list[object] = []
    monkeypatch.setattr("uov_hf.recipe.run.run_plan", interrupt)
    with pytest.raises(SystemExit) as end:
        main(["train", str(path), "--until", "label_card"])
    assert end.value.code == 75 and during == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "The same command continues it." in capsys.readouterr().out


def test_a_dry_run_writes_nothing_and_prints_commands(content, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    before = sorted(tmp_path.rglob("*"))
    options = ["--seed", "3", "--set", "distill.max_train_steps=7", "--launcher", "srun me"]
    assert main(["train", str(path), "--dry_run", *options]) == 0
    printed = capsys.readouterr().out
    assert f"srun me {REPOSITORY}/examples/pretrain.py" in printed and "--seed 3" in printed
    assert "--max_train_steps 7" in printed and "--max_train_steps 3" in printed  # of distill and of pretrain
    assert "python -m uov_hf.evaluation.label_card run/labels" in printed
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text, message",
    [
        ("seed=1", "--set: expected STAGE.NAME=VALUE, such as distill.max_train_steps=100, got 'seed=1'"),
        ("distill.seed", "--set: expected STAGE.NAME=VALUE"),
        (
            "finetune.seed=1",
            "--set finetune.seed=1: the recipe has no section `finetune`; it has generate_label_set, ",
        ),
        ("optimizer.x=1", "--set optimizer.x=1: the recipe has no section `optimizer`; it has generate_label_set, "),
        ("label_card.x=1", "section `label_card`: expected `argument: value` in it, got 'all'"),
        ("distill.sed=1", "section `distill`: there is no argument `sed`. Did you mean seed"),
        ("distill.seed=[", "--set distill.seed=[: expected a value as in YAML"),
    ],
)
def test_a_wrong_setting_on_the_command_line_is_refused(content, tmp_path, capsys, text, message):
    path = tmp_path / "recipe.yaml"
    content |= {"optimizer": "adamw"} | ({"label_card": "all"} if text.startswith("label_card") else {})
    path.write_text(yaml.safe_dump(content))
    assert main(["train", str(path), "--dry_run", "--set", text]) == 1
    assert message in capsys.readouterr().err


def test_the_label_card_takes_the_options_that_a_recipe_may_set(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["label_card", "labels"])
    assert {field.name for field in fields(LabelCardArguments)} <= vars(parse_args()).keys()


def run_command(words: list[str], log: Path) -> None:
    """`uov-hf …` in the process that calls this; its scripts run without accelerate, whose import takes seconds."""
    forks.write_output_to(log)
    os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    sys.exit(main([*words, "--launcher", sys.executable]))


@pytest.fixture
def train(tmp_path):
    """`train(path)`: start `uov-hf train` in a process of its own, which prints into `output.txt`."""

    def start(path: Path, *options: str):
        (tmp_path / "output.txt").write_text("")
        arguments = (["train", str(path), *options], tmp_path / "output.txt")
        process = forks.start_server().Process(target=run_command, args=arguments)
        process.start()
        return process

    return start


def end_of(process) -> int:
    process.join(3000)
    return process.exitcode


def weights(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes()
        for name in ("labels/prompt_embeds.safetensors", "tmp/model.safetensors", "uov/model.safetensors")
    }


@pytest.mark.slow
def test_a_run_that_is_killed_in_every_stage_gives_the_same_bytes(content, train, tmp_path):
    """Also the metrics are the same, and a run after the last one starts nothing."""
    paths = {name: tmp_path / f"{name}.yaml" for name in ("whole", "killed")}
    for name, path in paths.items():
        path.write_text(yaml.safe_dump(content | {"output_dir": str(tmp_path / name)}))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert end_of(train(paths["whole"])) == 0, (tmp_path / "output.txt").read_text()
    moments = {
        "labels/label_set.json": "labels/stage.json",
        "labels/points/consolidated/point_labels.json": "labels/points/stage.json",
        "logs/label_card.log": "labels/card/stage.json",
        "tmp/checkpoint-1": "tmp/stage.json",
        "uov/checkpoint-2": "uov/stage.json",
        "logs/evaluate.log": "eval/stage.json",
    }
    for reached, finished in moments.items():
        process = train(paths["killed"])
        while not (killed / reached).exists() and process.is_alive():
            time.sleep(0.01)
        process.kill()  # its program may go on: the next run ends it
        assert end_of(process) == -signal.SIGKILL and '"cost"' not in (killed / finished).read_text(), reached
    assert end_of(train(paths["killed"])) == 0
    assert "Report: " in (tmp_path / "output.txt").read_text()
    assert weights(killed) == weights(whole)
    metrics = [json.loads((folder / "eval" / "metrics.json").read_text()) for folder in (whole, killed)]
    assert [one.pop("model_name_or_path") for one in metrics] and metrics[0] == metrics[1]
    report = (killed / "report.md").read_text()
    assert "labels/card/README.md" in report and "IoU in %" in report and "--model_name_or_path" in report
    assert end_of(train(paths["killed"])) == 0
    assert (tmp_path / "output.txt").read_text().count("done before") == 6


@pytest.mark.slow
def test_a_failing_stage_ends_the_run_with_its_log_and_keeps_earlier_ones(content, train, tmp_path):
    path = tmp_path / "recipe.yaml"
    content["pretrain"]["voxel_size"] = [-1.0, 1.0, 1.0]
    path.write_text(yaml.safe_dump(content))
    assert end_of(train(path, "--until", "pretrain")) == 1
    output, log = (tmp_path / "output.txt").read_text(), tmp_path / "run" / "logs" / "pretrain.log"
    before, after = output.split(f"The stage pretrain ended with status 1. The end of its log, {log}:")
    assert "[3/4] label_card: finished" in before and "Traceback" not in before
    assert "voxel_size" in after and "CalledProcessError" not in after
    assert '"cost"' in (tmp_path / "run" / "labels" / "card" / RECORD).read_text()
