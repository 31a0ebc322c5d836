"""Weights of teachers: frozen, complete, and of a recorded commit."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import resolve_revision

from uov_hf.teachers.images import PixelTransform


Model = TypeVar("Model", bound=PreTrainedModel)
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """A model on the Hub or in a folder, and how to load it.

    Args:
        name_or_path (`str`): Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`): Where the model runs.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Precision of the weights.
    """

    name_or_path: str
    revision: str | None = None
    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32

    def pinned(self) -> "Checkpoint":
        """The same checkpoint at the commit that its branch or tag has now; a folder keeps its revision."""
        resolved = resolve_revision(self.name_or_path, self.revision)
        return replace(self, revision=getattr(resolved, "resolved", resolved))

    @property
    def branch(self) -> str:
        return self.revision or "main"

    def load_config(self) -> PreTrainedConfig:
        """Load the configuration.

        Raises:
            ValueError: the model needs code from its repository. Without `trust_remote_code=False`, `transformers`
                prompts for leave to run it.
        """
        return AutoConfig.from_pretrained(self.name_or_path, revision=self.branch, trust_remote_code=False)

    def load(self, model_class: type[Model]) -> Model:
        """Load the model, frozen, on its device.

        Raises:
            ValueError: the checkpoint lacks weights of the model. `transformers` only warns and draws them at random,
                and the predictions of such a teacher are noise.
        """
        # Annotated as the model alone, although `output_loading_info` makes it a pair.
        loaded: Any = model_class.from_pretrained(
            self.name_or_path, revision=self.branch, dtype=self.dtype, output_loading_info=True
        )
        model, info = loaded
        # Buffers may be missing: some belong to the training loss, and checkpoints differ in whether they have them.
        if missing := sorted({name for name, _ in model.named_parameters()} & set(info["missing_keys"])):
            raise ValueError(
                f"{self.name_or_path} is no complete {model_class.__name__}: it lacks {len(missing)} weights, e.g. "
                f"{missing[0]}. Give a checkpoint of this architecture."
            )
        return freeze(model.to(self.device))

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(self.name_or_path, revision=self.branch, trust_remote_code=False)

    def load_transform(self) -> PixelTransform:
        return PixelTransform.from_pretrained(self.name_or_path, self.revision)


def freeze(model: Module) -> Module:
    """Put a model into evaluation mode without gradients, permanently: its `train()` raises."""

    def refuse(mode: bool = True) -> Module:
        if mode:
            raise RuntimeError(f"{type(model).__name__} belongs to a teacher and is frozen: it has no train mode.")
        return model

    model.eval().requires_grad_(False)
    model.train = refuse  # type: ignore[method-assign]  # replaced so that no training loop can unfreeze a teacher
    return model


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as JSON, such as `"float16"`."""
    return str(dtype).removeprefix("torch.")
