"""Model cards: filled from `model_card.md`, shown, and told the name of the repository they go to."""

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCard, ModelCardData, hf_hub_download


LICENSE_NOT_STATED = (
    "not stated. The terms of the data they were trained on, and of the teacher, hold for them too; ask whoever made "
    "them."
)
TAGS = ["uov", "lidar", "point-cloud", "semantic-segmentation"]
OPEN_TAGS = ["open-vocabulary", "zero-shot-segmentation"]
# Fields of the template that not every model has.
ABSENT = dict.fromkeys(["teacher_id", "data_license", "num_prompts", "embed_dim", "taxonomy"])


def write_model_card(
    folder: Path,
    *,
    license: str,
    answers_by_words: bool,
    datasets: list[str] | None = None,
    base_model: str | None = None,
    **fields: Any,
) -> None:
    """Fill the template `model_card.md` and save it as `folder/README.md`.

    Args:
        folder (`Path`):
            The checkpoint.
        license (`str`):
            Of the weights, as the Hub names licences; `other` where the terms of the training data decide.
        answers_by_words (`bool`):
            Whether its vocabulary is open.
        datasets (`list[str]`, *optional*):
            Those of the training data that are on the Hub, by id.
        base_model (`str`, *optional*):
            What training started from, where that is on the Hub.
        fields:
            What the template names; a missing one is an error, not an empty line.
    """
    card_data = ModelCardData(
        license=license,
        library_name="uov-hf",
        tags=[*TAGS, *(OPEN_TAGS if answers_by_words else [])],
        datasets=datasets or None,
        base_model=base_model,
    )
    text = (files("uov_hf.hub") / "model_card.md").read_text(encoding="utf-8")
    template = jinja2.Template(text, undefined=jinja2.StrictUndefined)
    fields = ABSENT | fields | {"answers_by_words": answers_by_words}
    ModelCard(template.render(card_data=card_data.to_yaml(), **fields)).save(folder / "README.md")


def write_default_card(folder: Path) -> None:
    """The card of a checkpoint that came without one: what its `config.json` says, and that no more is known."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model_class = (config.get("architectures") or ["UOVModel"])[0]
    write_model_card(
        folder,
        license="other",
        answers_by_words=model_class != "UOVForSemanticSegmentation" or config.get("head") == "text",
        stage="unknown",
        model_name=folder.resolve().name,
        model_class=model_class,
        taxonomy="its annotation",
        class_names=_class_names(config),
        num_prompts=len(config.get("prompts") or []),
        embed_dim=config.get("projection_dim"),
        teacher_id=config.get("teacher"),
        license_note=LICENSE_NOT_STATED,
    )


def name_repository(card: str, repo_id: str) -> str:
    """The text of a card whose examples load the checkpoint from there."""
    return re.sub(r'(model=|from_pretrained\()"[^"]*"', rf'\1"{repo_id}"', card)


def read_card(name_or_path: str | os.PathLike, repo_type: str = "model", revision: str | None = None) -> str:
    """The card of a checkpoint, label set or dataset: of a folder here, or by its id on the Hub.

    Args:
        name_or_path (`str` or `os.PathLike`): A folder, or `user/name`.
        repo_type (`str`, *optional*, defaults to `"model"`): On the Hub: `"model"` or `"dataset"`.
        revision (`str`, *optional*): On the Hub: a branch, tag or commit.

    Raises:
        FileNotFoundError: the folder has no card.
        OSError: the Hub has no such repository, or does not show it to us, or it has no card.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        path = hf_hub_download(str(name_or_path), "README.md", repo_type=repo_type, revision=revision)
        return Path(path).read_text(encoding="utf-8")
    for place in (folder / "README.md", folder / "card" / "README.md"):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise FileNotFoundError(
        f"There is no card in {folder}. Training scripts and the converter write one; of a label set it is written by "
        "`python -m uov_hf.evaluation.label_card`."
    )


def _class_names(config: dict[str, Any]) -> list[str]:
    """In the order of their ids; none where the names are the placeholders of transformers."""
    names = [name for _, name in sorted(config.get("id2label", {}).items(), key=lambda item: int(item[0]))]
    return [] if names and all(name.startswith("LABEL_") for name in names) else names
