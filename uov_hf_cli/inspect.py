"""Show what a ROS bag contains, and what is missing for which stage.

It lists topics, sensors with their rates and time offsets, frames, and the command to run next. What the bag does not
contain is read from rosbag.yaml beside it (docs/how_to/rosbag.md).

examples:
  uov-hf inspect drive.mcap
  uov-hf inspect recordings/          every bag in a folder
"""

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", type=Path, help=".bag, .mcap or .db3, or folders")


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.bag_paths import find_bags
    from uov_hf.bags.inspection import inspect_bag

    for path in args.bags:
        for bag in find_bags(path):
            yield from inspect_bag(bag).lines()
