"""`run.json`: the facts of a run without private ones of the machine, and digests of its results."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from uov_hf.data import load_frames
from uov_hf.digests import file_digest
from uov_hf.labels import LabelSet
from uov_hf.recipe.programs import script_arguments
from uov_hf.reproduction import inputs, outputs
from uov_hf.reproduction.environment import describe_environment, git_state
from uov_hf.reproduction.inputs import describe_changes, digest_inputs
from uov_hf.reproduction.outputs import describe_outputs
from uov_hf.reproduction.record import RUN_FILE, Execution, RunRecorder, read_record


EXECUTION = Execution("cpu", num_processes=1, num_threads=1, engine="torch")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Jane", "-c", "user.email=jane@example.org"]
    return subprocess.run(["git", "-C", folder, *identity, *words], capture_output=True, text=True, check=True).stdout


def test_a_checkout_has_its_commit_and_whether_it_was_edited_and_a_package_in_another_repository_has_none(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    git(tmp_path, "init", "--quiet")  # around it, as around an environment in a project
    assert git_state(checkout) == (None, None)
    git(checkout, "init", "--quiet")
    (checkout / "file.py").write_text("a = 1\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "first")
    (checkout / "new.txt").touch()  # not tracked
    assert git_state(checkout) == (git(checkout, "rev-parse", "HEAD").strip(), False)
    (checkout / "file.py").write_text("a = 2\n")
    assert git_state(checkout)[1]


def test_the_versions_are_those_that_are_imported():
    versions = describe_environment("cpu").versions
    assert versions["torch"] == torch.__version__ and versions["numpy"] == np.__version__
    assert {"python", "uov-hf", "transformers", "accelerate", "datasets", "pyarrow"} <= versions.keys()


def test_digests_of_weights_are_those_of_sha256sum_and_those_of_results_leave_out_times_and_paths(tmp_path):
    folders = [tmp_path / name for name in ("one", "other")]
    for seconds, folder in enumerate(folders):
        (folder / "submission").mkdir(parents=True)
        save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
        log = [{"step": 1, "loss": 2.0, "seconds": seconds}, {"step": 2, "loss": 1.5, "seconds": seconds}]
        (folder / "train_log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
        region = {"mean_iou": 0.25, "fwiou": None, "per_category_iou": [0.25]}
        results = {"all_points": region, "dataset": str(folder), "model_name_or_path": str(folder)}
        (folder / "metrics.json").write_text(json.dumps(results))
        (folder / "submission" / "scan.bin").write_bytes(b"labels")
    (digests, metrics), other = (describe_outputs(folder) for folder in folders)
    assert (digests, metrics) == other
    assert digests["model.safetensors"] == file_digest(folders[0] / "model.safetensors")
    assert digests.keys() == {"model.safetensors", "train_log.jsonl", "metrics.json", "submission/**"}
    assert metrics == {"step": 2, "loss": 1.5, "all_points.mean_iou": 0.25}


def test_the_metrics_of_abstention_and_under_corruptions_are_those_of_the_run(tmp_path):
    condition = {"all_points": {"mean_iou": 0.25}, "abstention": {"area_under_risk_coverage": 0.125}}
    corruption = {"severities": {"light": condition}, "resilience_rate": 0.5, "corruption_error": None}
    robustness = {"seed": 0, "corruptions": {"fog": corruption}, "mean_resilience_rate": 0.75}
    (tmp_path / "metrics.json").write_text(json.dumps({**condition, "robustness": robustness, "note": "mean_iou"}))
    _, metrics = describe_outputs(tmp_path)
    assert metrics == {
        "all_points.mean_iou": 0.25,
        "abstention.area_under_risk_coverage": 0.125,
        "robustness.mean_resilience_rate": 0.75,
        "robustness.corruptions.fog.resilience_rate": 0.5,
        "robustness.corruptions.fog.severities.light.all_points.mean_iou": 0.25,
        "robustness.corruptions.fog.severities.light.abstention.area_under_risk_coverage": 0.125,
    }


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("model.safetensors", b"\x80\x3f", b"\x81\x3f"),
        ("train_log.jsonl", b"2.0", b"2.1"),
        ("metrics.json", b"0.25]", b"0.26]"),
        ("submission/scan.bin", b"labels", b"lapels"),
    ],
)
def test_another_result_has_another_digest(tmp_path, file, old, new):
    test_digests_of_weights_are_those_of_sha256sum_and_those_of_results_leave_out_times_and_paths(tmp_path)
    before, _ = describe_outputs(tmp_path / "one")
    path = tmp_path / "one" / file
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    after, _ = describe_outputs(tmp_path / "one")
    assert [name.split("/")[0] for name in before if before[name] != after[name]] == [file.split("/")[0]]


def test_the_digest_of_labels_is_that_of_their_rows_whatever_files_they_are_in(street_labels, tiny_street, tmp_path):
    from labelled_street import label_street

    whole, metrics = describe_outputs(street_labels)
    label_set = LabelSet(label_street(tiny_street, tmp_path / "labels"))
    assert describe_outputs(label_set.folder) == (whole, metrics)
    assert metrics["num_frames"] == 4 and 0 < metrics["mean_score"] <= 1
    shard = sorted((label_set.folder / "images").glob("*.parquet"))[0]
    shard.rename(shard.with_name("zzz.parquet"))  # now the last one
    assert describe_outputs(label_set.folder)[0] == whole
    shard.with_name("zzz.parquet").unlink()
    assert describe_outputs(label_set.folder)[0]["images/*.parquet"] != whole["images/*.parquet"]


def test_values_of_rows_add_their_types_and_sizes():
    def digest(value) -> str:
        sha256 = outputs.hashlib.sha256()
        outputs._update(sha256, value)
        return sha256.hexdigest()

    values = [[b"ab", b"c"], [b"a", b"bc"], [b"abc"], ["ab", "c"], [["ab"], "c"], [None, "c"], ["None", "c"], 1, 1.0]
    values += [np.zeros((2, 1), np.int16), np.zeros((1, 2), np.int16), np.zeros((1, 2), np.uint16)]
    assert len({digest(value) for value in values}) == len(values)


def finetuning(street: Path, **changes):
    kind = script_arguments("finetune")
    return kind(**{"dataset": ["nuscenes"], "data_dir": [str(street)], "split": ["all"], "preset": "tiny"} | changes)


def test_inputs_have_the_same_names_wherever_the_data_is_and_each_edited_file_is_named(
    tiny_street, other_street, tmp_path
):
    found = digest_inputs("finetune", finetuning(tiny_street))
    assert {"frames", "ground truth", "data_dir/splits.json", "data_dir/samples/LIDAR_TOP/*.bin"} <= found.keys()
    assert not any(str(tiny_street.parent) in name for name in found)
    moved = tmp_path / "moved"
    moved.symlink_to(tiny_street)
    assert digest_inputs("finetune", finetuning(moved)) == found
    changes = describe_changes(found, digest_inputs("finetune", finetuning(other_street)))
    assert changes == ["ground truth changed", "data_dir/samples/LIDAR_TOP/*.bin changed"]
    assert describe_changes({"a": "1"}, {"b": "1"}) == ["a is missing", "b is new"]


def test_labels_that_were_edited_are_noticed_though_their_files_have_the_same_size(other_street, tmp_path):
    import shutil

    street = shutil.copytree(other_street, tmp_path / "street")
    before = digest_inputs("evaluate", finetuning(street))
    path = next(street.glob("lidarseg/*/*.bin"))
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert describe_changes(before, digest_inputs("evaluate", finetuning(street))) == ["ground truth changed"]


def test_of_many_label_files_a_fixed_number_is_read(other_street, monkeypatch):
    read = []
    monkeypatch.setattr(inputs, "NUM_READ", 3)
    monkeypatch.setattr(inputs, "file_digest", lambda path: read.append(path) or file_digest(path))
    frames = load_frames("nuscenes", "all", data_dir=other_street)
    files = [frames.source.frames[index].label_file for index in frames.indices]
    digest = inputs._digest_truth([frames])
    assert read == [files[place * len(files) // 3] for place in range(3)] and len(files) > 3
    assert inputs._digest_truth([frames]) == digest


def test_a_record_is_read_back_with_short_paths_and_stays_until_the_next_run_has_ended(
    tiny_street, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    recorder = RunRecorder(tmp_path / "out", "finetune", ["--output_dir", str(tmp_path / "out")], EXECUTION)
    arguments = finetuning(tiny_street, output_dir=str(tmp_path / "out"), seed=7)
    recorder.read(arguments, [load_frames("nuscenes", "all", data_dir=tiny_street)])
    recorder.write()
    record = read_record(tmp_path / "out" / RUN_FILE)
    assert record["command"] == "examples/finetune.py --output_dir out"
    assert record["arguments"]["output_dir"] == "out" and record["arguments"]["data_dir"] == [str(tiny_street)]
    assert record["seed"] == 7 and record["execution"]["engine"] == "torch"
    assert str(Path.home()) not in json.dumps({**record, "arguments": {}})
    RunRecorder(tmp_path / "out", "finetune", [], EXECUTION, is_main_process=False).write()
    other = RunRecorder(tmp_path / "out", "finetune", [], EXECUTION)
    assert read_record(tmp_path / "out" / RUN_FILE) == record
    other.write()
    assert read_record(tmp_path / "out" / RUN_FILE)["seed"] is None


def test_the_results_of_an_earlier_run_in_the_folder_are_not_those_of_the_new_one(tmp_path):
    (tmp_path / "submission").mkdir()
    for name in ("metrics.json", "submission/old.bin"):
        (tmp_path / name).write_text("{}")
    recorder = RunRecorder(tmp_path, "evaluate", [], EXECUTION)
    recorder.write()
    assert read_record(tmp_path / RUN_FILE)["outputs"] == {}
    (tmp_path / "new.json").write_text("{}")
    (tmp_path / "new.json").replace(tmp_path / "metrics.json")
    recorder.write()
    assert read_record(tmp_path / RUN_FILE)["outputs"].keys() == {"metrics.json"}


@pytest.mark.parametrize(
    "content, message",
    [
        ("[", "JSON, got"),
        ("[" * 100_000, "JSON, got"),
        ("{}", "the `run.json` of a run, which has format_version, program"),
        ('{"format_version": 2, "environment": {}}', "format version 1, got 2. Use the version"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, content, message):
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(ValueError, match=f"run.json: expected {message}"):
        read_record(tmp_path / RUN_FILE)


@pytest.mark.parametrize(
    "name, key, value",
    [
        ("environment", "versions", {"torch": 2}),
        ("environment", "gpus", None),
        ("environment", "weather", "fine"),
        ("execution", "num_processes", "2"),
        ("execution", "num_threads", True),
        ("inputs", "frames", 1),
        ("outputs", "model.safetensors", None),
        ("metrics", "loss", "low"),
    ],
)
def test_a_record_with_values_of_other_types_is_named(tmp_path, name, key, value):
    path = tmp_path / RUN_FILE
    RunRecorder(tmp_path, "evaluate", [], EXECUTION).write()
    record = json.loads(path.read_text())
    assert read_record(path) == record
    path.write_text(json.dumps({**record, name: {**record[name], key: value}}))
    with pytest.raises(ValueError, match=f"run.json: expected the `run.json` of a run, got one in which {name} is"):
        read_record(path)
    path.write_text(json.dumps({**record, name: []}))
    with pytest.raises(ValueError, match=f"got one in which {name} is"):
        read_record(path)
