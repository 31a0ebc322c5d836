"""A folder of Parquet on the Hub: its dataset card, and the upload where the licence allows it."""

from pathlib import Path
from typing import Any, NamedTuple, Unpack

from huggingface_hub import DatasetCard, DatasetCardData

from uov_hf.data.frames import FrameBuilder, Frames
from uov_hf.data.loading import find_builder
from uov_hf.data.parquet import read_index
from uov_hf.data.shard_file import write_atomically
from uov_hf.foreign_paths import inside
from uov_hf.hub.cards import LICENSE_FILE, license_metadata, render_template
from uov_hf.hub.upload import UploadOptions, hide_folders, upload
from uov_hf.leftovers import data_files


def check_may_be_pushed(builder: FrameBuilder, private: bool) -> None:
    """
    Raises:
        PermissionError: the copy would be public, and the licence forbids it, or it is not stated that it may be
            published.
    """
    if builder.may_be_published or private:
        return
    reason = (
        f"which its licence does not allow: {builder.licence}"
        if builder.may_be_published is False
        else f"and it is not stated that it may be published: {builder.licence} If it is yours, or its terms allow "
        f"it, set `may_be_published = True` in the class {type(builder).__name__} of its dataset script."
    )
    raise PermissionError(
        f"--push_to_hub without --private would publish the sensor data of {builder.dataset_name}, {reason} Add "
        "--private for a repository of your own. To share your work, publish a label set, which contains no sensor "
        "data: make it with examples/generate_label_set.py, then `uov-hf push labels/ USER/NAME`."
    )


def check_same_terms(builder: FrameBuilder, folder: Path) -> None:
    """
    Raises:
        ValueError: the folder holds frames under other terms; one card cannot state both.
    """
    card = folder / "README.md"
    if _read_configs(card) and builder.licence not in card.read_text(encoding="utf-8"):
        raise ValueError(
            f"{card}: the folder holds frames under other terms than those of {builder.dataset_name} ("
            f"{builder.licence}): give another --output_dir."
        )


def _check_shards(files: list[Path]) -> None:
    """Check that the frames may be published, by the footers: the builder of the push may not be that of the write."""
    for path in files:
        if not read_index(path).get("may_be_published"):
            raise PermissionError(
                f"{path}: holds sensor data that may not be published, or for which this is not stated. Push the "
                "folder with --private, or write the frames that may be published to another folder."
            )


def push_dataset(builder: FrameBuilder, folder: Path, repo_id: str, **options: Unpack[UploadOptions]) -> str:
    """
    Upload the files that the card of a folder lists, in one commit, and return its address.

    Args:
        builder (`FrameBuilder`): Has the licence.
        folder (`Path`): As `write_parquet` left it.
        repo_id (`str`): `user/name`, or `name` for a repository of the user.
        options: `private`, `revision`, `commit_message` and `token` of [`~uov_hf.hub.upload.upload`].

    Raises:
        PermissionError: the repository is public, and the licence forbids it, or it is not stated that it may be.
        ValueError: the folder has no card that lists its files.
        ConnectionError, HfHubHTTPError: as `upload`.
    """
    private = options.get("private", False)
    check_may_be_pushed(builder, private)
    configs = _read_configs(folder / "README.md")
    if not configs:
        raise ValueError(f"{folder / 'README.md'}: expected the card of write_parquet, got none that lists files.")
    patterns = [split["path"] for config in configs for split in config["data_files"]]
    files = {path.relative_to(folder).as_posix(): path for pattern in patterns for path in data_files(folder, pattern)}
    if not private:
        _check_shards([*files.values()])
    taxonomy = str(_read_card(folder / "README.md").get("taxonomy"))
    own = {taxonomy: inside(folder, taxonomy, str(folder / "README.md"))} if taxonomy.endswith(".yaml") else {}
    files = {name: folder / name for name in ("README.md", LICENSE_FILE)} | own | files
    options.setdefault("commit_message", "Upload frames")
    # Shards of an earlier upload of the same splits go: the folder may have been written anew.
    return upload(repo_id, files, repo_type="dataset", replaces=patterns, **options)


def licence_of(dataset: str, data_dir: str | Path | None = None, dataset_config: str | None = None) -> str:
    """The licence of a dataset, in a sentence or two; the arguments are those of `load_frames`."""
    builder = find_builder(dataset)
    if builder is None:
        return f"see the card of {hide_folders(dataset)}."
    return builder(data_dir=str(data_dir), config_name=dataset_config).licence


def write_dataset_card(builder: FrameBuilder, folder: Path) -> None:
    """
    Write `README.md` and `LICENSE.md`. The card lists every config and split that is complete in the folder.

    Raises:
        OSError: a file cannot be written, as on a full disk; it names the file.
    """
    path, frames = folder / "README.md", Frames(builder.source)
    taxonomy = _keep_vocabulary(frames.taxonomy, folder)
    listed = [*(config["config_name"] for config in _read_configs(path)), builder.config.name]
    names = [name for name in dict.fromkeys(listed) if (folder / name).is_dir()]
    counts = {name: _count_splits(folder / name, builder.default_splits()) for name in names}
    pretty_name = builder.pretty_name or builder.dataset_name
    data = DatasetCardData(
        pretty_name=pretty_name,
        **license_metadata("other", f"{builder.dataset_name}-terms"),
        # The Hub's tasks have none for point clouds; this is the nearest.
        task_categories=["image-segmentation"],
        task_ids=["semantic-segmentation"],
        size_categories=[size_category(sum(count.frames for splits in counts.values() for count in splits.values()))],
        tags=["uov", "uov-hf", "lidar", "point-cloud", "autonomous-driving"],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": split, "path": f"{name}/{split}/*.parquet"} for split in counts[name]],
            }
            for name in names
        ],
        taxonomy=taxonomy,
        # Not a `ClassLabel` feature: that is int64, eight times the size, and rejects 255, the ignored label.
        class_names=frames.class_names or None,
        fraction_of=getattr(builder.source, "fraction_of", "sequences"),
    )
    content = render_template(
        "uov_hf.data",
        "dataset_card.md",
        card_data=data.to_yaml(),
        pretty_name=pretty_name,
        config=builder.config.name,
        table="\n".join(f"| {name} | {split} | {n} |" for name in names for split, n in counts[name].items()),
        taxonomy=taxonomy,
        class_names=frames.class_names,
        licence=builder.licence,
        may_be_published=builder.may_be_published,
    )
    write_atomically(folder / LICENSE_FILE, f"# Licence of {pretty_name}\n\n{builder.licence}\n".encode())
    write_atomically(path, content.encode())


def _keep_vocabulary(taxonomy: str | None, folder: Path) -> str | None:
    """The name of a vocabulary; of one's own, that of its copy in the folder, so that the card has no other folder."""
    if taxonomy is None or not taxonomy.endswith((".yaml", ".yml")):
        return taxonomy
    name = Path(taxonomy).with_suffix(".yaml").name
    write_atomically(folder / name, Path(taxonomy).read_bytes())
    return name


def size_category(num_rows: int) -> str:
    """The size of a dataset as the Hub names it."""
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for limit, name in limits if num_rows < limit), "1M<n<10M")


class Count(NamedTuple):
    """What a split holds."""

    sequences: int
    frames: int
    skipped: int

    def __str__(self) -> str:
        return " | ".join(map(str, self))


def _read_card(path: Path) -> dict[str, Any]:
    """The metadata of a card; empty where there is no card."""
    return DatasetCard.load(path).data.to_dict() if path.is_file() else {}


def _read_configs(path: Path) -> list[dict[str, Any]]:
    """The configs that a card lists."""
    return _read_card(path).get("configs") or []


def _count_splits(folder: Path, first: tuple[str, ...]) -> dict[str, Count]:
    """The splits of a config that are complete, the default ones first."""
    whole = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    whole.sort(key=lambda split: first.index(split) if split in first else len(first))
    return {split: _count(folder / split) for split in whole}


def _count(folder: Path) -> Count:
    shards = [read_index(path) for path in data_files(folder, "*.parquet")]
    return Count(
        len({shard["sequence_id"] for shard in shards}),
        sum(len(shard["frame_ids"]) for shard in shards),
        sum(len(shard["skipped"]) for shard in shards),
    )
