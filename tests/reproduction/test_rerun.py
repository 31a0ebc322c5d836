"""The second run of a record: of the same data, with no code that the user does not trust, in a folder of its own."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from labelled_street import label_street

from uov_hf.recipe.programs import script_arguments
from uov_hf.reproduction.inputs import digest_inputs
from uov_hf.reproduction.record import RUN_FILE, Execution, RunRecord, RunRecorder, read_record
from uov_hf.reproduction.rerun import check_inputs, default_folder, prepare
from uov_hf_cli.__main__ import main


CPU = Execution("cpu", num_processes=1, num_threads=3, engine="torch")


def record_of(folder: Path, program: str, execution: Execution = CPU, **arguments) -> RunRecord:
    """The record of a script that left nothing else."""
    recorder = RunRecorder(folder, program, [], execution)
    made = script_arguments(program)(dataset="nuscenes", **arguments)
    recorder.read(made, [_open(made)])
    recorder.write()
    return read_record(folder / RUN_FILE)


def _open(arguments):
    from uov_hf.training.samples import load_split

    return load_split(arguments, arguments.split)


@pytest.fixture
def evaluation(tiny_street, tiny_segmenter, tmp_path) -> RunRecord:
    given = {"data_dir": str(tiny_street), "split": "test", "model_name_or_path": str(tiny_segmenter)}
    return record_of(tmp_path / "first", "evaluate", output_dir=str(tmp_path / "first"), **given)


def test_all_arguments_are_those_of_the_first_run_but_for_the_folder_and_what_would_reach_beyond_it(
    evaluation, tmp_path
):
    rerun = prepare(evaluation, tmp_path / "again", {})
    check_inputs(evaluation, rerun)
    given = json.loads(rerun.files["arguments.json"])
    changed = {name for name, value in given.items() if value != evaluation["arguments"][name]}
    assert changed == {"output_dir", "update_card", "mixed_precision"}
    assert given["update_card"] is False and given["mixed_precision"] == "no"
    assert given["output_dir"] == str(tmp_path / "again") and rerun.record == tmp_path / "again" / RUN_FILE
    assert rerun.launch.environment == {"OMP_NUM_THREADS": "3", "ACCELERATE_USE_CPU": "true"}
    assert rerun.launch.words == (sys.executable,)
    evaluation["execution"] |= {"num_processes": 2, "device": "cuda"}
    launch = prepare(evaluation, tmp_path / "again", {}).launch
    assert "--num_processes 2" in " ".join(launch.words) and launch.environment["OMP_NUM_THREADS"] == "3"


def test_changed_inputs_stop_it_before_anything_runs_and_are_named(evaluation, other_street, tmp_path, capsys):
    command = ["reproduce", str(tmp_path / "first" / RUN_FILE), "--set", f"data_dir={other_street}"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert (
        "ground truth changed; data_dir/samples/LIDAR_TOP/*.bin changed (2 in all). Nothing was run. Use those"
        in error
    )
    assert str(Path.cwd()) in error and "--set data_dir=data/nuscenes" in error
    assert not (tmp_path / "first-reproduced").exists()


def test_a_changed_checkpoint_or_label_set_is_named(evaluation, tiny_street, tiny_segmenter, street_labels, tmp_path):
    model = shutil.copytree(tiny_segmenter, tmp_path / "model")
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="recorded run: model_name_or_path/model.safetensors changed"):
        check_inputs(evaluation, prepare(evaluation, tmp_path / "again", {"model_name_or_path": str(model)}))
    labels = shutil.copytree(street_labels, tmp_path / "labels")
    given = {"label_set": str(labels), "data_dir": str(tiny_street), "split": "all"}
    record = record_of(labels / "points" / "paper", "label_points", **given)
    next((labels / "images").glob("*.parquet")).unlink()
    with pytest.raises(ValueError, match=r"recorded run: label_set/images/\*.parquet changed"):
        check_inputs(record, prepare(record, tmp_path / "again", {}))


def test_point_labels_are_made_again_in_a_copy_of_their_label_set(tiny_street, tmp_path):
    labels = label_street(tiny_street, tmp_path / "labels")
    given = {"label_set": str(labels), "data_dir": str(tiny_street), "split": "all", "preset": "consolidated"}
    record = record_of(labels / "points" / "consolidated", "label_points", **given)
    folder = default_folder(record, labels / "points" / "consolidated" / RUN_FILE)
    assert folder == tmp_path / "labels-reproduced"
    rerun = prepare(record, folder, {})
    assert rerun.label_set == labels and rerun.record == folder / "points" / "consolidated" / RUN_FILE
    given = json.loads(rerun.files["arguments.json"])
    assert given["label_set"] == str(folder) and given["output_dir"] is None


@pytest.mark.parametrize(
    "resumed, again",
    [("latest", None), ("{first}/checkpoint-4", None), ("elsewhere/checkpoint-4", "elsewhere/checkpoint-4")],
)
def test_a_run_that_was_resumed_starts_from_its_beginning(tiny_street, tmp_path, resumed, again):
    given = {"dataset": ["nuscenes"], "data_dir": [str(tiny_street)], "split": ["all"], "preset": "tiny"}
    given |= {"resume_from_checkpoint": resumed.format(first=tmp_path / "first"), "push_to_hub": False}
    arguments = script_arguments("finetune")(**given, output_dir=str(tmp_path / "first"))
    recorder = RunRecorder(tmp_path / "first", "finetune", [], CPU)
    recorder.read(arguments, [_open(arguments.datasets[0])])
    assert recorder.inputs == digest_inputs("finetune", arguments)
    recorder.arguments["push_to_hub"] = True
    recorder.write()
    rerun = prepare(read_record(tmp_path / "first" / RUN_FILE), tmp_path / "again", {}, trust_code=again is not None)
    second = json.loads(rerun.files["arguments.json"])
    assert second["resume_from_checkpoint"] == again and second["push_to_hub"] is False


@pytest.mark.parametrize("program", ["../../evil", "make_tiny_clip", "label_card", "/evil"])
def test_a_record_starts_no_other_program(evaluation, tmp_path, program):
    with pytest.raises(ValueError, match=f"expected a run of generate_label_set, .* demo, got '{program}'"):
        prepare({**evaluation, "program": program}, tmp_path / "again", {})


def test_python_files_that_a_record_names_run_only_if_they_are_trusted(evaluation, tiny_street, tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'done')!r}, 'w')\n")
    named = {"dataset": str(tmp_path / "evil.py")}
    record = {**evaluation, "arguments": evaluation["arguments"] | named}
    with pytest.raises(ValueError, match=r"executes .*evil.py. Give --trust_code"):
        prepare(record, tmp_path / "again", {})
    assert not (tmp_path / "done").exists()
    with pytest.raises(ValueError, match="expected one subclass of FrameBuilder"):
        prepare(record, tmp_path / "again", {}, trust_code=True)
    assert (tmp_path / "done").exists()
    teacher = {"program": "train", "arguments": {"recipe": {"generate_label_set": {"teacher": "mine.py:Mine"}}}}
    with pytest.raises(ValueError, match="executes mine.py:Mine"):
        prepare({**record, **teacher}, tmp_path / "again", {})
    nested = {"program": "train", "arguments": {"recipe": {"datasets": [{"dataset": "theirs.py"}]}}}
    with pytest.raises(ValueError, match="executes theirs.py"):
        prepare({**record, **nested}, tmp_path / "again", {})
    pickled = {"program": "finetune", "arguments": {"resume_from_checkpoint": "x/checkpoint-1", "output_dir": "out"}}
    with pytest.raises(ValueError, match="executes x/checkpoint-1"):
        prepare({**record, **pickled}, tmp_path / "again", {})
    in_section = {"program": "train", "arguments": {"recipe": {"pretrain": {"resume_from_checkpoint": "x"}}}}
    with pytest.raises(ValueError, match="executes x. Give --trust_code"):
        prepare({**record, **in_section}, tmp_path / "again", {})


def test_a_record_of_a_recipe_without_its_content_is_refused(evaluation, tmp_path):
    for arguments in ({}, {"recipe": "demo"}):
        with pytest.raises(ValueError, match="run.json: expected the content of a recipe in arguments.recipe"):
            prepare({**evaluation, "program": "train", "arguments": arguments}, tmp_path / "again", {})


def test_a_launcher_is_the_users_own(evaluation, tmp_path):
    arguments = {"recipe": {}, "until": None, "launcher": "rm -r"}
    with pytest.raises(ValueError, match="were started by 'rm -r'. Give the launcher of this machine with --launcher"):
        prepare({**evaluation, "program": "train", "arguments": arguments}, tmp_path / "again", {})


def test_a_folder_with_files_and_arguments_that_do_not_exist_are_refused(evaluation, tmp_path, capsys):
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        prepare(evaluation, tmp_path / "first", {})
    with pytest.raises(ValueError, match="there is no argument `data_di`. Did you mean data_dir"):
        prepare(evaluation, tmp_path / "again", {"data_di": "x"})
    assert main(["reproduce", str(tmp_path / "first" / RUN_FILE), "--set", "seed"]) == 1
    assert "--set: expected NAME=VALUE" in capsys.readouterr().err
    assert main(["reproduce", str(tmp_path / "first" / RUN_FILE), "--set", "output_dir=elsewhere"]) == 1
    assert "--set output_dir: give the folder of the second run as --output_dir" in capsys.readouterr().err
    assert main(["reproduce", str(tmp_path / "first")]) == 1
    assert f"first is a folder: give {tmp_path / 'first' / RUN_FILE}" in capsys.readouterr().err


def test_two_records_are_compared_without_a_run(evaluation, tmp_path, capsys):
    other = tmp_path / "other" / RUN_FILE
    other.parent.mkdir()
    digests = {"metrics.json": "0a" * 32}
    (tmp_path / "first" / RUN_FILE).write_text(json.dumps({**evaluation, "outputs": digests}))
    other.write_text(json.dumps({**evaluation, "outputs": digests}))
    command = ["reproduce", str(tmp_path / "first" / RUN_FILE), "--against", str(other)]
    assert main(command) == 0
    other.write_text(json.dumps({**evaluation, "outputs": {"metrics.json": "0b" * 32}}))
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "DIFFERS  metrics.json  0a0a0a0a0a0a0a0a -> 0b0b0b0b0b0b0b0b" in captured.out
    assert "have different results" in captured.err
