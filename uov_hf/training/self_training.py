"""Self-training: the running average of the weights labels the points that the teacher left without a label."""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.logging import get_logger
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from uov_hf.configuration_uov import IGNORED
from uov_hf.modeling_uov_segmentation import UOVForSemanticSegmentation
from uov_hf.training.collation import ScanBatch
from uov_hf.training.run import Run
from uov_hf.training.tracking import LOG_FILE, read_log


logger = get_logger(__name__)


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """A frozen copy of a model, for w̄ ← decay · w̄ + (1 − decay) · w at every step; make it before the run.

    The average is over about 1 / (1 − decay) steps.

    Raises:
        ValueError: `decay` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"`--ema_decay` must be at least 0 and below 1, got {decay}.")
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return average.requires_grad_(False).eval()


class SelfTraining:
    """In the last epochs of a run, points without a label get the most probable class of the averaged network.

    The average is part of the run's checkpoints, and a label depends on it and on the batch alone. So a resumed run
    has the same labels, and so have two processes that share the micro-batches of one. (Not where each of several
    processes has its own BatchNorm statistics, neither frozen nor synchronised: the checkpoint has those of the main
    process.)

    Args:
        run (`Run`): The training.
        average (`AveragedModel`): From [`average_weights`], of the same model.
        num_epochs (`int`): Number of epochs at the end of the run.
        confidence (`float`): Smallest probability of an added label, from 0 to 1.
        weighs_by_probability (`bool`, *optional*, defaults to `True`):
            Whether an added label weighs as much as its probability; otherwise, as a label of the teacher.
        class_weights (`np.ndarray` of shape `(num_classes,)`, *optional*): As of the samples.

    Raises:
        ValueError: `confidence` is no probability, or the run has fewer epochs.
    """

    def __init__(
        self,
        run: Run,
        average: AveragedModel,
        num_epochs: int,
        confidence: float,
        weighs_by_probability: bool = True,
        class_weights: np.ndarray | None = None,
    ):
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
        self.confidence, self.weighs_by_probability = confidence, weighs_by_probability
        self.class_weights = None if class_weights is None else torch.from_numpy(class_weights)
        run.accelerator.register_for_checkpointing(average)

    def update(self) -> None:
        """Add the weights to the average; call it after every optimiser step."""
        model = self.run.accelerator.unwrap_model(self.run.model)
        self.average.update_parameters(model)
        for ours, theirs in zip(self.average.module.buffers(), model.buffers(), strict=True):
            if not theirs.is_floating_point():  # a mean of whole numbers is rounded down, even where they are equal
                ours.copy_(theirs)

    def complete(self, batch: ScanBatch) -> ScanBatch:
        """The batch with labels added, and with their weights as `confidence` where it has that."""
        if self.run.step < self.start_step:
            return batch
        probability, predicted = self._predict(batch)  # (num_points,) each
        added = (batch["labels"] == IGNORED) & (batch["point_to_voxel"] >= 0) & (probability >= self.confidence)
        completed: ScanBatch = {**batch, "labels": torch.where(added, predicted, batch["labels"])}
        if "confidence" in batch:
            weights = probability if self.weighs_by_probability else torch.ones_like(probability)
            if self.class_weights is not None:
                weights = weights * self.class_weights[predicted]
            completed["confidence"] = torch.where(added, weights, batch["confidence"])
        return completed

    def check(self) -> None:
        """Warn if no step of the finished run has an added label: then it trained as without self-training."""
        records = read_log(self.run.output_dir / LOG_FILE)[self.start_step :]
        if records and not any(record["num_added"] for record in records):
            logger.warning(
                f"Self-training added no label in its {len(records)} steps: expected points without a label at which "
                f"the average of the weights predicts a class with a probability of at least {self.confidence}. Give "
                "a lower --self_training_confidence, or train longer before --self_training_epochs begins."
            )

    @torch.no_grad()
    def _predict(self, batch: ScanBatch) -> tuple[Tensor, Tensor]:
        """Probability and class of every point, those of its voxel; 0 and 0 for a point without a voxel."""
        accelerator = self.run.accelerator
        coords = batch["voxel_coords"].to(accelerator.device, non_blocking=True)
        features = batch["voxel_features"].to(accelerator.device, non_blocking=True)
        model = cast(UOVForSemanticSegmentation, self.average.module)  # `AveragedModel` drops the type of its module
        with accelerator.autocast():
            logits = model.get_voxel_logits(coords, features)  # (num_voxels, num_labels)
        probability, predicted = logits.softmax(dim=1).max(dim=1)  # (num_voxels,) each
        # Row −1 of a point without a voxel is the zero that is appended here.
        in_voxel = [F.pad(values.cpu(), (0, 1)) for values in (probability, predicted)]
        return in_voxel[0][batch["point_to_voxel"]], in_voxel[1][batch["point_to_voxel"]]
