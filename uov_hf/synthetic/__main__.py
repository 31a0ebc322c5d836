"""`python -m uov_hf.synthetic --output_dir data/street`: write a street as a nuScenes or a SemanticKITTI root."""

import argparse
import inspect
import json

from uov_hf.synthetic.semantic_kitti import generate_semantic_kitti
from uov_hf.synthetic.street import generate_street


GENERATORS = {"nuscenes": generate_street, "semantickitti": generate_semantic_kitti}


def parse_arguments() -> argparse.Namespace:
    default = {name: parameter.default for name, parameter in inspect.signature(generate_street).parameters.items()}
    parser = argparse.ArgumentParser(prog="python -m uov_hf.synthetic", description=__doc__)
    parser.add_argument("--format", choices=GENERATORS, default="nuscenes", help="of the root")
    parser.add_argument("--output_dir", required=True, help="the root to write")
    parser.add_argument("--num_scenes", type=int, default=default["num_scenes"], help="every scene has its own town")
    parser.add_argument("--frames_per_scene", type=int, default=default["frames_per_scene"], help="0.5 s apart")
    parser.add_argument("--seed", type=int, default=default["seed"], help="other seeds, other towns")
    parser.add_argument(
        "--image_size", type=int, nargs=2, default=default["image_size"], metavar=("HEIGHT", "WIDTH"), help="pixels"
    )
    parser.add_argument(
        "--azimuth_steps", type=int, default=default["azimuth_steps"], help="nuScenes's lidar has 1084"
    )
    parser.add_argument("--splits", type=json.loads, help='scenes of each split, such as \'{"train": 4, "test": 2}\'')
    parser.add_argument("--num_workers", type=int, default=default["num_workers"], help="processes")
    nuscenes = parser.add_argument_group("with --format nuscenes", argument_default=argparse.SUPPRESS)
    nuscenes.add_argument("--version", help=f"name of the tables' folder, by default {default['version']}")
    nuscenes.add_argument("--synchronised", action="store_true", help="all cameras fire with the scan, as KITTI's do")
    arguments = parser.parse_args()
    if arguments.format != "nuscenes" and ("version" in arguments or "synchronised" in arguments):
        parser.error("--version and --synchronised are of --format nuscenes only.")
    return arguments


def main() -> None:
    arguments = vars(parse_arguments())
    format = arguments.pop("format")
    arguments["image_size"] = tuple(arguments["image_size"])
    root = GENERATORS[format](**arguments)
    print(f"A root in the format {format} with {arguments['num_scenes']} scenes is in {root}.")


if __name__ == "__main__":
    main()
