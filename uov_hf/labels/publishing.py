"""A label set on the Hub, with a card, without sensor data and without paths of the machine that made it."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Unpack

from huggingface_hub import DatasetCard, DatasetCardData

from uov_hf.data.parquet import Shards
from uov_hf.data.publishing import size_category
from uov_hf.digests import file_digest
from uov_hf.hub.cards import LICENSE_FILE, license_metadata, render_template
from uov_hf.hub.upload import UploadOptions, hide_folders, upload
from uov_hf.labels.description import read_json, to_sealed_json
from uov_hf.labels.label_set import PROMPT_EMBEDS, LabelSet
from uov_hf.leftovers import data_files


SHARDS = ("images/*.parquet", "points/*/*.parquet")
# Files of an earlier label set, or card, in the repository.
REPLACES = ("images/*", "points/*", "figures/*", "card.json")
LICENCE = """The labels derive from camera images: the terms of the dataset apply, and those of the teacher's weights.
There is no sensor data here: neither images nor points."""


def push_label_set(
    label_set: LabelSet, repo_id: str, allow_partial: bool = False, **options: Unpack[UploadOptions]
) -> str:
    """
    Upload a label set and its point labels as a dataset repository, in one commit, and return the address.

    The card is that of `python -m uov_hf.evaluation.label_card`, if there is one, with a section about loading. Other
    files in the folder are not uploaded, and paths in the settings are uploaded as their last names. The label set is
    read by [`LabelSet.from_hub`], or as tables by `datasets.load_dataset`.

    Args:
        label_set (`LabelSet`): The label set.
        repo_id (`str`): `user/name`, or `name` for a repository of the user.
        allow_partial (`bool`, *optional*, defaults to `False`):
            Whether it may be uploaded although segments or point labels of some frames are missing.
        options: `private`, `revision`, `commit_message` and `token` of [`~uov_hf.hub.upload.upload`].

    Raises:
        ValueError: it has no shards, or point labels of another label set, or is partial.
        PermissionError, ConnectionError, HfHubHTTPError: as `upload`.
    """
    folder = label_set.folder
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for pattern in SHARDS for path in data_files(folder, pattern)
    }
    if not any(name.startswith("images/") for name in files):
        raise ValueError(f"{folder} has no shards yet: generate them with examples/generate_label_set.py.")
    if not allow_partial:
        _check_complete(label_set)
    description = publishable_description(label_set)
    files["label_set.json"] = description
    if label_set.embed_dim:
        files[PROMPT_EMBEDS] = folder / PROMPT_EMBEDS
    for path in sorted(folder.glob("points/*/point_labels.json")):
        files[path.relative_to(folder).as_posix()] = _refer_to(label_set, description, path)
    for path in (*sorted(folder.glob("card/figures/*.png")), folder / "card" / "card.json"):
        if path.is_file():
            files[path.relative_to(folder / "card").as_posix()] = path
    files["README.md"] = render_label_set_card(label_set, repo_id, sorted(files)).encode()
    files[LICENSE_FILE] = f"# Licence\n\n{LICENCE}\n".encode()
    options.setdefault("commit_message", "Upload label set")
    return upload(repo_id, files, repo_type="dataset", replaces=REPLACES, **options)


def _check_complete(label_set: LabelSet) -> None:
    """
    Raises:
        ValueError: segments or point labels of some frames are missing; skipped frames are not.
    """
    missing = {"images": label_set.num_missing}
    for path in sorted(label_set.folder.glob("points/*/point_labels.json")):
        shards = Shards(path.parent)
        missing[f"points/{path.parent.name}"] = len({*label_set.frame_ids} - {*shards.frame_ids, *shards.skipped})
    if any(missing.values()):
        table = ", ".join(f"{number} in {name}" for name, number in missing.items() if number)
        raise ValueError(
            f"{label_set.folder} is partial: frames are missing ({table}). Run the scripts that make it again, or "
            "upload it as it is with `allow_partial` (`uov-hf push --allow_partial`)."
        )


def publishable_description(label_set: LabelSet) -> bytes:
    """`label_set.json` with every path replaced by its last name."""
    shown = {name: hide_folders(label_set.description[name]) for name in ("teacher", "settings")}
    if shown == {name: label_set.description[name] for name in shown}:
        return (label_set.folder / "label_set.json").read_bytes()
    return to_sealed_json(label_set.description | shown)


def _refer_to(label_set: LabelSet, description: bytes, path: Path) -> bytes:
    """A `point_labels.json` that belongs to the `label_set.json` that is uploaded."""
    content = read_json(path)
    if content["label_set_sha256"] != file_digest(label_set.folder / "label_set.json"):
        raise ValueError(
            f"{path}: these point labels were made from another label set than the one in {label_set.folder}. Delete "
            "their folder and make them again."
        )
    return json.dumps(content | {"label_set_sha256": hashlib.sha256(description).hexdigest()}, indent=2).encode()


def render_label_set_card(label_set: LabelSet, repo_id: str, names: list[str]) -> str:
    """The card in a repository with the files `names`: the label card or a short one, and how to load it."""
    presets = sorted({name.split("/")[1] for name in names if re.match(r"points/.*\.parquet$", name)})
    tables = {"images": "images/*.parquet"} | {f"points_{p}": f"points/{p}/*.parquet" for p in presets}
    configs: list[dict[str, Any]] = [{"config_name": name, "data_files": pattern} for name, pattern in tables.items()]
    configs[0]["default"] = True
    data: dict[str, Any] = {
        "pretty_name": f"Pseudo-labels of {label_set.teacher_id}",
        **license_metadata("other", "terms-of-dataset-and-teacher"),
        "annotations_creators": ["machine-generated"],
        "task_categories": ["image-segmentation"],  # the nearest of the Hub's tasks, which have none for point clouds
        "task_ids": ["semantic-segmentation"],
        "size_categories": [size_category(len(label_set.frame_ids))],
        "tags": ["uov", "uov-hf", "lidar", "point-cloud", "pseudo-labels"],
        "taxonomy": label_set.taxonomy,
        "class_names": label_set.class_names,
    }
    text, written = None, label_set.folder / "card" / "README.md"
    if written.is_file():
        card = DatasetCard.load(written)
        text, data = card.text, data | card.data.to_dict()
    return render_template(
        "uov_hf.labels",
        "published_label_set.md",
        card_data=DatasetCardData(**data | {"configs": configs}).to_yaml(),
        text=text,
        label_set=label_set,
        licence=LICENCE,
        repo_id=repo_id,
        presets=presets,
        tables=tables,
    )
