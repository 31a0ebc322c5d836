"""`load_frames`: frames from raw folders, Parquet folders and the Hub."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal, overload

from datasets import IterableDataset

from uov_hf.data.frames import FrameBuilder, Frames, places_by_name
from uov_hf.data.parquet import open_parquet


# Readers are found by name, not imported: they stand above this package.
READERS = Path(__file__).parents[1] / "datasets"


@overload
def load_frames(
    dataset: str,
    split: str | None = ...,
    data_dir: str | Path | None = ...,
    dataset_config: str | None = ...,
    *,
    streaming: Literal[False] = ...,
    frame_stride: int = ...,
    data_fraction: float = ...,
    download: bool = ...,
) -> Frames: ...


@overload
def load_frames(
    dataset: str,
    split: str | None = ...,
    data_dir: str | Path | None = ...,
    dataset_config: str | None = ...,
    *,
    streaming: Literal[True],
    frame_stride: int = ...,
    data_fraction: float = ...,
    download: bool = ...,
) -> IterableDataset: ...


def load_frames(
    dataset: str,
    split: str | None = None,
    data_dir: str | Path | None = None,
    dataset_config: str | None = None,
    *,
    streaming: bool = False,
    frame_stride: int = 1,
    data_fraction: float = 1.0,
    download: bool = True,
) -> Frames | IterableDataset:
    """
    Frames of a dataset, by name.

    Args:
        dataset (`str`):
            One of: a dataset script (`dataset_scripts/nuscenes.py`) or its short name (`nuscenes`), which read a raw
            folder; a folder of Parquet files that such a script wrote; the id of one on the Hub.
        split (`str`, *optional*):
            A split, or parts of splits as `datasets` writes them: `"train[:2]"`, `"train[50%:]+test"`. `"all"` is
            every frame. By default the one to train on: `train` of v1.0-trainval, `mini_train` of v1.0-mini.
        data_dir (`str` or `Path`, *optional*): The raw folder of a script.
        dataset_config (`str`, *optional*): Such as `v1.0-mini`; by default the only one there is.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to return a `datasets.IterableDataset` of the same rows, one shard per sequence.
        frame_stride (`int`, *optional*, defaults to 1):
            n keeps every n-th frame of the split within each sequence, from its first, before `data_fraction`.
        data_fraction (`float`, *optional*, defaults to 1.0):
            1 / s keeps every s-th sequence, or every s-th frame where the paper does so (docs/explanation/method.md,
            1.1 and 1.3).
        download (`bool`, *optional*, defaults to `True`):
            Whether a dataset on the Hub is downloaded first. If not, or with `streaming`, it is read remotely.

    Returns:
        [`Frames`], or an `IterableDataset` of the same rows with `streaming`.

    Raises:
        ValueError: the dataset, folder, config or split does not exist; it names those that do.
    """
    builder = find_builder(dataset)
    if builder is None:
        frames = open_parquet(dataset, split, dataset_config, download=download and not streaming)
    elif data_dir is None:
        raise ValueError(f"{dataset!r} reads a raw folder: expected it as `data_dir` (`--data_dir`), got none.")
    else:
        frames = builder(data_dir=str(data_dir), config_name=dataset_config).as_frames(split)
    frames = keep_fraction(keep_every(frames, frame_stride), data_fraction)
    return frames.stream() if streaming else frames


def keep_every(frames: Frames, frame_stride: int) -> Frames:
    """Keep every n-th frame within each sequence, from its first; the order stays.

    Raises:
        ValueError: `frame_stride` is less than 1.
    """
    if frame_stride < 1:
        raise ValueError(f"`frame_stride` must be a whole number of at least 1, got {frame_stride}.")
    if frame_stride == 1:
        return frames
    sequences = places_by_name(frames.sequence_ids).values()
    return frames.select(sorted(place for places in sequences for place in places[::frame_stride]))


def keep_fraction(frames: Frames, data_fraction: float) -> Frames:
    """
    Keep every s-th sequence or frame, with s = 1 / `data_fraction`.

    Of sequences, numbered from 1 in their order, it keeps s, 2 s, 3 s, …. If the source has `fraction_of` =
    `"frames"`, it keeps the frames 1, s + 1, 2 s + 1, … in the order of their ids.

    Raises:
        ValueError: `data_fraction` is not 1 / s, or there are fewer than s sequences.
    """
    step = round(1 / data_fraction) if 0 < data_fraction <= 1 else 0
    if not step or abs(data_fraction * step - 1) > 1e-6:
        raise ValueError(
            f"`data_fraction` must be 1 / s for a whole s (1, 0.5, 0.25, 0.1, 0.01 …), got {data_fraction}."
        )
    if step == 1:
        return frames
    if getattr(frames.source, "fraction_of", "sequences") == "frames":
        return frames.select(sorted(range(len(frames)), key=frames.frame_ids.__getitem__)[::step])
    sequences = list(dict.fromkeys(frames.sequence_ids))
    kept = set(sequences[step - 1 :: step])
    if not kept:
        raise ValueError(f"`data_fraction` {data_fraction} needs at least {step} sequences, got {len(sequences)}.")
    return frames.select([index for index, name in enumerate(frames.sequence_ids) if name in kept])


def find_builder(dataset: str) -> type[FrameBuilder] | None:
    """The builder of a dataset script or short name; None where `dataset` is neither."""
    if dataset.endswith(".py"):
        return _only_builder(_import_script(Path(dataset)))
    if dataset in script_names():
        return _only_builder(importlib.import_module(f"uov_hf.datasets.{dataset}"))
    return None


def script_names() -> list[str]:
    """The short names of the datasets that the package reads."""
    return sorted(path.stem for path in READERS.glob("*.py") if "(FrameBuilder)" in path.read_text(encoding="utf-8"))


def _only_builder(module: ModuleType) -> type[FrameBuilder]:
    """The subclass of `FrameBuilder` that a module defines, or else the one that it imports."""
    classes = {value for value in vars(module).values() if isinstance(value, type)}
    builders = {value for value in classes - {FrameBuilder} if issubclass(value, FrameBuilder)}
    found = {builder for builder in builders if builder.__module__ == module.__name__} or builders
    if len(found) != 1:
        raise ValueError(f"{module.__file__}: expected one subclass of FrameBuilder in it, got {len(found)}.")
    return found.pop()


def _import_script(path: Path) -> ModuleType:
    name = f"dataset_script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(
            f"{path}: expected a dataset script, got no file; the short names are {', '.join(script_names())}."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that the classes of the module can be pickled
    spec.loader.exec_module(module)
    return module
