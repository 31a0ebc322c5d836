"""CLIP as a teacher: dense features from the last block without its attention between patches."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import CLIPModel

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.clip_space import ClipSpace, DenseConfig, DenseTeacher, SpaceConfig
from uov_hf.teachers.config import one_of


class CLIPSpace(ClipSpace):
    """Any CLIP, without training: each patch is embedded like an image of its own (Zhou et al., "Extract Free Dense
    Labels from CLIP", ECCV 2022).

    Args:
        checkpoint (`Checkpoint`): The weights.
        config (`SpaceConfig`, *optional*): Image size, windows, templates.
        value_path (`str`, *optional*, defaults to `"maskclip"`): See `CLIPConfig`.
    """

    model_class = CLIPModel
    any_size = {"interpolate_pos_encoding": True}

    def __init__(self, checkpoint: Checkpoint, config: SpaceConfig | None = None, value_path: str = "maskclip"):
        super().__init__(checkpoint, config)
        self.value_path = value_path

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"value_path": self.value_path}

    def patch_embeds(self, pixel_values: Tensor) -> Tensor:
        """visual_projection(LN(y)), of the last block's input x:

        v = out_proj(v_proj(LN(x))): the values, without attention between patches
        y = x + v + MLP(LN(x + v)) with `value_path="maskclip"`, y = v with `"values"`
        """
        vision, last = self.model.vision_model, self.model.vision_model.encoder.layers[-1]
        hidden = vision.pre_layrnorm(vision.embeddings(pixel_values, interpolate_pos_encoding=True))
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        hidden = hidden[:, 1:]  # without the class token
        values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(hidden)))
        if self.value_path == "maskclip":
            values = hidden + values
            values = values + last.mlp(last.layer_norm2(values))
        return self.model.visual_projection(vision.post_layernorm(values))


@dataclass(frozen=True, kw_only=True)
class CLIPConfig(DenseConfig):
    """Settings of `CLIPTeacher`; see `DenseConfig` for the others.

    Args:
        value_path (`str`, *optional*, defaults to `"maskclip"`):
            What remains of the last block when each patch attends to itself only. `"maskclip"` is the code of the
            method's authors: the values, the residual connection and the MLP. `"values"` has the values alone.
    """

    value_path: str = one_of("maskclip", "values")


class CLIPTeacher(DenseTeacher):
    """Any CLIP of the Hub; see `DenseTeacher` for the segmentation and `CLIPConfig` for the settings."""

    name = "clip"
    example = "openai/clip-vit-base-patch16"
    config_class = CLIPConfig
    config: CLIPConfig

    def load_space(self) -> CLIPSpace:
        return CLIPSpace(self.checkpoint(), self.config, self.config.value_path)
