"""Convert an official checkpoint to one of this package: strict names and shapes, a numeric proof, then the files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.convert.minkowski import run_minkunet
from uov_hf.convert.names import Rename, backbone_names, head_names
from uov_hf.convert.official_files import read_official
from uov_hf.digests import file_digest
from uov_hf.feature_extraction_uov import PAPER_INTENSITY_SCALINGS
from uov_hf.hub.cards import write_model_card
from uov_hf.vocabulary import load_vocabulary


if TYPE_CHECKING:
    from uov_hf.labels import LabelSet


# Number of outputs of the head → their meaning. The first of classes is void: "ignored".
TAXONOMIES = {17: "nuscenes", 20: "semantic_kitti"}
EMBEDDINGS = {64: "SLidR's image features", 768: "the teacher's text space"}
# The voxels of the official code (method 1.7).
SETTINGS = {"voxel_size": 0.1, "cylindrical_coordinates": True}
LICENSE_NOTE = (
    "the terms of their publisher and of their training data apply: nuScenes, SemanticKITTI and similar datasets "
    "allow non-commercial use only."
)
TOLERANCE = 1e-9  # of the proof, in float64, relative to the largest value


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Args:
        folder (`Path`): The new checkpoint.
        architecture (`str`): Its class.
        outputs (`str`): Meaning of the head's outputs.
        num_tensors (`int`): Number of converted tensors, which are all of the official file.
        difference (`float`): Largest difference from MinkowskiEngine's rules, relative to the largest value.
    """

    folder: Path
    architecture: str
    outputs: str
    num_tensors: int
    difference: float


def convert_checkpoint(
    path: str | Path, output_dir: str | Path, label_set: str | Path | None = None, config: UOVConfig | None = None
) -> Conversion:
    """Write an official UOV/AFOV or SLidR checkpoint as config, safetensors, processor, code and card.

    Args:
        path (`str` or `Path`): A `.pt` of the official scripts, or a Lightning `.ckpt`.
        output_dir (`str` or `Path`): The new checkpoint.
        label_set (`str` or `Path`, *optional*):
            A label set of the same teacher. A pre-trained network (768 outputs) gets its prompts.
        config (`UOVConfig`, *optional*): Sizes of the network, by default MinkUNet34's.

    Raises:
        ValueError: If a tensor is missing, unknown or of another shape, the head or the settings are not supported, or
            the converted network differs from MinkowskiEngine's rules. Nothing is written then.
    """
    path = Path(path)
    tensors, settings = read_official(path)
    _check_settings(path, settings)
    num_outputs = max(tensors["final.kernel"].shape[-1:], default=0) if "final.kernel" in tensors else 0
    config = _configuration(path, config or UOVConfig(), num_outputs, settings)
    taxonomy = TAXONOMIES.get(num_outputs)
    model = (UOVForSemanticSegmentation if taxonomy else UOVModel)(config).eval()
    names = _names(config, bool(taxonomy))
    if taxonomy:  # such a network has no projection into a text space
        torch.nn.init.zeros_(model.uov.point_projection.weight)
        torch.nn.init.zeros_(model.uov.point_projection.bias)
    tensors = _check_tensors(path, tensors, names, model.state_dict())
    model.load_state_dict(_rename(path, tensors, names, model.state_dict()), strict=False)
    difference = prove(path, model, tensors)
    if label_set is not None:
        from uov_hf.labels import LabelSet  # needs the extra `train`; a conversion without prompts does not

        _set_prompts(path, model, LabelSet(label_set))
    _write(Path(output_dir), model, taxonomy, path, difference)
    outputs = f"void and the classes of {taxonomy}" if taxonomy else EMBEDDINGS[num_outputs]
    return Conversion(Path(output_dir), type(model).__name__, outputs, len(names), difference)


@np.errstate(all="ignore")  # numbers that are not finite are refused
def prove(path: Path, model: UOVModel | UOVForSemanticSegmentation, tensors: dict[str, Tensor]) -> float:
    """Compare the network converted from `path` with MinkowskiEngine's rules on random voxels.

    Both compute the features below the head and its outputs in float64. The voxels lie on both sides of zero on every
    axis.

    Returns:
        The largest difference, relative to the largest value.

    Raises:
        ValueError: If it exceeds `TOLERANCE`.
    """
    rng = np.random.default_rng(0)
    coords = np.unique(np.concatenate([rng.integers(0, 2, (99, 1)), rng.integers(-5, 5, (99, 3))], axis=1), axis=0)
    features = rng.uniform(0, 1, (len(coords), model.config.in_channels))
    expected, outputs = run_minkunet({name: value.numpy() for name, value in tensors.items()}, coords, features)
    double = type(model)(model.config).double().eval()
    double.load_state_dict(model.state_dict())
    network = double.uov if isinstance(double, UOVForSemanticSegmentation) else double
    with torch.no_grad():
        hidden = network.backbone(torch.from_numpy(coords).int(), torch.from_numpy(features))
        head = double.classifier if network is not double else double.point_projection
        found = head(hidden)
    if network is not double:
        outputs = np.roll(outputs, -1, axis=1)  # void comes last
    pairs = ((hidden.numpy(), expected), (found.numpy(), outputs))
    differences = [np.abs(ours - theirs).max() / np.abs(theirs).max() for ours, theirs in pairs]
    if not all(difference <= TOLERANCE for difference in differences):  # NaN is not
        raise ValueError(
            f"{path}: the converted network differs from MinkowskiEngine's rules by {max(differences):.1e} of the "
            "largest value. If its values are no damaged ones, please report the source of this file."
        )
    return float(max(differences))


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    for name, expected in SETTINGS.items():
        found = settings.get(name, expected)
        if not isinstance(found, (bool, int, float)) or found != expected:
            raise ValueError(
                f"{path}: expected a network trained with {name} = {expected}, got {_shown(found)}, which needs "
                "another processor."
            )
    momentum = settings.get("bn_momentum", 0)
    if type(momentum) not in (int, float) or not 0 <= momentum <= 1:
        raise ValueError(f"{path}: the setting bn_momentum must be 0 to 1, got {_shown(momentum)}.")


def _shown(value: Any) -> str:
    """A value of a file, which may be nested without end."""
    return f"{value!r:.80}" if isinstance(value, (bool, int, float, str)) else type(value).__name__


def _configuration(path: Path, config: UOVConfig, num_outputs: int, settings: dict[str, Any]) -> UOVConfig:
    if num_outputs not in TAXONOMIES | EMBEDDINGS:
        known = {**{width: f"{name} with void" for width, name in TAXONOMIES.items()}, **EMBEDDINGS}
        raise ValueError(
            f"{path}: the head `final.kernel` must have one of these numbers of outputs: {known}, got {num_outputs}. "
            "The file does not define other numbers."
        )
    config.batch_norm_momentum = float(settings.get("bn_momentum", config.batch_norm_momentum))
    if num_outputs in EMBEDDINGS:
        config.projection_dim = num_outputs
    else:
        class_names = load_vocabulary(TAXONOMIES[num_outputs]).class_names
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: index for index, name in enumerate(class_names)}
        config.head, config.has_void = "linear", True
    return config


def _names(config: UOVConfig, is_segmenter: bool) -> list[Rename]:
    """Old name, new name and change of layout of every tensor; void, the first output, becomes the last."""
    below = "uov.backbone." if is_segmenter else "backbone."
    names = [(old, below + new, change) for old, new, change in backbone_names(config)]
    if not is_segmenter:
        return names + head_names("point_projection.weight", "point_projection.bias")
    head = head_names("classifier.weight", "classifier.bias")
    return names + [(old, new, lambda value, change=change: change(value).roll(-1, 0)) for old, new, change in head]


def _check_tensors(
    path: Path, tensors: dict[str, Tensor], names: list[Rename], expected: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors as NumPy has them, after a check of all names, sizes and values."""
    old_names = {old for old, _, _ in names}
    missing, unknown = sorted(old_names - set(tensors)), sorted(set(tensors) - old_names)
    if missing or unknown:
        raise ValueError(
            f"{path}: expected the {len(old_names)} tensors of the official network, got {len(tensors)}; missing "
            f"{missing[:5] or 'none'} ({len(missing)}), unknown {unknown[:5] or 'none'} ({len(unknown)})."
        )
    checked = {}
    for old, new, _ in names:
        value = tensors[old]
        if value.numel() != expected[new].numel():
            raise _other_shape(path, old, new, value, expected[new])
        # NumPy has no numbers of 16 bits with the range of 32, nor of 8 bits.
        checked[old] = value.float() if value.is_floating_point() and value.dtype != torch.float64 else value
        if not checked[old].isfinite().all():
            raise ValueError(f"{path}: expected finite numbers, but {old} has others.")
    return checked


def _rename(
    path: Path, tensors: dict[str, Tensor], names: list[Rename], expected: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors under their new names, after a check of all shapes."""
    renamed = {}
    for old, new, change in names:
        try:
            renamed[new] = change(tensors[old])
            fits = renamed[new].shape == expected[new].shape
        except (RuntimeError, IndexError, TypeError):
            fits = False
        if not fits:
            raise _other_shape(path, old, new, tensors[old], expected[new])
    return renamed


def _other_shape(path: Path, old: str, new: str, value: Tensor, expected: Tensor) -> ValueError:
    return ValueError(
        f"{path}: {old} becomes {new} of shape {tuple(expected.shape)}, but has shape {tuple(value.shape)}. The "
        "network has other sizes."
    )


def _set_prompts(path: Path, model: UOVModel | UOVForSemanticSegmentation, label_set: "LabelSet") -> None:
    if isinstance(model, UOVForSemanticSegmentation):
        raise ValueError(f"{path}: the head predicts fixed classes, so the prompts of `label_set` cannot be used.")
    embed_dim = label_set.prompt_embeds.shape[1]
    if embed_dim != model.config.projection_dim:
        raise ValueError(
            f"{label_set.folder}: expected prompts of {model.config.projection_dim} dimensions, like the network of "
            f"{path}, got {embed_dim}. Use a label set of the same teacher."
        )
    prompt_embeds, prompt_to_class = map(torch.from_numpy, (label_set.prompt_embeds, label_set.prompt_to_class))
    model.set_classes(label_set.class_names, prompt_embeds, prompt_to_class, label_set.prompts)
    model.config.teacher = label_set.teacher_id


def _write(
    folder: Path, model: UOVModel | UOVForSemanticSegmentation, taxonomy: str | None, source: Path, difference: float
) -> None:
    scaling = PAPER_INTENSITY_SCALINGS.get(taxonomy or "", "raw")
    save_checkpoint(folder, model, UOVProcessor.from_teacher(UOVFeatureExtractor(intensity_scaling=scaling)))
    write_model_card(
        folder,
        license="other",
        answers_by_words=taxonomy is None,
        license_note=LICENSE_NOTE,
        stage="convert",
        model_name=folder.resolve().name,
        source=source.name,
        digest=file_digest(source),
        difference=f"{difference:.0e}",
        model_class=type(model).__name__,
        taxonomy=taxonomy or "its label set",
        class_names=list((model.config.id2label or {}).values()),
        num_prompts=len(model.config.prompts),
        teacher_id=model.config.teacher,
    )
