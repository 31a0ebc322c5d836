"""Write Argoverse 2's sensor logs (docs/how_to/argoverse2.md) as Parquet.

python dataset_scripts/argoverse2.py --data_dir data/argoverse2 --output_dir data/argoverse2-parquet
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.argoverse2 import Argoverse2


if __name__ == "__main__":
    write_from_command_line(Argoverse2, __doc__)
