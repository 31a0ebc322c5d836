"""Write PandaSet (docs/how_to/pandaset.md has the layout) as Parquet.

python dataset_scripts/pandaset.py --data_dir data/pandaset --output_dir data/pandaset-parquet
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.pandaset import PandaSet


if __name__ == "__main__":
    write_from_command_line(PandaSet, __doc__)
