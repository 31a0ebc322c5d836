"""Predictions of a checkpoint for a scan: from one or several views, plain or refined."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from uov_hf.evaluation.scans import LabelledScan
from uov_hf.modeling_uov import UOVModel
from uov_hf.modeling_uov_segmentation import UOVForSemanticSegmentation
from uov_hf.processing_uov import UOVProcessor


Voxels = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Prediction:
    """Labels of a scan.

    Args:
        labels (`np.ndarray` of shape `(num_points,)`): int64; 255 for none.
        confidences (`np.ndarray` of shape `(num_points,)`): float32, the probability of that label; 0 without one.
    """

    labels: np.ndarray
    confidences: np.ndarray


@dataclass(frozen=True)
class Segmenter:
    """A checkpoint under evaluation: `Segmenter(model, processor)(scan)` is a [`Prediction`].

    Args:
        model (`UOVModel` or `UOVForSemanticSegmentation`): In evaluation mode, with classes.
        processor (`UOVProcessor`): Of the checkpoint; it decodes and refines the labels.
        refine (`"afi"`, *optional*): How to refine the labels.
        predict_void (`bool`, *optional*, defaults to `False`): Whether void competes with the classes, as in the
            official evaluation. Points predicted as void get no label.
    """

    model: UOVModel | UOVForSemanticSegmentation
    processor: UOVProcessor
    refine: Literal["afi"] | None = None
    predict_void: bool = False

    @torch.no_grad()
    def __call__(self, scan: LabelledScan) -> Prediction:
        """Predict a label for every point of a scan; probabilities are averaged over its views, point by point."""
        device = next(self.model.parameters()).device
        scores, voxels = self._logits(scan.voxels), scan.voxels["point_to_voxel"].to(device)
        if scan.further_views:
            all_views = [(scores, voxels)]
            all_views += [(self._logits(view), view["point_to_voxel"].to(device)) for view in scan.further_views]
            scores, voxels = average_over_views(all_views)
        (found,) = self.processor.post_process_semantic_segmentation(
            scores,
            voxels,
            per_voxel=not scan.further_views,
            include_background=self.predict_void,
            refine=self.refine,
            points=[scan.points],
            label2id={name: int(row) for name, row in (self.model.config.label2id or {}).items()},
        )
        return Prediction(found["segmentation"].cpu().numpy(), found["scores"].cpu().numpy())

    def _logits(self, voxels: Voxels) -> torch.Tensor:
        """Logits of every voxel `(num_voxels, C)`; void, if it competes, is the last column."""
        device = next(self.model.parameters()).device
        options = {"include_void": True} if self.predict_void else {}  # which a `UOVModel` does not have
        return self.model.get_voxel_logits(
            voxels["voxel_coords"].to(device), voxels["voxel_features"].to(device), **options
        )


def average_over_views(all_views: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean probabilities of every point over the views in which it has a voxel.

    Args:
        all_views (`list` of `tuple`):
            For each view the logits `(num_voxels, C)`, and the voxel of each point `(num_points,)`, -1 for none.

    Returns:
        Logits `(num_points, C)` whose softmax is that mean, and the row of each point in them: -1 if no view has it.
    """
    point_to_voxel = torch.stack([voxels for _, voxels in all_views])  # (num_views, num_points)
    total = torch.zeros(point_to_voxel.shape[1], all_views[0][0].shape[1], device=point_to_voxel.device)
    for logits, voxels in all_views:
        probabilities = torch.nn.functional.pad(logits.float().softmax(dim=1), (0, 0, 0, 1))  # row −1: no voxel
        total = total + probabilities[voxels]  # (num_points, C)
    num_views = (point_to_voxel >= 0).sum(dim=0)  # (num_points,)
    mean = total / num_views.clamp(min=1)[:, None]
    rows = torch.arange(len(mean), device=mean.device).masked_fill(num_views == 0, -1)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log(), rows
