"""Classes by picture: photos of an object as embeddings in a teacher's space, for comparison with points."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import PreTrainedConfig

from uov_hf.image_files import decode_image, upright_rgb
from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.clip_space import ClipSpace
from uov_hf.teachers.images import ScaledImage, in_batches
from uov_hf.teachers.second_space import load_clip_space


Picture = str | Path | Image.Image


def embed_pictures(
    pictures: Mapping[str, Sequence[Picture]],
    model_name_or_path: str | None = None,
    revision: str | None = None,
    *,
    config: PreTrainedConfig | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 8,
) -> dict[str, np.ndarray]:
    """Embed photos with the image tower of a CLIP-like teacher, for `candidate_embeds` of the pipeline.

        embeds = embed_pictures({"tuk-tuk": ["a.jpg", "b.jpg"]}, config=segmenter.model.config)
        segmenter("scan.bin", candidate_labels=["car", "road"], candidate_embeds=embeds)

    Each picture is embedded whole, at about the size of the tower's training. Pictures that show the object and little
    else work best; a point's similarity to a class is that to the nearest picture. In such spaces pictures of an
    object lie nearer to each other than to its word, so a class by pictures is preferred over classes by words.

    Args:
        pictures (mapping of `str` to paths or `PIL.Image.Image`s): The pictures of each class.
        model_name_or_path (`str`, *optional*):
            Hub id or folder of the teacher, a CLIP or a TIPSv2; by default the one in `config`.
        revision (`str`, *optional*): Branch, tag or commit on the Hub; by default the one in `config`.
        config ([`UOVConfig`], *optional*):
            Of the checkpoint whose points are compared with the pictures: another space is then refused.
        device, dtype, batch_size:
            Of the tower.

    Returns:
        For each class `(num_pictures, embed_dim)` float32, unit length, in the order of its pictures.

    Raises:
        ValueError: a picture cannot be read, a class has none, or the space is not that of `config`.
    """
    images = {name: [_open(name, picture) for picture in own] for name, own in _as_lists(pictures).items()}
    recorded, recorded_revision = _recorded_space(config)
    if model_name_or_path is None:
        if recorded is None:
            raise ValueError("There is no record of the teacher that embeds the pictures: give `model_name_or_path`.")
        model_name_or_path = recorded
    elif recorded is not None and _last_name(model_name_or_path) != _last_name(recorded):
        raise ValueError(
            f"The points of this checkpoint are in the space of {recorded!r}, and {str(model_name_or_path)!r} embeds "
            f"pictures in another: cosines between the two mean nothing. Give {recorded!r}."
        )
    if revision is None and str(model_name_or_path) == recorded:
        revision = recorded_revision
    space = load_clip_space(Checkpoint(str(model_name_or_path), revision, device, dtype))
    if config is not None and space.embed_dim != config.projection_dim:
        raise ValueError(
            f"{model_name_or_path} embeds pictures in {space.embed_dim} dimensions, and the points of this checkpoint "
            f"have {config.projection_dim}: it is not their teacher ({recorded or 'which is not recorded'})."
        )
    return {name: _embed(space, own, batch_size) for name, own in images.items()}


@torch.inference_mode()
def _embed(space: ClipSpace, images: list[Image.Image], batch_size: int) -> np.ndarray:
    side = space.model.config.vision_config.image_size
    pixel_values = [space.transform.in_patches(ScaledImage(image), side, space.patch_size) for image in images]
    embeds = torch.stack(in_batches(space.picture_embeds, pixel_values, batch_size))  # (num_pictures, embed_dim)
    return normalize(embeds, dim=1).cpu().numpy()


def _as_lists(pictures: Mapping[str, Sequence[Picture]]) -> dict[str, list[Picture]]:
    if not pictures:
        raise ValueError('`pictures` must name at least one class, as {"tuk-tuk": ["a.jpg", "b.jpg"]}.')
    lists: dict[str, list[Picture]] = {
        name: [own] if isinstance(own, (str, Path, Image.Image)) else list(own) for name, own in pictures.items()
    }
    if empty := [name for name, own in lists.items() if not own]:
        raise ValueError(f"`pictures` must have at least one picture for each class, got none for {empty}.")
    return lists


def _open(name: str, picture: Picture) -> Image.Image:
    try:
        if isinstance(picture, Image.Image):
            return upright_rgb(picture)
        return decode_image({"path": str(picture), "bytes": None})
    except (OSError, SyntaxError, ValueError) as error:  # a `PIL.Image.Image` may be a file that is not read yet
        raise ValueError(f"A picture of {name!r}: {error}") from error


def _recorded_space(config: PreTrainedConfig | None) -> tuple[str | None, str | None]:
    """Id or folder name, and commit, of the model whose space the points were trained in, where recorded."""
    teacher = getattr(config, "teacher", None)
    if teacher is None:
        return None, None
    name, _, revision = teacher.split("+")[-1].partition("@")  # of two models, the second one embeds
    return name, revision or None


def _last_name(model_name_or_path: str | Path) -> str:
    """The last part of a path, which is all that is recorded of a folder."""
    return Path(model_name_or_path).resolve().name
