"""The files and frames that a run reads, as digests under names that do not depend on the machine."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uov_hf.data import Frames
from uov_hf.data.raw_folders import RawFrames
from uov_hf.digests import file_digest
from uov_hf.recipe.files import column_of, datasets_of, digest_files, digest_frame_ids, path_in
from uov_hf.recipe.recipes import Recipe
from uov_hf.recipe.sections import SECTIONS
from uov_hf.training.samples import load_split


WITH_TRUTH = ("finetune", "evaluate")  # scripts that read the labels of a dataset
NUM_READ = 64  # label files whose content is read before a run; all of SemanticKITTI have 9 GB
Digests = dict[str, str]  # name to SHA-256 in hexadecimal, whole or its first 16 digits


def digest_inputs(program: str, arguments: Any, frames: list[Frames] | None = None) -> Digests:
    """The digests of what a script reads.

    Args:
        program (`str`): The name of the script, such as `finetune`.
        arguments (object): Its arguments, as an instance of the dataclass of the script.
        frames (`list[Frames]`, *optional*): The frames of each dataset; they are opened if they are not given.

    Returns:
        `dict[str, str]`: By name, such as `data_dir/v1.0-mini/sample.json`, the digest as of `digest_files`;
        `frames` is that of the frame ids, `ground truth` that of the label files.
    """
    datasets = datasets_of(arguments)
    if frames is None:
        frames = [load_split(dataset, dataset.split, fraction) for dataset, fraction in datasets]
    settings = {name: value for name, value in asdict(arguments).items() if name != "output_dir"}
    pairs = list(zip([dataset for dataset, _ in datasets], frames, strict=True))
    digests = digest_files(settings, pairs, column_of(program))
    own = {"frames": digest_frame_ids(frames)}
    if program in WITH_TRUTH and (truth := _digest_truth(frames)):
        own["ground truth"] = truth
    return {**own, **_name_by_settings(digests, settings)}


def _digest_truth(frames: list[Frames]) -> str | None:
    """The digest of the label files of all frames; None where there are none.

    It has the names and sizes of all files. An edited file has the size of the old one, because its size follows from
    that of the scan. So the content counts, too, of at most `NUM_READ` files, spread evenly.
    """
    sources = [(one.source, index) for one in frames if isinstance(one.source, RawFrames) for index in one.indices]
    paths = [source.frames[index].label_file for source, index in sources]
    files = [path for path in paths if path is not None and path.is_file()]
    if not files:
        return None
    num_read = min(NUM_READ, len(files))
    read = [file_digest(files[place * len(files) // num_read]) for place in range(num_read)]
    content = [[(path.name, path.stat().st_size) for path in files], read]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def digest_inputs_of_recipe(recipe: Recipe) -> Digests:
    """The digests of what the stages of a recipe read, besides the results of its earlier stages."""
    digests = Digests()
    for made in recipe.stages:
        stage = made.stage
        files = {name: digest for name, digest in stage.inputs.items() if name not in ("frames", *SECTIONS)}
        own = {name: digest for name, digest in stage.inputs.items() if name == "frames"}
        if stage.name in WITH_TRUTH and (truth := _digest_truth(made.frames)):
            own["ground truth"] = truth
        own |= _name_by_settings(files, asdict(made.arguments))
        digests |= {f"{stage.name}: {name}": digest for name, digest in own.items()}
    return digests


def describe_changes(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Each input that differs, such as `data_dir/splits.json changed`."""
    words = {(True, True): "changed", (True, False): "is missing", (False, True): "is new"}
    names = [name for name in {**recorded, **found} if recorded.get(name) != found.get(name)]
    return [f"{name} {words[name in recorded, name in found]}" for name in names]


def _name_by_settings(digests: Mapping[str, str], settings: Mapping[str, object]) -> Digests:
    """The same digests, with the name of a setting in the place of the folder or file that it names."""
    roots = list[tuple[Path, str]]()
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        for index, text in enumerate(values):
            if isinstance(text, str) and (path := path_in(name, text)) is not None:
                roots.append((path, name if len(values) == 1 else f"{name}[{index}]"))
    roots.sort(key=lambda root: -len(root[0].parts))  # of a folder and one in it, the inner one
    return {_name(Path(path), roots): digest for path, digest in digests.items()}


def _name(path: Path, roots: list[tuple[Path, str]]) -> str:
    for root, name in roots:
        if path.is_relative_to(root):
            return "/".join([name, *path.relative_to(root).parts])
    return path.as_posix()
