"""Loading what a teacher is made of: frozen weights, and the commit that they came from."""

from typing import TypeVar

import torch
from transformers import PreTrainedModel
from transformers.utils.hub import resolve_revision

from uov_hf.teachers.protocol import freeze


Model = TypeVar("Model", bound=PreTrainedModel)


def load_frozen(
    model_class: type[Model],
    model_name_or_path: str,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """
    `model_class.from_pretrained`, on `device`, in evaluation mode and without gradients for good.

    Raises:
        ValueError: weights that the model needs are not there. `transformers` draws them at random and only warns;
            what such a teacher says is noise.
    """
    model, info = model_class.from_pretrained(
        model_name_or_path, revision=revision, dtype=dtype, output_loading_info=True
    )
    # Not the buffers: some belong to the training loss, and checkpoints differ in whether they have them.
    if missing := sorted({name for name, _ in model.named_parameters()} & set(info["missing_keys"])):
        raise ValueError(
            f"{model_name_or_path} is no complete {model_class.__name__}: {len(missing)} of its weights are not "
            f"there, e.g. {missing[0]}. Give a checkpoint of this architecture."
        )
    return freeze(model.to(device))


def commit_of(model_name_or_path: str, revision: str | None) -> str | None:
    """The commit that a branch or tag on the Hub stands for today; of a folder, what was asked for."""
    resolved = resolve_revision(model_name_or_path, revision)
    return getattr(resolved, "resolved", resolved)


def require_model(teacher: str, argument: str, value: str | None, example: str) -> str:
    """`value`, the id or folder of a model that `teacher` cannot do without.

    Raises:
        ValueError: it was not given; the message names the argument and an example.
    """
    if value is None:
        raise ValueError(f"The teacher `{teacher}` needs `{argument}`, the id or folder of a model, e.g. {example}.")
    return value
