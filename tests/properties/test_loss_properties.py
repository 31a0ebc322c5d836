"""Properties of the losses: finite for finite input, equal to loops, invariant under the order of rows."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from hostile_arrays import FLOATS, anything, as_tensor, generators, result_or_error
from hypothesis import given
from hypothesis import strategies as st

from uov_hf.losses import (
    lovasz_softmax,
    pool_superpoints,
    soft_text_targets,
    superpixel_superpoint_loss,
    text_superpoint_loss,
)


SIZES = st.integers(0, 7)
HALVES = ["f4", "f4", "f8", "f2"]
TEMPERATURES = st.sampled_from([0.07, 1.0, 0, -1, math.nan, math.inf])


def normal(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(generator.normal(0, scale, shape))


def unit(generator: np.random.Generator, *shape: int) -> torch.Tensor:
    return F.normalize(normal(generator, *shape), dim=-1)


@given(
    generators(),
    st.integers(0, 30),
    st.integers(1, 6),
    st.sampled_from([torch.int64, torch.int32]),
    st.sampled_from([1.0, 1e9, 1e38]),
)
def test_a_superpoint_is_the_mean_of_its_pairs(generator, num_pairs, num_superpoints, dtype, scale):
    embeds = normal(generator, 5, 3, scale=scale)
    ids = torch.from_numpy(generator.integers(0, num_superpoints, num_pairs)).to(dtype)
    rows = torch.from_numpy(generator.integers(0, 5, num_pairs))
    means = result_or_error([], pool_superpoints, embeds, ids, num_superpoints, rows)
    for number in range(num_superpoints):
        own = [embeds[row] for row, superpoint in zip(rows, ids, strict=True) if superpoint == number]
        expected = torch.stack(own).mean(dim=0) if own else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(means[number], expected, rtol=1e-9, atol=scale * 1e-9)
    order = torch.from_numpy(generator.permutation(num_pairs))
    torch.testing.assert_close(
        pool_superpoints(embeds, ids[order], num_superpoints, rows[order]), means, rtol=1e-9, atol=scale * 1e-9
    )


@given(
    anything([(6, 3), (4, 3)], HALVES + ["i8"]),
    anything([(6,), (4,)], ["i8", "i8", "i4", "f4", "?"]),
    st.integers(0, 4),
    st.one_of(st.none(), anything([(6,), (4,)], ["i8", "i4"])),
)
def test_any_pairs_are_pooled_or_an_error_names_them(embeds, ids, num_superpoints, rows):
    arguments = as_tensor(embeds), as_tensor(ids), num_superpoints, as_tensor(rows)
    if isinstance(embeds, np.ndarray) and isinstance(ids, np.ndarray):
        means = result_or_error(["point_embeds", "superpoint_ids", "point_rows"], pool_superpoints, *arguments)
        assert means is None or means.shape == (num_superpoints, embeds.shape[1])


@given(generators(), SIZES, st.integers(0, 3), st.booleans(), st.booleans(), st.sampled_from([1.0, 100.0]))
def test_the_image_term_is_the_mean_of_its_superpoints(generator, size, num_negatives, with_scenes, with_mask, scale):
    superpoints, segments = normal(generator, size, 4, scale=scale).requires_grad_(), unit(generator, size, 4)
    scenes = torch.from_numpy(generator.integers(0, 2, size)) if with_scenes else None
    mask = torch.from_numpy(generator.random(size) < 0.6) if with_mask else torch.ones(size, dtype=torch.bool)
    negatives = unit(generator, num_negatives, 4)
    loss = result_or_error([], superpixel_superpoint_loss, superpoints, segments, scenes, 0.07, negatives, mask)
    terms = []
    for row in range(size):
        if mask[row]:
            others = [
                segments[other]
                for other in range(size)
                if mask[other] and (scenes is None or scenes[other] == scenes[row])
            ]
            logits = torch.stack([superpoints[row] @ other for other in [*others, *negatives]]) / 0.07
            terms.append(logits.logsumexp(0) - superpoints[row] @ segments[row] / 0.07)
    torch.testing.assert_close(loss, torch.stack(terms).mean() if terms else loss.new_zeros(()), rtol=1e-9, atol=1e-9)
    assert torch.autograd.grad(loss, superpoints)[0].isfinite().all()
    assert loss >= -1e-9


@given(generators(), SIZES, st.integers(1, 5), st.floats(0.01, 1), st.booleans())
def test_the_text_term_is_the_mean_of_its_superpoints(generator, size, num_prompts, hard_weight, with_mask):
    superpoints, prompts = normal(generator, size, 4).requires_grad_(), unit(generator, num_prompts, 4)
    labels = torch.from_numpy(generator.integers(0, num_prompts, size))
    targets = soft_text_targets(prompts, torch.from_numpy(generator.integers(0, 2, num_prompts)), hard_weight)
    mask = torch.from_numpy(generator.random(size) < 0.6) if with_mask else torch.ones(size, dtype=torch.bool)
    loss = result_or_error([], text_superpoint_loss, superpoints, prompts, labels, targets, has_points=mask)
    rows = [row for row in range(size) if mask[row]]
    terms = [-(targets[labels[row]] * (prompts @ superpoints[row] / 0.07).log_softmax(0)).sum() for row in rows]
    torch.testing.assert_close(loss, torch.stack(terms).mean() if terms else loss.new_zeros(()), rtol=1e-9, atol=1e-9)
    assert torch.autograd.grad(loss, superpoints)[0].isfinite().all()


@given(generators(), st.integers(1, 8), st.sampled_from(["f4", "f8", "f2"]), st.floats(0.01, 1), st.booleans())
def test_soft_targets_are_distributions_in_their_group(generator, num_prompts, dtype, hard_weight, opposed):
    embeds = unit(generator, num_prompts, 3)
    embeds = torch.cat([embeds, -embeds]) if opposed else embeds
    groups = torch.from_numpy(generator.integers(0, 3, len(embeds)))
    targets = result_or_error([], soft_text_targets, as_tensor(embeds.numpy().astype(dtype)), groups, hard_weight)
    assert (targets >= 0).all() and targets[groups[:, None] != groups].eq(0).all()
    torch.testing.assert_close(
        targets.sum(1).double(), torch.ones(len(embeds)).double(), rtol=0, atol=1e-2 if dtype == "f2" else 1e-5
    )
    assert hard_weight < 1 or same(targets, torch.eye(len(embeds)))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), atol=1e-3)


@given(
    anything([(4, 3), (5, 3)], HALVES),
    anything([(4, 3), (5, 3)], HALVES),
    anything([(4,), (5,)], ["i8", "i4"]),
    TEMPERATURES,
    st.booleans(),
    anything([(4,), (5,)], ["?", "?", "i8"]),
)
def test_any_superpoints_have_an_image_term_or_an_error_names_them(
    superpoints, segments, scenes, temperature, negative, mask
):
    arrays = [as_tensor(array) for array in (superpoints, segments, scenes, mask)]
    if not all(isinstance(array, torch.Tensor) for array in arrays):
        return
    names = ["superpoint_embeds", "segment_embeds", "scene_ids", "temperature", "negative_embeds", "has_points"]
    options = {"temperature": temperature, "negative_embeds": arrays[1] if negative else None, "has_points": arrays[3]}
    loss = result_or_error(names, superpixel_superpoint_loss, arrays[0], arrays[1], arrays[2], **options)
    if loss is not None:
        finite = all(
            array.isfinite().all() and (array.abs() < 1e15).all()
            for array in arrays[:2]
            if array.dtype != torch.float16
        )
        assert loss.shape == () and (
            loss.isfinite() or not finite or torch.float16 in {array.dtype for array in arrays[:2]}
        )


@given(
    anything([(4, 3), (5, 3)], HALVES),
    anything([(3, 3), (2, 3)], HALVES),
    anything([(4,), (5,)], ["i8", "i8", "i4", "u1", "f4"]),
    anything([(3, 3), (2, 2)], HALVES),
    TEMPERATURES,
)
def test_any_labels_have_a_text_term_or_an_error_names_them(superpoints, prompts, labels, targets, temperature):
    arrays = [as_tensor(array) for array in (superpoints, prompts, labels, targets)]
    if all(isinstance(array, torch.Tensor) for array in arrays):
        names = ["superpoint_embeds", "prompt_embeds", "segment_labels", "targets", "temperature"]
        loss = result_or_error(names, text_superpoint_loss, *arrays, temperature)
        assert loss is None or (loss.shape == () and ((arrays[2] >= 0) & (arrays[2] < len(prompts))).all())


@given(
    anything([(4, 3), (5, 3)], HALVES),
    anything([(4,), (5,)], ["i8", "i4", "f4"]),
    st.sampled_from([0.2, 0.0, 1.0, -0.5, 1.5, math.nan]),
)
def test_any_prompts_have_targets_or_an_error_names_them(prompts, groups, hard_weight):
    arrays = as_tensor(prompts), as_tensor(groups)
    if all(isinstance(array, torch.Tensor) for array in arrays):
        targets = result_or_error(
            ["prompt_embeds", "prompt_groups", "hard_weight"], soft_text_targets, *arrays, hard_weight
        )
        assert targets is None or not (targets < 0).any()


def lovasz_by_loops(probabilities: np.ndarray, labels: np.ndarray, ignore_index: int) -> float:
    """Algorithm 1 of Berman et al., class by class."""
    losses, kept = [], labels != ignore_index
    for column in np.unique(labels[kept]):
        truth = labels[kept] == column
        errors = np.abs(truth - probabilities[kept, column])
        order = np.argsort(-errors, kind="stable")
        jaccard = [
            1 - (truth.sum() - truth[order][:n].sum()) / (truth.sum() + (~truth[order][:n]).sum())
            for n in range(len(order) + 1)
        ]
        losses.append(float(errors[order] @ np.diff(jaccard)))
    return float(np.mean(losses)) if losses else 0.0


@given(generators(), st.integers(0, 25), st.integers(1, 5), st.sampled_from([255, -1, 0]))
def test_lovasz_softmax_is_the_algorithm_of_its_paper(generator, num_rows, num_classes, ignore_index):
    probabilities = normal(generator, num_rows, num_classes, scale=3).softmax(1).requires_grad_()
    labels = generator.integers(0, num_classes, num_rows)
    labels[generator.random(num_rows) < 0.3] = ignore_index
    loss = result_or_error([], lovasz_softmax, probabilities, torch.from_numpy(labels), ignore_index)
    assert math.isclose(
        loss.item(), lovasz_by_loops(probabilities.detach().numpy(), labels, ignore_index), abs_tol=1e-9
    )
    assert -1e-9 <= loss <= 1 + 1e-9 and torch.autograd.grad(loss, probabilities)[0].isfinite().all()
    order = torch.from_numpy(generator.permutation(num_rows))
    assert math.isclose(
        lovasz_softmax(probabilities[order], torch.from_numpy(labels)[order], ignore_index).item(),
        loss.item(),
        abs_tol=1e-9,
    )


@given(
    anything([(5, 3), (4, 3)], FLOATS + ["i8"]),
    anything([(5,), (4,)], ["i8", "i8", "i4", "u1", "f4", "?"]),
    st.sampled_from([255, -1, 0]),
)
def test_any_labels_have_a_lovasz_loss_or_an_error_names_them(probabilities, labels, ignore_index):
    arrays = as_tensor(probabilities), as_tensor(labels)
    if all(isinstance(array, torch.Tensor) for array in arrays):
        loss = result_or_error(["probabilities", "labels"], lovasz_softmax, *arrays, ignore_index)
        if loss is not None:
            named = arrays[1][arrays[1] != ignore_index]
            assert ((named >= 0) & (named < probabilities.shape[1])).all()
