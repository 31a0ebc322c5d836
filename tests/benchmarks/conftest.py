"""Benchmarks import one another, so their folder is on the path."""

import sys
from pathlib import Path


sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
