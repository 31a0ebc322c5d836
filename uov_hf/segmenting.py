"""Segment scan files into folders of labels and pictures, as `uov-hf segment` does."""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import pipeline

from uov_hf import PointCloudSegmentationPipeline, UOVForSemanticSegmentation, UOVProcessor
from uov_hf.hub.checkpoint import check_checkpoint
from uov_hf.hub.checkpoint_files import without_counts
from uov_hf.leftovers import is_leftover
from uov_hf.numpy_files import load_npy
from uov_hf.pictures.viewer import write_viewer
from uov_hf.pictures.visualization import draw_birds_eye_view
from uov_hf.pipeline_uov import PointCloudSegmentation
from uov_hf.point_files import SCAN_SUFFIXES, PointCloud, check_finite, read_cloud
from uov_hf.results import SegmentedScan, check_is_not_the_scan, check_libraries, write_result
from uov_hf.results.class_colors import class_colors
from uov_hf.results.classes import write_classes
from uov_hf.setting_files import read_json
from uov_hf.teachers import embed_pictures
from uov_hf.tiles import TILE_RADIUS, is_larger_than_a_scan, segment_in_tiles
from uov_hf.written_together import only_writer, written_together


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
        OSError: There is no such checkpoint, it is damaged, or the Hub cannot be reached.
        torch.OutOfMemoryError: The GPU has no room for the weights.
        ValueError: There is no such device on this machine, or no such dtype.
    """
    if dtype != "auto" and not isinstance(getattr(torch, str(dtype).removeprefix("torch."), None), torch.dtype):
        raise ValueError(f"`dtype` must be auto or one of torch's, such as float32 or bfloat16, got {dtype!r}.")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"`device` is {str(device)!r}, but torch finds no GPU on this machine. Use cpu.")
    path = str(model_name_or_path)
    check_checkpoint(path, revision)
    try:
        return _load(path, device, dtype, revision)
    except torch.OutOfMemoryError:
        raise
    except BaseException as error:  # transformers and safetensors raise other errors for each kind of damage
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # that of tokenizers
            raise
        reason = " ".join(str(error).split())
        if "ignore_mismatched_sizes" in reason:
            reason = "config.json does not fit the weights; the report above lists the tensors."
        raise OSError(f"{path}: the checkpoint cannot be loaded: {reason or type(error).__name__}") from error


def _load(
    path: str, device: str | torch.device | None, dtype: str | torch.dtype, revision: str | None
) -> PointCloudSegmentationPipeline:
    revision, dtype = revision or "main", str(dtype).removeprefix("torch.")
    loaded: Any = UOVForSemanticSegmentation.from_pretrained(
        path, dtype=dtype, revision=revision, output_loading_info=True
    )
    model, report = loaded
    if missing := without_counts(report["missing_keys"]):  # transformers has drawn them at random
        raise ValueError(f"the weights have none of {', '.join(missing[:3])}.")
    processor = UOVProcessor.from_pretrained(path, revision=revision, trust_remote_code=False)
    if model.classifier is None:
        model.uov.check_prompts(model.uov.prompt_embeds, model.uov.prompt_to_class, len(model.config.classes))
    else:  # a call may give other classes to a text head, and then the ground ring may name these
        processor.afi_settings(model.config.label2id)
    segmenter: PointCloudSegmentationPipeline = pipeline(  # type: ignore[call-overload]  # it lists its own tasks only
        "point-cloud-segmentation", model=model, processor=processor, device=device
    )
    segmenter.model.uov.backbone.engine(segmenter.device, segmenter.model.dtype)  # raises where there is none
    return segmenter


def segment_file(
    model_name_or_path: str | Path | PointCloudSegmentationPipeline,
    scan: str | Path,
    output_dir: str | Path,
    *,
    candidate_labels: str | Sequence[str] | None = None,
    candidate_embeds: Mapping[str, Any] | None = None,
    intensity_max: float | None = None,
    min_score: float = 0.0,
    refine: str | None = None,
    num_views: int = 1,
    num_columns: int | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    formats: Sequence[str] = ("npy",),
    result_name: str | Path | None = None,
    origins: np.ndarray | None = None,
    tile_radius: float = TILE_RADIUS,
    viewer: bool = True,
) -> SegmentedScan:
    """Segment one scan, or a map, and write the results.

    `output_dir` gets `classes.json` (names, colours and numbers of points of the classes, and the origin),
    `birds_eye_view.png`, with the format `"npy"` `labels.npy` (`(num_points,)` uint8, indices of the classes, or 255)
    and `scores.npy` (`(num_points,)` float32), and, unless `viewer` is off, `viewer.html`. The other formats are files
    with the name of the scan; see [`~uov_hf.results.write_result`].

    A cloud in map coordinates, or larger than a scan, is segmented in tiles; see [`~uov_hf.tiles.segment_in_tiles`].

    Args:
        model_name_or_path (`str`, `Path` or `PointCloudSegmentationPipeline`):
            Folder or Hub id of a checkpoint, or a pipeline from [`load_segmenter`] for many scans.
        scan (`str` or `Path`): A file for [`read_cloud`].
        output_dir (`str` or `Path`):
            Created if it does not exist. Results of an earlier run are replaced. `classes.json` is the last file:
            where it exists, all files are of one run.
        candidate_labels, candidate_embeds, intensity_max, refine, num_views:
            See [`PointCloudSegmentationPipeline`].
        min_score (`float`, *optional*, defaults to 0.0): Points with a lower score get no label.
        num_columns (`int`, *optional*): Columns of a `.bin` file; see [`read_cloud`].
        device, dtype:
            See [`load_segmenter`].
        formats (sequence of `str`, *optional*, defaults to `("npy",)`): Among [`~uov_hf.results.FORMATS`].
        result_name (`str`, *optional*):
            Path of the files in other formats, without suffix, in `output_dir` or in a folder that contains it; by
            default the scan's name in `output_dir`.
        origins (`np.ndarray` of shape `(num_tiles, 2 or 3)`, *optional*):
            Positions of the sensor in the coordinates of the file. By default tiles are on a grid.
        tile_radius (`float`, *optional*, defaults to 50.0): Half the side of a tile, in metres.
        viewer (`bool`, *optional*, defaults to `True`):
            Whether to write `viewer.html`, several megabytes for a large scan.

    Raises:
        ValueError: The scan cannot be read or segmented; the message names the file. Or `result_name` is elsewhere.
        ImportError: A library of a format is not installed.
    """
    scan, folder = Path(scan), Path(output_dir)
    stem = Path(result_name or folder / without_suffix(scan.name))
    check_libraries(formats)
    if not Path(os.path.abspath(folder)).is_relative_to(os.path.abspath(stem.parent)):
        raise ValueError(
            f"`result_name` must be a name in the folder {folder}, or in one that contains it, got {result_name}."
        )
    if not 0 <= min_score <= 1:
        raise ValueError(f"`min_score` must be a probability, from 0 to 1, got {min_score}.")
    cloud = read_cloud(scan, num_columns)
    check_finite(cloud.points, scan)
    segmenter = model_name_or_path
    if not isinstance(segmenter, PointCloudSegmentationPipeline):
        segmenter = load_segmenter(segmenter, device, dtype)
    words = {"candidate_labels": candidate_labels, "candidate_embeds": candidate_embeds}
    is_map = origins is not None or cloud.origin.any() or is_larger_than_a_scan(cloud.points)
    if is_map:  # all tiles have the scale of the whole cloud
        intensity_max = segmenter.full_scale(cloud.points, intensity_max)

    def segment(points: np.ndarray) -> PointCloudSegmentation:
        own = {"points": points, "intensity_max": intensity_max, **words}
        return segmenter(own, threshold=min_score, refine=refine, num_views=num_views)

    try:
        result = segment_in_tiles(cloud, segment, origins, tile_radius) if is_map else segment(cloud.points)
    except ValueError as error:
        raise ValueError(f"{scan}: {error}") from error
    labels = result["segmentation"].astype(np.uint8)
    segmented = SegmentedScan(
        scan,
        folder,
        cloud.points,
        cloud.origin,
        labels,
        result["scores"],
        result["labels"],
        files=tuple(stem.with_name(f"{stem.name}.{name}") for name in formats if name != "npy"),
    )
    for path in segmented.files:
        check_is_not_the_scan(path, scan)
    _write(segmented, stem.parent, viewer, with_arrays="npy" in formats)
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

    A subfolder has the name of its scan without the suffix, below the parent folders that the scans do not share.
    Files in formats other than `"npy"` have this name, too, and are beside the subfolder. The progress bar is shown
    only on a terminal.

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
        BlockingIOError: Another run writes into the folder.
    """
    check_libraries(options.get("formats", ()))
    scans, output_dir = find_scans(scans), Path(output_dir)
    names = _folder_names(scans)
    bar = tqdm(zip(scans, names, strict=True), total=len(scans), unit="scan", disable=True if len(scans) < 2 else None)
    with only_writer(output_dir):
        for scan, name in bar:
            result_name = None if len(scans) < 2 else output_dir / name
            try:
                yield segment_file(segmenter, scan, output_dir / name, result_name=result_name, **options)
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
    of [`segment_file`], and the leftovers of other programs, such as hidden files.

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
            content = read_json(Path(file))
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


def read_origins(path: str | Path) -> np.ndarray:
    """Read positions of the sensor, `(num_tiles, 2 or 3)` float64, from a `.npy` or from rows of numbers.

    Raises:
        ValueError: The file is missing, or does not contain such rows.
    """
    try:
        # A comma and a space are the separators that programs use.
        if Path(path).suffix == ".npy":
            return load_npy(Path(path))
        rows = Path(path).read_text(encoding="utf-8").replace(",", " ").split("\n")
        rows = [row for row in rows if row.split("#")[0].strip()]
        return np.array([row.split("#")[0].split() for row in rows], np.float64).reshape(len(rows) or -1, -1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected rows of x y [z], in a .npy or as text: {error}") from error


def embed_pictures_for(
    segmenter: PointCloudSegmentationPipeline,
    pictures: Mapping[str, Sequence[Any]],
    teacher_name_or_path: str | None = None,
) -> dict[str, np.ndarray]:
    """Embed pictures in the space of a checkpoint, on its device, for `candidate_embeds`; see [`embed_pictures`]."""
    config = segmenter.model.config
    return embed_pictures(pictures, teacher_name_or_path, config=config, device=segmenter.device)


def _folder_names(scans: list[Path]) -> list[str]:
    """The subfolder of each scan below the output folder."""
    if len(scans) == 1:
        return ["."]
    scans = [Path(os.path.abspath(path)) for path in scans]  # `absolute` keeps "..", which leads out of the folder
    shared = os.path.commonpath([path.parent for path in scans])
    files = [path.relative_to(shared) for path in scans]
    names = [str(file.parent / without_suffix(file.name)) for file in files]
    return names if len(set(names)) == len(names) else [str(file) for file in files]


def _is_result(path: Path) -> bool:
    return path.name in ("labels.npy", "scores.npy") and path.with_name("classes.json").is_file()


def without_suffix(name: str) -> str:
    cut = name[: -len(".pcd.bin")] if name.lower().endswith(".pcd.bin") else Path(name).stem
    return cut if cut.strip(".") else name


def _extent(cloud: PointCloud) -> float:
    """Half the side of the bird's-eye view: 50 m for a scan, and more for a map."""
    if not cloud.origin.any() and not is_larger_than_a_scan(cloud.points):
        return 50.0
    return max(10.0, float(np.nanpercentile(np.abs(cloud.points[:, :2]), 99)))


def _write(result: SegmentedScan, place: Path, viewer: bool, with_arrays: bool) -> None:
    """Write all files of a result; `place` is the folder of those in other formats, or one that contains it."""
    own = Path(os.path.abspath(result.folder)).relative_to(os.path.abspath(place))
    earlier = [glob.escape(str(own / name)) for name in ("labels.npy", "scores.npy", "viewer.html")]
    with written_together(place, own / "classes.json", replaces=earlier) as temporary:
        for path in result.files:
            write_result(path, result, temporary / path.relative_to(place))
        (temporary / own).mkdir(parents=True, exist_ok=True)
        _write_folder(temporary / own, result, viewer, with_arrays)


def _write_folder(folder: Path, result: SegmentedScan, viewer: bool, with_arrays: bool) -> None:
    names, colors = result.class_names, class_colors(result.class_names)
    if with_arrays:
        np.save(folder / "labels.npy", result.labels)
        np.save(folder / "scores.npy", result.scores)
    about = {"scan": result.scan.name, "num_points": len(result.points), "origin": result.origin.tolist()}
    write_classes(folder / "classes.json", about, names, colors, result.points_per_class())
    title = f"{result.scan.name}: {len(result.points):,} points"
    extent = _extent(result.cloud)
    picture = draw_birds_eye_view(result.points, result.labels, names, colors, extent=extent, title=title)
    picture.save(folder / "birds_eye_view.png")
    if viewer:
        shown = result.cloud.file_points, result.labels, names, colors
        intensity = result.points[:, 3] if result.points.shape[1] > 3 else None
        write_viewer(folder / "viewer.html", *shown, scores=result.scores, intensity=intensity, title=title)
