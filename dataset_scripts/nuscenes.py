"""Write nuScenes as Parquet.

python dataset_scripts/nuscenes.py --data_dir data/nuscenes --output_dir data/nuscenes-parquet
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.nuscenes import NuScenes


if __name__ == "__main__":
    write_from_command_line(NuScenes, __doc__)
