"""What a checkpoint answers about a scan: once or over several views, as the network says it or refined."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from uov_hf.evaluation.segmentation import LabelledScan


Voxels = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Answer:
    """
    Args:
        labels (`np.ndarray` of shape `(num_points,)`): int64; 255 for none.
        confidences (`np.ndarray` of shape `(num_points,)`): float32, the probability of that label; 0 without one.
    """

    labels: np.ndarray
    confidences: np.ndarray


@dataclass(frozen=True)
class Segmenter:
    """
    A checkpoint as it is evaluated: `Segmenter(model, processor)(scan)` is an [`Answer`].

    Args:
        model (`UOVModel` or `UOVForSemanticSegmentation`): In evaluation mode, and able to name classes.
        processor (`UOVProcessor`): Of the checkpoint; it reads out the labels, and refines them.
        refine (`"afi"`, *optional*): How.
        predict_void (`bool`, *optional*, defaults to `False`): Whether void competes, as in the official evaluation,
            and leaves its points without a label.
    """

    model: torch.nn.Module
    processor: Any
    refine: Literal["afi"] | None = None
    predict_void: bool = False

    @torch.no_grad()
    def __call__(self, scan: LabelledScan) -> Answer:
        """The answer for every point of a scan; over its further views, probabilities are averaged point by point."""
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
            label2id=self.model.config.label2id,
        )
        return Answer(found["segmentation"].cpu().numpy(), found["scores"].cpu().numpy())

    def _logits(self, voxels: Voxels) -> torch.Tensor:
        """Of every voxel `(num_voxels, C)`, void last where it competes."""
        device = next(self.model.parameters()).device
        asked = {"include_void": True} if self.predict_void else {}
        return self.model.get_voxel_logits(
            voxels["voxel_coords"].to(device), voxels["voxel_features"].to(device), **asked
        )


def average_over_views(all_views: list[tuple[torch.Tensor, torch.LongTensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The mean probabilities of every point over the views in which it has a voxel.

    Args:
        all_views: Of each view the logits `(num_voxels, C)`, and the voxel of each point `(num_points,)`, -1 for none.

    Returns:
        Logits `(num_points, C)` whose softmax is that mean, and the row of each point in them, -1 for one that is in
        no view.
    """
    total, num_views = 0.0, 0
    for logits, point_to_voxel in all_views:
        probabilities = torch.nn.functional.pad(logits.float().softmax(dim=1), (0, 0, 0, 1))  # row −1: no voxel
        total = total + probabilities[point_to_voxel]  # (num_points, C)
        num_views = num_views + (point_to_voxel >= 0)  # (num_points,)
    mean = total / num_views.clamp(min=1)[:, None]
    rows = torch.arange(len(mean), device=mean.device).masked_fill(num_views == 0, -1)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log(), rows
