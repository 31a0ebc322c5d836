"""Show a scan in the browser or in rerun, with labels, scores and ground truth of its points if given.

Labels are a .npy of class ids with its classes.json, as `uov-hf segment` writes them, or a file of raw ids, which
--vocabulary maps to classes: a .label of SemanticKITTI or a .bin of nuScenes-lidarseg.

examples:
  uov-hf view scan.bin
  uov-hf view scan.bin --labels out/scan/labels.npy --scores out/scan/scores.npy --output out/scan/viewer.html
  uov-hf view 000000.bin --labels labels.npy --ground_truth 000000.label --vocabulary semantic_kitti --open
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np

    from uov_hf.vocabulary import Vocabulary

IGNORED = 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path, help="a file: .bin, .npy, .pcd, .ply, .las, .laz, .xyz, …")
    parser.add_argument("--num_columns", type=int, help="columns of a .bin scan; default: measured")
    parser.add_argument("--labels", type=Path, help="predicted labels: .npy, .label or .bin")
    parser.add_argument("--scores", type=Path, help="scores of the labels: .npy")
    parser.add_argument("--ground_truth", type=Path, help="true labels: .npy, .label or .bin")
    parser.add_argument("--vocabulary", help="of the classes: a name of `uov-hf vocabulary`, or a .yaml")
    parser.add_argument("--classes", type=Path, help="a classes.json; default: the one beside --labels")
    parser.add_argument("--viewer", choices=("html", "rerun"), default="html", help="default: %(default)s")
    output = "page, or .rrd with --viewer rerun; default: viewer.html, or a window of rerun"
    parser.add_argument("--output", type=Path, help=output)
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.pictures import viewer
    from uov_hf.point_files import check_finite, read_cloud
    from uov_hf.vocabulary import load_vocabulary

    if args.viewer == "rerun" and args.output and args.output.suffix != ".rrd":
        raise ValueError(f"--output {args.output}: with --viewer rerun it must end in .rrd.")
    points = read_cloud(args.scan, args.num_columns).file_points
    check_finite(points, args.scan)
    vocabulary = load_vocabulary(args.vocabulary) if args.vocabulary else None
    files = args.labels, args.ground_truth
    labels, ground_truth = (path and _read_labels(path, len(points), vocabulary) for path in files)
    names, colors = _find_classes(args, vocabulary, [ids for ids in (labels, ground_truth) if ids is not None])
    shown = {
        "segmentation": labels,
        "class_names": names,
        "colors": colors,
        "scores": args.scores and _read_values(args.scores, len(points)),
        "intensity": points[:, 3] if points.shape[1] > 3 else None,
        "ground_truth": ground_truth,
        "title": args.scan.name,
    }
    if args.viewer == "rerun":
        origin = viewer.show_in_rerun(points, **shown, path=args.output)
        placed = f", {viewer.describe_origin(origin)}" if origin.any() else ""
        yield f"{args.output or 'rerun'}: {len(points):,} points{placed}"
        return
    path = viewer.write_viewer(args.output or Path("viewer.html"), points, **shown)
    yield f"{path}: {len(points):,} points"
    if args.open:
        import webbrowser

        address = path.absolute().as_uri()
        if not webbrowser.open(address):
            yield f"no browser started: open {address}"


def _read_values(path: Path, num_points: int) -> "np.ndarray":
    """One number per point, from a .npy."""
    from uov_hf.numpy_files import load_npy

    if path.suffix != ".npy":
        raise ValueError(f"{path}: expected a .npy file.")
    return _check_length(path, load_npy(path), num_points)


def _read_labels(path: Path, num_points: int, vocabulary: "Vocabulary | None") -> "np.ndarray":
    """Class ids; raw ids become classes of the vocabulary."""
    import numpy as np

    if path.suffix not in (".label", ".bin"):
        return _read_values(path, num_points)
    if vocabulary is None:
        raise ValueError(f"{path}: raw ids need a --vocabulary that maps them to classes.")
    if path.suffix == ".label":
        raw = np.fromfile(path, np.uint32) & 0xFFFF  # the upper half numbers instances
    else:
        raw = np.fromfile(path, np.uint8)
    raw = _check_length(path, raw, num_points)
    try:
        return vocabulary.classes_of(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_length(path: Path, values: "np.ndarray", num_points: int) -> "np.ndarray":
    if values.shape != (num_points,):
        raise ValueError(f"{path}: expected a value for each of the {num_points} points, got shape {values.shape}.")
    return values


def _find_classes(
    args: argparse.Namespace, vocabulary: "Vocabulary | None", seen: list["np.ndarray"]
) -> "tuple[list[str], np.ndarray | None]":
    """Names and colours of the vocabulary, else of classes.json, else numbers as names.

    Raises:
        ValueError: If vocabulary and classes.json have different classes.
    """
    from uov_hf.segmenting import class_colors

    path = args.classes
    if path is None and args.labels and args.labels.suffix == ".npy":
        beside = args.labels.with_name("classes.json")
        path = beside if beside.is_file() else None
    names, colors = _read_classes(path) if path else ([], None)
    if vocabulary is not None:
        if names and _plain(names) != _plain(vocabulary.class_names):
            raise ValueError(
                f"{path}: the classes of the labels are {', '.join(names)}, not those of the vocabulary "
                f"{vocabulary.name}. Labels and ground truth must have the same classes."
            )
        return vocabulary.class_names, vocabulary.colors
    if names:
        return names, colors
    if not seen:
        return [], None
    num_classes = max(int(ids[ids != IGNORED].astype("int64").max(initial=-1)) for ids in seen) + 1
    names = [f"class {number}" for number in range(num_classes)]
    return names, class_colors(names)


def _read_classes(path: Path) -> "tuple[list[str], np.ndarray]":
    import numpy as np

    from uov_hf.results.classes import read_classes

    classes = read_classes(path)
    return [own.name for own in classes], np.array([own.color for own in classes], np.uint8)


def _plain(names: list[str]) -> list[str]:
    from uov_hf.results.classes import plain

    return [plain(name) for name in names]
