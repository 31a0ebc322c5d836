"""Pre-training computes the loss of the method, in every scope of negatives, and trains the whole network."""

import copy

import pytest
import torch
from small_models import small_batch, small_config, unit

from uov_hf import UOVForPreTraining
from uov_hf.losses import pool_superpoints, soft_text_targets, superpixel_superpoint_loss, text_superpoint_loss


@pytest.fixture
def batch():
    """70 points of two scans; 50 pairs in 6 superpoints, one of them empty."""
    return small_batch() | {
        "pair_to_point": torch.randint(70, (50,)),
        "superpoint_ids": torch.tensor([0, 1, 2, 3, 5])[torch.randint(5, (50,))],
        "scene_ids": torch.tensor([0, 0, 0, 1, 1, 1]),
        "segment_embeds": unit(6, 12),
        "segment_labels": torch.tensor([0, 3, 2, 2, 1, 4]),
        "prompt_embeds": unit(5, 12),
        "prompt_groups": torch.tensor([0, 1, 2, 3, 0]),
    }


def loss_by_hand(model, batch):
    """The two terms on explicitly gathered pairs, without the superpoint that has none."""
    points = model.uov.get_point_features(batch["voxel_coords"], batch["voxel_features"], batch["point_to_voxel"])
    in_grid = batch["point_to_voxel"][batch["pair_to_point"]] >= 0
    pairs, ids = batch["pair_to_point"][in_grid], batch["superpoint_ids"][in_grid]
    kept = torch.tensor([superpoint for superpoint in range(6) if (ids == superpoint).any()])
    superpoints = pool_superpoints(points[pairs], ids, 6)[kept]
    image_loss = superpixel_superpoint_loss(superpoints, batch["segment_embeds"][kept], batch["scene_ids"][kept])
    targets = soft_text_targets(batch["prompt_embeds"], batch["prompt_groups"], model.config.hard_text_weight)
    labels = batch["segment_labels"][kept]
    return image_loss, text_superpoint_loss(superpoints, batch["prompt_embeds"], labels, targets), len(kept)


def in_float64(batch):
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}


def test_the_pre_training_loss_is_the_half_and_half_of_both_terms(batch):
    model, batch = UOVForPreTraining(small_config()).double().eval(), in_float64(batch)
    output = model(**batch)
    image_loss, text_loss, num_superpoints = loss_by_hand(model, batch)
    assert output.image_loss.item() == pytest.approx(image_loss.item(), abs=1e-9)
    assert output.text_loss.item() == pytest.approx(text_loss.item(), abs=1e-9)
    assert output.loss.item() == pytest.approx((0.5 * image_loss + 0.5 * text_loss).item(), abs=1e-9)
    assert output.num_superpoints == num_superpoints == 5


def one_scene(batch, scene):
    """The rows of `batch` that are of one scene, renumbered."""
    superpoints = torch.where(batch["scene_ids"] == scene)[0]
    pairs = batch["scene_ids"][batch["superpoint_ids"]] == scene
    renumbered = torch.full((6,), -1)
    renumbered[superpoints] = torch.arange(len(superpoints))
    changed = {name: batch[name][superpoints] for name in ("scene_ids", "segment_embeds", "segment_labels")}
    changed["pair_to_point"] = batch["pair_to_point"][pairs]
    changed["superpoint_ids"] = renumbered[batch["superpoint_ids"][pairs]]
    return batch | changed


def test_with_global_negatives_micro_batches_have_the_loss_of_one_batch(batch):
    whole = UOVForPreTraining(small_config(negatives="batch")).double().eval()
    parts = UOVForPreTraining(small_config(negatives="global")).double().eval()
    parts.load_state_dict(whole.state_dict())
    batch = in_float64(batch)
    batch["superpoint_ids"] = torch.arange(50) % 6  # every segment has pairs, as the loop gathers them
    total = 0
    for scene in (0, 1):
        others = batch["segment_embeds"][batch["scene_ids"] != scene]
        output = parts(**one_scene(batch, scene), negative_embeds=others)
        total += output.loss * output.num_superpoints
    assert total.item() / 6 == pytest.approx(whole(**batch).loss.item(), abs=1e-9)


@pytest.mark.parametrize(
    "fields, wrong, message",
    [
        ({}, {"scene_ids": None}, '"scene", which needs `scene_ids`'),
        ({"negatives": "global"}, {}, '"global", which needs `negative_embeds`'),
        ({"negatives": "batch"}, {"negative_embeds": torch.eye(12)[:2]}, 'but it is "batch"'),
        ({}, {"superpoint_ids": torch.arange(50) % 7 - 1}, "between 0 and 5"),
        ({}, {"superpoint_ids": torch.arange(50) % 7}, "between 0 and 5"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(batch, fields, wrong, message):
    with pytest.raises(ValueError, match=message):
        UOVForPreTraining(small_config(**fields)).train()(**batch | wrong)


@pytest.mark.parametrize("empty", ["no pairs", "all points outside", "no voxels"])
def test_a_batch_without_superpoints_costs_nothing_and_reaches_every_parameter(batch, empty):
    model = UOVForPreTraining(small_config()).train()
    if empty == "no pairs":
        batch |= {name: batch[name][:0] for name in ("pair_to_point", "superpoint_ids")}
    else:
        batch["point_to_voxel"] = torch.full((70,), -1)
    if empty == "no voxels":
        batch |= {name: batch[name][:0] for name in ("voxel_coords", "voxel_features")}
    output = model(**batch)
    output.loss.backward()
    assert output.loss.item() == output.num_superpoints == 0
    assert all(parameter.grad is not None and parameter.grad.eq(0).all() for parameter in model.parameters())


def test_the_loss_is_computed_in_float32_under_autocast(batch):
    model = UOVForPreTraining(small_config()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    assert output.loss.dtype == output.image_loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(copy.deepcopy(model)(**batch).loss.item(), rel=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_training_lowers_the_loss_and_repeats_bitwise(batch):
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        model, losses = UOVForPreTraining(small_config()).train(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        for _ in range(15):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        runs.append(losses)
    assert runs[0] == runs[1] and runs[0][-1] < 0.7 * runs[0][0]


def test_a_pair_of_no_point_is_refused_and_not_read_from_the_end(batch):
    model = UOVForPreTraining(small_config())
    batch["pair_to_point"][0] = -1
    with pytest.raises(ValueError, match="`pair_to_point` must lie between 0 and .* got -1 to -1"):
        model(**batch)
