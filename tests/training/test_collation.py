"""Collation: what belonged together in a sample still does in the batch, and nothing is lost."""

import pytest
import torch

from uov_hf.training.collation import collate_tmp, collate_voxels


def sample(num_points: int, num_voxels: int, num_segments: int) -> dict[str, torch.Tensor]:
    """Every third point is in no voxel; pairs are with every point that is in one."""
    point_to_voxel = torch.arange(num_points) % max(num_voxels, 1)
    point_to_voxel[::3] = -1
    pair_to_point = (point_to_voxel >= 0).nonzero()[:, 0]
    return {
        "voxel_coords": torch.cat([torch.zeros(num_voxels, 1), torch.randn(num_voxels, 3)], dim=1).int(),
        "voxel_features": torch.randn(num_voxels, 1),
        "point_to_voxel": point_to_voxel,
        "num_points": torch.tensor([num_points]),
        "pair_to_point": pair_to_point,
        "superpoint_ids": torch.arange(len(pair_to_point)) % max(num_segments, 1),
        "segment_embeds": torch.randn(num_segments, 8),
        "segment_labels": torch.randint(0, 5, (num_segments,)),
        "prompt_embeds": torch.eye(5, 8),
        "prompt_groups": torch.arange(5),
    }


def test_every_row_number_still_points_at_its_own_row():
    samples = [sample(10, 4, 2), sample(0, 0, 0), sample(7, 3, 3)]
    before = [{name: values.clone() for name, values in one.items()} for one in samples]
    batch = collate_tmp(samples)
    points = torch.repeat_interleave(torch.arange(3), torch.tensor([10, 0, 7]))
    for scene, (one, start) in enumerate(zip(before, (0, 10, 10), strict=True)):
        assert all(torch.equal(values, one[name]) for name, values in samples[scene].items())
        pairs = points[batch["pair_to_point"]] == scene
        assert torch.equal(batch["pair_to_point"][pairs] - start, one["pair_to_point"])
        own = batch["superpoint_ids"][pairs]
        assert torch.equal(batch["segment_embeds"][own], one["segment_embeds"][one["superpoint_ids"]])
        assert (batch["scene_ids"][own] == scene).all()
        voxels = batch["point_to_voxel"][start : start + len(one["point_to_voxel"])]
        seen = voxels >= 0
        assert torch.equal(seen, one["point_to_voxel"] >= 0)
        features = one["voxel_features"][one["point_to_voxel"][seen]]
        assert torch.equal(batch["voxel_features"][voxels[seen]], features)
        assert (batch["voxel_coords"][voxels[seen], 0] == scene).all()


def test_sizes_add_up_and_an_empty_scan_keeps_its_place():
    batch = collate_tmp([sample(10, 4, 2), sample(0, 0, 0), sample(5, 2, 1)])
    assert batch["num_points"].tolist() == [10, 0, 5] and len(batch["point_to_voxel"]) == 15
    assert len(batch["voxel_features"]) == 6 and batch["voxel_coords"].dtype == torch.int32
    assert batch["voxel_coords"][:, 0].tolist() == [0, 0, 0, 0, 2, 2] and batch["scene_ids"].tolist() == [0, 0, 2]


def test_a_point_of_a_voxel_that_its_sample_does_not_have_is_refused():
    """It would have a voxel of the next sample."""
    wrong = sample(2, 3, 1)
    wrong["point_to_voxel"] = torch.tensor([0, 3])
    with pytest.raises(ValueError, match="`point_to_voxel` must lie between 0 and 2, or be -1, got 3 to 3"):
        collate_voxels([wrong, sample(2, 3, 1)])
    with pytest.raises(ValueError, match="`samples` must be one or more, got none"):
        collate_voxels([])
