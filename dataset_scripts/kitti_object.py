"""KITTI's 3D object benchmark: single scans with the left colour camera, without a label on points.

`python dataset_scripts/kitti_object.py --data_dir data/kitti_object --output_dir data/kitti-parquet` writes Parquet.
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.kitti_object import KittiObject


if __name__ == "__main__":
    write_from_command_line(KittiObject, __doc__)
