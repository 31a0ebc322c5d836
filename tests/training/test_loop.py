"""The training loop: what weighs how much in a step, what stops it, and what a skipped step leaves alone."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

from uov_hf.training.checkpoints import list_checkpoints
from uov_hf.training.interruption import RESUME_STATUS
from uov_hf.training.loop import load_step, set_train_mode, train, train_step
from uov_hf.training.objectives import Objective, add_negatives, count_superpoints
from uov_hf.training.optimization import create_scheduler
from uov_hf.training.order import TrainingOrder
from uov_hf.training.run import MAX_SKIPPED_IN_A_ROW, Run
from uov_hf.training.tracking import TrainLog, read_log


ARGS = {"resume_from_checkpoint": "latest", "dataloader_num_workers": 0, "on_error": "raise"}
ARGS |= {"freeze_batch_norm": False, "eval_steps": None, "checkpointing_steps": 2}


class Outputs(dict):
    __getattr__ = dict.__getitem__


class Line(nn.Module):
    """A weight times a number, squared; where `edge` is 0, its loss is finite and its gradient infinite."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(save_pretrained=lambda folder: (folder / "config.json").write_text("{}"))

    def forward(self, number, edge, num_points):
        loss = ((self.weight * number).square() + (self.weight - self.weight.detach() + edge).sqrt()).sum()
        return Outputs(loss=loss, term=loss.detach())


class Numbers(Dataset):
    """Four frames with a number each; `infinite` are those whose gradient is."""

    def __init__(self, infinite=()):
        self.infinite = infinite

    def __len__(self):
        return 4

    def __getitem__(self, key):
        edge = 0.0 if key[1] in self.infinite else 1.0
        return {"number": torch.tensor(0.1 + key[1]), "edge": torch.tensor(edge), "num_points": torch.tensor([5])}

    def frame_id(self, index):
        return f"frame-{index}"


def start_run(folder, num_steps=8, with_scaler=False) -> Run:
    """A run of which nothing is on the disk; with the scaler that float16 has, as on a GPU."""
    folder.mkdir(exist_ok=True)
    accelerator = Accelerator(cpu=True)
    accelerator.free_memory()
    if with_scaler:
        accelerator.scaler = torch.amp.GradScaler("cpu")
    order, model = TrainingOrder(num_frames=4), Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = create_scheduler("cosine", optimizer, order, num_steps)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler)
    return Run(accelerator, model, optimizer, scheduler, order, num_steps, folder)


def first(frames: list) -> dict:
    return frames[0]


def objective_of(count=lambda batch: 1, **hooks) -> Objective:
    return Objective(first, count, "num_frames", "Label them.", {"term": "the term"}, **hooks)


def train_on(run: Run, samples: Numbers, **hooks) -> list[dict]:
    """The log of the run."""
    train(run, SimpleNamespace(**ARGS), objective_of(**hooks), samples)
    return read_log(run.output_dir / "train_log.jsonl")


def steps_of(frame: int, run: Run) -> list[int]:
    """The steps, from 0, that train on a frame."""
    return [step for step in range(run.num_steps) if run.order.step_keys(step)[0][1] == frame]


class HostTraffic(TorchDispatchMode):
    """Collects the operations that make a tensor of the host's numbers, or a number of a tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.lift_fresh, torch.ops.aten._local_scalar_dense):
            self.found.append(function)
        return function(*args, **kwargs or {})


def test_a_step_moves_no_numbers_between_host_and_device_but_its_one_list(tmp_path, monkeypatch):
    run, lists = start_run(tmp_path), []
    objective, frame = objective_of(), {**Numbers()[0, 1], "broken_frames": ["one"]}
    step_batch = load_step(run.accelerator, iter([frame] * 3), accumulation=3, objective=objective)
    as_list = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda values: lists.append(values.shape) or as_list(values))
    with HostTraffic() as traffic:
        train_step(run, objective, step_batch)
    assert traffic.found == [] and lists == [torch.Size([3])]  # loss, term, gradient norm
    assert run.num_broken == 3


def test_infinite_gradients_of_a_finite_loss_stop_the_run_and_are_not_saved(tmp_path):
    run = start_run(tmp_path)
    first = steps_of(3, run)[0]
    with pytest.raises(RuntimeError, match=f"the norm of its gradients inf at step {first + 1}: training has diverge"):
        train_on(run, Numbers(infinite={3}))
    diverged = json.loads((tmp_path / "diverged.json").read_text())
    assert (diverged["step"], diverged["gradient_norm"], diverged["frame_ids"]) == (first + 1, "inf", ["frame-3"])
    assert run.step == first and run.model.weight.isfinite().all()
    assert all(int(path.name.split("-")[1]) <= first for path in tmp_path.glob("checkpoint-*"))


def test_the_list_of_the_frames_that_diverged_is_whole_or_absent(tmp_path, monkeypatch):
    def fail(file):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"diverged\.json.*the disk is full"):
        train_on(start_run(tmp_path), Numbers(infinite=range(4)))
    assert not list(tmp_path.glob("diverged*"))


def test_an_infinite_loss_stops_the_run_with_a_scaler_too(tmp_path):
    run = start_run(tmp_path, with_scaler=True)
    run.model.weight.data.fill_(1e30)
    with pytest.raises(RuntimeError, match="The loss is inf"):
        train_on(run, Numbers())


def test_a_skipped_step_moves_the_data_on_but_neither_schedule_nor_average(tmp_path):
    run, averaged = start_run(tmp_path, with_scaler=True), []
    skipped = steps_of(3, run)
    records = train_on(run, Numbers(infinite={3}), after_step=lambda: averaged.append(run.step - 1))
    taken = [step for step in range(8) if step not in skipped]
    assert len(skipped) == 2 and averaged == taken
    assert run.step == 8 and run.trained_points == 40 and run.scheduler.last_epoch == len(taken)
    assert [step for step, record in enumerate(records) if record.get("skipped_in_a_row")] == skipped
    for step in skipped:
        assert records[step]["learning_rate"] == records[min(step + 1, 7)]["learning_rate"]


def train_until(stop: int, run: Run, samples: Numbers, **hooks) -> None:
    """Train until a scan cannot be read, when `stop` steps are done."""

    def fail(batch):
        if run.step == stop:
            raise OSError("the scan is truncated")
        return batch

    with pytest.raises(OSError, match="truncated"):
        train_on(run, samples, complete_batch=fail, **hooks)


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_run_stopped_after_any_step_ends_as_without_the_stop_though_steps_are_skipped(stop, tmp_path):
    samples = Numbers(infinite={1, 3})
    whole = start_run(tmp_path / "whole", with_scaler=True)
    train_on(whole, samples)
    train_until(stop, start_run(tmp_path / "stopped", with_scaler=True), samples)
    resumed = start_run(tmp_path / "stopped", with_scaler=True)
    train_on(resumed, samples)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    for name in ("step", "trained_points", "skipped_in_a_row"):
        assert getattr(resumed, name) == getattr(whole, name)
    assert resumed.scheduler.state_dict()["last_epoch"] == whole.scheduler.state_dict()["last_epoch"] == 4
    assert resumed.accelerator.scaler.get_scale() == whole.accelerator.scaler.get_scale()


def test_a_run_that_sigterm_interrupts_is_saved_and_ends_as_without_it(tmp_path):
    def send_sigterm(batch):
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    whole = start_run(tmp_path / "whole")
    train_on(whole, Numbers())
    run = start_run(tmp_path / "stopped")
    with pytest.raises(SystemExit) as end:
        train_on(run, Numbers(), complete_batch=send_sigterm)
    assert end.value.code == RESUME_STATUS == 75
    assert run.step == 4 and list_checkpoints(tmp_path / "stopped")[-1].name == "checkpoint-4"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed = start_run(tmp_path / "stopped")
    train_on(resumed, Numbers())
    assert torch.equal(resumed.model.weight, whole.model.weight)


def interrupt(run: Run, **settings) -> None:
    """Train, with SIGTERM while the next step is loaded."""

    def send_sigterm(batch):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("a worker was ended")

    with pytest.raises(SystemExit) as end:
        train(run, SimpleNamespace(**(ARGS | settings)), objective_of(complete_batch=send_sigterm), Numbers())
    assert end.value.code == RESUME_STATUS


def test_an_interrupted_run_states_that_it_is_saved_only_where_its_folder_has_the_checkpoint(tmp_path, caplog):
    interrupt(start_run(tmp_path / "first"))
    assert "after step 0 of 8, and there is nothing to save" in caplog.text
    assert list_checkpoints(tmp_path / "first") == []
    train_until(4, start_run(tmp_path / "first"), Numbers())
    other = start_run(tmp_path / "other")
    interrupt(other, resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-4"))
    assert "after step 4 of 8, which is saved" in caplog.text
    assert [path.name for path in list_checkpoints(tmp_path / "other")] == ["checkpoint-4"]


def test_an_error_between_the_processes_is_raised_though_their_launcher_sends_sigterm(tmp_path, monkeypatch):
    run = start_run(tmp_path)

    def fail(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(run.accelerator, "reduce", fail)
    with pytest.raises(RuntimeError, match="closed by peer"):
        train_on(run, Numbers())


def test_weights_and_statistics_that_are_not_finite_are_not_saved(tmp_path):
    run = start_run(tmp_path)
    run.model.register_buffer("running_var", torch.tensor([1.0, torch.inf]))
    with pytest.raises(RuntimeError, match=r"Not finite after step 2: running_var \(1 of 2 tensors\)"):
        train_on(run, Numbers())
    assert list_checkpoints(tmp_path) == []


def test_a_second_run_in_the_same_folder_is_refused_and_what_a_killed_one_left_is_removed(tmp_path):
    leftovers = [tmp_path / ".checkpoint-2.partial" / "optimizer.bin", tmp_path / ".saving-x" / "model.safetensors"]
    for path in leftovers:
        path.parent.mkdir()
        path.touch()
    (tmp_path / ".saving-x" / ".lock").touch()
    (tmp_path / ".train_log.jsonl.partial").touch()
    (tmp_path / "notes.partial").touch()  # not ours

    def train_again(batch):
        assert not any(path.exists() for path in leftovers)
        with pytest.raises(RuntimeError, match=rf"is being written by process {os.getpid()} on .* one run at a time"):
            train_on(start_run(tmp_path), Numbers())
        return batch

    train_on(start_run(tmp_path), Numbers(), complete_batch=train_again)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == ["notes.partial"]


def test_broken_frames_that_are_skipped_are_logged(caplog):
    accelerator = Accelerator(cpu=True)
    frame = {**Numbers()[0, 1], "broken_frames": ["OSError: frame 7 is truncated"]}
    load_step(accelerator, iter([frame]), accumulation=1, objective=objective_of())
    assert "Skipped a broken frame: OSError: frame 7 is truncated" in caplog.text


def test_steps_that_are_all_skipped_end_the_run_also_where_it_was_resumed_among_them(tmp_path):
    train_until(10, start_run(tmp_path, num_steps=50, with_scaler=True), Numbers(infinite=range(4)))
    run = start_run(tmp_path, num_steps=50, with_scaler=True)
    with pytest.raises(RuntimeError, match=f"of {MAX_SKIPPED_IN_A_ROW + 1} steps in a row .* --mixed_precision bf16"):
        train_on(run, Numbers(infinite=range(4)))
    assert run.step == MAX_SKIPPED_IN_A_ROW + 1


def number_of(batch) -> int:
    return int(batch["number"])  # 0 in frame 0, 1, 2 and 3 in the others


def test_an_epoch_on_nothing_stops_the_run_before_its_last_step_and_saves_nothing_of_it(tmp_path):
    run = start_run(tmp_path, num_steps=20)
    with pytest.raises(ValueError, match=r"num_frames is 0 in the optimiser steps 6 to 12 \(.*: 1\). Label them"):
        train_on(run, Numbers(), count=lambda batch: run.step < 5)  # an epoch is 4 steps
    assert run.step == 11 and not (tmp_path / "checkpoint-12").exists()


def test_a_resumed_run_counts_the_steps_on_nothing_of_before_too(tmp_path):
    def count(batch) -> bool:
        return run.step < 5

    run = start_run(tmp_path, num_steps=20)
    train_until(9, run, Numbers(), count=count)
    run = start_run(tmp_path, num_steps=20)
    with pytest.raises(ValueError, match="in the optimiser steps 6 to 12"):
        train_on(run, Numbers(), count=count)
    assert run.step == 11


def test_a_run_shorter_than_an_epoch_stops_if_all_of_it_is_nothing(tmp_path):
    with pytest.raises(ValueError, match="in the optimiser steps 1 to 2"):
        train_on(start_run(tmp_path / "nothing", num_steps=2), Numbers(), count=lambda batch: 0)
    run = start_run(tmp_path / "something", num_steps=2)
    train_on(run, Numbers(), count=lambda batch: run.step == 0)
    assert run.step == 2


def test_a_frame_of_nothing_trains_on_and_many_of_them_warn_once(tmp_path, caplog):
    run = start_run(tmp_path / "few")
    train_on(run, Numbers(), count=number_of)
    assert run.step == 8 and "nothing to train on" not in caplog.text
    run = start_run(tmp_path / "many", num_steps=30)
    run.order = TrainingOrder(num_frames=30)
    train_on(run, Numbers(), count=lambda batch: run.step > 15)
    assert caplog.text.count("is 0 in the optimiser steps 1 to 10") == 1 == caplog.text.count("nothing to train on")


def test_what_is_added_to_the_data_is_weighted_and_does_not_hide_that_the_data_is_empty(tmp_path):

    batches = [Numbers()[0, 0], Numbers()[0, 2]]
    objective = objective_of(number_of, complete_batch=lambda batch: {**batch, "number": batch["number"] + 1})
    step = load_step(Accelerator(cpu=True), iter(batches), accumulation=2, objective=objective)
    assert (step.count, step.supervision, step.weights) == (4, 2, [0.25, 0.75])


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    set_train_mode(model, batch_norm_is_frozen=True)
    model(torch.randn(5, 2)).sum().backward()
    assert torch.equal(model[1].running_mean, torch.zeros(3))
    assert model[1].weight.grad is not None and model[0].training


def test_the_log_of_a_resumed_run_drops_the_steps_after_the_checkpoint(tmp_path):
    path = tmp_path / "train_log.jsonl"
    log = TrainLog(path)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1.0 / step})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # the kill came here
    TrainLog(path, start_step=2).write({"step": 3, "loss": 0.0})
    assert read_log(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.0}]


def batch_of(superpoint_ids, num_points=6, lost_points=()):
    """Pair m belongs to point m, every point has a voxel of its own, `lost_points` have none."""
    point_to_voxel = torch.arange(num_points)
    point_to_voxel[list(lost_points)] = -1
    return {
        "point_to_voxel": point_to_voxel,
        "num_points": torch.tensor([num_points]),
        "pair_to_point": torch.arange(len(superpoint_ids)),
        "superpoint_ids": torch.tensor(superpoint_ids, dtype=torch.long),
        "segment_embeds": torch.randn(max(superpoint_ids, default=-1) + 1, 4),
    }


def test_a_superpoint_without_a_voxel_is_not_counted():
    assert count_superpoints(batch_of([0, 0, 1, 2])) == 3
    assert count_superpoints(batch_of([0, 0, 1, 2], lost_points=[2])) == 2
    assert count_superpoints(batch_of([])) == 0


def test_weights_make_the_mean_over_the_superpoints_of_the_whole_step():
    batches = [batch_of([0, 1, 2]), batch_of([0]), batch_of([])]
    step = load_step(Accelerator(cpu=True), iter(batches), accumulation=3, objective=objective_of(count_superpoints))
    assert step.weights == [0.75, 0.25, 0.0]
    assert (step.count, step.num_points) == (4, 18)


def test_a_broken_frame_stops_the_step():
    def batches():
        yield batch_of([0])
        raise OSError("scan.bin is truncated")

    step = load_step(Accelerator(cpu=True), batches(), accumulation=2, objective=objective_of(count_superpoints))
    assert str(step.error) == "scan.bin is truncated" and isinstance(step.error, OSError)


def test_negatives_are_the_segments_of_the_rest_of_the_step():
    batches = [batch_of([0, 1]), batch_of([]), batch_of([0, 1, 2])]
    add_negatives(Accelerator(cpu=True), batches)
    first, nothing, third = (batch["segment_embeds"] for batch in batches)
    for batch, expected in zip(batches, (third, torch.cat([first, third]), first), strict=True):
        assert torch.equal(batch["negative_embeds"], expected)
