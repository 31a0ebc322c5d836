"""Cards: templates filled with what a run recorded, in the metadata that the Hub reads."""

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict

import jinja2
from huggingface_hub import ModelCard, ModelCardData, hf_hub_download

from uov_hf.written_together import written_together


LICENSE_NOT_STATED = "not stated. The terms of the training data and of the teacher apply, too; ask its author."
LICENSE_FILE = "LICENSE.md"
TAGS = ["uov", "uov-hf", "lidar", "point-cloud", "semantic-segmentation"]
OPEN_TAGS = ["open-vocabulary", "zero-shot-segmentation"]
# Fields of the template that not every model has.
ABSENT = dict.fromkeys(["teacher_id", "data_license", "num_prompts", "embed_dim", "taxonomy"])


class License(TypedDict):
    """A licence in the YAML of a card; the Hub requires name and link where it is `other`."""

    license: str
    license_name: str | None
    license_link: str | None


def license_metadata(license: str, name: str) -> License:
    """The licence in the YAML of a card. `other` stands for terms of their own, with a `name`, in `LICENSE.md`."""
    if license != "other":
        return {"license": license, "license_name": None, "license_link": None}
    name = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    return {"license": "other", "license_name": name, "license_link": LICENSE_FILE}


def render_template(package: str, name: str, **fields: Any) -> str:
    """
    The template in the file `name` of a package, such as `"uov_hf.hub"`, filled with `fields`.

    Raises:
        jinja2.UndefinedError: a field is missing. It does not become an empty line.
    """
    text = (files(package) / name).read_text(encoding="utf-8")
    return jinja2.Template(text, undefined=jinja2.StrictUndefined, keep_trailing_newline=True).render(**fields)


def write_model_card(
    folder: Path,
    *,
    license: str,
    answers_by_words: bool,
    datasets: list[str] | None = None,
    base_model: str | None = None,
    **fields: Any,
) -> None:
    """
    Fill the template `model_card.md` and save it as `folder/README.md`, with `LICENSE.md` where the licence needs it.

    Args:
        folder (`Path`): The checkpoint.
        license (`str`): Of the weights, as the Hub names licences; `other` where the terms of the training data apply.
        answers_by_words (`bool`): Whether its vocabulary is open.
        datasets (`list[str]`, *optional*): Ids of the training data on the Hub.
        base_model (`str`, *optional*): Id on the Hub of the checkpoint that training started from.
        fields:
            The fields of the template; `license_note` is the text of the licence.

    Raises:
        jinja2.UndefinedError: a field of the template is missing.
    """
    fields = ABSENT | fields | {"answers_by_words": answers_by_words}
    card_data = ModelCardData(
        **license_metadata(license, "terms-of-training-data"),
        library_name="transformers",
        # The Hub's tasks have none for point clouds. `image-segmentation` would show a snippet of that pipeline, which
        # cannot load this model; for `other` it shows `AutoModel`, which can.
        pipeline_tag="other",
        tags=[*TAGS, *(OPEN_TAGS if answers_by_words else [])],
        datasets=datasets or None,
        base_model=base_model,
    )
    content = render_template("uov_hf.hub", "model_card.md", card_data=card_data.to_yaml(), **fields)
    card = ModelCard(content)
    # Each file alone: it replaces the earlier one at once, so that a killed run leaves a card.
    if license == "other":
        terms = f"Weights: {fields['license_note']}\n"
        if fields["data_license"]:
            terms += f"\nTraining data: {fields['data_license']}\n"
        with written_together(folder, LICENSE_FILE) as temporary:
            (temporary / LICENSE_FILE).write_text(f"# Licence of the weights\n\n{terms}", encoding="utf-8")
    with written_together(folder, "README.md") as temporary:
        card.save(temporary / "README.md")


def write_default_card(folder: Path) -> None:
    """Write the card of a checkpoint that has none, from its `config.json` alone."""
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
    """The text of a model card with `repo_id` in the code that loads the checkpoint."""
    return re.sub(r'(model=|from_pretrained\()"[^"]*"', rf'\1"{repo_id}"', card)


def read_card(name_or_path: str | os.PathLike, repo_type: str = "model", revision: str | None = None) -> str:
    """
    The card of a checkpoint, label set or dataset, from its folder or from the Hub.

    Args:
        name_or_path (`str` or `os.PathLike`): A folder, or an id `user/name`.
        repo_type (`str`, *optional*, defaults to `"model"`): On the Hub: `"model"` or `"dataset"`.
        revision (`str`, *optional*): On the Hub: a branch, tag or commit.

    Raises:
        FileNotFoundError: the folder has no card.
        OSError: there is no such repository, the token cannot read it, or it has no card.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        try:
            path = hf_hub_download(str(name_or_path), "README.md", repo_type=repo_type, revision=revision)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise OSError(f"{name_or_path}: there is no such folder, and on the Hub: {reason}") from error
        return Path(path).read_text(encoding="utf-8")
    for place in (folder / "README.md", folder / "card" / "README.md"):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise FileNotFoundError(
        f"There is no card in {folder}. Training scripts and the converter write that of a checkpoint, "
        "`python -m uov_hf.evaluation.label_card` that of a label set."
    )


def _class_names(config: dict[str, Any]) -> list[str]:
    """The class names by id; empty if they are the placeholders of transformers."""
    names = [name for _, name in sorted(config.get("id2label", {}).items(), key=lambda item: int(item[0]))]
    return [] if names and all(name.startswith("LABEL_") for name in names) else names
