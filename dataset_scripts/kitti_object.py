"""Write KITTI's 3D object benchmark as Parquet.

python dataset_scripts/kitti_object.py --data_dir data/kitti_object --output_dir data/kitti-parquet
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.kitti_object import KittiObject


if __name__ == "__main__":
    write_from_command_line(KittiObject, __doc__)
