"""Write the recordings of your own car as Parquet, or check the calibration of its cameras (docs/how_to/own_car.md).

python dataset_scripts/point_cloud_folder.py --data_dir my_car --check out/check
python dataset_scripts/point_cloud_folder.py --data_dir my_car --output_dir my_car-parquet

With --check, pictures of the points over the images go to that folder. Exit status: 1 if a calibration is wrong.
"""

import sys

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.point_cloud_folder import PointCloudFolder


def check() -> int:
    """Check the calibration of every camera; returns 1 if one is wrong, else 0."""
    from uov_hf.own_car.check_program import check_from_command_line  # needs matplotlib and OpenCV; reading does not

    any_wrong = False
    for checked in check_from_command_line(PointCloudFolder, __doc__ or ""):
        any_wrong |= checked.report.verdict == "wrong"
        print(checked)
    return int(any_wrong)


if __name__ == "__main__":
    if any(argument.split("=")[0] == "--check" for argument in sys.argv):
        sys.exit(check())
    write_from_command_line(PointCloudFolder, __doc__)
