"""A cache of `datasets` for each test, and the small scene in `tests/halves_teacher.py`."""

import datasets
import pytest
from halves_teacher import frames  # noqa: F401
from id_rows import Writer
from tiny_frames import OwnCar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def car(tmp_path) -> OwnCar:
    return OwnCar.record(tmp_path / "car")


@pytest.fixture
def write(tmp_path):
    return Writer(tmp_path / "shards")
