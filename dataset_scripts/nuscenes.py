"""nuScenes with nuScenes-lidarseg, from a root as it is downloaded; sensor data is read where it lies.

`python dataset_scripts/nuscenes.py --data_dir data/nuscenes --output_dir data/nuscenes-parquet` writes Parquet.
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.nuscenes import NuScenes


if __name__ == "__main__":
    write_from_command_line(NuScenes, __doc__)
