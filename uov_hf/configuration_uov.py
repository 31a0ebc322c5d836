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
NUM_LEVELS = 4  # times the network halves its resolution, and doubles it again

# What differs from the defaults, which are the paper's.
NETWORK_PRESETS = {
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

    The defaults are the MinkUNet34 and the constants of the paper; `UOVConfig.from_preset` names the other sizes. The
    network with the defaults has 37,917,472 parameters: the similarity scale is a number here, not a parameter.

    Args:
        in_channels (`int`, defaults to 1):
            Features of a voxel. The paper's is the intensity alone.
        stem_channels (`int`, defaults to 32):
            Channels of the first convolution, at full resolution.
        stem_kernel_size (`int`, defaults to 3):
            Kernel of the first convolution; odd, at least 3.
        hidden_sizes (`list[int]` of length 8):
            Channels of the four stages down, then of the four stages up; the last is the width of the backbone.
        depths (`list[int]` of length 8):
            Residual blocks of each stage.
        batch_norm_momentum (`float`, defaults to 0.05):
            Momentum of the BatchNorms outside the residual blocks and of those in their shortcuts.
        block_batch_norm_momentum (`float`, defaults to 0.1):
            Momentum of the BatchNorms inside the residual blocks. The official code does not forward its setting to
            them, so that they keep PyTorch's default; a checkpoint's running statistics were gathered with it.
        sparse_backend (`"auto"`, `"spconv"`, `"spconv_triton"` or `"torch"`, defaults to `"auto"`):
            The engine of the sparse convolutions. `"auto"` is, on a GPU, the first of spconv, spconv-triton and plain
            torch that is installed and computes the dtype right, and plain torch elsewhere. It is one engine for all
            batches; [`SparseUNet.engine`] tells which, and why.
        projection_dim (`int`, defaults to 768):
            Dimension D of the space that points, segments and words share: the teacher's.
        logit_scale (`float`, defaults to 1 / 0.07):
            Factor from cosine similarity to logit, at inference.
        text_config (`CLIPTextConfig` or `dict`, *optional*):
            A text tower that travels with the model. Without it the vocabulary is the baked one.
        text_tower_source (`str`, *optional*):
            The teacher whose text tower it is.
        teacher (`str`, *optional*):
            The teacher whose text space the point embeddings were trained in, as its label set names it: id and
            commit on the Hub, or the name of a folder. The text tower is used only where both names agree.
        prompts (`list[str]`, *optional*):
            The baked vocabulary; its length sizes the model's buffers. Written by `UOVModel.set_classes`.
        class_names (`list[str]`, *optional*):
            The classes of the baked prompts, in the order of their ids. Written by `UOVModel.set_classes`. Scores by
            prompts are refused where `id2label` has other classes.
        ignored_index (`int`, defaults to 255):
            The class of background prompts and the label of points that have none.
        temperature (`float`, defaults to 0.07):
            Temperature of both terms of tri-modal pre-training.
        image_loss_weight, text_loss_weight (`float`, default to 0.5):
            Weights of the superpixel-superpoint and of the text-superpoint term.
        hard_text_weight (`float`, defaults to 0.2):
            Weight of a superpoint's own prompt in its soft text target; the rest goes by similarity within the group.
        head (`"linear"` or `"text"`, defaults to `"text"`):
            What [`UOVForSemanticSegmentation`] names voxels by: a linear classifier of the backbone's features, as the
            paper distils it, or the similarity of their embeddings to the baked prompts, which needs no training.
        has_void (`bool`, defaults to `False`):
            Whether the linear head has one more row, the last, for "none of the classes": class 0 of the official
            code. No training aims at it, and it is no answer unless one asks for it; `id2label` does not have it.
        negatives (`"scene"`, `"batch"` or `"global"`, defaults to `"scene"`):
            Which segments a superpoint is contrasted with: those of its scene, of its micro-batch, or of the whole
            optimiser step. Only the first and the last do not depend on the number of GPUs.
        format_version (`int`):
            Version of the checkpoint's layout.

    Raises:
        StrictDataclassError: if a field has the wrong type, or does not fit the others. The message names both.
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
        # JSON has no tuples: a configuration equals the one that is read back.
        for name in ("hidden_sizes", "depths", "prompts", "class_names"):
            setattr(self, name, list(getattr(self, name)))
        if IS_PACKAGE:
            # Remote code is for environments without the package. Kept here, these keys would be saved again in
            # folders without that code, and `pipeline` would need `trust_remote_code` for a task that is registered.
            kwargs.pop("auto_map", None)
            kwargs.pop("custom_pipelines", None)
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = {}  # the library's default would be two classes named LABEL_0 and LABEL_1
        super().__post_init__(**kwargs)
        # JSON sorts its keys as words, "10" before "2".
        self.id2label = dict(sorted(self.id2label.items()))
        self.label2id = {name: index for index, name in self.id2label.items()}

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the configuration as `PreTrainedConfig` does, with the remote code that it was loaded by.

        Args:
            save_directory (`str` or `os.PathLike`):
                The folder; created if it does not exist.
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
            code = get_class_from_dynamic_module(
                reference, self.name_or_path, revision=getattr(self, "_commit_hash", None)
            )
            custom_object_save(code, folder)
        except OSError:  # the source is gone: a class whose code is nowhere must not be named
            return (folder / f"{reference.rpartition('.')[0]}.py").is_file()
        return True

    @classmethod
    def from_preset(cls, preset: str, **overrides: Any) -> "UOVConfig":
        """A configuration by name: `"minkunet34"` (the paper's) or `"tiny"` (for tests and demonstrations).

        Raises:
            ValueError: if there is no such preset, or an override is no field of the configuration.
        """
        if preset not in NETWORK_PRESETS:
            raise ValueError(f"`preset` must be one of {sorted(NETWORK_PRESETS)}, got {preset!r}.")
        known = {field.name for field in fields(cls)}
        for name in overrides.keys() - known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise ValueError(f"`UOVConfig` has no field `{name}`.{hint}")
        return cls(**{**NETWORK_PRESETS[preset], **overrides})

    @property
    def has_teachers_text_tower(self) -> bool:
        """Whether the model carries a text tower, and it is that of the teacher it was trained with."""
        return self.text_config is not None and self.teacher is not None and self.text_tower_source == self.teacher

    def check_vocabulary(self) -> None:
        """Check that classes can be scored by the baked prompts.

        Raises:
            ValueError: There are no baked prompts, or they are for other classes than those of `id2label`.
        """
        classes = list(self.id2label.values())
        if not classes or not self.prompts or not self.class_names:
            raise ValueError("The model has no vocabulary to score classes by. Call `UOVModel.set_classes` first.")
        if self.class_names != classes:
            raise ValueError(
                f"The baked prompts are for the classes {self.class_names}, but `id2label` has {classes}. For other "
                "classes, load the checkpoint without `id2label` and call `UOVModel.set_classes` with embeddings of "
                'the new class names, or pass `head="linear"` for a new head that is trained on labels.'
            )

    def why_only_baked_words(self) -> str:
        """The reason why the model knows no words but its baked prompts, and the way out: the end of a sentence."""
        if self.has_teachers_text_tower:
            return "others must be tokenised by the processor and go through `get_text_features`."
        if self.text_config is None:
            return (
                f"this model has no text tower. Embed words with its teacher ({self.teacher or 'not recorded'}) and "
                "bake them with `set_classes`."
            )
        return (
            f"the text tower is that of {self.text_tower_source!r}, while the points were trained with "
            f"{self.teacher!r}: cosines between the two mean nothing. Embed words with that teacher and bake them "
            "with `set_classes`."
        )

    def validate_network(self) -> None:
        """The sizes of the network are positive, and one for each of its stages."""
        for name in ("hidden_sizes", "depths"):
            sizes = getattr(self, name)
            if len(sizes) != 2 * NUM_LEVELS or min(sizes) < 1:
                raise ValueError(
                    f"`{name}` must be {2 * NUM_LEVELS} positive numbers, "
                    f"{NUM_LEVELS} stages down, then {NUM_LEVELS} up: got {sizes}."
                )
        for name in ("in_channels", "stem_channels", "projection_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.stem_kernel_size < 3 or self.stem_kernel_size % 2 == 0:
            raise ValueError(f"`stem_kernel_size` must be odd and at least 3, got {self.stem_kernel_size}.")
        for name in ("batch_norm_momentum", "block_batch_norm_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)}.")

    def validate_losses(self) -> None:
        """Temperatures are positive, weights are not negative."""
        for name in ("temperature", "logit_scale"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("image_loss_weight", "text_loss_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.hard_text_weight <= 1:
            raise ValueError(f"`hard_text_weight` must lie between 0 and 1, got {self.hard_text_weight}.")

    def validate_text(self) -> None:
        """A text tower speaks the space of the points, and classes are numbered without a gap."""
        if self.text_config is not None and self.text_config.projection_dim != self.projection_dim:
            raise ValueError(
                f"`text_config.projection_dim` is {self.text_config.projection_dim}, but points are projected to "
                f"`projection_dim` {self.projection_dim}: words and points must share one space."
            )
        if sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(f"`id2label` must number the classes from 0 without a gap, got {sorted(self.id2label)}.")
        if self.id2label and self.ignored_index < len(self.id2label):
            raise ValueError(
                f"`ignored_index` {self.ignored_index} is one of the {len(self.id2label)} classes, and must be none."
            )

    def validate_head(self) -> None:
        """Only a linear head has a void row."""
        if self.has_void and self.head != "linear":
            raise ValueError(f'`has_void` is of the linear head, and `head` is "{self.head}".')

    def validate_format_version(self) -> None:
        """A checkpoint of a later layout is not read as if it were this one."""
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"`format_version` is {self.format_version}, and this version of uov_hf reads up to {FORMAT_VERSION}. "
                "Install a newer uov_hf."
            )
