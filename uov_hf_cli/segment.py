"""Label every point of lidar scans with words of your own.

It writes labels.npy, scores.npy, classes.json, birds_eye_view.png and viewer.html to the output folder. Several scans
get one folder each in it. Without --candidate_labels the labels are the classes of the checkpoint.

--format las and others write the scan with its class and score, and keep all that the scan has. A cloud in map
coordinates, or larger than a scan, is segmented in overlapping tiles.

examples:
  uov-hf segment scan.bin --model_name_or_path out/demo/uov --output_dir out/scan
  uov-hf segment scan.bin --model_name_or_path out/demo/uov --candidate_labels "car, road, tree" --refine afi
  uov-hf segment survey.laz --model_name_or_path out/demo/uov --format laz --output_dir out/map
  uov-hf segment drive.mcap --format bag --model_name_or_path out/demo/uov --output_dir out/segment
  uov-hf segment recording/ --model_name_or_path out/demo/uov --intensity_max 255 --output_dir out/recording
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np

    from uov_hf import PointCloudSegmentationPipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scans",
        nargs="+",
        type=Path,
        help="files (.bin, .npy, .pcd, .ply, .las, .laz, .xyz, …), or folders; with --format bag, ROS bags",
    )
    parser.add_argument("--model_name_or_path", required=True, help="folder or Hub id of a checkpoint")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--output_dir", type=Path, default=Path("out/segment"), help="default: %(default)s")
    parser.add_argument("--candidate_labels", help='such as "car, road"; default: the classes of the checkpoint')
    parser.add_argument("--picture", action="append", default=[], metavar="WORD=FILE,…", help="a class by pictures")
    parser.add_argument("--pictures", type=Path, metavar="JSON", help='classes by pictures: {"tuk-tuk": ["a.jpg", …]}')
    parser.add_argument("--teacher_model_name_or_path", help="model that embeds the pictures; default: the teacher")
    parser.add_argument("--intensity_max", type=float, help="full scale of the intensity: 255 (nuScenes), 1 (KITTI)")
    parser.add_argument("--num_columns", type=int, help="columns of .bin files; default: measured")
    parser.add_argument("--min_score", type=float, default=0.0, help="points with a lower score get no label")
    parser.add_argument("--refine", choices=["afi"], help="refine the labels by approximate flat interaction")
    tta = "test-time augmentation: mean of N turned and mirrored views; default: %(default)s"
    parser.add_argument("--tta", type=int, default=1, metavar="N", help=tta)
    formats = "npy, label (SemanticKITTI), ply, pcd, las, laz, rrd (rerun), several with commas; or bag"
    parser.add_argument("--format", default="npy", help=f"{formats}; default: %(default)s")
    origins = "for a map: positions of the sensor, rows of x y [z] in the coordinates of the scan (.npy or text)"
    parser.add_argument("--origins", type=Path, metavar="FILE", help=origins)
    tile_radius = "for a map: half the side of a tile in metres; default: %(default)s"
    parser.add_argument("--tile_radius", type=float, default=50.0, metavar="METRES", help=tile_radius)
    parser.add_argument(
        "--on_error", choices=["raise", "skip"], default="raise", help="skip: leave out broken scans and list them"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, …; default: the GPU if there is one")
    parser.add_argument("--dtype", default="auto", help="type of the network: float32, bfloat16, …")


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.segmenting import (
        SkippedScan,
        embed_pictures_for,
        load_segmenter,
        read_origins,
        read_pictures,
        segment_files,
    )

    formats = [name.strip() for name in args.format.split(",")]
    if "bag" in formats and len(formats) > 1:
        raise ValueError(f"--format bag is for ROS bags, and has no other formats beside it, got {args.format}.")
    if formats != ["bag"]:
        _check_no_bags(args.scans)
    segmenter = load_segmenter(args.model_name_or_path, args.device, args.dtype, args.revision)
    pictures = read_pictures(args.picture, args.pictures)
    embeds = embed_pictures_for(segmenter, pictures, args.teacher_model_name_or_path) if pictures else None
    if formats == ["bag"]:
        yield from _segment_bags(args, segmenter, embeds)
        return
    answers = segment_files(
        segmenter,
        args.scans,
        args.output_dir,
        candidate_labels=args.candidate_labels,
        candidate_embeds=embeds,
        intensity_max=args.intensity_max,
        num_columns=args.num_columns,
        min_score=args.min_score,
        refine=args.refine,
        num_views=args.tta,
        formats=formats,
        origins=read_origins(args.origins) if args.origins else None,
        tile_radius=args.tile_radius,
        on_error=args.on_error,
    )
    num_labelled, num_scans, skipped = 0, 0, []
    for answer in answers:
        num_scans += 1
        if isinstance(answer, SkippedScan):
            skipped.append(answer.scan)
            yield f"{answer.scan}: skipped. {answer.error}"
            continue
        counts = sorted(answer.points_per_class().items(), key=lambda item: -item[1])
        found = ", ".join(f"{name} {count:,}" for name, count in counts if count)
        unnamed = len(answer.points) - sum(count for _, count in counts)
        num_labelled += len(answer.points) - unnamed
        yield f"{answer.scan}: {len(answer.points):,} points: {found or 'nothing'}; {unnamed:,} without a label"
        yield from (f"  result: {path}" for path in answer.files)
        yield f"  viewer: {answer.folder / 'viewer.html'}"
    if skipped:
        yield f"{len(skipped)} of {num_scans} scans skipped: {', '.join(map(str, skipped))}"
    if len(skipped) == num_scans:
        raise ValueError(f"expected at least one scan that can be segmented, got none among {num_scans}.")
    if not num_labelled:
        raise ValueError(
            "expected a label at some points, got none in any scan. Likely causes: the points lie outside the "
            "`point_cloud_range` of the checkpoint, for example because their origin is not the sensor; or no point "
            f"has the probability of --min_score {args.min_score:g}. Move the origin to the sensor, or lower "
            "--min_score."
        )


def _check_no_bags(sources: Iterable[Path]) -> None:
    from uov_hf.bag_paths import bags_in
    from uov_hf.segmenting import find_scans

    for source in sources:
        if not bags_in(source):
            continue
        try:
            has_scans = source.is_dir() and bool(find_scans([source]))  # any folder may have a metadata.yaml
        except ValueError:
            has_scans = False
        if not has_scans:
            raise ValueError(
                f"{source}: expected scans, got a ROS bag. Segment it with `--format bag`, which writes a bag with "
                "labelled scans."
            )


def _segment_bags(
    args: argparse.Namespace, segmenter: "PointCloudSegmentationPipeline", embeds: "dict[str, np.ndarray] | None"
) -> Iterable[str]:
    from uov_hf.segmenting_bags import segment_bags

    of_files = {"num_columns": None, "origins": None, "tile_radius": 50.0, "on_error": "raise"}
    if wrong := [name for name, default in of_files.items() if getattr(args, name) != default]:
        raise ValueError(f"--format bag does not take --{', --'.join(wrong)}: these are options for scan files.")
    inputs = {"candidate_labels": args.candidate_labels, "candidate_embeds": embeds}
    options = {"intensity_max": args.intensity_max, "threshold": args.min_score, "refine": args.refine}
    options |= {"num_views": args.tta}
    for answer in segment_bags(segmenter, args.scans, args.output_dir, **inputs, **options):
        counts = sorted(answer.num_points.items(), key=lambda item: -item[1])
        found = ", ".join(f"{name or 'no label'} {count:,}" for name, count in counts if count)
        yield f"{answer.bag}: {answer.num_scans} scans, points: {found}"
        yield f"  bag: {answer.result}"
        yield f"  its first scan from above: {answer.picture}"
