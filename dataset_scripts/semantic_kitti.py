"""Write SemanticKITTI as Parquet.

python dataset_scripts/semantic_kitti.py --data_dir data/kitti --output_dir data/kitti-parquet
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.semantic_kitti import SemanticKitti


if __name__ == "__main__":
    write_from_command_line(SemanticKitti, __doc__)
