"""Collation: what belonged together in a sample still does in the batch, and nothing is lost."""

import torch

from uov_hf.training.collation import collate_tmp


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
    samples = [sample(10, 4, 2), sample(7, 3, 3)]
    batch = collate_tmp(samples)
    points = torch.cat([torch.full((10,), 0), torch.full((7,), 1)])
    for scene, (one, start) in enumerate(zip(samples, (0, 10), strict=True)):
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


def test_sizes_add_up():
    batch = collate_tmp([sample(10, 4, 2), sample(7, 3, 3), sample(5, 2, 1)])
    assert batch["num_points"].tolist() == [10, 7, 5]
    assert len(batch["point_to_voxel"]) == 22 and len(batch["voxel_coords"]) == len(batch["voxel_features"]) == 9
    assert batch["scene_ids"].tolist() == [0, 0, 1, 1, 1, 2]
    assert batch["voxel_coords"].dtype == torch.int32


def test_an_empty_scan_keeps_its_place():
    batch = collate_tmp([sample(4, 2, 2), sample(0, 0, 0), sample(4, 2, 2)])
    assert batch["num_points"].tolist() == [4, 0, 4]
    assert batch["voxel_coords"][:, 0].tolist() == [0, 0, 2, 2] and batch["scene_ids"].tolist() == [0, 0, 2, 2]


def test_the_samples_are_left_alone():
    one = sample(4, 2, 2)
    before = {name: values.clone() for name, values in one.items()}
    collate_tmp([sample(3, 1, 1), one])
    assert all(torch.equal(values, before[name]) for name, values in one.items())
