"""A folder of Parquet goes out: its dataset card, and the upload to the Hub where the licence lets it."""

from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from uov_hf.data.frames import FrameBuilder
from uov_hf.data.loading import find_builder
from uov_hf.data.parquet import read_index
from uov_hf.hub.upload import hide_folders, upload


CARD = """---
{yaml}
---

# {name}: lidar scans with the cameras around them

Written by `uov-hf`; one row is one frame, and its columns are those of `uov_hf.data.FRAME_FEATURES`.

| config | split | sequences | frames | broken frames left out |
|---|---|---|---|---|
{table}

```python
from uov_hf.data import load_frames

frames = load_frames("path of this folder, or id on the Hub", dataset_config="{config}")
```

`datasets.load_dataset` reads it too; its numpy format makes float32 of the float64 calibration, the above does not.

## Licence

{licence}
{may_be_published}
"""
# By what `may_be_published` says.
WHO_MAY_HAVE_IT = {
    True: "",
    False: """
This is sensor data that may **not** be redistributed: keep the folder, or the repository, private. A label set made
from it (`examples/generate_label_set.py`) holds no sensor data and may be published.""",
    None: """
Whether this sensor data may be redistributed was not stated when it was written: ask its owner before you pass it
on.""",
}


def check_may_be_pushed(builder: FrameBuilder, private: bool) -> None:
    """
    Raises:
        PermissionError: a public copy of the dataset was asked for, and its licence forbids it, or nobody has said
            that it may be published.
    """
    if builder.may_be_published or private:
        return
    raise PermissionError(
        f"--push_to_hub without --private would publish the sensor data of {builder.dataset_name}, "
        f"{_reason_against(builder)} Add --private for a repository of your own. To share your work, publish "
        "a label set, which holds no sensor data: make it with examples/generate_label_set.py, then "
        "`uov-hf push labels/ USER/NAME`."
    )


def _reason_against(builder: FrameBuilder) -> str:
    if builder.may_be_published is False:
        return f"which its licence does not allow: {builder.licence}"
    return (
        f"and nobody has said that it may be published: {builder.licence} If it is yours to give, or its terms allow "
        f"it, set `may_be_published = True` in the class {type(builder).__name__} of its dataset script."
    )


def check_same_terms(builder: FrameBuilder, folder: Path) -> None:
    """
    Raises:
        ValueError: the card of the folder is of frames that are had under other terms; one card cannot say both.
    """
    card = folder / "README.md"
    if _read_configs(card) and builder.licence not in card.read_text(encoding="utf-8"):
        raise ValueError(
            f"{card}: the folder holds frames under other terms than those of {builder.dataset_name} ("
            f"{builder.licence}): give another --output_dir."
        )


def _check_shards(files: list[Path]) -> None:
    """Raise where a shard is of frames that may not be published, whoever pushes it."""
    for path in files:
        if not read_index(path).get("may_be_published"):
            raise PermissionError(
                f"{path}: holds sensor data that may not be published, or of which nobody said that it may. Push the "
                "folder with --private, or write what may be published to a folder of its own."
            )


def push_dataset(
    builder: FrameBuilder,
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload frames",
    token: str | None = None,
) -> str:
    """
    Upload what the card of a folder lists, in one commit, and return its address.

    Args:
        builder (`FrameBuilder`): Knows the licence.
        folder (`Path`): As `write_parquet` left it.
        repo_id, private, revision, commit_message, token: As of [`~uov_hf.hub.upload.upload`].

    Raises:
        PermissionError: the repository is public, and the dataset may not be, or nobody has said that it may.
        ValueError: the folder has no card that lists its files.
        ConnectionError, HfHubHTTPError: as `upload`.
    """
    check_may_be_pushed(builder, private)
    configs = _read_configs(folder / "README.md")
    if not configs:
        raise ValueError(f"{folder / 'README.md'}: expected the card that write_parquet writes, got one of no files.")
    patterns = [split["path"] for config in configs for split in config["data_files"]]
    files = {
        path.relative_to(folder).as_posix(): path for pattern in patterns for path in sorted(folder.glob(pattern))
    }
    if not private:
        _check_shards([*files.values()])
    return upload(
        repo_id,
        {"README.md": folder / "README.md", **files},
        repo_type="dataset",
        private=private,
        revision=revision,
        commit_message=commit_message,
        replaces=patterns,  # shards of a folder that was since written anew
        token=token,
    )


def licence_of(dataset: str, data_dir: str | Path | None = None, dataset_config: str | None = None) -> str:
    """Under which terms a dataset is had, in a sentence or two; the arguments are those of `load_frames`."""
    builder = find_builder(dataset)
    if builder is None:
        return f"as the card of {hide_folders(dataset)} says."
    return builder(data_dir=str(data_dir), config_name=dataset_config).licence


def write_dataset_card(builder: FrameBuilder, folder: Path) -> None:
    """
    `README.md`: every config and split of which there is a whole folder, those of earlier runs too.

    Raises:
        OSError: it cannot be written, as on a full disk; it names the file.
    """
    path, source = folder / "README.md", builder.source
    names = dict.fromkeys([*(config["config_name"] for config in _read_configs(path)), builder.config.name])
    names = [name for name in names if (folder / name).is_dir()]
    splits = {name: _splits(folder / name, builder.default_splits()) for name in names}
    data = DatasetCardData(
        pretty_name=builder.dataset_name,
        license="other",
        tags=["lidar", "point-cloud", "uov"],
        configs=[{"config_name": name, "data_files": _data_files(name, splits[name])} for name in names],
        taxonomy=source.taxonomy,
        fraction_of=getattr(source, "fraction_of", "sequences"),
    )
    content = CARD.format(
        yaml=data.to_yaml(),
        name=builder.dataset_name,
        config=builder.config.name,
        table="\n".join(_table_row(folder, name, split) for name in names for split in splits[name]),
        licence=builder.licence,
        may_be_published=WHO_MAY_HAVE_IT[builder.may_be_published],
    )
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path}: could not be written: {error}. Make room, and run the same command again.") from error


def _read_configs(path: Path) -> list[dict[str, Any]]:
    """The configs on a card; none where there is no card, or one without a list of them."""
    return (DatasetCard.load(path).data.to_dict().get("configs") or []) if path.is_file() else []


def _splits(folder: Path, first: tuple[str, ...]) -> list[str]:
    """The splits that are whole, the default ones first."""
    whole = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(whole, key=lambda split: first.index(split) if split in first else len(first))


def _data_files(config: str, splits: list[str]) -> list[dict[str, Any]]:
    return [{"split": split, "path": f"{config}/{split}/*.parquet"} for split in splits]


def _table_row(folder: Path, config: str, split: str) -> str:
    shards = [read_index(path) for path in (folder / config / split).glob("*.parquet")]
    num_sequences = len({shard["sequence_id"] for shard in shards})
    num_frames, num_skipped = (sum(len(shard[key]) for shard in shards) for key in ("frame_ids", "skipped"))
    return f"| {config} | {split} | {num_sequences} | {num_frames} | {num_skipped} |"
