"""TIPSv2 as a teacher: its patch tokens are trained to lie near words."""

from torch import Tensor
from transformers import Tipsv2Model

from uov_hf.teachers.clip_space import ClipSpace, DenseTeacher


class TIPSv2Space(ClipSpace):
    """Any TIPSv2: patch tokens and text embeddings have one width and need no projection (Cao et al., "TIPSv2:
    Advancing Vision-Language Pretraining with Enhanced Patch-Text Alignment", CVPR 2026)."""

    model_class = Tipsv2Model

    @property
    def embed_dim(self) -> int:
        return self.model.config.vision_config.hidden_size

    @property
    def logit_scale(self) -> float:
        return 1 / self.model.temperature.item()

    def patch_embeds(self, pixel_values: Tensor) -> Tensor:
        """The last layer's patch tokens, after its layer norm."""
        first_patch = 1 + self.model.config.vision_config.num_register_tokens
        return self.model.vision_model(pixel_values).last_hidden_state[:, first_patch:]


class TIPSv2Teacher(DenseTeacher):
    """Any TIPSv2 of the Hub; see `DenseTeacher` for the segmentation and `DenseConfig` for the settings."""

    name = "tipsv2"
    space_class = TIPSv2Space
    example = "google/tipsv2-b14"
