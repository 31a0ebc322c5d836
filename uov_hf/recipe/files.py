"""The files that a stage reads besides the results of earlier stages, as digests: an edited file changes the stage."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path

from uov_hf.data import Frames
from uov_hf.data.loading import find_builder
from uov_hf.data.raw_folders import RawFrames
from uov_hf.digests import file_digest
from uov_hf.leftovers import data_files
from uov_hf.training.arguments import DataArguments, TrainingDataArguments


# Small files that people edit, and weights: their content counts. Of other files, and of larger ones, the size does.
WITH_CONTENT = (".csv", ".feather", ".json", ".py", ".safetensors", ".txt", ".yaml", ".yml")
LARGEST = 2**28  # bytes; a larger file takes seconds to read
# Of a folder that a setting names: what its program reads.
FOLDERS = {
    "dataset": ("**/*.parquet",),
    "label_set": ("label_set.json", "images/**/*.parquet"),
    "model_name_or_path": ("config.json", "*.safetensors"),
    "teacher_model_name_or_path": ("**/*",),
}


def datasets_of(arguments: object) -> list[tuple[DataArguments, float]]:
    """Each dataset that a program reads, and the fraction of it: of a training, those that it trains on."""
    if isinstance(arguments, TrainingDataArguments):
        fraction = getattr(arguments, "data_fraction", 1.0)
        return [(dataset, fraction) for dataset in arguments.datasets]
    return [(arguments, 1.0)] if isinstance(arguments, DataArguments) else []


def column_of(program: str) -> str:
    """The column with the large files of the frames that a program reads: `images` or `points`."""
    return "images" if program == "generate_label_set" else "points"


def digest_frame_ids(frames: Iterable[Frames]) -> str:
    """The digest of the ids of all frames, dataset after dataset."""
    ids = "\n\n".join("\n".join(one.frame_ids) for one in frames)
    return hashlib.sha256(ids.encode()).hexdigest()[:16]


def digest_files(
    settings: Mapping[str, object], datasets: list[tuple[DataArguments, Frames]], column: str
) -> dict[str, str]:
    """The digests of the files that a stage reads.

    Args:
        settings (`Mapping[str, object]`): Its arguments, without the results of earlier stages.
        datasets (`list[tuple[DataArguments, Frames]]`): Each dataset that it reads, and the frames of it.
        column (`str`): `images` or `points`: the large files of the frames that it reads.

    Returns:
        `dict[str, str]`: By path, the digest of the content. Large files have one digest for each folder and suffix,
        `folder/*.png`, of their names and sizes.
    """
    files = [*_named_files(settings)]
    for dataset, frames in datasets:
        files += [*_settings_of(dataset, frames), *_data_of(frames, column)]
    large: set[tuple[str, str, int]] = set()
    digests = {}
    for path in dict.fromkeys(files):
        stat = path.stat()
        if path.suffix in WITH_CONTENT and stat.st_size <= LARGEST:
            digests[str(path)] = _digest(path, stat.st_mtime_ns)
        else:
            large.add((str(path.parent / f"*{path.suffix}"), path.name, stat.st_size))
    for group, members in groupby(sorted(large), key=lambda file: file[0]):
        # Without the folder, which another machine may have elsewhere.
        names = [(name, size) for _, name, size in members]
        digests[group] = hashlib.sha256(repr(names).encode()).hexdigest()[:16]
    return digests


def _named_files(settings: Mapping[str, object]) -> Iterator[Path]:
    """The files that settings name, and those in the folders that they name."""
    for name, value in settings.items():
        for text in value if isinstance(value, list) else [value]:
            if (path := path_in(name, str(text))) is None:
                continue
            if os.path.isfile(path):
                yield path
            elif os.path.isdir(path):
                yield from (one for form in FOLDERS.get(name, ()) for one in data_files(path, form) if one.is_file())


def path_in(name: str, value: str) -> Path | None:
    """The path in the value of a setting, if it may be one."""
    text = value.partition("=")[2] if name == "teacher_settings" else value
    return Path(re.sub(r"\.py:\w+$", ".py", text)) if text else None  # of a teacher in a file


def _settings_of(dataset: DataArguments, frames: Frames) -> list[Path]:
    """The files that describe the frames of a dataset, without those of its sequences that are not read."""
    builder = find_builder(dataset.dataset or "")
    if builder is None:
        return []
    others = set(frames.source.sequence_ids) - set(frames.sequence_ids)
    files = builder(data_dir=dataset.data_dir, config_name=dataset.dataset_config).settings_files()
    inside = {path: Path(os.path.relpath(path, dataset.data_dir)) for path in files}
    own = [path for path, place in inside.items() if others.isdisjoint([*place.parts, place.stem])]
    return [
        *own,
        *([Path(frames.taxonomy)] if frames.taxonomy and frames.taxonomy.endswith((".yaml", ".yml")) else []),
    ]


def _data_of(frames: Frames, column: str) -> list[Path]:
    if not isinstance(frames.source, RawFrames):
        return []
    files = (path for index in frames.indices for path in frames.source.frames[index].files_of(column))
    return [path for path in files if path.is_file()]


@cache
def _digest(path: Path, changed: int) -> str:
    """`changed` is the time of its last change: a digest is computed once for each."""
    return file_digest(path)[:16]
