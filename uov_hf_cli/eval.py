"""Score labels of points against true labels: two files, or two folders whose files have the same names.

Both sides may be .label, .npy, .ply, .pcd, .las, .laz, or .bin with raw ids. Results of `uov-hf segment` have their
classes in classes.json. A .label has raw ids of SemanticKITTI and a .bin those of nuScenes, unless --vocabulary names
another vocabulary. A LAS file has codes of ASPRS, and predicted classes become such codes.

examples:
  uov-hf eval out/recording sequences/08/labels
  uov-hf eval out/scan/labels.npy 000000.label --map nuscenes_semantic_kitti
  uov-hf eval out/map.laz surveyed.laz --output out/metrics.json
"""

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prediction", type=Path, help="a file with predicted labels, or a folder of such files")
    parser.add_argument("truth", type=Path, help="a file with true labels, or a folder of such files")
    parser.add_argument("--vocabulary", help="of ids without classes.json: a name of `uov-hf vocabulary`, or a .yaml")
    parser.add_argument("--map", help="score the common classes of two taxonomies: a name, or a .yaml")
    parser.add_argument("--output", type=Path, metavar="JSON", help="also write the metrics to this file")


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.evaluation.compared_files import compare_files
    from uov_hf.evaluation.reports import results_table, without_nan, write_results
    from uov_hf.vocabulary import load_map, load_vocabulary

    vocabulary = load_vocabulary(args.vocabulary) if args.vocabulary else None
    taxonomy_map = load_map(args.map) if args.map else None
    compared = compare_files(args.prediction, args.truth, vocabulary, taxonomy_map)
    metrics = without_nan(compared.metrics)
    yield results_table({"all points": metrics}, compared.class_names)
    yield f"\naccuracy {100 * metrics['overall_accuracy']:.1f} %, fwIoU {100 * metrics['fwiou']:.1f} %"
    yield f"{metrics['num_points']:,} points with a true class; files: {compared.num_files}"
    if args.output:
        names = {"class_names": compared.class_names, "map": args.map, "num_files": compared.num_files}
        write_results(args.output, {**metrics, **names})
        yield str(args.output)
