"""Every program leaves `run.json`, and `uov-hf reproduce` gets the same bits from it, through the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uov_hf.digests import file_digest
from uov_hf.reproduction.record import RUN_FILE, read_record


RUNS = Path(__file__).parents[2] / "benchmarks" / "runs"


def reproduce(first: Path, *options) -> tuple[int, str]:
    """Exit status and output of `uov-hf reproduce`, of a file or of that in a folder."""
    path = first / RUN_FILE if first.is_dir() else first
    command = [sys.executable, "-m", "uov_hf_cli", "reproduce", str(path), *map(str, options)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("stage", ["pretrain", "distill", "finetune"])
def test_a_training_records_its_inputs_its_engine_its_last_losses_and_its_weights(stage, finished, tiny_street):
    record = read_record(finished(stage) / RUN_FILE)
    assert record["program"] == stage and record["command"].startswith(f"examples/{stage}.py --dataset nuscenes")
    assert {"data_dir/splits.json", "data_dir/samples/LIDAR_TOP/*.bin", "frames"} <= record["inputs"].keys()
    assert ("label_set/label_set.json" in record["inputs"]) == (stage != "finetune")
    assert ("model_name_or_path/model.safetensors" in record["inputs"]) == (stage == "distill")
    assert record["execution"]["engine"] == "torch" and record["execution"]["num_threads"] == 1
    assert {"loss", "validation_loss"} < record["metrics"].keys() and record["seed"] == 0
    assert record["outputs"]["model.safetensors"] == file_digest(finished(stage) / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_fine_tuning_and_its_evaluation_are_reproduced_bit_for_bit(
    num_processes, settings_of, tiny_street, run_script, tmp_path
):
    tuned, scored = tmp_path / "tuned", tmp_path / "scored"
    run_script(*settings_of["finetune"], "--output_dir", tuned, num_processes=num_processes)
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "test", "--dataloader_num_workers", 0]
    evaluation = ["evaluate.py", *data, "--model_name_or_path", tuned, "--export", "nuscenes", "--output_dir", scored]
    run_script(*evaluation, num_processes=num_processes)
    card = (tuned / "README.md").read_text()
    for folder in (tuned, scored):
        status, output = reproduce(folder)
        assert status == 0, output
        assert "Reproduced: all digests are equal." in output and "DIFFERS" not in output
        again = folder.with_name(f"{folder.name}-reproduced")
        assert read_record(again / RUN_FILE)["execution"]["num_processes"] == num_processes
    assert "equal    submission/**" in output
    assert (tuned / "README.md").read_text() == card  # the second evaluation does not change the checkpoint
    path = tuned / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    status, output = reproduce(scored, "--output_dir", tmp_path / "third")
    assert status == 1 and "model_name_or_path/model.safetensors changed" in output
    assert not (tmp_path / "third").exists()


@pytest.mark.slow
def test_the_runs_in_the_repository_come_back(tmp_path, monkeypatch):
    """Bit for bit on the processor of those runs; elsewhere the training within its bounds."""
    from uov_hf.synthetic import generate_street

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    generate_street("street", num_scenes=2, frames_per_scene=2)
    status, output = reproduce(RUNS / "finetuned.json", "--output_dir", "out/finetuned")
    assert status == 0, output
    if "Reproduced: all digests are equal." in output:  # else the evaluation has other weights than the first one
        status, output = reproduce(RUNS / "evaluated.json", "--output_dir", "out/evaluated")
        assert status == 0 and "equal    metrics.json" in output, output


@pytest.mark.slow
def test_a_run_of_other_code_is_not_reproduced(settings_of, run_script, tmp_path):
    """Another seed stands for code that computes something else: the record has the seed of the first run."""
    tuned = tmp_path / "tuned"
    run_script(*settings_of["finetune"], "--seed", 1, "--output_dir", tuned)
    path = tuned / RUN_FILE
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 0'))
    status, output = reproduce(tuned)
    assert status == 1 and "DIFFERS  model.safetensors" in output
    assert "The runs also differ in nothing that run.json records" in output and "Not reproduced" in output


@pytest.mark.slow
def test_label_sets_and_point_labels_are_reproduced_in_copies(tiny_street, run_script, tmp_path):
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all"]
    labels = tmp_path / "labels"
    run_script("generate_label_set.py", *data, "--teacher", "synthetic", "--output_dir", labels)
    run_script("label_points.py", *data, "--label_set", labels, "--preset", "consolidated")
    points = labels / "points" / "consolidated"
    before = {path: path.stat().st_mtime_ns for path in labels.rglob("*")}
    status, output = reproduce(points)
    assert status == 0 and "equal    *.parquet" in output, output
    again = tmp_path / "labels-reproduced"
    assert (again / "points" / "consolidated" / RUN_FILE).is_file()
    shutil.rmtree(again)
    status, output = reproduce(labels)
    assert status == 0 and "equal    images/*.parquet" in output, output
    assert {path: path.stat().st_mtime_ns for path in labels.rglob("*")} == before


@pytest.mark.slow
def test_a_recipe_is_reproduced_stage_by_stage_without_its_file(tiny_street, tmp_path):
    import yaml

    training = {"split": "train", "max_train_steps": 2, "per_device_train_batch_size": 1}
    content = {
        "dataset": "nuscenes",
        "data_dir": str(tiny_street),
        "output_dir": str(tmp_path / "run"),
        "dataloader_num_workers": 0,
        "generate_label_set": {"teacher": "synthetic", "split": "all"},
        "label_points": {"split": "all"},
        "distill": {"preset": "tiny", "seed": 3, **training},
        "evaluate": {"split": "test"},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "uov_hf_cli", "train", str(recipe), "--set", "distill.max_train_steps=3"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run(command, env=environment, check=True)
    recipe.unlink()
    record = read_record(tmp_path / "run" / RUN_FILE)
    assert record["metrics"]["uov/step"] == 3 and record["execution"]["engine"] == "torch"
    assert "evaluate: ground truth" in record["inputs"] and "distill: frames" in record["inputs"]
    status, output = reproduce(tmp_path / "run")
    assert status == 0, output
    for name in ("labels/images/*.parquet", "labels/points/paper/*.parquet", "uov/model.safetensors", "eval/metrics"):
        assert f"equal    {name}" in output
