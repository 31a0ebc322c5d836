"""SemanticKITTI, from the folders of KITTI odometry with its labels; sensor data is read where it lies.

`python dataset_scripts/semantic_kitti.py --data_dir data/kitti --output_dir data/kitti-parquet` writes Parquet.
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.semantic_kitti import SemanticKitti


if __name__ == "__main__":
    write_from_command_line(SemanticKitti, __doc__)
