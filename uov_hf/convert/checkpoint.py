"""From an official checkpoint to one of this package: strict names and shapes, a numeric proof, then the files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uov_hf import (
    UOVConfig,
    UOVFeatureExtractor,
    UOVForSemanticSegmentation,
    UOVModel,
    UOVProcessor,
    save_checkpoint,
)
from uov_hf.convert.minkowski import run_minkunet
from uov_hf.convert.names import Rename, backbone_names, head_names
from uov_hf.convert.official_files import read_official
from uov_hf.feature_extraction_uov import PAPER_INTENSITY_SCALINGS
from uov_hf.hub.cards import write_model_card
from uov_hf.labels import LabelSet
from uov_hf.vocabulary import load_vocabulary


# Outputs of the head, and what they are. Of classes the first is void: "ignored".
TAXONOMIES = {17: "nuscenes", 20: "semantic_kitti"}
EMBEDDINGS = {64: "SLidR's image features", 768: "the teacher's text space"}
# What the official code feeds the network with (method 1.7).
SETTINGS = {"voxel_size": 0.1, "cylindrical_coordinates": True}
LICENSE_NOTE = (
    "the terms of whoever published them hold, and those of the data they were trained on: nuScenes, SemanticKITTI "
    "and their like allow non-commercial use only."
)
TOLERANCE = 1e-9  # of the proof, in float64, relative to the largest value


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Args:
        folder (`Path`): The new checkpoint.
        architecture (`str`): Its class.
        outputs (`str`): What the head gives.
        num_tensors (`int`): Tensors of the official file, all of which went over.
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
        path (`str` or `Path`):
            A `.pt` of the official scripts, or a Lightning `.ckpt`.
        output_dir (`str` or `Path`):
            The new checkpoint.
        label_set (`str` or `Path`, *optional*):
            A label set of the same teacher, whose words are baked into a pre-trained network (768 outputs).
        config (`UOVConfig`, *optional*):
            Sizes of the network, by default MinkUNet34's.

    Raises:
        ValueError: where a tensor is missing, unknown or of another shape, the head or the settings are of another
            kind, or the converted network disagrees with MinkowskiEngine's rules; nothing is written then.
    """
    path = Path(path)
    tensors, settings = read_official(path)
    _check_settings(path, settings)
    num_outputs = tensors["final.kernel"].shape[-1] if "final.kernel" in tensors else 0
    config = _configuration(path, config or UOVConfig(), num_outputs, settings)
    taxonomy = TAXONOMIES.get(num_outputs)
    model = (UOVForSemanticSegmentation if taxonomy else UOVModel)(config).eval()
    names = _names(config, bool(taxonomy))
    if taxonomy:  # such a network has no way into a text space: that part stays as it is here
        torch.nn.init.zeros_(model.uov.point_projection.weight)
        torch.nn.init.zeros_(model.uov.point_projection.bias)
    model.load_state_dict(_rename(path, tensors, names, model.state_dict()), strict=False)
    difference = prove(model, tensors)
    if label_set is not None:
        _bake(path, model, LabelSet(label_set))
    _write(Path(output_dir), model, taxonomy, path, difference)
    outputs = f"void and the classes of {taxonomy}" if taxonomy else EMBEDDINGS[num_outputs]
    return Conversion(Path(output_dir), type(model).__name__, outputs, len(names), difference)


def prove(model: UOVModel | UOVForSemanticSegmentation, tensors: dict[str, Tensor]) -> float:
    """The largest difference of the converted network from MinkowskiEngine's rules on random voxels, relative.

    Both compute in float64, below the head and behind it. The voxels lie on both sides of zero on every axis.

    Raises:
        ValueError: where it is beyond `TOLERANCE`.
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
    differences = [
        np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max()
        for ours, theirs in ((hidden, expected), (found, outputs))
    ]
    if not max(differences) <= TOLERANCE:
        raise ValueError(
            f"The converted network differs from MinkowskiEngine's rules by {max(differences):.1e} of the largest "
            "value: it is not the same network. Please report this file's source."
        )
    return float(max(differences))


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    for name, expected in SETTINGS.items():
        if name in settings and settings[name] != expected:
            raise ValueError(
                f"{path}: expected a network trained with {name} = {expected}, got {settings[name]!r}: the processor "
                "that goes with it would be another."
            )


def _configuration(path: Path, config: UOVConfig, num_outputs: int, settings: dict[str, Any]) -> UOVConfig:
    if num_outputs not in TAXONOMIES | EMBEDDINGS:
        known = {**{width: f"{name} with void" for width, name in TAXONOMIES.items()}, **EMBEDDINGS}
        raise ValueError(
            f"{path}: the head `final.kernel` must have one of {known} as its outputs, got {num_outputs}. What other "
            "numbers stand for, the file does not say."
        )
    config.batch_norm_momentum = settings.get("bn_momentum", config.batch_norm_momentum)
    if num_outputs in EMBEDDINGS:
        config.projection_dim = num_outputs
    else:
        class_names = load_vocabulary(TAXONOMIES[num_outputs]).class_names
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: index for index, name in enumerate(class_names)}
        config.head, config.has_void = "linear", True
    return config


def _names(config: UOVConfig, is_segmenter: bool) -> list[Rename]:
    """Old name, new name and change of layout of every tensor. Void, the first output, becomes the last."""
    below = "uov.backbone." if is_segmenter else "backbone."
    names = [(old, below + new, change) for old, new, change in backbone_names(config)]
    if not is_segmenter:
        return names + head_names("point_projection.weight", "point_projection.bias")
    head = head_names("classifier.weight", "classifier.bias")
    return names + [(old, new, lambda value, change=change: change(value).roll(-1, 0)) for old, new, change in head]


def _rename(
    path: Path, tensors: dict[str, Tensor], names: list[Rename], expected: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors under their new names, all of them and no other, each of the expected shape."""
    old_names = {old for old, _, _ in names}
    missing, unknown = sorted(old_names - set(tensors)), sorted(set(tensors) - old_names)
    if missing or unknown:
        raise ValueError(
            f"{path}: expected the {len(old_names)} tensors of the official network, got {len(tensors)}; missing "
            f"{missing[:5] or 'none'} ({len(missing)}), unknown {unknown[:5] or 'none'} ({len(unknown)})."
        )
    renamed = {}
    for old, new, change in names:
        try:
            renamed[new] = change(tensors[old])
            fits = renamed[new].shape == expected[new].shape
        except (RuntimeError, IndexError):
            fits = False
        if not fits:
            raise ValueError(
                f"{path}: {old} becomes {new} of shape {tuple(expected[new].shape)}, but has shape "
                f"{tuple(tensors[old].shape)}: it is of a network of other sizes."
            )
    return renamed


def _bake(path: Path, model: UOVModel | UOVForSemanticSegmentation, label_set: LabelSet) -> None:
    if isinstance(model, UOVForSemanticSegmentation):
        raise ValueError(
            f"{path}: its head names classes, and `label_set` has words for a text space it does not have."
        )
    embed_dim = label_set.prompt_embeds.shape[1]
    if embed_dim != model.config.projection_dim:
        raise ValueError(
            f"{label_set.folder}: expected prompts of {model.config.projection_dim} dimensions, as the network of "
            f"{path} has, got {embed_dim}: it is of another teacher."
        )
    prompt_embeds = torch.from_numpy(label_set.prompt_embeds)
    model.set_classes(label_set.class_names, prompt_embeds, label_set.prompt_to_class, label_set.prompts)
    model.config.teacher = label_set.teacher_id


def _write(folder: Path, model, taxonomy: str | None, source: Path, difference: float) -> None:
    scaling = PAPER_INTENSITY_SCALINGS.get(taxonomy, "raw")
    save_checkpoint(folder, model, UOVProcessor.from_teacher(UOVFeatureExtractor(intensity_scaling=scaling)))
    write_model_card(
        folder,
        license="other",
        answers_by_words=taxonomy is None,
        license_note=LICENSE_NOTE,
        stage="convert",
        model_name=folder.resolve().name,
        source=source.name,
        digest=hashlib.sha256(source.read_bytes()).hexdigest(),
        difference=f"{difference:.0e}",
        model_class=type(model).__name__,
        taxonomy=taxonomy or "its label set",
        class_names=list(model.config.id2label.values()),
        num_prompts=len(model.config.prompts),
        teacher_id=model.config.teacher,
    )
