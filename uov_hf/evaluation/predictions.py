"""Predictions of a checkpoint for a scan: from one or several views, plain or refined."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from uov_hf.evaluation.scans import LabelledScan
from uov_hf.modeling_uov import UOVModel
from uov_hf.modeling_uov_segmentation import UOVForSemanticSegmentation
from uov_hf.processing_uov import UOVProcessor
from uov_hf.views import average_over_views


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
