"""`python -m uov_hf.convert …` is `uov-hf convert …`: convert an official UOV/AFOV or SLidR checkpoint."""

import sys

from uov_hf_cli.__main__ import main


if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
