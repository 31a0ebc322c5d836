"""Checkpoints: whole or not there, the last few kept, and only of the same run."""

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from full_disk import room_for

from uov_hf.training.checkpoints import (
    check_whole,
    drop_later,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    only_run_in,
    save_checkpoint,
)
from uov_hf.written_together import written_together


SETTINGS = {"learning_rate": 0.1, "output_dir": "out"}
CONFIG = SimpleNamespace(save_pretrained=lambda folder: (folder / "config.json").write_text("{}"))


@pytest.fixture
def run(tmp_path):
    """A line with momentum, two steps in; like a network without words it has two empty buffers."""
    accelerator = Accelerator(cpu=True)
    accelerator.free_memory()
    model = torch.nn.Linear(2, 1)
    for name in ("prompt_embeds", "prompt_to_class"):
        model.register_buffer(name, torch.zeros(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    run = SimpleNamespace(accelerator=accelerator, model=model, optimizer=optimizer, folder=tmp_path)
    train(run, 2)
    yield run
    accelerator.free_memory()


def train(run, num_steps):
    for _ in range(num_steps):
        run.optimizer.zero_grad()
        run.accelerator.backward(run.model(torch.ones(1, 2)).square().sum())
        run.optimizer.step()


def save(run, step, **settings):
    return save_checkpoint(run.accelerator, run.folder, {"step": step, "settings": SETTINGS}, CONFIG, **settings)


def test_a_loaded_run_continues_as_the_saved_one(run):
    checkpoint = save(run, 2)
    train(run, 3)
    expected = run.model.weight.detach().clone()
    assert load_checkpoint(run.accelerator, run.model, checkpoint, SETTINGS)["step"] == 2
    train(run, 3)
    assert torch.equal(run.model.weight, expected)


def test_only_the_last_checkpoints_are_kept_and_a_resumed_run_drops_those_that_it_will_write_again(run):
    for step in (9, 10, 20, 100):  # sorted as numbers
        save(run, step, keep=3)
    assert [path.name for path in list_checkpoints(run.folder)] == ["checkpoint-10", "checkpoint-20", "checkpoint-100"]
    assert find_checkpoint(run.folder, "latest").name == "checkpoint-100"
    drop_later(run.folder, 20, resumed=run.folder / "checkpoint-20")
    assert [path.name for path in list_checkpoints(run.folder)] == ["checkpoint-10", "checkpoint-20"]


def test_a_run_killed_while_saving_leaves_the_last_checkpoint_alone(run, monkeypatch):
    save(run, 2)
    monkeypatch.setattr(run.accelerator, "wait_for_everyone", lambda: None)
    monkeypatch.setattr(CONFIG, "save_pretrained", lambda folder: 1 / 0)  # the weights are written, the rest is not
    with pytest.raises(ZeroDivisionError):
        save(run, 4)
    assert find_checkpoint(run.folder, "latest").name == "checkpoint-2"
    monkeypatch.undo()
    assert find_checkpoint(run.folder, str(save(run, 4))).name == "checkpoint-4"
    assert not list(run.folder.glob(".*"))


class Kill(BaseException):
    """Ends a run where SIGKILL would."""


@pytest.mark.parametrize("killed_in", ["rmtree", "replace"])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_run_killed_while_it_removes_checkpoints_leaves_whole_ones_without_gaps(run, monkeypatch, killed_in, calls):
    for step in (10, 20, 30, 40):
        save(run, step)
    places, count = {"rmtree": shutil, "replace": os}, [0]
    original = getattr(places[killed_in], killed_in)

    def remove_a_part_or_kill(path, *arguments, **options):
        count[0] += path.exists()
        if count[0] < calls:
            return original(path, *arguments, **options)
        if killed_in == "rmtree":  # is killed when one file is gone
            (path / "trainer_state.json").unlink()
        raise Kill

    monkeypatch.setattr(places[killed_in], killed_in, remove_a_part_or_kill)
    with pytest.raises(Kill):
        drop_later(run.folder, 10, resumed=run.folder / "checkpoint-10")
    monkeypatch.undo()
    left = list_checkpoints(run.folder)
    assert [path.name for path in left] == [f"checkpoint-{step}" for step in (10, 20, 30, 40)][: len(left)]
    for path in left:
        check_whole(path)
    with only_run_in(run.folder, is_main_process=True):
        assert not list(run.folder.glob(".checkpoint-*"))


def test_the_files_of_an_export_that_works_in_the_folder_of_a_run_stay(tmp_path):
    with written_together(tmp_path, "model.onnx") as temporary:
        with only_run_in(tmp_path, is_main_process=True):
            (temporary / "model.onnx").write_text("weights")
    assert (tmp_path / "model.onnx").read_text() == "weights"


def test_the_resumed_checkpoint_is_never_removed_even_if_its_name_has_another_step(run, tmp_path):
    resumed = save(run, 20).rename(run.folder / "checkpoint-30")
    with pytest.raises(ValueError, match=r"checkpoint of step 20 \(trainer_state.json\).* Rename it to checkpoint-20"):
        load_checkpoint(run.accelerator, run.model, resumed, SETTINGS)
    drop_later(run.folder, 20, resumed)
    assert list_checkpoints(run.folder) == [resumed]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "trainer_state.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "missing"])
def test_a_damaged_checkpoint_is_named_with_the_last_whole_one_and_nothing_of_it_is_loaded(run, name, damage):
    whole, other = save(run, 1), save(run, 2)
    save(run, 3)
    (other / "config.json").unlink()
    damaged = run.folder / "checkpoint-3" / name
    content = damaged.read_bytes()
    if damage == "flipped bit":
        middle = len(content) // 2
        damaged.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "cut short":
        damaged.write_bytes(content[: content.rfind(b"\n", 0, -1) + 1] if name == "SHA256SUMS" else content[:-9])
    else:
        damaged.unlink()
    before = run.model.weight.detach().clone()
    checkpoint = find_checkpoint(run.folder, "latest") if name != "trainer_state.json" else damaged.parent
    ways = f"continue with --resume_from_checkpoint {whole}, or delete {damaged.parent}."
    with pytest.raises(OSError, match=f"checkpoint-3.*damaged. The last whole one is {whole}: {ways}") as error:
        load_checkpoint(run.accelerator, run.model, checkpoint, SETTINGS)
    assert name in str(error.value) or damage == "flipped bit"  # a bit of SHA256SUMS changes another file's line
    assert torch.equal(run.model.weight, before) and damaged.parent.exists()


def test_digests_are_those_of_sha256sum(run):
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=save(run, 2), capture_output=True, text=True)
    assert done.returncode == 0 and "optimizer.bin: OK" in done.stdout


def test_a_run_of_other_settings_is_refused_before_anything_is_loaded(run):
    checkpoint = save(run, 2)
    train(run, 1)
    before = run.model.weight.detach().clone()
    with pytest.raises(ValueError, match="learning_rate = 0.1, now 0.2"):
        load_checkpoint(run.accelerator, run.model, checkpoint, SETTINGS | {"learning_rate": 0.2})
    assert torch.equal(run.model.weight, before)
    assert load_checkpoint(run.accelerator, run.model, checkpoint, SETTINGS | {"output_dir": "moved"})["step"] == 2


def test_the_checkpoint_of_another_network_is_refused(run):
    checkpoint = save(run, 2)
    for other in (torch.nn.Linear(5, 7), torch.nn.Sequential(run.model)):
        with pytest.raises(ValueError, match="belongs to another network: "):
            load_checkpoint(run.accelerator, other, checkpoint, SETTINGS)


def test_latest_starts_anew_where_there_is_none_and_a_wrong_folder_is_named(tmp_path):
    Accelerator(cpu=True)  # its logger needs one
    assert find_checkpoint(tmp_path, "latest") is find_checkpoint(tmp_path, None) is None
    with pytest.raises(FileNotFoundError, match="there is no trainer_state.json"):
        find_checkpoint(tmp_path, str(tmp_path))


def test_a_new_run_does_not_mix_its_checkpoints_with_those_of_an_old_one(run):
    save(run, 20)
    with pytest.raises(FileExistsError, match=r"\(checkpoint-20\). Continue it with --resume_from_checkpoint latest"):
        find_checkpoint(run.folder, None)


@pytest.mark.parametrize("num_bytes", [0, 100, 600, 1500])  # of the largest file, about 2,000
def test_a_full_disk_leaves_the_last_checkpoint_names_it_and_gets_its_room_back(run, num_bytes):
    whole = save(run, 2)
    with room_for(num_bytes), pytest.raises(OSError, match="checkpoint-4 could not be saved") as error:
        save(run, 4)
    assert "The last checkpoint is checkpoint-2. Free some space" in str(error.value)
    assert "--resume_from_checkpoint latest" in str(error.value)
    check_whole(whole)
    assert list(run.folder.iterdir()) == [whole]
    check_whole(save(run, 4))
