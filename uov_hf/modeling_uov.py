"""UOV: a sparse 3D U-Net whose point embeddings live in the text space of a 2D teacher, and its pre-training."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModelWithProjection, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_uov import UOVConfig
from .sparse_conv import SparseConv
from .sparse_unet import SparseUNet, UNetStage


@dataclass
class UOVOutput(ModelOutput):
    """Output of [`UOVModel`]. Embeddings have unit length and at least float32.

    Args:
        point_embeds (`torch.FloatTensor` of shape `(num_points, projection_dim)`):
            One row per point if `point_to_voxel` was passed (zeros for a point outside the grid), else per voxel.
        text_embeds (`torch.FloatTensor` of shape `(num_texts, projection_dim)`, *optional*):
            Of `input_ids`, else of the baked prompts; `None` without both.
        logits_per_point (`torch.FloatTensor` of shape `(num_points, num_texts)`, *optional*):
            Cosine similarity times `config.logit_scale`; `None` without text.
        voxel_embeds (`torch.FloatTensor` of shape `(num_voxels, projection_dim)`): One row per voxel.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, where `output_hidden_states=True`):
            The output of the stem and of each stage, of shape `(voxels of that resolution, channels)`. Rows have the
            order that the network sorts voxels into, not that of `voxel_coords`.
    """

    point_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    logits_per_point: torch.Tensor | None = None
    voxel_embeds: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class UOVPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving of all UOV models."""

    config: UOVConfig
    base_model_prefix = "uov"
    main_input_name = "voxel_coords"
    supports_gradient_checkpointing = True
    _can_record_outputs = {"hidden_states": UNetStage}
    _supports_sdpa = True  # of the text tower
    # Running statistics and prompt embeddings lose too much in half precision. `from_pretrained` reads these as globs,
    # transformers' tests as regular expressions of whole names. The layer norms of the text tower match neither way.
    _keep_in_fp32_modules_strict = [
        "backbone.*norm",
        "backbone.*norm1",
        "backbone.*norm2",
        "backbone.*shortcut.1",
        "prompt_embeds",
    ]

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does; `SHA256SUMS`, which has the digests of earlier weights there, is removed."""
        if Path(save_directory).is_dir():
            Path(save_directory, "SHA256SUMS").unlink(missing_ok=True)  # by name: this file travels without `digests`
        super().save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as the paper: U(-1/√n, 1/√n) for convolutions and projection with n inputs of each output."""
        if isinstance(module, (SparseConv, nn.Linear)):
            module.reset_parameters()
        elif isinstance(module, UOVModel):
            init.zeros_(module.prompt_embeds)
            init.constant_(module.prompt_to_class, self.config.ignored_index)
        else:
            super()._init_weights(module)


class UOVModel(UOVPreTrainedModel):
    """
    voxels -> SparseUNet -> Linear -> unit length = point embeddings   ┐
                                                                       ├ cosine · logit_scale = logits per point
    words  -> baked prompts, or the teacher's text tower               ┘

    Args:
        config (`UOVConfig`): Sizes of the network, and the baked vocabulary, which [`~UOVModel.set_classes`] writes.
    """

    def __init__(self, config: UOVConfig):
        super().__init__(config)
        self.backbone = SparseUNet(config)
        self.point_projection = nn.Linear(config.hidden_sizes[-1], config.projection_dim)
        self.text_tower: CLIPTextModelWithProjection | None = None
        if config.text_config is not None:
            self.text_tower = CLIPTextModelWithProjection._from_config(config.text_config).requires_grad_(False)
        num_prompts = len(config.prompts)
        self.register_buffer("prompt_embeds", torch.zeros(num_prompts, config.projection_dim))
        self.register_buffer("prompt_to_class", torch.full((num_prompts,), config.ignored_index))
        self._has_vocabulary = False  # not checked yet
        self.post_init()

    def train(self, mode: bool = True) -> "UOVModel":
        """Set the mode of the network; the text tower stays frozen and in evaluation mode."""
        super().train(mode)
        if self.text_tower is not None:
            self.text_tower.eval().requires_grad_(False)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the text tower.

        Raises:
            NotImplementedError: The model has no text tower.
        """
        if self.text_tower is None:
            raise NotImplementedError("`UOVModel` has token embeddings only where it has a text tower.")
        return self.text_tower.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the text tower."""
        if self.text_tower is None:
            raise NotImplementedError("`UOVModel` has token embeddings only where it has a text tower.")
        self.text_tower.set_input_embeddings(value)

    @capture_outputs
    def forward(
        self,
        voxel_coords: torch.Tensor,
        voxel_features: torch.Tensor,
        point_to_voxel: torch.Tensor | None = None,
        num_points: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> UOVOutput:
        """Embed scans and words, and compare them.

        Args:
            voxel_coords (`torch.IntTensor` of shape `(num_voxels, 4)`):
                Index of the scan in the batch, then x, y, z in the grid.
            voxel_features (`torch.FloatTensor` of shape `(num_voxels, in_channels)`): From [`UOVFeatureExtractor`].
            point_to_voxel (`torch.LongTensor` of shape `(num_points,)`, *optional*):
                The voxel of each point, -1 for a point without one.
            num_points (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Not used. Accepted so that the whole output of [`UOVProcessor`] can be passed.
            input_ids, attention_mask (`torch.LongTensor` of shape `(num_texts, sequence_length)`, *optional*):
                Tokenised words for the text tower. By default the words are the baked prompts.
            output_hidden_states (`bool`, *optional*): Whether to return the features of every stage.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return an output object instead of a tuple.

        Raises:
            ValueError: `input_ids` are passed and the model has no text tower of its teacher.
        """
        voxel_embeds = self.get_point_features(voxel_coords, voxel_features)  # (num_voxels, projection_dim)
        point_embeds = voxel_embeds if point_to_voxel is None else voxels_to_points(voxel_embeds, point_to_voxel)
        text_embeds = logits_per_point = None
        if input_ids is not None:
            # The hidden states of this output are those of the points.
            options = {"output_hidden_states": False, "return_dict": True}
            text_embeds = self.get_text_features(input_ids, attention_mask, **options).pooler_output
        elif len(self.prompt_embeds):
            text_embeds = self.prompt_embeds
        if text_embeds is not None:
            # In half precision, logits of up to 14 are too coarse to separate similar words.
            with torch.autocast(point_embeds.device.type, enabled=False):
                logits_per_point = self.config.logit_scale * point_embeds @ text_embeds.to(point_embeds.dtype).T
        return UOVOutput(point_embeds, text_embeds, logits_per_point, voxel_embeds)

    def get_point_features(
        self,
        voxel_coords: torch.Tensor,
        voxel_features: torch.Tensor,
        point_to_voxel: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Unit-length embeddings `(num_points, projection_dim)`, or one per voxel without `point_to_voxel`.

        See [`~UOVModel.forward`] for the arguments. A point without a voxel gets zeros.
        """
        hidden_states = self.backbone(voxel_coords, voxel_features.to(self.point_projection.weight.dtype))
        voxel_embeds = F.normalize(at_least_float32(self.point_projection(hidden_states)), dim=-1)
        return voxel_embeds if point_to_voxel is None else voxels_to_points(voxel_embeds, point_to_voxel)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Embed tokenised words by the teacher's own text tower.

        Args:
            input_ids, attention_mask (`torch.LongTensor` of shape `(num_texts, sequence_length)`): Tokenised words.
            output_hidden_states, output_attentions, return_dict (`bool`, *optional*): See the text tower.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` has the embeddings `(num_texts, projection_dim)`, of unit
            length unlike those of `CLIPModel`.

        Raises:
            ValueError: There is no text tower, or it belongs to another teacher than the points.
        """
        if self.text_tower is None or not self.config.has_teachers_text_tower:
            raise ValueError(f"`input_ids` cannot be embedded: {self.config.why_only_baked_words()}")
        options = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        options = {name: value for name, value in options.items() if value is not None}  # else the configuration's
        output = self.text_tower(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **options)
        return BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=F.normalize(at_least_float32(output.text_embeds), dim=-1),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def get_prompt_features(self, prompts: list[str]) -> torch.Tensor:
        """Unit-length embeddings `(len(prompts), projection_dim)` of words of the baked vocabulary.

        Raises:
            ValueError: A word is not a baked prompt. The message lists baked prompts and the way to embed others.
        """
        missing = [prompt for prompt in prompts if prompt not in self.config.prompts]
        if missing:
            raise ValueError(
                f"The words {missing} are not among the {len(self.config.prompts)} baked prompts "
                f"({', '.join(self.config.prompts[:5])}, …), and {self.config.why_only_baked_words()}"
            )
        return self.prompt_embeds[[self.config.prompts.index(prompt) for prompt in prompts]]

    def get_voxel_logits(self, voxel_coords: torch.Tensor, voxel_features: torch.Tensor) -> torch.Tensor:
        """Logits of the classes, `(num_voxels, num_labels)`."""
        return self.class_scores(self.get_point_features(voxel_coords, voxel_features))

    def set_classes(
        self,
        names: list[str],
        prompt_embeds: torch.Tensor,
        prompt_to_class: torch.Tensor,
        prompts: list[str] | None = None,
    ) -> None:
        """Store a vocabulary in the model. It is saved with the weights, and sets `config.id2label`.

        Args:
            names (`list[str]` of length C): The classes, in the order of their ids.
            prompt_embeds (`torch.Tensor` of shape `(P, projection_dim)`):
                Unit-length text embeddings of the prompts by the teacher of the points.
            prompt_to_class (`torch.LongTensor` of shape `(P,)`):
                The class of each prompt; `config.ignored_index` (255) for background.
            prompts (`list[str]` of length P, *optional*):
                The words of the prompts; by default the name of the class, or "background".

        Raises:
            ValueError: Sizes do not agree, an embedding does not have unit length, or a class has no prompt.
        """
        weight = self.point_projection.weight
        prompt_embeds = at_least_float32(torch.as_tensor(prompt_embeds, device=weight.device)).detach().clone()
        prompt_to_class = torch.as_tensor(prompt_to_class, device=weight.device).long().clone()
        classes = prompt_to_class.tolist()
        if prompts is None:
            prompts = [names[index] if 0 <= index < len(names) else "background" for index in classes]
        expected = (len(prompts), self.config.projection_dim)
        if tuple(prompt_embeds.shape) != expected or len(classes) != len(prompts):
            raise ValueError(
                f"`prompt_embeds` must have shape {expected} and `prompt_to_class` one class for each of them, "
                f"got shapes {tuple(prompt_embeds.shape)} and {tuple(prompt_to_class.shape)}."
            )
        self.check_prompts(prompt_embeds, prompt_to_class, len(names))
        self.prompt_embeds, self.prompt_to_class = prompt_embeds, prompt_to_class
        self.config.prompts, self.config.class_names = list(prompts), list(names)
        self.config.id2label = dict(enumerate(names))
        self.config.label2id = {name: index for index, name in enumerate(names)}

    def check_prompts(self, prompt_embeds: torch.Tensor, prompt_to_class: torch.Tensor, num_classes: int) -> None:
        """Check embeddings and classes of prompts, such as those that were loaded with the weights.

        Raises:
            ValueError: An embedding does not have unit length, or a class has no prompt.
        """
        if not ((prompt_embeds.norm(dim=1) - 1).abs() <= 1e-2).all():  # so that NaN is refused, too
            raise ValueError("`prompt_embeds` must have unit length. Divide each row by its norm first.")
        classes = set(prompt_to_class.tolist())
        if classes - {self.config.ignored_index} != set(range(num_classes)):
            raise ValueError(
                f"`prompt_to_class` must contain each of the {num_classes} classes, and besides them only "
                f"{self.config.ignored_index} for background; got {sorted(classes)}."
            )

    def set_text_tower(self, text_tower: CLIPTextModelWithProjection, source: str) -> None:
        """Store the teacher's text tower in the model, so that words beyond the baked prompts can be used.

        Args:
            text_tower (`CLIPTextModelWithProjection`): The tower. It is frozen.
            source (`str`): The teacher of the tower. The tower is used only if this is `config.teacher`.

        Raises:
            ValueError: The embeddings of the tower do not have `config.projection_dim` dimensions.
        """
        if text_tower.config.projection_dim != self.config.projection_dim:
            raise ValueError(
                f"The text tower of {source!r} has {text_tower.config.projection_dim} dimensions and this model "
                f"{self.config.projection_dim}. Use the tower of this model's teacher."
            )
        self.text_tower = text_tower
        # transformers' decorator of `to` hides its signature.
        text_tower.to(device=self.point_projection.weight.device)  # type: ignore[call-arg]
        self.config.text_config = text_tower.config
        self.config.text_tower_source = source
        self.train(self.training)

    def class_scores(self, point_embeds: torch.Tensor, include_background: bool = False) -> torch.Tensor:
        """Logits of the classes: the best prompt of each, as cosine similarity times `config.logit_scale`.

        Args:
            point_embeds (`torch.FloatTensor` of shape `(N, projection_dim)`): Embeddings of points or voxels.
            include_background (`bool`, *optional*, defaults to `False`):
                Whether background prompts compete, as one last column.

        Returns:
            `torch.FloatTensor` of shape `(N, C)`, or `(N, C + 1)` with the background.

        Raises:
            ValueError: The model has no baked prompts, or prompts of other classes.
        """
        self._check_vocabulary()
        prompts, num_classes = (self.prompt_embeds, self.prompt_to_class), len(self.config.classes)
        with torch.autocast(point_embeds.device.type, enabled=False):
            return best_of_prompts(point_embeds, *prompts, self.config.logit_scale, num_classes, include_background)

    def _check_vocabulary(self) -> None:
        """Raise where the baked prompts are missing, empty or for other classes."""
        self.config.check_vocabulary()
        # Reading a value makes the host wait for an accelerator and breaks compiled graphs: once is enough.
        if self._has_vocabulary or torch.compiler.is_compiling():
            return
        self._has_vocabulary = bool((self.prompt_to_class != self.config.ignored_index).any())
        if not self._has_vocabulary:
            raise ValueError(
                "The model was built from a configuration alone: its prompts have no embeddings. Load weights with "
                "`from_pretrained`, or call `UOVModel.set_classes`."
            )


def best_of_prompts(
    point_embeds: torch.Tensor,
    prompt_embeds: torch.Tensor,
    prompt_to_class: torch.Tensor,
    logit_scale: float,
    num_classes: int,
    include_background: bool = False,
) -> torch.Tensor:
    """Logits `(N, C)` of unit-length embeddings `(N, D)`: each class has the score of its best prompt of `(P, D)`.

    Prompts of classes from `num_classes` on are background: one last column if it is included.
    """
    similarity = prompt_embeds.to(point_embeds.dtype) @ point_embeds.T  # (P, N)
    column = prompt_to_class.clamp(max=num_classes)[:, None].expand_as(similarity)
    best = similarity.new_full((num_classes + 1, len(point_embeds)), -torch.inf)
    best = logit_scale * best.scatter_reduce(0, column, similarity, "amax").T  # (N, C + 1)
    return best if include_background else best[:, :num_classes]


def voxels_to_points(voxel_values: torch.Tensor, point_to_voxel: torch.Tensor) -> torch.Tensor:
    """The value of each point's voxel; zeros for a point without a voxel (-1)."""
    # `F.embedding` sums its gradient in a fixed order; plain indexing does not on several threads.
    padded = F.pad(voxel_values, (0, 0, 0, 1))  # (num_voxels + 1, D)
    return F.embedding(point_to_voxel.remainder(len(padded)), padded)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
