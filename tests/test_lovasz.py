"""Lovász-softmax equals its definition, gradients included, and is one minus the IoU where it must be."""

import itertools

import pytest
import torch

from uov_hf.losses import lovasz_softmax


def jaccard_loss(of_class, wrong):
    """1 - IoU of a class whose points are `of_class`, where the points in `wrong` are predicted wrongly."""
    predicted = {i for i, own in enumerate(of_class) if own != (i in wrong)}
    truth = {i for i, own in enumerate(of_class) if own}
    return 1 - len(predicted & truth) / len(predicted | truth)


def lovasz_extension(of_class, errors):
    """max over orders π of Σ_i m_π(i) (Δ({π_1…π_i}) - Δ({π_1…π_i-1})): the extension of Δ, which is submodular."""
    values = []
    for order in itertools.permutations(range(len(errors))):
        losses = [jaccard_loss(of_class, set(order[:i])) for i in range(len(order) + 1)]
        values.append(sum(errors[i] * (losses[n + 1] - losses[n]) for n, i in enumerate(order)))
    return torch.stack(values).max()


def lovasz_by_definition(probabilities, labels, ignore_index):
    rows = [i for i, label in enumerate(labels.tolist()) if label != ignore_index]
    present = sorted({int(labels[i]) for i in rows})
    terms = []
    for c in present:
        of_class = [int(labels[i]) == c for i in rows]
        errors = [
            (1 - probabilities[i, c]) if own else probabilities[i, c] for i, own in zip(rows, of_class, strict=True)
        ]
        terms.append(lovasz_extension(of_class, errors))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 255], [2, 2, 2, 2, 2], [0, 2, 2, 255, 0, 2], [1]], ids=str)
@pytest.mark.parametrize("ignore_index", [255, 3])
def test_lovasz_is_its_definition_in_value_and_gradient(labels, ignore_index):
    logits = torch.randn(len(labels), 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(labels).masked_fill(torch.tensor(labels) == 255, ignore_index)
    loss = lovasz_softmax(logits.softmax(dim=1), labels, ignore_index)
    expected = lovasz_by_definition(logits.softmax(dim=1), labels, ignore_index)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    gradient, expected_gradient = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    assert torch.allclose(gradient, expected_gradient, rtol=0, atol=1e-12)


def test_for_certain_answers_it_is_one_minus_the_mean_iou():
    labels = torch.tensor([0, 0, 1, 1, 1])
    certain = torch.eye(3)[torch.tensor([0, 1, 1, 1, 2])]
    assert lovasz_softmax(certain, labels).item() == pytest.approx(1 - (1 / 2 + 2 / 4) / 2)
    assert lovasz_softmax(torch.eye(3)[labels], labels).item() == 0


@pytest.mark.parametrize("num_rows", [0, 3])
def test_no_label_costs_nothing_and_keeps_the_graph(num_rows):
    logits = torch.randn(num_rows, 4, requires_grad=True)
    loss = lovasz_softmax(logits.softmax(dim=1), torch.full((num_rows,), 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad.eq(0).all()


def test_float32_loses_no_digits_among_many_points():
    """The textbook differences of J do: among so many points each is of the order of float32's rounding."""
    labels = torch.randint(3, (50_000,))
    exact = torch.randn(50_000, 3, dtype=torch.float64).softmax(dim=1).float().double().requires_grad_()
    single = exact.detach().float().requires_grad_()
    for probabilities in (exact, single):
        lovasz_softmax(probabilities, labels).backward()
    assert torch.allclose(single.grad.double(), exact.grad, rtol=1e-5)


def test_labels_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="one class for each of the 3 rows"):
        lovasz_softmax(torch.rand(3, 2), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("label", [-100, -1, 3])
def test_a_label_that_is_no_class_is_refused(label):
    """Other libraries ignore -100: such rows counted as wrong for every class."""
    with pytest.raises(ValueError, match=f"`labels` must lie between 0 and 2, or be 255, got {label} to {label}"):
        lovasz_softmax(torch.full((2, 3), 1 / 3), torch.tensor([0, label]))
