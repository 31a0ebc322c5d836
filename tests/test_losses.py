"""The losses equal a plain-loop float64 evaluation of the formulas, and keep the promises that training rests on."""

import math
from functools import partial

import pytest
import small_models
import torch
from fake_gpu import to_gpu

from uov_hf.losses import (
    lovasz_softmax,
    pool_superpoints,
    soft_text_targets,
    superpixel_superpoint_loss,
    text_superpoint_loss,
)


TAU = 0.07


unit = partial(small_models.unit, dtype=torch.float64)


@pytest.fixture
def scenes():
    """Eleven superpoints of three scenes, in mixed order, and the segments they were made from."""
    superpoints = 0.5 * unit(11, 6)
    return superpoints, unit(11, 6), torch.tensor([0, 1, 0, 2, 1, 1, 0, 2, 0, 1, 0])


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def contrast_by_loops(superpoints, segments, may_contrast, negatives=()):
    """L_IP of method 4.3, term by term."""
    total = 0.0
    for b, k in enumerate(superpoints):
        candidates = [q for other, q in enumerate(segments) if may_contrast(b, other)] + list(negatives)
        denominator = sum(math.exp(dot(k, q) / TAU) for q in candidates)
        total -= math.log(math.exp(dot(k, segments[b]) / TAU) / denominator)
    return total / len(superpoints)


def targets_by_loops(prompts, groups, hard_weight):
    """y of method 4.3, term by term."""
    rows = []
    for label in range(len(prompts)):
        row = [
            hard_weight * (c == label)
            + (1 - hard_weight) * (dot(prompts[label], prompts[c]) if groups[label] == groups[c] else 0.0)
            for c in range(len(prompts))
        ]
        rows.append([value / sum(row) for value in row])
    return rows


def test_pooling_is_the_plain_mean_of_each_superpoints_pairs():
    embeds, ids = unit(9, 4), torch.tensor([2, 0, 2, 5, 0, 0, 2, 5, 3])
    pooled = pool_superpoints(embeds, ids, 6)
    for superpoint in range(6):
        rows = [embeds[pair] for pair in range(9) if ids[pair] == superpoint]
        expected = sum(rows) / len(rows) if rows else torch.zeros(4).double()
        assert torch.allclose(pooled[superpoint], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_pairs_of_one_voxel_share_its_row_and_count_separately(dtype):
    voxels, rows, ids = unit(5, 4), torch.tensor([3, 3, 1, 3, 0]), torch.tensor([0, 0, 0, 1, 1])
    pooled = pool_superpoints(voxels, ids.to(dtype), 2, rows.to(dtype))
    assert torch.allclose(pooled, pool_superpoints(voxels[rows], ids, 2), rtol=0, atol=1e-12)
    assert torch.allclose(pooled[0], (2 * voxels[3] + voxels[1]) / 3, rtol=0, atol=1e-12)


def test_a_superpoint_without_pairs_is_zero():
    assert pool_superpoints(unit(0, 4), torch.zeros(0, dtype=torch.long), 3).eq(0).all()


@pytest.mark.parametrize(
    "ids, message",
    [([0, -1], "lie between 0 and 1"), ([0, 2], "lie between 0 and 1"), ([0], "one id for each of the 2 pairs")],
)
def test_ids_that_do_not_fit_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        pool_superpoints(unit(2, 4), torch.tensor(ids), 2)


@pytest.mark.parametrize("num_negatives", [0, 4])
@pytest.mark.parametrize("within_scenes", [False, True])
def test_the_image_loss_is_the_formula(scenes, within_scenes, num_negatives):
    superpoints, segments, scene_ids = scenes
    scene_ids, negatives = scene_ids if within_scenes else None, unit(num_negatives, 6)
    may_contrast = lambda b, other: scene_ids is None or scene_ids[b] == scene_ids[other]  # noqa: E731
    expected = contrast_by_loops(superpoints, segments, may_contrast, negatives)
    loss = superpixel_superpoint_loss(superpoints, segments, scene_ids, negative_embeds=negatives)
    assert float(loss) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("hard_weight", [0.2, 1.0])
def test_soft_targets_are_the_formula(hard_weight):
    prompts, groups = unit(7, 5).abs(), torch.tensor([0, 0, 1, 2, 1, 0, 3])
    expected = torch.tensor(targets_by_loops(prompts, groups, hard_weight), dtype=torch.float64)
    targets = soft_text_targets(prompts, groups, hard_weight)
    assert torch.allclose(targets, expected, rtol=0, atol=1e-9)
    assert torch.allclose(targets.sum(dim=1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-12)


def test_opposed_prompts_of_one_group_have_no_negative_target():
    """Else the loss has no lower bound: it falls as the probability of the opposed prompt falls to zero."""
    prompts = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-0.8, 0.6]])
    targets = soft_text_targets(prompts, torch.zeros(3, dtype=torch.long), hard_weight=0.0)
    assert torch.equal(targets[0], torch.tensor([1.0, 0.0, 0.0]))
    assert (targets >= 0).all() and torch.allclose(targets.sum(dim=1), torch.ones(3))


def test_the_text_loss_is_the_formula(scenes):
    superpoints, prompts, groups = scenes[0], unit(5, 6).abs(), torch.tensor([0, 1, 0, 1, 2])
    labels = torch.tensor([0, 4, 2, 1, 3, 0, 2, 2, 1, 4, 0])
    targets, expected = targets_by_loops(prompts, groups, 0.2), 0.0
    for k, label in zip(superpoints, labels, strict=True):
        logits = [dot(k, t) / TAU for t in prompts]
        log_sum = math.log(sum(math.exp(logit) for logit in logits))
        expected -= sum(y * (logit - log_sum) for y, logit in zip(targets[label], logits, strict=True))
    loss = text_superpoint_loss(superpoints, prompts, labels, soft_text_targets(prompts, groups))
    assert float(loss) == pytest.approx(expected / 11, abs=1e-9)


def test_gradients_are_those_of_finite_differences():
    embeds, ids = unit(8, 4).requires_grad_(), torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])
    segments, prompts, labels = unit(3, 4), unit(5, 4), torch.tensor([1, 0, 4])
    targets = soft_text_targets(prompts.abs(), torch.tensor([0, 0, 1, 1, 1]))

    def both_terms(embeds):
        superpoints = pool_superpoints(embeds, ids, 3)
        image_loss = superpixel_superpoint_loss(superpoints, segments, torch.tensor([0, 1, 0]))
        return image_loss + text_superpoint_loss(superpoints, prompts, labels, targets)

    assert torch.autograd.gradcheck(both_terms, embeds)


def test_two_scenes_together_have_the_count_weighted_mean_and_the_gradients_of_each_alone(scenes):
    superpoints, segments, scene_ids = scenes
    superpoints.requires_grad_()
    together = superpixel_superpoint_loss(superpoints, segments, scene_ids) * len(scene_ids)
    scenes = [scene_ids == scene for scene in range(3)]
    alone = sum(rows.sum() * superpixel_superpoint_loss(superpoints[rows], segments[rows]) for rows in scenes)
    assert together.item() == pytest.approx(alone.item(), abs=1e-9)
    gradients = [torch.autograd.grad(loss, superpoints)[0] for loss in (together, alone)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-9)


def test_no_superpoints_make_a_zero_loss_that_still_has_a_gradient():
    embeds = unit(3, 4).requires_grad_()
    superpoints = pool_superpoints(embeds, torch.zeros(0, dtype=torch.long), 0, torch.zeros(0, dtype=torch.long))
    none = torch.zeros(0, dtype=torch.long)
    loss = superpixel_superpoint_loss(superpoints, unit(0, 4), none)
    loss = loss + text_superpoint_loss(superpoints, unit(2, 4), none, torch.eye(2, dtype=torch.float64))
    loss.backward()
    assert loss.item() == 0
    assert embeds.grad.eq(0).all()


def test_two_threads_repeat_bitwise(set_num_threads):
    set_num_threads(2)
    embeds, rows, ids = torch.randn(500, 64), torch.randint(500, (4000,)), torch.randint(20, (4000,))
    runs = []
    for _ in range(3):
        leaf = embeds.clone().requires_grad_()
        pooled = pool_superpoints(leaf, ids, 20, rows)
        pooled.square().sum().backward()
        runs.append((pooled.detach(), leaf.grad))
    assert all(torch.equal(a, b) for run in runs for a, b in zip(runs[0], run, strict=True))


def test_sizes_that_do_not_agree_are_refused():
    superpoints, prompts, labels = unit(3, 4), unit(2, 4), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match="one row for each superpoint"):
        superpixel_superpoint_loss(superpoints, unit(2, 4))
    with pytest.raises(ValueError, match=r"`scene_ids` must have one scene for each of the 3 .*got shape \(1,\)"):
        superpixel_superpoint_loss(superpoints, unit(3, 4), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"`prompt_groups` must have one group for each of the 2 .*got shape \(1,\)"):
        soft_text_targets(prompts, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"`targets` .* each of the 2 prompts, got shape \(3, 3\).*soft_text_targets"):
        text_superpoint_loss(superpoints, prompts, labels, torch.eye(3))
    with pytest.raises(ValueError, match=r"`segment_labels` .* each of the 3 superpoints, got shape \(1,\)"):
        text_superpoint_loss(superpoints, prompts, labels[:1], torch.eye(2))


def test_superpoints_that_are_left_out_count_neither_as_superpoints_nor_as_segments(scenes):
    superpoints, segments, scene_ids = scenes
    has_points = torch.tensor([True, False, True, False, True, True, True, False, True, True, False])
    superpoints = superpoints.masked_fill(~has_points[:, None], 0).requires_grad_()
    prompts, labels = unit(4, 6), torch.arange(11) % 4
    targets = soft_text_targets(prompts, torch.tensor([0, 0, 1, 1]))
    losses = {
        "image": lambda rows, **mask: superpixel_superpoint_loss(
            superpoints[rows], segments[rows], scene_ids[rows], negative_embeds=segments[:2], **mask
        ),
        "text": lambda rows, **mask: text_superpoint_loss(superpoints[rows], prompts, labels[rows], targets, **mask),
    }
    for loss in losses.values():
        selected, masked = loss(has_points.nonzero().squeeze(1)), loss(torch.arange(11), has_points=has_points)
        torch.testing.assert_close(masked, selected)
        gradients = [torch.autograd.grad(value, superpoints)[0] for value in (masked, selected)]
        torch.testing.assert_close(*gradients)
        assert loss(torch.arange(11), has_points=torch.zeros(11, dtype=torch.bool)).item() == 0


def test_the_loss_of_one_superpoint_is_its_own():
    superpoint, others, prompts, label = 0.5 * unit(1, 6), unit(4, 6), unit(3, 6), torch.tensor([1])
    image = superpixel_superpoint_loss(superpoint, others[:1], negative_embeds=others[1:])
    text = text_superpoint_loss(superpoint, prompts, label, torch.eye(3, dtype=torch.float64))
    for loss, candidates, own in ((image, others, 0), (text, prompts, 1)):
        logits = [dot(superpoint[0], embeds) / TAU for embeds in candidates]
        expected = math.log(sum(math.exp(logit) for logit in logits)) - logits[own]
        assert float(loss) == pytest.approx(expected, abs=1e-9)


def test_targets_have_the_dtype_of_the_prompts():
    prompts = unit(3, 4).to(torch.bfloat16)
    assert soft_text_targets(prompts, torch.tensor([0, 0, 1])).dtype == torch.bfloat16


def test_a_negative_label_or_row_is_refused_and_not_read_from_the_end():
    superpoints, prompts = unit(2, 4), unit(3, 4)
    with pytest.raises(ValueError, match="`segment_labels` must lie between 0 and 2, got -1 to -1"):
        text_superpoint_loss(superpoints, prompts, torch.tensor([0, -1]), torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="`point_rows` must lie between 0 and 1, got -1 to -1"):
        pool_superpoints(superpoints, torch.tensor([0, 0]), 1, torch.tensor([0, -1]))


def test_embeddings_of_whole_numbers_or_of_other_dimensions_are_refused_by_name():
    superpoints, prompts, labels = unit(2, 4), unit(3, 4), torch.tensor([0, 1])
    losses = {
        "point_embeds": lambda wrong: pool_superpoints(wrong, labels, 2),
        "superpoint_embeds": lambda wrong: superpixel_superpoint_loss(wrong, superpoints),
        "segment_embeds": lambda wrong: superpixel_superpoint_loss(superpoints, wrong),
        "negative_embeds": lambda wrong: superpixel_superpoint_loss(superpoints, superpoints, negative_embeds=wrong),
        "prompt_embeds": lambda wrong: soft_text_targets(wrong, labels),
        "probabilities": lambda wrong: lovasz_softmax(wrong, labels),
    }
    for name, loss in losses.items():
        with pytest.raises(ValueError, match=f"`{name}` must be floating-point numbers of shape .*, got torch.int64"):
            loss(torch.ones(2, 4, dtype=torch.long))
    for name, wrong in (
        ("superpoint_embeds", (superpoints.long(), prompts)),
        ("prompt_embeds", (superpoints, prompts[:, 1:])),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be floating-point numbers of shape"):
            text_superpoint_loss(*wrong, labels, torch.eye(3))


@pytest.mark.parametrize("ids, all_are_right", [([0, 1], True), ([0, 2], False), ([-1, 1], False), ([255, 1], False)])
def test_an_id_that_is_out_of_range_makes_all_nan_on_an_accelerator(traffic, ids, all_are_right):
    """The host does not read the ids there, because that would stop the queue."""
    embeds, two, ids = to_gpu(torch.rand(2, 4)), to_gpu(torch.rand(2, 2)), to_gpu(torch.tensor(ids))
    results = [text_superpoint_loss(embeds, to_gpu(torch.rand(2, 4)), ids, two), lovasz_softmax(two, ids, -100)]
    assert [result.isfinite().item() for result in results] == [all_are_right] * 2
    one = to_gpu(torch.ones(1, 1))
    assert text_superpoint_loss(embeds, to_gpu(torch.rand(1, 4)), ids, one).isnan()  # no row of `targets` is read


def test_ignored_rows_change_no_loss_on_an_accelerator(traffic):
    probabilities, labels = torch.rand(3, 2), torch.tensor([0, 1, 255])
    found = lovasz_softmax(to_gpu(probabilities), to_gpu(labels))
    assert found.item() == pytest.approx(lovasz_softmax(probabilities[:2], labels[:2]).item())


@pytest.mark.parametrize("hard_weight", [-0.1, 1.5, math.nan])
def test_a_weight_that_makes_negative_targets_is_refused(hard_weight):
    with pytest.raises(ValueError, match="`hard_weight` must be a share from 0 to 1"):
        soft_text_targets(unit(2, 4), torch.tensor([0, 0]), hard_weight)


@pytest.mark.parametrize("temperature", [0, -0.07, math.nan, math.inf])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="`temperature` must be above 0 and finite"):
        superpixel_superpoint_loss(unit(2, 4), unit(2, 4), temperature=temperature)
    with pytest.raises(ValueError, match="`temperature` must be above 0 and finite"):
        text_superpoint_loss(unit(1, 4), unit(1, 4), torch.tensor([0]), torch.ones(1, 1), temperature)


def test_points_of_a_network_under_autocast_meet_embeddings_in_float32():
    embeds, prompts = torch.rand(5, 4), torch.rand(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        points = torch.nn.functional.linear(embeds, torch.eye(4))
        pixels = superpixel_superpoint_loss(points, embeds)
        words = text_superpoint_loss(points, prompts, torch.zeros(5, dtype=torch.long), torch.eye(3))
    assert points.dtype == torch.bfloat16 and pixels.isfinite() and words.isfinite()


def test_a_loss_compiles_as_one_graph():
    labels = torch.tensor([0, 1, 2, 255])
    breaks = torch._dynamo.explain(lovasz_softmax)(torch.rand(4, 3), labels).graph_break_count
    assert breaks == 0
