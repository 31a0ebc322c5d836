"""An optimiser step over micro-batches: what counts, with which weight, and what stops all processes."""

import pytest
import torch
from accelerate import Accelerator

from uov_hf.training.objectives import add_negatives, count_superpoints, gather_negatives
from uov_hf.training.steps import load_step


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
