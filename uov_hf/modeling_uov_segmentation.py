"""UOV as a segmenter: the pre-trained network, a head that names every voxel, and the loss it is distilled with."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import capture_outputs

from .configuration_uov import UOVConfig
from .losses import lovasz_softmax, nan_unless
from .modeling_uov import UOVModel, UOVPreTrainedModel, at_least_float32, voxels_to_points


@dataclass
class UOVSegmentationOutput(ModelOutput):
    """What [`UOVForSemanticSegmentation`] says about a batch of scans.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*):
            `cross_entropy + lovasz_loss`, where `labels` were given.
        logits (`torch.FloatTensor` of shape `(num_points, num_labels)`):
            One row per point where `point_to_voxel` was given (zeros for a point outside the grid), else per voxel.
        voxel_logits (`torch.FloatTensor` of shape `(num_voxels, num_labels)`):
            One row per voxel.
        cross_entropy, lovasz_loss (`torch.FloatTensor` of shape `()`, *optional*):
            The terms of the loss, without a graph.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, where `output_hidden_states=True`):
            See [`UOVOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    voxel_logits: torch.Tensor | None = None
    cross_entropy: torch.Tensor | None = None
    lovasz_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class UOVForSemanticSegmentation(UOVPreTrainedModel):
    """
    head "linear":  voxels -> SparseUNet -> Linear                                    = logits per voxel
    head "text":    voxels -> SparseUNet -> embeddings · prompts, best of each class  = logits per voxel

    L = cross-entropy + Lovász-softmax of the voxels (method 5). The text head has no weights of its own, so that it
    answers in other words too once they are baked (`model.uov.set_classes`).

    `from_pretrained` takes any checkpoint: a segmenter with its head, a pre-trained network with its words for a head.
    [`~UOVForSemanticSegmentation.from_backbone`] puts a new head on a network.

    Args:
        config (`UOVConfig`):
            `config.head` says which head, `config.id2label` the classes, `config.has_void` whether a linear head has
            the official one's row for none of them, behind theirs.

    Raises:
        ValueError: There are no classes, or the head is "text" and the baked prompts are missing or for other classes.
    """

    def __init__(self, config: UOVConfig):
        super().__init__(config)
        if not config.num_labels:
            raise ValueError(
                "A segmenter needs classes: `config.id2label` is empty. Give `class_names` to `from_backbone`, "
                "or bake a vocabulary with `UOVModel.set_classes` first."
            )
        if config.head == "text":
            config.check_vocabulary()
        self.uov = UOVModel(config)
        self.classifier = None
        if config.head == "linear":
            self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels + config.has_void)
        self.post_init()
        self.train()

    @classmethod
    def from_backbone(
        cls, uov: UOVModel, head: Literal["linear", "text"] = "linear", class_names: list[str] | None = None
    ) -> "UOVForSemanticSegmentation":
        """A segmenter on a pre-trained network, with a new head whatever the checkpoint had.

        Args:
            uov (`UOVModel`):
                The network; it is taken over, not copied, and so is its configuration.
            head (`"linear"` or `"text"`, *optional*, defaults to `"linear"`):
                See above.
            class_names (`list[str]`, *optional*):
                The classes, in the order of their ids; by default those that are baked. Where they are others, the
                baked vocabulary is dropped, because its prompts are for classes that the segmenter does not have.

        Raises:
            ValueError: if there are no classes, or a text head is to name classes without baked prompts.
        """
        config = uov.config
        if class_names is not None and list(class_names) != list(config.id2label.values()):
            uov.prompt_embeds, uov.prompt_to_class = uov.prompt_embeds[:0], uov.prompt_to_class[:0]
            config.prompts, config.class_names = [], []
            config.id2label = dict(enumerate(class_names))
            config.label2id = {name: index for index, name in enumerate(class_names)}
        config.head, config.has_void = head, False
        with torch.device("meta"):
            model = cls(config)
        model.uov = uov
        uov.point_projection.requires_grad_(head == "text")
        if model.classifier is not None:
            model.classifier.to_empty(device=uov.device).to(uov.dtype).reset_parameters()
        return model.train(uov.training)

    def train(self, mode: bool = True) -> "UOVForSemanticSegmentation":
        """As of any module, but a linear head keeps the projection into the text space frozen."""
        super().train(mode)
        if self.classifier is not None:
            # It takes no part, and DDP would wait for its gradient. `from_pretrained` makes every weight trainable,
            # and then calls `eval`: frozen in the constructor alone, it would not stay so.
            self.uov.point_projection.requires_grad_(False)
        return self

    @capture_outputs
    def forward(
        self,
        voxel_coords: torch.Tensor,
        voxel_features: torch.Tensor,
        point_to_voxel: torch.Tensor | None = None,
        num_points: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        confidence: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> UOVSegmentationOutput:
        """Name the voxels of scans, and compare the names with labels where there are any.

        Args:
            voxel_coords, voxel_features, point_to_voxel, num_points, output_hidden_states, return_dict:
                See [`UOVModel.forward`].
            labels (`torch.LongTensor` of shape `(num_points,)`, *optional*):
                The class of each point, `config.ignored_index` for none; a voxel has that of its first point. Without
                `point_to_voxel` there is one for each voxel.
            confidence (`torch.FloatTensor` of shape `(num_points,)`, *optional*):
                Weight of each label in the cross-entropy, a weighted mean. Lovász-softmax is of sets, and has none.

        Raises:
            ValueError: if labels are not one for each point, or are no classes. An accelerator would have to wait for
                the second check; there, the loss is NaN.
        """
        voxel_logits = self.get_voxel_logits(voxel_coords, voxel_features)  # (num_voxels, num_labels)
        logits = voxel_logits if point_to_voxel is None else voxels_to_points(voxel_logits, point_to_voxel)
        if labels is None:
            return UOVSegmentationOutput(logits=logits, voxel_logits=voxel_logits)
        right = self._check_labels(labels, confidence, len(logits))
        labels = torch.where(right, labels, self.config.ignored_index)
        if point_to_voxel is not None:
            labels, confidence = first_of_each_voxel(
                labels, confidence, point_to_voxel, len(voxel_logits), self.config.ignored_index
            )
        cross_entropy, lovasz_loss = self._losses(voxel_logits, labels, confidence)
        cross_entropy = nan_unless(right, cross_entropy)
        return UOVSegmentationOutput(
            cross_entropy + lovasz_loss, logits, voxel_logits, cross_entropy.detach(), lovasz_loss.detach()
        )

    def get_voxel_logits(
        self, voxel_coords: torch.Tensor, voxel_features: torch.Tensor, include_void: bool = False
    ) -> torch.Tensor:
        """As [`UOVModel.get_voxel_logits`], by this model's head.

        Args:
            voxel_coords, voxel_features:
                The scans, as in [`UOVModel.forward`].
            include_void (`bool`, *optional*, defaults to `False`):
                Whether void competes, as in the official evaluation (method 5.1): its logit is then the last column.

        Raises:
            ValueError: if void is asked for and the head has none.
        """
        if include_void and not self.config.has_void:
            raise ValueError("`include_void` needs a head with void (`config.has_void`), as converted ones have.")
        uov = self.uov
        if self.classifier is None:
            return uov.get_voxel_logits(voxel_coords, voxel_features)
        weight = self.classifier.weight
        hidden_states = uov.backbone(voxel_coords, voxel_features.to(weight.dtype))
        with torch.autocast(hidden_states.device.type, enabled=False):
            logits = at_least_float32(self.classifier(hidden_states.to(weight.dtype)))
        return logits if include_void else logits[:, : self.config.num_labels]

    def _losses(
        self, logits: torch.Tensor, labels: torch.Tensor, confidence: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy and Lovász-softmax of voxels, both zero where none has a label."""
        ignored = self.config.ignored_index
        weights = (labels != ignored).to(logits.dtype)  # (num_voxels,)
        if confidence is not None:
            weights = weights * confidence.to(logits.dtype)
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="none")
            cross_entropy = (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)
            return cross_entropy, lovasz_softmax(logits.softmax(dim=1), labels, ignored)

    def _check_labels(self, labels: torch.Tensor, confidence: torch.Tensor | None, num_rows: int) -> torch.Tensor:
        """Raise where labels are wrong; whether their values are right, which the host does not ask an accelerator."""
        for name, values in (("labels", labels), ("confidence", confidence)):
            if values is not None and values.shape != (num_rows,):
                raise ValueError(
                    f"`{name}` must have one entry for each of the {num_rows} rows of the logits (points where "
                    f"`point_to_voxel` is given, else voxels), got shape {tuple(values.shape)}."
                )
        ignored, num_labels = self.config.ignored_index, self.config.num_labels
        right = (((labels >= 0) & (labels < num_labels)) | (labels == ignored)).all()
        if right.device.type == "cpu" and not right:
            named = labels[labels != ignored]
            raise ValueError(
                f"`labels` must be classes from 0 to {num_labels - 1}, or {ignored} for none; got {named.min()} to "
                f"{named.max()}. Are they of another taxonomy?"
            )
        return right


def first_of_each_voxel(
    labels: torch.Tensor,
    confidence: torch.Tensor | None,
    point_to_voxel: torch.Tensor,
    num_voxels: int,
    ignored_index: int = 255,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Label `(num_voxels,)` and confidence of every voxel: those of its first point, as its intensity is (method 1.7).

    A voxel whose first point has no label has none, whatever its other points say; nor has one without points.
    """
    num_points = len(point_to_voxel)
    rows = torch.arange(num_points, device=point_to_voxel.device)
    # The last slot is for the points outside the grid.
    first = rows.new_full((num_voxels + 1,), num_points)
    first = first.scatter_reduce(0, point_to_voxel.remainder(num_voxels + 1), rows, "amin")[:num_voxels]
    voxel_labels = F.pad(labels, (0, 1), value=ignored_index)[first]
    return voxel_labels, None if confidence is None else F.pad(confidence, (0, 1))[first]
