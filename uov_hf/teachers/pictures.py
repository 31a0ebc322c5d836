"""Words by picture: photos of a thing as embeddings in the space of a teacher, for points to be compared with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn.functional import normalize
from transformers import PreTrainedConfig

from uov_hf.teachers.clip_space import ClipSpace, load_clip_space
from uov_hf.teachers.images import in_batches


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
    """
    What the image tower of a CLIP-like teacher says about photos, for `candidate_embeds` of the pipeline.

        embeds = embed_pictures({"tuk-tuk": ["a.jpg", "b.jpg"]}, config=segmenter.model.config)
        segmenter("scan.bin", candidate_labels=["car", "road"], candidate_embeds=embeds)

    Each picture is seen whole, at about the size that the tower was trained on. One that shows the thing and little
    else says the most; a class is as near to a point as its nearest picture. In such spaces pictures of a thing lie
    nearer to each other than to its word, so that among words a class by pictures is preferred.

    Args:
        pictures (mapping of `str` to paths or `PIL.Image.Image`s):
            For each class its pictures.
        model_name_or_path (`str`, *optional*):
            Hub id or folder of the teacher, a CLIP or a TIPSv2; by default the one that `config` names.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub; by default the one that `config` names.
        config ([`UOVConfig`], *optional*):
            Of the checkpoint that will compare them with points: pictures in another space are then refused.
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
        model_name_or_path = _require_recorded(recorded)
    elif recorded is not None and _last_name(model_name_or_path) != _last_name(recorded):
        raise ValueError(
            f"The points of this checkpoint live in the space of {recorded!r}, pictures embedded by "
            f"{str(model_name_or_path)!r} in another: cosines between the two mean nothing. Give that teacher."
        )
    if revision is None and str(model_name_or_path) == recorded:
        revision = recorded_revision
    space = load_clip_space(str(model_name_or_path), revision, device, dtype)
    space.short_side = space.model.config.vision_config.image_size  # of a picture as the tower was trained on it
    if config is not None and space.embed_dim != config.projection_dim:
        raise ValueError(
            f"{model_name_or_path} embeds pictures in {space.embed_dim} dimensions, and the points of this checkpoint "
            f"have {config.projection_dim}: it is not their teacher ({recorded or 'which is not recorded'})."
        )
    return {name: _embed(space, own, batch_size) for name, own in images.items()}


@torch.inference_mode()
def _embed(space: ClipSpace, images: list[Image.Image], batch_size: int) -> np.ndarray:
    pixel_values = [space.pixels(image) for image in images]
    embeds = torch.stack(in_batches(space.picture_embeds, pixel_values, batch_size))  # (num_pictures, embed_dim)
    return normalize(embeds, dim=1).cpu().numpy()


def _as_lists(pictures: Mapping[str, Sequence[Picture]]) -> dict[str, list[Picture]]:
    if not pictures:
        raise ValueError('`pictures` must name at least one class, as {"tuk-tuk": ["a.jpg", "b.jpg"]}.')
    lists = {name: [own] if isinstance(own, (str, Path, Image.Image)) else list(own) for name, own in pictures.items()}
    if empty := [name for name, own in lists.items() if not own]:
        raise ValueError(f"`pictures` must have at least one picture for each class, got none for {empty}.")
    return lists


def _open(name: str, picture: Picture) -> Image.Image:
    """As RGB, upright as the photographer held the camera."""
    try:
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"The picture {picture} of {name!r} is not a readable image: {error}") from error


def _recorded_space(config: PreTrainedConfig | None) -> tuple[str | None, str | None]:
    """Id or folder name, and commit, of the model whose space the points were trained in, where they are known."""
    teacher = getattr(config, "teacher", None)
    if teacher is None:
        return None, None
    name, _, revision = teacher.split("+")[-1].partition("@")  # where two models spoke, the second one embeds
    return name, revision or None


def _require_recorded(recorded: str | None) -> str:
    if recorded is None:
        raise ValueError("Nothing says which teacher embeds the pictures: give `model_name_or_path`.")
    return recorded


def _last_name(model_name_or_path: str | Path) -> str:
    """Of a folder only this is recorded."""
    return Path(model_name_or_path).resolve().name
