"""Samples of different sizes become one batch by laying them end to end; nothing is padded."""

import torch


def collate_scans(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """
    The scans of a batch, with what each of their points has.

    Args:
        samples (`list[dict]`):
            `voxel_coords`, `voxel_features` and `point_to_voxel` of one scan each, as from the feature extractor;
            where there are any, `labels` and `confidence` of its points.

    Returns:
        `voxel_coords` (num_voxels, 4) with the scan's place in the batch first, `voxel_features`,
        `point_to_voxel` (row in the batch's voxels, −1 = none), `num_points` (batch,), and `labels` and `confidence`
        of the batch's points.
    """
    num_voxels = [len(sample["voxel_coords"]) for sample in samples]
    of_points = [name for name in ("labels", "confidence") if name in samples[0]]
    return {
        "voxel_coords": torch.cat(
            [_with_scene(sample["voxel_coords"], scene) for scene, sample in enumerate(samples)]
        ),
        "voxel_features": torch.cat([sample["voxel_features"] for sample in samples]),
        "point_to_voxel": _concatenate_rows([sample["point_to_voxel"] for sample in samples], num_voxels),
        "num_points": torch.tensor([len(sample["point_to_voxel"]) for sample in samples]),
        **{name: torch.cat([sample[name] for sample in samples]) for name in of_points},
    }


def collate_tmp(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """
    The batch that `UOVForPreTraining.forward` takes.

    Args:
        samples (`list[dict]`):
            From `TMPSamples`, all of one label set.

    Returns:
        What `collate_scans` makes of the scans, `pair_to_point` (row in the batch's points), `superpoint_ids` (row in
        the batch's segments), `scene_ids`, `segment_embeds`, `segment_labels` per segment, `prompt_embeds`,
        `prompt_groups`.
    """
    scans = collate_scans(samples)
    num_segments = [len(sample["segment_labels"]) for sample in samples]
    return {
        **scans,
        "pair_to_point": _concatenate_rows(
            [sample["pair_to_point"] for sample in samples], scans["num_points"].tolist()
        ),
        "superpoint_ids": _concatenate_rows([sample["superpoint_ids"] for sample in samples], num_segments),
        "scene_ids": torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(num_segments)),
        "segment_embeds": torch.cat([sample["segment_embeds"] for sample in samples]),
        "segment_labels": torch.cat([sample["segment_labels"] for sample in samples]),
        "prompt_embeds": samples[0]["prompt_embeds"],
        "prompt_groups": samples[0]["prompt_groups"],
    }


def _with_scene(voxel_coords: torch.Tensor, scene: int) -> torch.Tensor:
    """The voxels of one scan, as those of scan `scene` of a batch."""
    voxel_coords = voxel_coords.clone()
    voxel_coords[:, 0] = scene
    return voxel_coords


def _concatenate_rows(rows: list[torch.Tensor], num_rows: list[int]) -> torch.Tensor:
    """Row numbers of each sample, moved to where its rows lie in the batch; negative ones stay."""
    starts = torch.tensor([0, *num_rows]).cumsum(0)
    return torch.cat([torch.where(row >= 0, row + start, row) for row, start in zip(rows, starts, strict=False)])
