"""Write ROS bags as Parquet, or check the calibration of their cameras (docs/how_to/rosbag.md).

python dataset_scripts/rosbag.py --data_dir drive.mcap --check out/check
python dataset_scripts/rosbag.py --data_dir drive.mcap --output_dir drive-parquet

With --check, pictures of the points over the images go to that folder. Exit status: 1 if a calibration is wrong.
"""

import sys

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.rosbag import RosBag


def check() -> int:
    """Check the calibration of every camera; returns 1 if one is wrong, else 0."""
    from uov_hf.own_car.check_program import check_from_command_line  # needs matplotlib and OpenCV; reading does not

    any_wrong = False
    for checked in check_from_command_line(RosBag, __doc__ or ""):
        any_wrong |= checked.report.verdict == "wrong"
        print(checked)
    return int(any_wrong)


if __name__ == "__main__":
    if any(argument.split("=")[0] == "--check" for argument in sys.argv):
        sys.exit(check())
    write_from_command_line(RosBag, __doc__)
