"""Write the recordings of your own car as Parquet, or check the calibration of its cameras (docs/how_to/own_car.md).

python dataset_scripts/point_cloud_folder.py --data_dir my_car --check out/check
python dataset_scripts/point_cloud_folder.py --data_dir my_car --output_dir my_car-parquet

With --check, pictures of the points over the images go to that folder. Exit status: 1 if a calibration is wrong.
"""

import argparse
import sys
from pathlib import Path

from uov_hf.counts import positive_int
from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.point_cloud_folder import PointCloudFolder


def check() -> int:
    """Check the calibration of every camera; returns 1 if one is wrong, else 0."""
    from uov_hf.own_car.calibration_check import check_cameras  # needs matplotlib and OpenCV; reading does not

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="The raw folder.")
    parser.add_argument("--check", metavar="FOLDER", required=True, help="Where the pictures go.")
    parser.add_argument("--dataset_config", help="Default: the only one there is.")
    parser.add_argument("--split", help="Default: the one to train on.")
    parser.add_argument("--num_frames", type=positive_int, default=10, help="Frames to compare. Default: 10.")
    args = parser.parse_args()
    frames = PointCloudFolder(data_dir=args.data_dir, config_name=args.dataset_config).as_frames(args.split)
    any_wrong = False
    for checked in check_cameras(frames, args.num_frames, Path(args.check)):
        any_wrong |= checked.report.verdict == "wrong"
        print(checked)
    print(f"Pictures: {args.check}")
    return int(any_wrong)


if __name__ == "__main__":
    if any(argument.split("=")[0] == "--check" for argument in sys.argv):
        sys.exit(check())
    write_from_command_line(PointCloudFolder, __doc__)
