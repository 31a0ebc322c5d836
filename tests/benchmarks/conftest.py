"""Benchmarks import one another: their folder is on the path while their tests run."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="package", autouse=True)
def benchmarks():
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
