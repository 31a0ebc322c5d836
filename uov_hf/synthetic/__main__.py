"""`python -m uov_hf.synthetic --output_dir data/street`: write a street as a nuScenes root."""

import argparse
import inspect
import json

from uov_hf.synthetic.street import generate_street


def parse_arguments() -> argparse.Namespace:
    default = {name: parameter.default for name, parameter in inspect.signature(generate_street).parameters.items()}
    parser = argparse.ArgumentParser(prog="python -m uov_hf.synthetic", description=__doc__)
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
    parser.add_argument("--version", default=default["version"], help="name of the tables' folder")
    parser.add_argument("--splits", type=json.loads, help='scenes of each split, such as \'{"train": 4, "test": 2}\'')
    parser.add_argument("--num_workers", type=int, default=default["num_workers"], help="processes")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = vars(parse_arguments())
    arguments["image_size"] = tuple(arguments["image_size"])
    root = generate_street(**arguments)
    print(f"A nuScenes root with {arguments['num_scenes']} scenes is in {root}.")
