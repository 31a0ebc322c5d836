"""Self-training: an average of the weights so far names the points that the teacher left without a label."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from uov_hf.training.run import Run


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """A frozen copy of a model, to become w̄ ← decay · w̄ + (1 − decay) · w at every step; make it before the run.

    Args:
        decay (`float`): From 0 to below 1; about 1 / (1 − decay) steps have a say.

    Raises:
        ValueError: if `decay` is another number.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"`--ema_decay` must be at least 0 and below 1, got {decay}.")
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return average.requires_grad_(False).eval()


class SelfTraining:
    """In the last epochs of a run, points without a label get the class that the averaged network is sure of.

    The average is part of the run's checkpoints, and a label depends on it and on the batch alone: a resumed run sees
    the same labels, and so do two processes that share the micro-batches of one. (Not where each of several processes
    has BatchNorm statistics of its own, neither frozen nor synchronised: the checkpoint has those of the main one.)

    Args:
        run (`Run`): The training.
        average (`AveragedModel`): From [`average_weights`], of the same model.
        num_epochs (`int`): How many epochs at its end.
        confidence (`float`): What the probability of the class must reach, from 0 to 1.

    Raises:
        ValueError: if `confidence` is no probability, or the run has fewer epochs.
    """

    def __init__(self, run: Run, average: AveragedModel, num_epochs: int, confidence: float):
        if not 0 <= confidence <= 1:
            raise ValueError(f"`--self_training_confidence` must be a probability from 0 to 1, got {confidence}.")
        self.run = run
        self.average = average.to(run.accelerator.device)
        self.start_step = run.num_steps - run.order.num_steps(num_epochs)
        if not 0 <= self.start_step <= run.num_steps:
            raise ValueError(
                f"`--self_training_epochs` {num_epochs} are {run.order.num_steps(num_epochs)} optimiser steps, and "
                f"the run has {run.num_steps}. Give at most as many epochs as the run has (`--num_train_epochs`, "
                "`--max_train_steps`), and at least 0."
            )
        self.confidence = confidence
        run.accelerator.register_for_checkpointing(average)

    def update(self) -> None:
        """Count the weights in; call it after every optimiser step."""
        model = self.run.accelerator.unwrap_model(self.run.model)
        self.average.update_parameters(model)
        for ours, theirs in zip(self.average.module.buffers(), model.buffers(), strict=True):
            if not theirs.is_floating_point():  # a mean of whole numbers is rounded down, even where they are equal
                ours.copy_(theirs)

    def complete(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch of `collate_scans`, with labels added, and their probability as `confidence` where it has that."""
        if self.run.step < self.start_step:
            return batch
        ignored = self.average.module.config.ignored_index
        probability, predicted = self._predict(batch)  # (num_points,) each
        added = (batch["labels"] == ignored) & (batch["point_to_voxel"] >= 0) & (probability >= self.confidence)
        completed = {**batch, "labels": torch.where(added, predicted, batch["labels"])}
        if "confidence" in batch:
            completed["confidence"] = torch.where(added, probability, batch["confidence"])
        return completed

    @torch.no_grad()
    def _predict(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Probability and class of every point, those of its voxel; of a point without a voxel 0 and 0."""
        accelerator = self.run.accelerator
        coords, features = (
            batch[name].to(accelerator.device, non_blocking=True) for name in ("voxel_coords", "voxel_features")
        )
        with accelerator.autocast():
            logits = self.average.module.get_voxel_logits(coords, features)  # (num_voxels, num_labels)
        best = logits.softmax(dim=1).max(dim=1)
        return tuple(
            F.pad(of_voxel.cpu(), (0, 1))[batch["point_to_voxel"]] for of_voxel in (best.values, best.indices)
        )
