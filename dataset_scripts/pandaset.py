"""PandaSet's spinning lidar and one of its cameras, from plain files; sensor data is read where it lies.

PandaSet comes as pickles of pandas, which run code as they are read. This script reads what they hold as plain files;
docs/datasets.md has the layout. `python dataset_scripts/pandaset.py --data_dir data/pandaset --output_dir
data/pandaset-parquet` writes Parquet.
"""

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.pandaset import PandaSet


if __name__ == "__main__":
    write_from_command_line(PandaSet, __doc__)
