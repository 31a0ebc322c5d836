"""What goes out with the weights: the card beside them, and the upload of both."""

from importlib.resources import files
from pathlib import Path

import jinja2
from huggingface_hub import HfApi, ModelCard, ModelCardData


def write_model_card(folder: Path, *, license: str, **fields) -> None:
    """Fill the template `model_card.md` and save it as `folder/README.md`.

    Args:
        folder (`Path`):
            The checkpoint.
        license (`str`):
            Of the weights, as the Hub names licences; `other` where the terms of the training data decide.
        fields:
            What the template names; a missing one is an error, not an empty line.
    """
    card_data = ModelCardData(
        license=license,
        library_name="uov-hf",
        tags=["uov", "lidar", "point-cloud", "open-vocabulary", "zero-shot-segmentation"],
    )
    text = (files("uov_hf.training") / "model_card.md").read_text(encoding="utf-8")
    template = jinja2.Template(text, undefined=jinja2.StrictUndefined)
    ModelCard(template.render(card_data=card_data.to_yaml(), **fields)).save(folder / "README.md")


def push_checkpoint(folder: Path, repo_id: str) -> str:
    """Upload the files of a checkpoint to the Hub and return its address.

    Only the files at the top of the folder go: what a run keeps in folders beside them (checkpoints of its state,
    label sets, data) stays at home.
    """
    api = HfApi()
    repo_id = api.create_repo(repo_id, exist_ok=True).repo_id
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return str(api.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=names))
