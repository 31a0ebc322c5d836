"""An optimiser step over micro-batches: what counts, with which weight, and what stops all processes."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from uov_hf.training.launch import check_num_processes
from uov_hf.training.loaders import ReportBrokenFrames, SkipBrokenFrames, only_readable
from uov_hf.training.loop import set_train_mode
from uov_hf.training.objectives import add_negatives, count_superpoints, gather_negatives
from uov_hf.training.steps import load_step
from uov_hf.training.tracking import TrainLog, read_log


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
    step = load_step(Accelerator(cpu=True), iter(batches), accumulation=3, count=count_superpoints)
    assert step.weights == [0.75, 0.25, 0.0]
    assert (step.count, step.num_points) == (4, 18)


def test_a_broken_frame_stops_the_step():
    def batches():
        yield batch_of([0])
        raise OSError("scan.bin is truncated")

    with pytest.raises(OSError, match=r"scan\.bin is truncated"):
        load_step(Accelerator(cpu=True), batches(), accumulation=2, count=count_superpoints)


def test_negatives_are_the_segments_of_the_rest_of_the_step():
    batches = [batch_of([0, 1]), batch_of([]), batch_of([0, 1, 2])]
    first, second, third = gather_negatives(Accelerator(cpu=True), batches)
    assert torch.equal(first, batches[2]["segment_embeds"])
    assert torch.equal(second, torch.cat([batches[0]["segment_embeds"], batches[2]["segment_embeds"]]))
    assert torch.equal(third, batches[0]["segment_embeds"])
    add_negatives(Accelerator(cpu=True), batches)
    assert torch.equal(batches[0]["negative_embeds"], first)


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    set_train_mode(model, batch_norm_is_frozen=True)
    model(torch.randn(5, 2)).sum().backward()
    assert torch.equal(model[1].running_mean, torch.zeros(3))
    assert model[1].weight.grad is not None and model[0].training


class Frames:
    """Sample `i` of epoch `e` is 10 e + i; some are broken."""

    def __init__(self, broken, length=5):
        self.broken, self.length = broken, length

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        epoch, index = key
        if index in self.broken:
            raise ValueError(f"frame {index} is truncated")
        return {"value": 10 * epoch + index}


def test_the_next_readable_frame_replaces_a_broken_one():
    frames = SkipBrokenFrames(Frames(broken={3, 4}))
    assert frames[2, 1] == {"value": 21, "broken_frames": []}
    sample = frames[2, 3]
    assert sample["value"] == 20
    assert sample["broken_frames"] == ["ValueError: frame 3 is truncated", "ValueError: frame 4 is truncated"]


def test_frames_that_are_all_broken_stop_the_run():
    with pytest.raises(RuntimeError, match="5 frames in a row are broken; the last: ValueError: frame 1"):
        SkipBrokenFrames(Frames(broken=range(5)))[0, 2]


def test_an_evaluation_reports_a_broken_frame_and_does_not_replace_it():
    frames, broken = ReportBrokenFrames(Frames(broken={1})), []
    readable = list(only_readable([frames[0, index] for index in range(3)], broken))
    assert readable == [{"value": 0}, {"value": 2}]
    assert broken == ["ValueError: frame 1 is truncated"]


@pytest.mark.parametrize(
    "environment, num_processes, is_right",
    [
        ({}, 1, True),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "29500"}, 2, True),
        ({"MASTER_PORT": "29500"}, 1, False),  # accelerate launch --cpu --num_processes 2
        ({"WORLD_SIZE": "2", "MASTER_PORT": "29500"}, 1, False),  # torchrun on CPU without ACCELERATE_USE_CPU
    ],
)
def test_a_launch_that_silently_got_one_process_is_refused(monkeypatch, environment, num_processes, is_right):
    for name in ("WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if is_right:
        check_num_processes(num_processes)
    else:
        with pytest.raises(RuntimeError, match="accelerate launch --multi_gpu --num_processes 2"):
            check_num_processes(num_processes)


def test_the_log_of_a_resumed_run_drops_the_steps_after_the_checkpoint(tmp_path):
    path = tmp_path / "train_log.jsonl"
    log = TrainLog(path)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1.0 / step})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # the kill came here
    TrainLog(path, start_step=2).write({"step": 3, "loss": 0.0})
    assert read_log(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.0}]
