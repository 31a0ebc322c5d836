"""UOV as a segmenter: the pre-trained network, a head that classifies voxels, and the loss of distillation."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import capture_outputs

from .configuration_uov import IGNORED, UOVConfig
from .losses import lovasz_softmax, nan_unless
from .modeling_uov import UOVModel, UOVPreTrainedModel, at_least_float32, voxels_to_points


@dataclass
class UOVSegmentationOutput(ModelOutput):
    """Output of [`UOVForSemanticSegmentation`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): `cross_entropy + lovasz_loss`; `None` without `labels`.
        logits (`torch.FloatTensor` of shape `(num_points, num_labels)`):
            One row per point if `point_to_voxel` was passed (zeros for a point outside the grid), else per voxel.
        voxel_logits (`torch.FloatTensor` of shape `(num_voxels, num_labels)`): One row per voxel.
        cross_entropy, lovasz_loss (`torch.FloatTensor` of shape `()`, *optional*):
            The terms of the loss, without a graph.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, where `output_hidden_states=True`): See [`UOVOutput`].
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

    L = cross-entropy + Lovász-softmax of the voxels (method 5). The text head has no weights of its own:
    `model.uov.set_classes` replaces its classes.

    `from_pretrained` loads any checkpoint: a segmenter with its head, or a pre-trained network with a text head.
    [`~UOVForSemanticSegmentation.from_backbone`] adds a new head to a network.

    Args:
        config (`UOVConfig`):
            `config.head` is the head, `config.id2label` are the classes. With `config.has_void` a linear head has a
            last row for none of them, as the official one.

    Raises:
        ValueError: There are no classes, or the head is "text" and the baked prompts are missing or for other classes.
    """

    def __init__(self, config: UOVConfig):
        super().__init__(config)
        if not config.num_labels:
            raise ValueError(
                "A segmenter needs classes, but `config.id2label` is empty. Pass `class_names` to `from_backbone`, or "
                "call `UOVModel.set_classes` first."
            )
        if config.head == "text":
            config.check_vocabulary()
        self.uov = UOVModel(config)
        self.classifier: nn.Linear | None = None
        if config.head == "linear":
            self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels + config.has_void)
        self.post_init()
        self.train()

    @classmethod
    def from_backbone(
        cls, uov: UOVModel, head: Literal["linear", "text"] = "linear", class_names: list[str] | None = None
    ) -> "UOVForSemanticSegmentation":
        """Add a new head to a pre-trained network.

        Args:
            uov (`UOVModel`): The network. It is used, not copied, and so is its configuration.
            head (`"linear"` or `"text"`, *optional*, defaults to `"linear"`): See [`UOVForSemanticSegmentation`].
            class_names (`list[str]`, *optional*):
                The classes, in the order of their ids; by default those of the baked prompts. With other classes the
                baked prompts are dropped.

        Raises:
            ValueError: There are no classes, or a text head has no baked prompts for its classes.
        """
        config = uov.config
        if class_names is not None and list(class_names) != config.classes:
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
        """Set the mode; with a linear head, the projection into the text space stays frozen."""
        super().train(mode)
        if self.classifier is not None:
            # It is not used, and DDP would wait for its gradient. `from_pretrained` makes every weight trainable and
            # then calls `eval`, so freezing it in the constructor is not enough.
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
        """Classify the voxels of scans; with `labels`, compute the loss.

        Args:
            voxel_coords, voxel_features, point_to_voxel, num_points, output_hidden_states, return_dict:
                See [`UOVModel.forward`].
            labels (`torch.LongTensor` of shape `(num_points,)`, *optional*):
                The class of each point, or `config.ignored_index`; a voxel has the label of its first point. Without
                `point_to_voxel`, the class of each voxel.
            confidence (`torch.FloatTensor` of shape `(num_points,)`, *optional*):
                Weight of each label in the cross-entropy, a weighted mean. Lovász-softmax has no weights.

        Raises:
            ValueError: The number of labels is wrong, or one is not a class. On an accelerator, where the second check
                would stop the queue, the loss is NaN instead.
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
        """Logits of the head, `(num_voxels, num_labels)`.

        Args:
            voxel_coords, voxel_features:
                See [`UOVModel.forward`].
            include_void (`bool`, *optional*, defaults to `False`):
                Whether to add the logit of void as the last column, as in the official evaluation (method 5.1).

        Raises:
            ValueError: `include_void` is true and the head has no void row.
        """
        if include_void and not self.config.has_void:
            raise ValueError("`include_void` needs a head with void (`config.has_void`), such as a converted one.")
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
        """Cross-entropy and Lovász-softmax of voxels, both zero if no voxel has a label."""
        ignored = self.config.ignored_index
        weights = (labels != ignored).to(logits.dtype)  # (num_voxels,)
        if confidence is not None:
            weights = weights * confidence.to(logits.dtype)
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="none")
            cross_entropy = (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)
            return cross_entropy, lovasz_softmax(logits.softmax(dim=1), labels, ignored)

    def _check_labels(self, labels: torch.Tensor, confidence: torch.Tensor | None, num_rows: int) -> torch.Tensor:
        """Check shapes; return whether all values are classes, a scalar that is read only on a CPU."""
        for name, values in (("labels", labels), ("confidence", confidence)):
            if values is not None and values.shape != (num_rows,):
                raise ValueError(
                    f"`{name}` must have one entry for each of the {num_rows} rows of the logits (points where "
                    f"`point_to_voxel` is given, else voxels), got shape {tuple(values.shape)}."
                )
        ignored, num_labels = self.config.ignored_index, len(self.config.classes)
        right = (((labels >= 0) & (labels < num_labels)) | (labels == ignored)).all()
        if right.device.type == "cpu" and not right:
            named = labels[labels != ignored]
            raise ValueError(
                f"`labels` must be classes from 0 to {num_labels - 1}, or {ignored} for none; got {named.min()} to "
                f"{named.max()}. Do they belong to another taxonomy?"
            )
        return right


def first_of_each_voxel(
    labels: torch.Tensor,
    confidence: torch.Tensor | None,
    point_to_voxel: torch.Tensor,
    num_voxels: int,
    ignored_index: int = IGNORED,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Label `(num_voxels,)` and confidence of every voxel: those of its first point, as its intensity (method 1.7).

    A voxel without points, or whose first point has no label, has no label.
    """
    num_points = len(point_to_voxel)
    rows = torch.arange(num_points, device=point_to_voxel.device)
    # The last slot is for the points outside the grid.
    first = rows.new_full((num_voxels + 1,), num_points)
    first = first.scatter_reduce(0, point_to_voxel.remainder(num_voxels + 1), rows, "amin")[:num_voxels]
    voxel_labels = F.pad(labels, (0, 1), value=ignored_index)[first]
    return voxel_labels, None if confidence is None else F.pad(confidence, (0, 1))[first]
