"""Tri-modal pre-training: superpoints are pulled to the teacher's embeddings of their image segments and prompts."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import capture_outputs

from .configuration_uov import UOVConfig
from .losses import (
    are_in_range,
    nan_unless,
    pool_superpoints,
    soft_text_targets,
    superpixel_superpoint_loss,
    text_superpoint_loss,
)
from .modeling_uov import UOVModel, UOVPreTrainedModel


@dataclass
class UOVPreTrainingOutput(ModelOutput):
    """The loss of a micro-batch; each term is a mean over its superpoints.

    Args:
        loss (`torch.FloatTensor` of shape `()`): `image_loss_weight * image_loss + text_loss_weight * text_loss`.
        image_loss, text_loss (`torch.FloatTensor` of shape `()`):
            Superpixel-superpoint contrast and text-superpoint cross-entropy, without a graph.
        num_superpoints (`torch.LongTensor` of shape `()`):
            Number of superpoints in the means: the weight of this micro-batch in the optimiser step.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, where `output_hidden_states=True`): See [`UOVOutput`].
    """

    loss: torch.Tensor | None = None
    image_loss: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    num_superpoints: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class UOVForPreTraining(UOVPreTrainedModel):
    """
    L = α_i · L_IP(superpoints, segments) + α_t · L_TP(superpoints, prompts)

    Tri-modal pre-training (method 4): a superpoint is the plain mean of the embeddings of the points that one image
    segment covers; it is pulled to the segment's own embedding and to the words for it.
    """

    def __init__(self, config: UOVConfig):
        super().__init__(config)
        self.uov = UOVModel(config)
        self.post_init()

    @capture_outputs
    def forward(
        self,
        voxel_coords: torch.Tensor,
        voxel_features: torch.Tensor,
        point_to_voxel: torch.Tensor,
        pair_to_point: torch.Tensor,
        superpoint_ids: torch.Tensor,
        segment_embeds: torch.Tensor,
        segment_labels: torch.Tensor,
        prompt_embeds: torch.Tensor,
        prompt_groups: torch.Tensor,
        scene_ids: torch.Tensor | None = None,
        negative_embeds: torch.Tensor | None = None,
        num_points: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> UOVPreTrainingOutput:
        """The loss of a batch of scans, M pairs of points and segments, S superpoints and P prompts.

        Args:
            voxel_coords, voxel_features, point_to_voxel, num_points, output_hidden_states, return_dict:
                See [`UOVModel.forward`].
            pair_to_point (`torch.LongTensor` of shape `(M,)`):
                The point of each pair. Pairs of points without a voxel are ignored.
            superpoint_ids (`torch.LongTensor` of shape `(M,)`):
                The superpoint of each pair. A superpoint without pairs is in no loss.
            segment_embeds (`torch.FloatTensor` of shape `(S, projection_dim)`):
                The teacher's embedding of the image segment of each superpoint, unit length.
            segment_labels (`torch.LongTensor` of shape `(S,)`): The prompt that the teacher predicted for it.
            prompt_embeds (`torch.FloatTensor` of shape `(P, projection_dim)`):
                The teacher's text embeddings, unit length.
            prompt_groups (`torch.LongTensor` of shape `(P,)`): The group of synonyms of each prompt.
            scene_ids (`torch.LongTensor` of shape `(S,)`, *optional*):
                The scene of each superpoint; needed where `config.negatives` is `"scene"`.
            negative_embeds (`torch.FloatTensor` of shape `(K, projection_dim)`, *optional*):
                The segments of the optimiser step outside this micro-batch; needed in training where
                `config.negatives` is `"global"`, and refused elsewhere.

        Raises:
            ValueError: A point, superpoint or prompt is out of range (on an accelerator the loss is NaN instead),
                shapes do not fit, or the negatives do not fit `config.negatives`.
        """
        self._check_negatives(scene_ids, negative_embeds)
        voxel_embeds = self.uov.get_point_features(voxel_coords, voxel_features)  # (num_voxels, D)
        if not len(voxel_embeds):
            voxel_embeds = F.pad(voxel_embeds, (0, 0, 0, 1))  # a row for the pairs outside the grid
        num_superpoints = len(segment_labels)
        right = are_in_range(superpoint_ids, num_superpoints, "superpoint_ids")
        right = right & are_in_range(pair_to_point, len(point_to_voxel), "pair_to_point")
        pair_to_voxel = point_to_voxel[torch.where(right, pair_to_point, 0)]  # (M,)
        # Pairs outside the grid form one more superpoint, the last.
        superpoint_ids = torch.where((pair_to_voxel >= 0) & right, superpoint_ids, num_superpoints)
        has_points = torch.zeros(num_superpoints + 1, dtype=torch.bool, device=superpoint_ids.device)
        has_points = has_points.scatter_(0, superpoint_ids, True)[:-1]  # (S,)

        with torch.autocast(voxel_embeds.device.type, enabled=False):
            superpoint_embeds = pool_superpoints(
                voxel_embeds, superpoint_ids, num_superpoints + 1, pair_to_voxel.clamp(min=0)
            )[:-1]  # (S, D)
            dtype = superpoint_embeds.dtype
            image_loss = superpixel_superpoint_loss(
                superpoint_embeds,
                segment_embeds.to(dtype),
                scene_ids=scene_ids if self.config.negatives == "scene" else None,
                temperature=self.config.temperature,
                negative_embeds=None if negative_embeds is None else negative_embeds.to(dtype),
                has_points=has_points,
            )
            prompt_embeds = prompt_embeds.to(dtype)
            text_loss = text_superpoint_loss(
                superpoint_embeds,
                prompt_embeds,
                segment_labels,
                soft_text_targets(prompt_embeds, prompt_groups, self.config.hard_text_weight),
                temperature=self.config.temperature,
                has_points=has_points,
            )
            loss = self.config.image_loss_weight * image_loss + self.config.text_loss_weight * text_loss
            loss = nan_unless(right, loss)
        return UOVPreTrainingOutput(loss, image_loss.detach(), text_loss.detach(), has_points.sum())

    def _check_negatives(self, scene_ids: torch.Tensor | None, negative_embeds: torch.Tensor | None) -> None:
        scope = self.config.negatives
        if scope == "scene" and scene_ids is None:
            raise ValueError('`config.negatives` is "scene", which needs `scene_ids`: the scene of each superpoint.')
        if scope == "global" and self.training and negative_embeds is None:
            raise ValueError(
                '`config.negatives` is "global", which needs `negative_embeds`: the segments of the other ranks and '
                "micro-batches of the optimiser step (shape (0, D) if there are none)."
            )
        if scope != "global" and negative_embeds is not None:
            raise ValueError(f'`negative_embeds` belong to `config.negatives = "global"`, but it is "{scope}".')
