"""Faults of a disk during a training, and SIGTERM at its end."""

import os
import signal
from types import SimpleNamespace

import psutil
import pytest
from full_disk import room_for
from test_loop import ARGS, Numbers, objective_of, start_run

from uov_hf.training import publishing
from uov_hf.training.checkpoints import check_whole, list_checkpoints
from uov_hf.training.interruption import RESUME_STATUS
from uov_hf.training.loop import train
from uov_hf.training.tracking import LOG_FILE, TrainLog, read_log


def train_on(run, **settings) -> None:
    train(run, SimpleNamespace(**(ARGS | settings)), objective_of(), Numbers())


def test_a_folder_that_cannot_be_written_is_named_before_the_first_step(tmp_path):
    (tmp_path / ".unfinished").touch()  # where the folder of the lock would be: also root cannot write there
    run = start_run(tmp_path)
    with pytest.raises(OSError, match=r"\.unfinished/lock\.json: could not be written"):
        train_on(run)
    assert run.step == 0


@pytest.mark.parametrize("num_bytes", [0, 300, 1500])
def test_a_full_disk_ends_a_run_and_the_next_one_continues_from_the_last_whole_checkpoint(tmp_path, num_bytes):
    whole, run = start_run(tmp_path / "whole"), start_run(tmp_path / "run")
    train_on(whole)
    with pytest.raises(OSError, match="truncated"):
        train(run, SimpleNamespace(**ARGS), objective_of(complete_batch=fail_after(run, 3)), Numbers())
    before = list_checkpoints(run.output_dir)
    run = start_run(tmp_path / "run")
    with (
        room_for(num_bytes),
        pytest.raises(OSError, match=f"{run.output_dir}.*could not be (written|saved): .* again"),
    ):
        train_on(run)
    assert list_checkpoints(run.output_dir) == before
    for path in before:
        check_whole(path)
    run = start_run(tmp_path / "run")
    train_on(run)
    assert run.model.weight.equal(whole.model.weight)
    assert [record["step"] for record in read_log(run.output_dir / LOG_FILE)] == list(range(1, 9))


def fail_after(run, num_steps: int):
    def complete(batch):
        if run.step == num_steps:
            raise OSError("the scan is truncated")
        return batch

    return complete


def test_sigterm_to_all_processes_of_a_run_with_workers_saves_it(tmp_path, start_method):
    """With `forkserver` it ends the server, too, whose end looks to the loader like that of its worker."""
    settings = {"dataloader_num_workers": 1}

    def send_to_all(batch):
        if run.step == 3:
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                process.send_signal(signal.SIGTERM)
        return batch

    whole, run = start_run(tmp_path / "whole"), start_run(tmp_path / "run")
    train_on(whole)
    with pytest.raises(SystemExit) as end:
        train(run, SimpleNamespace(**ARGS | settings), objective_of(complete_batch=send_to_all), Numbers())
    assert end.value.code == RESUME_STATUS
    run = start_run(tmp_path / "run")
    train_on(run, **settings)
    assert run.model.weight.equal(whole.model.weight)


def test_a_log_that_cannot_grow_is_named(tmp_path):
    log = TrainLog(tmp_path / LOG_FILE)
    log.write({"step": 1})
    with room_for(0), pytest.raises(OSError, match=rf"{LOG_FILE}: could not be written"):
        log.write({"step": 2})
    assert read_log(tmp_path / LOG_FILE) == [{"step": 1}]


def test_sigterm_while_the_finished_checkpoint_is_saved_does_not_cut_it_short(tmp_path, monkeypatch):
    """The saved steps would be found again, but the run would end with a status that stands for no continuation."""
    saved = []

    def save(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        saved.append("weights")

    monkeypatch.setattr(publishing, "save_checkpoint", save)
    monkeypatch.setattr(publishing, "write_card", lambda *_: saved.append("card"))
    args, supervision = SimpleNamespace(push_to_hub=False), [SimpleNamespace(taxonomy="nuscenes")]
    publishing.finish_run(start_run(tmp_path), args, objective_of(), None, None, supervision)
    assert saved == ["weights", "card"] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
