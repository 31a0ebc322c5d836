"""`python -m uov_hf.synthetic --output_dir data/street`: write a street as a nuScenes or a SemanticKITTI root."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from uov_hf.counts import positive_int
from uov_hf.synthetic.semantic_kitti import generate_semantic_kitti
from uov_hf.synthetic.street import generate_street


GENERATORS: dict[str, Callable[..., Path]] = {"nuscenes": generate_street, "semantickitti": generate_semantic_kitti}


def main() -> None:
    # What is not given is left to the defaults of the generators.
    parser = argparse.ArgumentParser(
        prog="python -m uov_hf.synthetic", description=__doc__, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--format", choices=GENERATORS, default="nuscenes", help="Of the root.")
    parser.add_argument("--output_dir", required=True, help="The root to write.")
    parser.add_argument("--num_scenes", type=positive_int, help="Every scene has its own town. Default: 6.")
    parser.add_argument("--frames_per_scene", type=positive_int, help="0.5 s apart. Default: 12.")
    parser.add_argument("--seed", type=int, help="Another seed gives other towns. Default: 0.")
    parser.add_argument(
        "--image_size", type=positive_int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="Default: 225 400."
    )
    parser.add_argument("--azimuth_steps", type=positive_int, help="Of the lidar; nuScenes's has 1084. Default: 480.")
    parser.add_argument("--splits", type=json.loads, help='Scenes of each split, such as \'{"train": 4, "test": 2}\'.')
    parser.add_argument("--num_workers", type=positive_int, help="Number of processes. Default: 1.")
    nuscenes = parser.add_argument_group("with --format nuscenes")
    nuscenes.add_argument("--version", help="Name of the tables' folder. Default: v1.0-mini.")
    nuscenes.add_argument("--synchronised", action="store_true", help="All cameras fire with the scan, as KITTI's do.")
    arguments = vars(parser.parse_args())
    root_format = arguments.pop("format")
    if root_format != "nuscenes" and {"version", "synchronised"} & set(arguments):
        parser.error("--version and --synchronised require --format nuscenes.")
    if "image_size" in arguments:
        arguments["image_size"] = tuple(arguments["image_size"])
    root = GENERATORS[root_format](**arguments)
    print(f"A root in the format {root_format} is in {root}.")


if __name__ == "__main__":
    main()
