"""Embeddings from a second model, for teachers whose own model has no mask embeddings in a space of words."""

from dataclasses import dataclass
from typing import Any, ClassVar

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.clip import CLIPSpace
from uov_hf.teachers.clip_space import ClipSpace, SpaceConfig, SpaceTeacher
from uov_hf.teachers.config import TeacherConfig, batch_size, templates, unrecorded
from uov_hf.teachers.tipsv2 import TIPSv2Space


CLIP_SPACES = {"clip": CLIPSpace, "tipsv2": TIPSv2Space}  # model type -> class
EXAMPLE = "openai/clip-vit-base-patch16"


def load_clip_space(checkpoint: Checkpoint, config: SpaceConfig | None = None) -> ClipSpace:
    """Load a CLIP or a TIPSv2, by its model type.

    Raises:
        ValueError: the model has another type.
    """
    checkpoint = checkpoint.pinned()
    model_type = checkpoint.load_config().model_type
    if model_type not in CLIP_SPACES:
        raise ValueError(
            f"{checkpoint.name_or_path} is a model of type {model_type!r}, whose patches and words do not share a "
            f"space. Give a model of type {' or '.join(CLIP_SPACES)}."
        )
    return CLIP_SPACES[model_type](checkpoint, config)


@dataclass(frozen=True, kw_only=True)
class SecondSpaceConfig(TeacherConfig):
    """The second model, a CLIP or a TIPSv2, and how it reads images and prompts.

    Args:
        embed_model_name_or_path (`str`): Its Hub id or folder.
        embed_revision (`str`, *optional*): Its branch, tag or commit.
        embed_short_side, embed_window, templates, batch_size:
            `short_side`, `window`, `templates` and `batch_size` of its `SpaceConfig`.
    """

    embed_model_name_or_path: str | None = unrecorded(None)
    embed_revision: str | None = unrecorded(None)
    embed_short_side: int = unrecorded(448)
    embed_window: int | None = unrecorded(None)
    templates: str = templates("vild", recorded=False)
    batch_size: int = batch_size(8)

    @property
    def space_config(self) -> SpaceConfig:
        return SpaceConfig(
            short_side=self.embed_short_side,
            window=self.embed_window,
            templates=self.templates,
            batch_size=self.batch_size,
        )

    def record_space(self, space: ClipSpace) -> dict[str, Any]:
        """The second model and its settings, as JSON."""
        return {
            "embed_model_name_or_path": self.embed_model_name_or_path,
            "embed_revision": space.commit,
            "embed_settings": space.settings,
        }


class SecondSpaceTeacher(SpaceTeacher):
    """A teacher that takes the embeddings of segments and prompts from a second model, a CLIP or a TIPSv2.

    A segment's embedding is the mean of the second model's features in its pixels, never the embedding of its label.
    Both models run on one device in one precision. `SecondSpaceConfig` has the settings.
    """

    config_class: ClassVar[type[SecondSpaceConfig]] = SecondSpaceConfig
    config: SecondSpaceConfig
    space: ClipSpace

    def load(self) -> None:
        super().load()
        checkpoint = self.require_checkpoint(
            "embed_model_name_or_path", self.config.embed_model_name_or_path, self.config.embed_revision, EXAMPLE
        )
        self.space = load_clip_space(checkpoint, self.config.space_config)
        self.prompt_embeds = self.space.encode_prompts(self.prompts)  # (num_prompts, embed_dim)

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | self.config.record_space(self.space)
