"""Plans: what runs, continues, is refused or skipped, and its time, which a process of its own measures."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from uov_hf.data import load_frames
from uov_hf.recipe import trial
from uov_hf.recipe.plan import describe, make_plan
from uov_hf.recipe.recipes import Recipe, make_recipe
from uov_hf.recipe.run import run_plan
from uov_hf.recipe.stage import RECORD, Stage


def recipe_of(content: dict) -> Recipe:
    return make_recipe(content, "recipe.yaml")


def finish(recipe: Recipe, *names: str) -> None:
    """Leave the records of finished stages."""
    for made in recipe.stages:
        stage = made.stage
        if stage.name in names:
            cost = {"seconds": 120.0, "cpu_seconds": 100.0, "gigabytes": 1.5}
            record = {"settings": dict(stage.settings), "inputs": dict(stage.inputs), "cost": cost}
            stage.output_dir.mkdir(parents=True, exist_ok=True)
            (stage.output_dir / RECORD).write_text(json.dumps(record))


def begin(stage: Stage) -> None:
    """Leave the record of a stage that was interrupted."""
    stage.output_dir.mkdir(parents=True, exist_ok=True)
    (stage.output_dir / RECORD).write_text(
        json.dumps({"settings": dict(stage.settings), "inputs": dict(stage.inputs)})
    )


def actions(recipe: Recipe, **options) -> dict[str, str]:
    return {one.made.stage.name: one.action for one in make_plan(recipe, **options)}


def test_a_plan_skips_what_is_done_and_refuses_to_overwrite_a_training(content):
    recipe = recipe_of(content)
    assert set(actions(recipe).values()) == {"run"}
    finish(recipe, "generate_label_set", "label_points", "pretrain")
    assert actions(recipe) == dict.fromkeys(
        ("generate_label_set", "label_points", "pretrain"), "skip"
    ) | dict.fromkeys(("label_card", "distill", "evaluate"), "run")
    changed = recipe_of(content | {"pretrain": content["pretrain"] | {"learning_rate": 1e-3}})
    with pytest.raises(
        ValueError, match="other settings or files: learning_rate = 0.003, now 0.001. .*`--from pretrain`"
    ):
        make_plan(changed)
    assert actions(changed, first="pretrain")["pretrain"] == "repeat"
    rescored = recipe_of(content | {"evaluate": {"split": "test", "refine": "afi"}})
    finish(recipe, "distill", "evaluate")
    assert actions(rescored)["evaluate"] == "repeat"  # it costs no training


def test_an_interrupted_training_does_not_continue_with_other_settings(content):
    recipe = recipe_of(content)
    finish(recipe, "generate_label_set", "label_points", "label_card", "pretrain")
    stage = recipe.stages[3].stage
    begin(stage)
    changed = recipe_of(content | {"pretrain": content["pretrain"] | {"learning_rate": 1e-3}})
    assert actions(changed)["pretrain"] == "repeat"  # it saved nothing
    (stage.output_dir / "checkpoint-1").mkdir()
    assert actions(recipe)["pretrain"] == "continue"
    with pytest.raises(ValueError, match="finished or not, .*: learning_rate = 0.003, now 0.001. .*`--from pretrain`"):
        make_plan(changed)


def test_an_interrupted_label_set_does_not_continue_with_other_files(content):
    recipe = recipe_of(content)
    stage = recipe.stages[0].stage
    stage.output_dir.mkdir(parents=True)
    (stage.output_dir / RECORD).write_text(json.dumps({"settings": dict(stage.settings), "inputs": {"frames": "old"}}))
    assert actions(recipe)["generate_label_set"] == "repeat"  # it has no labels
    (stage.output_dir / "label_set.json").touch()
    with pytest.raises(ValueError, match="frames changed.*finish it with that version.*`--from generate_label_set`"):
        make_plan(recipe)


def test_point_labels_of_other_files_are_made_again(content):
    recipe = recipe_of(content)
    finish(recipe, "generate_label_set", "label_points")
    stage = recipe.stages[1].stage
    record = stage.record
    (stage.output_dir / RECORD).write_text(json.dumps({**record, "inputs": {**record["inputs"], "frames": "old"}}))
    assert actions(recipe)["label_points"] == "repeat"


def test_point_labels_outside_the_folder_of_the_run_are_not_deleted(content, tmp_path):
    del content["generate_label_set"]
    content["label_set"] = str(tmp_path / "other")
    recipe, folder = recipe_of(content), tmp_path / "other" / "points" / "consolidated"
    folder.mkdir(parents=True)
    assert actions(recipe)["label_points"] == "run"  # the program compares them with the frames
    with pytest.raises(ValueError, match=f"^{folder} has point labels.* Delete it, and start again"):
        make_plan(recipe, first="label_points")
    folder.rmdir()
    finish(recipe, "label_points")
    assert actions(recipe, first="label_points")["label_points"] == "repeat"


def test_from_and_until_cut_the_plan(content):
    recipe = recipe_of(content)
    finish(recipe, *(made.stage.name for made in recipe.stages))
    assert set(actions(recipe).values()) == {"skip"}
    cut = actions(recipe, first="pretrain", last="distill")
    assert [*cut] == ["generate_label_set", "label_points", "label_card", "pretrain", "distill"]
    assert [name for name, action in cut.items() if action == "repeat"] == ["pretrain", "distill"]
    with pytest.raises(ValueError, match="no stage 'distil'; it has generate_label_set, "):
        make_plan(recipe, first="distil")
    with pytest.raises(ValueError, match="--from distill comes after --until pretrain"):
        make_plan(recipe, first="distill", last="pretrain")


def test_an_estimate_is_from_a_measurement_or_is_unknown(content):
    recipe = recipe_of(content)
    lines = list(describe(make_plan(recipe), with_commands=False))
    assert "[1/6] generate_label_set: will run, 4 frames, time unknown (shown after its first frames)" == lines[0]
    for line in lines[3:5]:  # distill trains the network of pretrain
        assert re.search(r"3 steps, time about .* \(measured on 3 steps of one scan, without loading\)", line)
    assert lines[-1].startswith("Time: at least ") and "Disk: at least " in lines[-1]
    finish(recipe, "generate_label_set", "label_points", "label_card", "pretrain", "distill", "evaluate")
    again = make_plan(recipe, first="evaluate")
    assert again[-1].seconds == 120 and again[-1].seconds_from == "as the last time"
    folder = recipe.stages[3].stage.output_dir
    (folder / RECORD).unlink()
    (folder / "checkpoint-1").mkdir()
    (folder / "train_log.jsonl").write_text('{"step": 1, "seconds": 50}\n')
    (continued,) = [one for one in make_plan(recipe) if one.made.stage.name == "pretrain"]
    assert (continued.action, continued.seconds) == ("continue", 100)


def test_the_time_of_a_first_training_is_steps_times_frames_times_that_of_a_scan(content, monkeypatch):
    recipe = recipe_of(content | {"num_processes": 2, "gradient_accumulation_steps": 4})
    monkeypatch.setattr("uov_hf.recipe.plan.seconds_of_scan", lambda made, network: 0.5 * (network.preset == "tiny"))
    assert make_plan(recipe)[4].seconds == 3 * 4 * 0.5
    content["distill"]["model_name_or_path"] = "out/of_another_run"  # its network is not read for a plan
    assert make_plan(recipe_of(content))[4].seconds is None


def test_a_scan_is_measured_with_the_voxels_and_the_threads_of_the_training(content, monkeypatch):
    measured = []

    def measure(command, *, input, env, **options) -> subprocess.CompletedProcess:
        measured.append((command[-1], len(np.load(io.BytesIO(input))["coords"]), env["OMP_NUM_THREADS"]))
        return subprocess.CompletedProcess(command, 0, b"1.0\n")

    monkeypatch.setattr("subprocess.run", measure)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    seconds = []
    for size in ([0.1, 0.01, 0.1], [4.0, 1.0, 4.0]):
        content["pretrain"]["voxel_size"] = size
        seconds.append(make_plan(recipe_of(content), last="pretrain")[-1].seconds)
    (preset, many, threads), (_, few, _) = measured
    assert (preset, threads, seconds) == ("tiny", "3", [3.0, 3.0]) and few < many / 2


def test_a_measurement_that_fails_leaves_the_time_unknown(content, monkeypatch):
    """Such as one without enough memory on the GPU; it fails in a process of its own."""
    content["pretrain"]["voxel_size"] = [0.3, 0.3, 0.3]  # no other test has measured it
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    (*_, planned) = make_plan(recipe_of(content), last="pretrain")
    assert (planned.seconds, planned.seconds_from) == (None, "shown after its first steps")


def test_a_measurement_uses_the_device_of_the_training(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert trial.default_device() == "cpu"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    assert trial.default_device() == "cuda"


def test_finished_stages_run_nothing_and_are_reported(content, tmp_path):
    recipe = recipe_of(content)
    finish(recipe, *(made.stage.name for made in recipe.stages))
    (tmp_path / "run" / "eval" / "table.md").write_text("| IoU in % |\n")
    *lines, last = run_plan(recipe, make_plan(recipe))
    assert lines == [f"[{n}/6] {made.stage.name}: done before" for n, made in enumerate(recipe.stages, 1)]
    report = Path(last.removeprefix("Report: ")).read_text()
    for part in ("| label card | 2 min | 1.5 GB |", "(labels/card/README.md)", "| IoU in % |", "`uov`"):
        assert part in report
    assert len(load_frames("nuscenes", "all", data_dir=content["data_dir"])) == 4
