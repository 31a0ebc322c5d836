"""Learning rates: the paper's cosine per epoch, the one per step, warm-up."""

import pytest
import torch

from uov_hf.training.optimization import create_optimizer, create_scheduler
from uov_hf.training.order import TrainingOrder


def rates(name, num_steps, order, warmup_steps=0):
    optimizer = create_optimizer("sgd", [torch.nn.Parameter(torch.zeros(1))], learning_rate=1.0, weight_decay=0.0)
    scheduler = create_scheduler(name, optimizer, order, num_steps, warmup_steps)
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_papers_cosine_moves_once_an_epoch():
    order = TrainingOrder(num_frames=4, batch_size=2)  # two steps an epoch
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=3)
    expected = []
    for _ in range(3):
        expected += 2 * cosine.get_last_lr()
        reference.step()
        cosine.step()
    assert rates("cosine_per_epoch", 6, order) == pytest.approx(expected)


def test_the_cosine_per_step_falls_at_every_step_of_a_single_epoch():
    seen = rates("cosine", 4, TrainingOrder(num_frames=100))
    assert seen == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_groups_without_a_trainable_parameter_are_left_out():
    frozen, trained = torch.nn.Parameter(torch.zeros(1), requires_grad=False), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [frozen]}, {"params": [trained], "lr": 0.5}]
    assert [group["lr"] for group in create_optimizer("sgd", groups, 0.1, 0.0).param_groups] == [0.5]


def test_warm_up_rises_to_the_full_rate():
    assert rates("constant", 4, TrainingOrder(num_frames=1), warmup_steps=3) == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_sgd_is_the_papers_and_frozen_parameters_are_left_out():
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    optimizer = create_optimizer("sgd", [frozen, torch.nn.Parameter(torch.zeros(1))], 0.5, 1e-4)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["dampening"], group["weight_decay"]) == (0.5, 0.9, 0.1, 1e-4)
    assert len(group["params"]) == 1


def test_groups_have_rates_of_their_own_under_one_schedule():
    body, head = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = create_optimizer("sgd", [{"params": [body]}, {"params": iter([head]), "lr": 2.0}], 0.02, 1e-4)
    scheduler = create_scheduler("cosine", optimizer, TrainingOrder(num_frames=1), num_steps=2)
    assert scheduler.get_last_lr() == [0.02, 2.0]
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.01, 1.0])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="must be one of sgd, adamw, got 'adam'"):
        create_optimizer("adam", [], 0.1, 0.0)
    with pytest.raises(ValueError, match="got 'linear'"):
        rates("linear", 1, TrainingOrder(num_frames=1))
