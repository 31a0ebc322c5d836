"""Optimisers and learning-rate schedules of the training scripts."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch.optim.lr_scheduler import LambdaLR

from uov_hf.modeling_uov_segmentation import UOVForSemanticSegmentation
from uov_hf.training.order import TrainingOrder


OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["cosine_per_epoch", "cosine", "constant"]
ParameterGroup = dict[str, Any]  # as PyTorch has it: {"params": …, "lr": …}


def segmenter_groups(model: UOVForSemanticSegmentation, head_learning_rate: float | None) -> list[ParameterGroup]:
    """The network, and a linear head with a learning rate of its own; a text head has no weights."""
    groups: list[ParameterGroup] = [{"params": model.uov.parameters()}]
    if model.classifier is not None:
        groups.append({"params": model.classifier.parameters(), "lr": head_learning_rate})
    return groups


def create_optimizer(
    name: OptimizerName,
    parameters: Iterable[torch.nn.Parameter] | Iterable[ParameterGroup],
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """`"sgd"` with the paper's momentum 0.9 and dampening 0.1 (method.md 4.4), or `"adamw"`.

    Args:
        name (`str`): `"sgd"` or `"adamw"`.
        parameters (`Iterable`): Parameters, or groups of them. Frozen ones are left out.
        learning_rate, weight_decay (`float`): Of every group without its own.
    """
    given = list(parameters)
    groups: list[ParameterGroup] = [group for group in given if isinstance(group, dict)] or [{"params": given}]
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    groups = [group for group in groups if group["params"]]  # the log has the rate of the first group
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, dampening=0.1, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay)
    raise ValueError(f"`--optimizer` must be one of {', '.join(get_args(OptimizerName))}, got {name!r}.")


def create_scheduler(
    name: ScheduleName, optimizer: torch.optim.Optimizer, order: TrainingOrder, num_steps: int, warmup_steps: int = 0
) -> LambdaLR:
    """The learning rate as a function of the step.

    Args:
        name (`str`):
            `"cosine_per_epoch"`: the paper's, a cosine to 0 that moves once an epoch; `"cosine"`: the same cosine,
            moved every step, for runs of few epochs; `"constant"`.
        num_steps (`int`): Optimiser steps of the whole run.
        warmup_steps (`int`, *optional*, defaults to 0): Steps over which the rate rises linearly to its full value.
    """
    num_epochs = order.epoch(num_steps - 1) + 1
    schedules: dict[ScheduleName, Callable[[int], float]] = {
        "cosine_per_epoch": lambda step: _cosine(order.epoch(step) / num_epochs),
        "cosine": lambda step: _cosine(step / num_steps),
        "constant": lambda step: 1.0,
    }
    if name not in schedules:
        raise ValueError(f"`--lr_scheduler_type` must be one of {', '.join(schedules)}, got {name!r}.")
    return LambdaLR(optimizer, lambda step: schedules[name](step) * min(1.0, (step + 1) / max(warmup_steps, 1)))


def _cosine(progress: float) -> float:
    """From 1 at the start to 0 at the end, and 0 after it."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
