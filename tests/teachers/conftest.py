"""Tiny teachers, loaded once, and three images for them."""

from functools import cache, partial
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import draw_images, frame_of, load_tiny_teacher, save_tiny_clip, saved

from uov_hf.data import load_frames
from uov_hf.teachers.images import ScaledImage


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """The folder of the tiny models."""
    return tmp_path_factory.mktemp("tiny_models")


@pytest.fixture(scope="session")
def tiny_clip(models) -> str:
    return saved(save_tiny_clip, models)


@pytest.fixture(scope="session")
def load(models):
    """`load(name, **settings)`: a tiny teacher, shared by all tests. Do not change it."""
    return cache(partial(load_tiny_teacher, folder=models))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Coloured stripes and noise, two of one size."""
    return draw_images((90, 160), (90, 160), (70, 80))


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """A wide and a high one."""
    return draw_images((90, 160), (80, 40))


@pytest.fixture(scope="session")
def scaled(pictures) -> list[ScaledImage]:
    return [ScaledImage(picture) for picture in pictures]


@pytest.fixture(scope="session")
def frame(pictures) -> dict:
    """A frame of three cameras with these pictures."""
    return frame_of(*pictures)


@pytest.fixture(scope="session")
def real_frames(shared_data):
    """One frame of nuScenes with six real images."""
    return load_frames("nuscenes", "all", data_dir=shared_data / "nuscenes")
