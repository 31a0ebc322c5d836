"""The calibration check as a program, for every dataset script with `--check`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from uov_hf.counts import positive_int
from uov_hf.data.frames import FrameBuilder
from uov_hf.own_car.calibration_check import CameraCheck, check_cameras


def check_from_command_line(builder_class: type[FrameBuilder], description: str) -> Iterator[CameraCheck]:
    """Check the calibration of every camera of a raw folder, and save a picture of each.

    Args:
        builder_class (`type[FrameBuilder]`): Reads the raw folder.
        description (`str`): The help of the program.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="The raw folder.")
    parser.add_argument("--check", metavar="FOLDER", required=True, help="Where the pictures go.")
    parser.add_argument("--dataset_config", help="Default: the only one there is.")
    parser.add_argument("--split", help="Default: the one to train on.")
    parser.add_argument("--num_frames", type=positive_int, default=10, help="Frames to compare. Default: 10.")
    args = parser.parse_args()
    frames = builder_class(data_dir=args.data_dir, config_name=args.dataset_config).as_frames(args.split)
    yield from check_cameras(frames, args.num_frames, Path(args.check))
