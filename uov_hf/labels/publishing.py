"""A label set goes to the Hub, with a card, and without sensor data or paths of the machine it was made on."""

import hashlib
import json
import re
from importlib.resources import files as package_files
from pathlib import Path

import jinja2
from huggingface_hub import DatasetCard, DatasetCardData

from uov_hf.hub.upload import hide_folders, upload
from uov_hf.labels.label_set import LabelSet


SHARDS = ("images/*.parquet", "points/*/*.parquet")
# What another label set, or card, left in the repository.
REPLACES = ("images/*", "points/*", "figures/*", "card.json")


def push_label_set(
    label_set: LabelSet,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload label set",
    token: str | None = None,
) -> str:
    """
    Upload a label set and its point labels as a dataset repository, in one commit, and return the address.

    The card is the one of `python -m uov_hf.evaluation.label_card`, where there is one, with a section about loading.
    Other files in the folder are not uploaded. Of paths in the settings only the last name is uploaded. The label set
    is read again by [`LabelSet.from_hub`], or as tables by `datasets.load_dataset`.

    Args:
        label_set (`LabelSet`): Finished: with a shard for every sequence.
        repo_id, private, revision, commit_message, token: As of [`~uov_hf.hub.upload.upload`].

    Raises:
        ValueError: it has no shards.
        PermissionError, ConnectionError, HfHubHTTPError: as `upload`.
    """
    folder = label_set.folder
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for pattern in SHARDS for path in sorted(folder.glob(pattern))
    }
    if not any(name.startswith("images/") for name in files):
        raise ValueError(f"{folder} has no shards yet: let the teacher speak first (examples/generate_label_set.py).")
    description = publishable_description(label_set)
    files["label_set.json"] = description
    files["prompt_embeds.safetensors"] = folder / "prompt_embeds.safetensors"
    for path in sorted(folder.glob("points/*/point_labels.json")):
        files[path.relative_to(folder).as_posix()] = _refer_to(label_set, description, path)
    for path in (*sorted(folder.glob("card/figures/*.png")), folder / "card" / "card.json"):
        if path.is_file():
            files[path.relative_to(folder / "card").as_posix()] = path
    files["README.md"] = render_card(label_set, repo_id, sorted(files)).encode()
    return upload(
        repo_id,
        files,
        repo_type="dataset",
        private=private,
        revision=revision,
        commit_message=commit_message,
        replaces=REPLACES,
        token=token,
    )


def publishable_description(label_set: LabelSet) -> bytes:
    """`label_set.json` with the last names of folders and files in the place of their paths."""
    shown = {name: hide_folders(label_set.description[name]) for name in ("teacher", "settings")}
    if shown == {name: label_set.description[name] for name in shown}:
        return (label_set.folder / "label_set.json").read_bytes()
    return json.dumps(label_set.description | shown, indent=2, ensure_ascii=False).encode()


def _refer_to(label_set: LabelSet, description: bytes, path: Path) -> bytes:
    """A `point_labels.json` that belongs to the `label_set.json` that is uploaded."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["label_set_sha256"] != hashlib.sha256((label_set.folder / "label_set.json").read_bytes()).hexdigest():
        raise ValueError(
            f"{path}: these point labels were made from another label set than the one in {label_set.folder}: delete "
            "their folder, and make them again."
        )
    return json.dumps(content | {"label_set_sha256": hashlib.sha256(description).hexdigest()}, indent=2).encode()


def render_card(label_set: LabelSet, repo_id: str, names: list[str]) -> str:
    """The card in the repository: the label card, or a short one where none was made, and how to load it all.

    Args:
        label_set (`LabelSet`): What it is about.
        repo_id (`str`): Where it goes.
        names (`list[str]`): The files that go.
    """
    presets = sorted({name.split("/")[1] for name in names if re.match(r"points/.*\.parquet$", name)})
    tables = {"images": "images/*.parquet"} | {f"points_{p}": f"points/{p}/*.parquet" for p in presets}
    configs = [{"config_name": name, "data_files": pattern} for name, pattern in tables.items()]
    configs[0]["default"] = True
    written = label_set.folder / "card" / "README.md"
    data = DatasetCard.load(written).data.to_dict() if written.is_file() else {"pretty_name": f"Labels of {repo_id}"}
    text = re.sub(r"\A---\n.*?\n---\n", "", written.read_text("utf-8"), flags=re.DOTALL) if written.is_file() else None
    data = {"license": "other", "tags": ["uov", "uov-hf", "lidar", "point-cloud", "pseudo-labels"]} | data
    template = (package_files("uov_hf.labels") / "published_label_set.md").read_text(encoding="utf-8")
    return jinja2.Template(template, undefined=jinja2.StrictUndefined, keep_trailing_newline=True).render(
        card_data=DatasetCardData(**data | {"configs": configs}).to_yaml(),
        text=text,
        label_set=label_set,
        repo_id=repo_id,
        presets=presets,
        tables=tables,
    )
