"""The stages of a recipe in their order: the arguments of each, its folder, and what it takes from earlier ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from uov_hf.counts import check_counts
from uov_hf.labels.consolidation import parse_rule
from uov_hf.recipe.programs import script_arguments


@dataclass(frozen=True)
class Section:
    """A kind of stage, and the section of a recipe with its arguments.

    Args:
        folder (`str`): Of its result, in the folder of the run.
        reads (`tuple[str, ...]`, *optional*): Stages whose result it reads, if they run.
        model_of (`tuple[str, ...]`, *optional*): Stages whose checkpoint it starts from: the first that runs.
        is_training (`bool`, *optional*, defaults to `False`): Whether it trains a network.
        module (`str`, *optional*): The program, if it is not the script of the section's name.
    """

    folder: str
    reads: tuple[str, ...] = ()
    model_of: tuple[str, ...] = ()
    is_training: bool = False
    module: str | None = None


SECTIONS = {
    "generate_label_set": Section("labels"),
    "label_points": Section("labels/points", reads=("generate_label_set",)),
    "label_card": Section(
        "labels/card", reads=("generate_label_set", "label_points"), module="uov_hf.evaluation.label_card"
    ),
    "pretrain": Section("tmp", reads=("generate_label_set", "label_points"), is_training=True),
    "distill": Section("uov", reads=("generate_label_set", "label_points"), model_of=("pretrain",), is_training=True),
    "evaluate": Section("eval", model_of=("distill", "pretrain")),
    "finetune": Section("finetuned", model_of=("distill", "pretrain"), is_training=True),
}
LABELS = SECTIONS["generate_label_set"].folder
# The rule of the point labels: how the arguments of the trainings are called in label_points.py.
RULE = {
    "point_labels_preset": "preset",
    "point_labels_rules": "rules",
    "point_labels_min_confidence": "min_confidence",
}


@dataclass(kw_only=True)
class LabelCardArguments:
    """The options of `python -m uov_hf.evaluation.label_card` that a recipe may set."""

    label_set: str = LABELS
    dataset: str | None = None
    data_dir: str | None = None
    dataset_config: str | None = None
    split: str | None = None
    preset: Literal["paper", "consolidated"] | None = None
    rules: str | None = None
    min_confidence: float = 0.0
    no_gallery: bool = False
    max_frames: int = 4

    def __post_init__(self) -> None:
        check_counts(self, 1, "max_frames")
        parse_rule(self.preset, self.rules, self.min_confidence)


@cache
def arguments_of(name: str) -> type[Any]:
    """The dataclass of a section's arguments."""
    return LabelCardArguments if name == "label_card" else script_arguments(name)


def complete(name: str, settings: dict[str, Any], content: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of a section, and those that it shares with the section `label_points`: the rule of the labels."""
    rule, section = content.get("label_points", {}), SECTIONS[name]
    if name == "label_card":
        return {key: rule[key] for key in RULE.values() if key in rule} | settings
    if section.is_training and "label_points" in section.reads:
        return {key: rule[known] for key, known in RULE.items() if known in rule} | settings
    return settings


def paths_of(name: str, settings: Mapping[str, Any], folder: Path, running: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a stage that are folders of the run: where it writes, and what earlier stages have written.

    Args:
        name (`str`): Of the section.
        settings (`Mapping[str, Any]`): Its own; what they contain is not replaced.
        folder (`Path`): Of the run; absolute, because relative paths may look like an id on the Hub.
        running (`Mapping[str, Any]`): By name, the sections that the recipe has.
    """
    section, paths = SECTIONS[name], dict[str, Any]()
    if section.module is None and name != "label_points":
        paths["output_dir"] = str(folder / section.folder)
    if section.is_training:
        paths["resume_from_checkpoint"] = "latest"
    if section.reads and "generate_label_set" in running and "label_set" not in settings:
        labels = str(folder / LABELS)
        paths["label_set"] = [labels] if section.is_training else labels
    if (start := start_of(name, running)) and not {"model_name_or_path", "preset"} & settings.keys():
        paths["model_name_or_path"] = str(folder / SECTIONS[start].folder)
    return paths


def start_of(name: str, running: Mapping[str, Any]) -> str | None:
    """The section whose checkpoint a stage starts from; None where the recipe has none."""
    return next((start for start in SECTIONS[name].model_of if start in running), None)
