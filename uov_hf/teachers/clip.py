"""CLIP as a teacher: dense features from the value path of its last layer."""

from torch import Tensor
from transformers import CLIPModel

from uov_hf.teachers.clip_space import ClipSpace, DenseTeacher


class CLIPSpace(ClipSpace):
    """Any CLIP, without training: each patch is embedded like an image of its own (Zhou et al., "Extract Free Dense
    Labels from CLIP", ECCV 2022)."""

    model_class = CLIPModel
    any_size = {"interpolate_pos_encoding": True}

    def patch_embeds(self, pixel_values: Tensor) -> Tensor:
        """visual_projection(LN(out_proj(v_proj(LN(x))))), x the last layer's input: no attention between patches."""
        vision, last = self.model.vision_model, self.model.vision_model.encoder.layers[-1]
        hidden = vision.pre_layrnorm(vision.embeddings(pixel_values, interpolate_pos_encoding=True))
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(hidden)))
        return self.model.visual_projection(vision.post_layernorm(values[:, 1:]))  # without the class token


class CLIPTeacher(DenseTeacher):
    """Any CLIP of the Hub; see `DenseTeacher` for the segmentation and `DenseConfig` for the settings."""

    name = "clip"
    space_class = CLIPSpace
    example = "openai/clip-vit-base-patch16"
