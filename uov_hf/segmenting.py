"""Segment scan files into folders of labels and pictures, as `uov-hf segment` does."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import pipeline

from uov_hf import PointCloudSegmentationPipeline
from uov_hf.configuration_uov import IGNORED
from uov_hf.hub.checkpoint import check_checkpoint
from uov_hf.leftovers import is_leftover
from uov_hf.pictures.scan_colors import distinct_colors
from uov_hf.pictures.viewer import write_viewer
from uov_hf.pictures.visualization import draw_birds_eye_view
from uov_hf.pipeline_uov import PointCloudSegmentation
from uov_hf.point_files import SCAN_SUFFIXES, check_finite, read_points
from uov_hf.teachers import embed_pictures
from uov_hf.vocabulary import available_vocabularies, load_vocabulary


@dataclass(frozen=True)
class SegmentedScan:
    """A scan, its labels, and the folder of the results.

    Args:
        scan (`Path`): The file.
        folder (`Path`): Contains `labels.npy`, `scores.npy`, `classes.json`, and the pictures.
        points (`np.ndarray` of shape `(num_points, 3 or 4)`, float32):
            x, y, z in metres, then the intensity as in the file.
        labels (`np.ndarray` of shape `(num_points,)`, uint8): Indices into `class_names`, or 255.
        scores (`np.ndarray` of shape `(num_points,)`, float32): Probability of the label.
        class_names (`list[str]`): The candidates, or the classes of the checkpoint.
    """

    scan: Path
    folder: Path
    points: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    class_names: list[str]

    def points_per_class(self) -> dict[str, int]:
        counts = np.bincount(self.labels, minlength=IGNORED + 1)
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=False)}


@dataclass(frozen=True)
class SkippedScan:
    """A scan that could not be segmented, and why; the error names the file."""

    scan: Path
    error: str


def load_segmenter(
    model_name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
) -> PointCloudSegmentationPipeline:
    """Load the pipeline of a checkpoint from a folder or the Hub, by default on the GPU if there is one.

    Raises:
        OSError: There is no such checkpoint.
        ValueError: There is no such device on this machine, or no such dtype.
    """
    if dtype != "auto" and not isinstance(getattr(torch, str(dtype).removeprefix("torch."), None), torch.dtype):
        raise ValueError(f"`dtype` must be auto or one of torch's, such as float32 or bfloat16, got {dtype!r}.")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"`device` is {str(device)!r}, but torch finds no GPU on this machine. Use cpu.")
    path = str(model_name_or_path)
    check_checkpoint(path, revision)
    try:
        return pipeline(  # type: ignore[call-overload]  # the overloads list only the tasks of transformers itself
            "point-cloud-segmentation", model=path, device=device, dtype=dtype, revision=revision
        )
    except OSError as error:
        raise OSError(f"{path}: {error}") from error


def segment_file(
    model_name_or_path: str | Path | PointCloudSegmentationPipeline,
    scan: str | Path,
    output_dir: str | Path,
    *,
    candidate_labels: str | Sequence[str] | None = None,
    candidate_embeds: Mapping[str, Any] | None = None,
    intensity_max: float | None = None,
    num_columns: int | None = None,
    threshold: float = 0.0,
    refine: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    viewer: bool = True,
) -> SegmentedScan:
    """Segment one scan and write the results.

    `output_dir` gets `labels.npy` (`(num_points,)` uint8, indices of the classes, or 255), `scores.npy`
    (`(num_points,)` float32), `classes.json` (names, colours and numbers of points of the classes),
    `birds_eye_view.png` and, unless `viewer` is off, `viewer.html`.

    Args:
        model_name_or_path (`str`, `Path` or `PointCloudSegmentationPipeline`):
            Folder or Hub id of a checkpoint, or a pipeline from [`load_segmenter`] for many scans.
        scan (`str` or `Path`): A file for [`read_points`].
        output_dir (`str` or `Path`): Created if it does not exist. Results of an earlier run are overwritten.
        candidate_labels, candidate_embeds, intensity_max, num_columns, threshold, refine:
            See [`PointCloudSegmentationPipeline`].
        device, dtype:
            See [`load_segmenter`].
        viewer (`bool`, *optional*, defaults to `True`):
            Whether to write `viewer.html`, several megabytes for a large scan.

    Raises:
        ValueError: The scan cannot be read or segmented. The message names the file.
    """
    scan, folder = Path(scan), Path(output_dir)
    points = read_points(scan, num_columns)
    check_finite(points, scan)
    segmenter = model_name_or_path
    if not isinstance(segmenter, PointCloudSegmentationPipeline):
        segmenter = load_segmenter(segmenter, device, dtype)
    own = {"candidate_labels": candidate_labels, "candidate_embeds": candidate_embeds, "intensity_max": intensity_max}
    try:
        result: PointCloudSegmentation = segmenter({"points": points, **own}, threshold=threshold, refine=refine)
    except ValueError as error:
        raise ValueError(f"{scan}: {error}") from error
    labels = result["segmentation"].astype(np.uint8)
    segmented = SegmentedScan(scan, folder, points, labels, result["scores"], result["labels"])
    _write(segmented, viewer)
    return segmented


def segment_files(
    segmenter: PointCloudSegmentationPipeline,
    scans: Iterable[str | Path],
    output_dir: str | Path,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Any,
) -> Iterator[SegmentedScan | SkippedScan]:
    """Segment scans one after the other: a single one into `output_dir`, several into one subfolder each.

    A subfolder has the name of its scan without the suffix, below the parent folders that the scans do not share. The
    progress bar is shown only on a terminal.

    Args:
        segmenter (`PointCloudSegmentationPipeline`): See [`load_segmenter`].
        scans (iterable of `str` or `Path`): Files and folders; see [`find_scans`].
        output_dir (`str` or `Path`): Folder of the results.
        on_error (`"raise"` or `"skip"`, *optional*, defaults to `"raise"`):
            `"skip"` yields a [`SkippedScan`] for a scan that cannot be read or segmented, and goes on.
        options:
            See [`segment_file`].

    Raises:
        ValueError: There is no scan, or one cannot be segmented. Results of the scans before it are kept.
    """
    scans, output_dir = find_scans(scans), Path(output_dir)
    names = _folder_names(scans)
    bar = tqdm(zip(scans, names, strict=True), total=len(scans), unit="scan", disable=True if len(scans) < 2 else None)
    for scan, name in bar:
        try:
            yield segment_file(segmenter, scan, output_dir / name, **options)
        except ValueError as error:
            if on_error == "skip":
                yield SkippedScan(scan, str(error))
            elif len(scans) > 1:
                raise ValueError(f"{error} `--on_error skip` goes on with the other scans.") from error
            else:
                raise


def find_scans(sources: Iterable[str | Path]) -> list[Path]:
    """The files among `sources`, and the scans in the folders among them, sorted by name.

    In a folder, any file with the suffix of a scan is one, except `.txt` and `.csv`, the `labels.npy` and `scores.npy`
    of [`segment_file`], and the [leftovers][uov_hf.leftovers.is_leftover] of other programs.

    Raises:
        ValueError: A folder has no scans.
    """
    scans = []
    for source in map(Path, sources):
        found = [source]
        if source.is_dir():
            files = [path for path in source.iterdir() if path.is_file() and path.suffix.lower() in SCAN_SUFFIXES]
            found = sorted(path for path in files if not _is_result(path) and not is_leftover(path))
            if not found:
                raise ValueError(
                    f"{source}: expected files that end in one of {', '.join(SCAN_SUFFIXES)}, found none. Files of "
                    "other formats must be named one by one."
                )
        scans += found
    return scans


def read_pictures(words: Sequence[str] = (), file: str | Path | None = None) -> dict[str, list[Path]]:
    """Read the pictures of classes from command-line options.

    Args:
        words (sequence of `str`): Such as `"tuk-tuk=a.jpg,b.jpg"`.
        file (`str` or `Path`, *optional*):
            JSON such as `{"tuk-tuk": ["a.jpg", "b.jpg"]}`, with paths relative to its folder.

    Raises:
        ValueError: One of them has another form, or a class occurs twice.
    """
    named: list[tuple[str, list[Path]]] = []
    if file is not None:
        try:
            content = json.loads(Path(file).read_bytes())
            named = [(name, [Path(file).parent / own for own in paths]) for name, paths in content.items()]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f'{file}: expected JSON as {{"tuk-tuk": ["a.jpg", "b.jpg"]}}: {error}') from error
    for word in words:
        name, _, paths = word.partition("=")
        if not name.strip() or not all(path.strip() for path in paths.split(",")):
            raise ValueError(f"A class by pictures is given as tuk-tuk=a.jpg,b.jpg, got {word!r}.")
        named.append((name.strip(), [Path(path.strip()) for path in paths.split(",")]))
    if len(dict(named)) < len(named):
        raise ValueError(f"Each class by pictures must be given once, got {', '.join(name for name, _ in named)}.")
    return dict(named)


def embed_pictures_for(
    segmenter: PointCloudSegmentationPipeline,
    pictures: Mapping[str, Sequence[Any]],
    teacher_name_or_path: str | None = None,
) -> dict[str, np.ndarray]:
    """Embed pictures in the space of a checkpoint, on its device, for `candidate_embeds`; see [`embed_pictures`]."""
    config = segmenter.model.config
    return embed_pictures(pictures, teacher_name_or_path, config=config, device=segmenter.device)


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """An RGB colour for each word, `(C, 3)` uint8.

    Words of the built-in vocabularies have the colour of their class, so that cars are orange in every picture. Other
    words, and a second word of one class, get distinct hues.
    """
    colors, others = [], distinct_colors(len(class_names)).tolist()
    for name, other in zip(class_names, others, strict=True):
        color = _vocabulary_colors().get(_plain(name))
        colors.append(other if color is None or color in colors else color)
    return np.array(colors, np.uint8).reshape(-1, 3)


@cache
def _vocabulary_colors() -> dict[str, list[int]]:
    """Colours of the classes of all vocabularies, then of their prompts."""
    vocabularies = [load_vocabulary(name) for name in ("nuscenes", *available_vocabularies())]
    named = [pair for words in vocabularies for pair in zip(words.class_names, words.colors.tolist(), strict=True)]
    for words in vocabularies:
        classes = zip(words.prompts, words.prompt_to_class.tolist(), strict=True)
        named += [(prompt, words.colors[row].tolist()) for prompt, row in classes if row != IGNORED]
    return {_plain(name): color for name, color in reversed(named)}


def _plain(word: str) -> str:
    return word.replace("_", " ").lower()


def _folder_names(scans: list[Path]) -> list[str]:
    """The subfolder of each scan below the output folder."""
    if len(scans) == 1:
        return ["."]
    scans = [Path(os.path.abspath(path)) for path in scans]  # `absolute` keeps "..", which leads out of the folder
    shared = os.path.commonpath([path.parent for path in scans])
    files = [path.relative_to(shared) for path in scans]
    names = [str(file.parent / _without_suffix(file.name)) for file in files]
    return names if len(set(names)) == len(names) else [str(file) for file in files]


def _is_result(path: Path) -> bool:
    return path.name in ("labels.npy", "scores.npy") and path.with_name("classes.json").is_file()


def _without_suffix(name: str) -> str:
    cut = name[: -len(".pcd.bin")] if name.lower().endswith(".pcd.bin") else Path(name).stem
    return cut if cut.strip(".") else name


def _write(result: SegmentedScan, viewer: bool) -> None:
    folder, names, colors = result.folder, result.class_names, class_colors(result.class_names)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "labels.npy", result.labels)
    np.save(folder / "scores.npy", result.scores)
    counts = result.points_per_class()
    classes = [
        {"id": row, "name": name, "color": color, "num_points": counts[name]}
        for row, (name, color) in enumerate(zip(names, colors.tolist(), strict=True))
    ]
    about = {"scan": result.scan.name, "num_points": len(result.points), "classes": classes, "ignored_index": IGNORED}
    (folder / "classes.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    title = f"{result.scan.name}: {len(result.points):,} points"
    draw_birds_eye_view(result.points, result.labels, names, colors, title=title).save(folder / "birds_eye_view.png")
    if viewer:
        shown = result.points, result.labels, names, colors
        intensity = result.points[:, 3] if result.points.shape[1] > 3 else None
        write_viewer(folder / "viewer.html", *shown, scores=result.scores, intensity=intensity, title=title)
    else:
        (folder / "viewer.html").unlink(missing_ok=True)  # of an earlier run, with its labels
