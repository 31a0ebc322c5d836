"""The configuration of UOV: its network, its text space, its vocabulary and the constants of its losses."""

import difflib
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import CLIPTextConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module


IS_PACKAGE = __name__.startswith("uov_hf.")  # else this file came with a checkpoint, as remote code
FORMAT_VERSION = 1
IGNORED = 255  # the label of a point without a class: it counts in no loss and in no score
MAX_DEPTH = 100  # blocks of a stage, and layers of a text tower: each is an object, whatever its size
NUM_LEVELS = 4  # times the network halves its resolution, and doubles it again

# Differences from the defaults, which are the paper's.
PRESETS: dict[str, dict[str, Any]] = {
    "minkunet34": {},
    "tiny": {
        "stem_channels": 16,
        "hidden_sizes": [16, 32, 48, 64, 64, 48, 32, 32],
        "depths": [1, 1, 1, 1, 1, 1, 1, 1],
        "projection_dim": 64,
    },
}


@strict
class UOVConfig(PreTrainedConfig):
    """Configuration of [`UOVModel`] and of the models built on it.

    The defaults are the MinkUNet34 and the constants of the paper; see `UOVConfig.from_preset` for the other sizes.
    The network with the defaults has 37,917,472 parameters: the similarity scale is a field, not a parameter.

    Args:
        in_channels (`int`, *optional*, defaults to 1): Features of a voxel. The paper has one, the intensity.
        stem_channels (`int`, *optional*, defaults to 32): Channels of the first convolution, at full resolution.
        stem_kernel_size (`int`, *optional*, defaults to 3): Kernel of the first convolution, 3 or 5.
        hidden_sizes (`list[int]` of length 8):
            Channels of the four stages down, then of the four stages up. The last is the width of the backbone.
        depths (`list[int]` of length 8): Residual blocks of each stage.
        batch_norm_momentum (`float`, *optional*, defaults to 0.05):
            Momentum of the BatchNorms outside the residual blocks and of those in their shortcuts.
        block_batch_norm_momentum (`float`, *optional*, defaults to 0.1):
            Momentum of the BatchNorms inside the residual blocks. The official code does not pass its setting to them,
            so they have PyTorch's default.
        sparse_backend (`"auto"`, `"spconv"`, `"spconv_triton"` or `"torch"`, *optional*, defaults to `"auto"`):
            The engine of the sparse convolutions, one for all batches. On a GPU, `"auto"` is the first of spconv,
            spconv-triton and plain torch that is installed and supports the dtype; elsewhere it is plain torch.
            [`SparseUNet.engine`] returns the choice with its reason.
        projection_dim (`int`, *optional*, defaults to 768):
            Dimension D of the teacher's space, which points, segments and words share.
        logit_scale (`float`, *optional*, defaults to 1 / 0.07): Factor from cosine similarity to logit, at inference.
        text_config (`CLIPTextConfig` or `dict`, *optional*):
            Configuration of the text tower in the model. Without one the vocabulary is the baked one.
        text_tower_source (`str`, *optional*): The teacher that the text tower belongs to.
        teacher (`str`, *optional*):
            The teacher in whose text space the point embeddings were trained: id and commit on the Hub, or the name
            of a folder. The text tower is used only if `text_tower_source` is the same.
        prompts (`list[str]`, *optional*):
            The baked vocabulary; its length sizes the model's buffers. Written by `UOVModel.set_classes`.
        class_names (`list[str]`, *optional*):
            The classes of the baked prompts, in the order of their ids. Written by `UOVModel.set_classes`. Scores by
            prompts are refused where `id2label` has other classes.
        ignored_index (`int`, *optional*, defaults to 255):
            The class of background prompts and the label of points that have none.
        temperature (`float`, *optional*, defaults to 0.07): Temperature of both terms of tri-modal pre-training.
        image_loss_weight, text_loss_weight (`float`, *optional*, defaults to 0.5):
            Weights of the superpixel-superpoint and of the text-superpoint term.
        hard_text_weight (`float`, *optional*, defaults to 0.2):
            Weight of a superpoint's own prompt in its soft text target; the rest goes by similarity within the group.
        head (`"linear"` or `"text"`, *optional*, defaults to `"text"`):
            The head of [`UOVForSemanticSegmentation`]: a linear classifier on the backbone, as in the paper, or the
            similarity of embeddings to the baked prompts, which needs no training.
        has_void (`bool`, *optional*, defaults to `False`):
            Whether the linear head has a last row for "none of the classes", class 0 of the official code. It is not
            in `id2label`, has no training target, and is not predicted unless `include_void=True`.
        negatives (`"scene"`, `"batch"` or `"global"`, *optional*, defaults to `"scene"`):
            The negatives of a superpoint: the segments of its scene, of its micro-batch, or of the whole optimiser
            step. Results with `"batch"` depend on the number of GPUs.
        format_version (`int`): Version of the checkpoint's layout.

    Raises:
        StrictDataclassError: A field has the wrong type, or does not fit another one.
    """

    model_type = "uov"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=CLIPTextConfig, optional=True)}

    in_channels: int = 1
    stem_channels: int = 32
    stem_kernel_size: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (32, 64, 128, 256, 256, 128, 96, 96)
    depths: list[int] | tuple[int, ...] = (2, 3, 4, 6, 2, 2, 2, 2)
    batch_norm_momentum: float | int = 0.05
    block_batch_norm_momentum: float | int = 0.1
    sparse_backend: Literal["auto", "spconv", "spconv_triton", "torch"] = "auto"

    projection_dim: int = 768
    logit_scale: float | int = 1 / 0.07
    text_config: dict | CLIPTextConfig | None = None
    text_tower_source: str | None = None
    teacher: str | None = None
    prompts: list[str] | tuple[str, ...] = ()
    class_names: list[str] | tuple[str, ...] = ()
    ignored_index: int = IGNORED

    temperature: float | int = 0.07
    image_loss_weight: float | int = 0.5
    text_loss_weight: float | int = 0.5
    hard_text_weight: float | int = 0.2
    negatives: Literal["scene", "batch", "global"] = "scene"
    head: Literal["linear", "text"] = "text"
    has_void: bool = False
    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        # JSON has no tuples: with lists, a configuration equals the one that is read back.
        for name in ("hidden_sizes", "depths", "prompts", "class_names"):
            setattr(self, name, list(getattr(self, name)))
        if IS_PACKAGE:
            # Remote code is for environments without the package. Kept here, these keys would be saved again in
            # folders without that code, and `pipeline` would need `trust_remote_code` for a task that is registered.
            kwargs.pop("auto_map", None)
            kwargs.pop("custom_pipelines", None)
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = {}  # the default of transformers is two classes, LABEL_0 and LABEL_1
        super().__post_init__(**kwargs)
        # JSON sorts keys as text, "10" before "2".
        id2label = {int(index): name for index, name in (self.id2label or {}).items()}
        self.id2label = dict(sorted(id2label.items()))
        self.label2id = {str(name): index for index, name in self.id2label.items()}

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of their ids."""
        return list((self.id2label or {}).values())

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the configuration as `PreTrainedConfig` does, with the remote code that it was loaded by.

        Args:
            save_directory (`str` or `os.PathLike`): The folder; created if it does not exist.
            push_to_hub, kwargs:
                See `PreTrainedConfig.save_pretrained`.
        """
        if not IS_PACKAGE:
            self._save_remote_code(Path(save_directory))
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def _save_remote_code(self, folder: Path) -> None:
        """Copy the code of every class that the configuration names; transformers copies that of the saved class."""
        folder.mkdir(parents=True, exist_ok=True)
        auto_map, pipelines = getattr(self, "auto_map", {}), getattr(self, "custom_pipelines", {})
        self.auto_map = {name: code for name, code in auto_map.items() if self._copy_code(code, folder)}
        self.custom_pipelines = {
            task: pipeline for task, pipeline in pipelines.items() if self._copy_code(pipeline["impl"], folder)
        }

    def _copy_code(self, reference: str, folder: Path) -> bool:
        """Copy the module of a `module.Class` and the modules it imports; return whether the folder has it."""
        try:
            commit = getattr(self, "_commit_hash", None)
            code = get_class_from_dynamic_module(reference, str(self.name_or_path), revision=commit)
            custom_object_save(code, folder)
        except OSError:  # the source is gone: a class whose code is nowhere must not be named
            return (folder / f"{reference.rpartition('.')[0]}.py").is_file()
        return True

    @classmethod
    def from_preset(cls, preset: str, **overrides: Any) -> "UOVConfig":
        """Create a configuration by name: `"minkunet34"` (the paper's) or `"tiny"` (for tests and demonstrations).

        Raises:
            ValueError: There is no such preset, or an override is not a field of the configuration.
        """
        if preset not in PRESETS:
            raise ValueError(f"`preset` must be one of {sorted(PRESETS)}, got {preset!r}.")
        names = {field.name for field in fields(cls)}
        for name in overrides.keys() - names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise ValueError(f"`UOVConfig` has no field `{name}`.{hint}")
        return cls(**{**PRESETS[preset], **overrides})

    @property
    def has_teachers_text_tower(self) -> bool:
        """Whether the model has the text tower of the teacher that it was trained with."""
        return self.text_config is not None and self.teacher is not None and self.text_tower_source == self.teacher

    def check_vocabulary(self) -> None:
        """Check that classes can be scored by the baked prompts.

        Raises:
            ValueError: There are no baked prompts, or they are for other classes than those of `id2label`.
        """
        classes = self.classes
        if self.prompts and not self.class_names:
            raise ValueError(
                "The configuration has prompts but no `class_names`: an earlier version of this package wrote it. "
                "Call `UOVModel.set_classes` again, or make the checkpoint again."
            )
        if not classes or not self.prompts:
            raise ValueError("The model has no vocabulary to score classes by. Call `UOVModel.set_classes` first.")
        if self.class_names != classes:
            raise ValueError(
                f"The baked prompts are for the classes {self.class_names}, but `id2label` has {classes}. For other "
                "classes, load the checkpoint without `id2label` and call `UOVModel.set_classes` with embeddings of "
                'the new class names, or pass `head="linear"` for a new head that is trained on labels.'
            )

    def why_only_baked_words(self) -> str:
        """The end of an error message: why only the baked prompts can be used, and how to use other words."""
        if self.has_teachers_text_tower:
            return "other words must be tokenised by the processor and embedded by `get_text_features`."
        if self.text_config is None:
            return (
                f"this model has no text tower. If its teacher ({self.teacher or 'not recorded'}) embeds words, embed "
                "them with it and pass them to `set_classes`."
            )
        return (
            f"the text tower belongs to {self.text_tower_source!r}, but points were trained with {self.teacher!r}: "
            "their embeddings are not comparable. Embed words with that teacher and pass them to `set_classes`."
        )

    def validate_network(self) -> None:
        """Check that sizes are positive and there is one for each stage."""
        for name in ("hidden_sizes", "depths"):
            sizes = getattr(self, name)
            if len(sizes) != 2 * NUM_LEVELS or min(sizes) < 1:
                raise ValueError(
                    f"`{name}` must be {2 * NUM_LEVELS} positive numbers, "
                    f"{NUM_LEVELS} stages down, then {NUM_LEVELS} up: got {sizes}."
                )
        if max(self.depths) > MAX_DEPTH:
            raise ValueError(f"`depths` must be at most {MAX_DEPTH}, got {self.depths}.")
        for name in ("in_channels", "stem_channels", "projection_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.stem_kernel_size not in (3, 5):  # `GUARD_CELLS` of the voxel pyramid keeps wider ones from a next row
            raise ValueError(f"`stem_kernel_size` must be 3 or 5, got {self.stem_kernel_size}.")
        for name in ("batch_norm_momentum", "block_batch_norm_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)}.")

    def validate_losses(self) -> None:
        """Check that temperatures are positive and weights are not negative."""
        for name in ("temperature", "logit_scale"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("image_loss_weight", "text_loss_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.hard_text_weight <= 1:
            raise ValueError(f"`hard_text_weight` must lie between 0 and 1, got {self.hard_text_weight}.")

    def validate_text(self) -> None:
        """Check that words and points share one space, and that class ids have no gap."""
        # The base class has turned a dictionary into a configuration.
        if isinstance(self.text_config, CLIPTextConfig) and self.text_config.projection_dim != self.projection_dim:
            raise ValueError(
                f"`text_config.projection_dim` is {self.text_config.projection_dim}, but points are projected to "
                f"`projection_dim` {self.projection_dim}: words and points must share one space."
            )
        if isinstance(self.text_config, CLIPTextConfig) and self.text_config.num_hidden_layers > MAX_DEPTH:
            raise ValueError(
                f"`text_config.num_hidden_layers` must be at most {MAX_DEPTH}, "
                f"got {self.text_config.num_hidden_layers}."
            )
        ids = sorted(self.id2label or {})
        if ids != list(range(len(ids))):
            raise ValueError(f"`id2label` must number the classes from 0 without a gap, got {ids}.")
        if ids and self.ignored_index < len(ids):
            raise ValueError(f"`ignored_index` {self.ignored_index} must not be one of the {len(ids)} class ids.")

    def validate_head(self) -> None:
        """Check that only a linear head has a void row."""
        if self.has_void and self.head != "linear":
            raise ValueError(f'`has_void=True` requires `head="linear"`, got "{self.head}".')

    def validate_format_version(self) -> None:
        """Check that the checkpoint has no later layout than this version reads."""
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"`format_version` is {self.format_version}, but this version of uov_hf reads up to {FORMAT_VERSION}. "
                "Install a newer uov_hf."
            )
