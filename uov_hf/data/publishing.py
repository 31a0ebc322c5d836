"""A folder of Parquet goes out: its dataset card, and the upload to the Hub where the licence lets it."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData, HfApi

from uov_hf.data.frames import FrameBuilder
from uov_hf.data.parquet import read_shard_index


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
SENSOR_DATA_STAYS = """
This is sensor data that may **not** be redistributed: keep the folder, or the repository, private. A label set made
from it (`examples/generate_label_set.py`) holds no sensor data and may be published."""


def check_may_be_pushed(builder: FrameBuilder, private: bool) -> None:
    """
    Raises:
        PermissionError: the licence of the dataset forbids a public copy of it, and that is what was asked for.
    """
    if builder.may_be_published or private:
        return
    raise PermissionError(
        f"--push_to_hub without --private would publish the sensor data of {builder.dataset_name}, which its licence "
        f"does not allow: {builder.licence} Add --private for a repository of your own. To share your work, publish "
        "a label set, which holds no sensor data: make it with examples/generate_label_set.py, then "
        "`hf upload USER/NAME labels --repo-type dataset`."
    )


def push_dataset(builder: FrameBuilder, folder: Path, repo_id: str, private: bool) -> str:
    """
    Upload what the card of a folder lists, and return its address. An interrupted upload is run again.

    Args:
        builder (`FrameBuilder`): Knows the licence.
        folder (`Path`): As `write_parquet` left it.
        repo_id (`str`): Made where it is not there.
        private (`bool`): Whether to make it private.

    Raises:
        PermissionError: the licence forbids a public copy, and the repository is public.
    """
    check_may_be_pushed(builder, private)
    api = HfApi()
    repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
    if not builder.may_be_published and not api.repo_info(repo_id, repo_type="dataset").private:
        raise PermissionError(
            f"The dataset repository {repo_id} is there already and is public, so that --private does not make it "
            f"private, and {builder.dataset_name} may not be published: {builder.licence} Make it private in its "
            "settings, or give another id."
        )
    configs = DatasetCard.load(folder / "README.md").data.configs
    paths = [split["path"] for config in configs for split in config["data_files"]]
    commit = api.upload_folder(
        repo_id=repo_id, repo_type="dataset", folder_path=folder, allow_patterns=["README.md", *paths]
    )
    return str(commit)


def write_dataset_card(builder: FrameBuilder, folder: Path) -> None:
    """`README.md`: every config and split of which there is a whole folder, those of earlier runs too."""
    path, source = folder / "README.md", builder.open()
    earlier = DatasetCard.load(path).data.configs if path.is_file() else []
    names = dict.fromkeys([*(config["config_name"] for config in earlier), builder.config.name])
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
        may_be_published="" if builder.may_be_published else SENSOR_DATA_STAYS,
    )
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)


def _splits(folder: Path, first: tuple[str, ...]) -> list[str]:
    """The splits that are whole, the default ones first."""
    whole = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(whole, key=lambda split: first.index(split) if split in first else len(first))


def _data_files(config: str, splits: list[str]) -> list[dict[str, Any]]:
    return [{"split": split, "path": f"{config}/{split}/*.parquet"} for split in splits]


def _table_row(folder: Path, config: str, split: str) -> str:
    shards = [read_shard_index(pq.read_metadata(path)) for path in (folder / config / split).glob("*.parquet")]
    num_sequences = len({shard["sequence_id"] for shard in shards})
    num_frames, num_skipped = (sum(len(shard[key]) for shard in shards) for key in ("frame_ids", "skipped"))
    return f"| {config} | {split} | {num_sequences} | {num_frames} | {num_skipped} |"
