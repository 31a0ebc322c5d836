"""A tiny CLIP, and three pictures that teachers look at."""

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    return save_tiny_clip(tmp_path_factory.mktemp("tiny_clip"))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Coloured stripes and noise, two of one size."""
    generator = np.random.default_rng(0)
    images = []
    for height, width in ((90, 160), (90, 160), (70, 80)):
        pixels = generator.integers(0, 256, (height, width, 3)) // 8
        pixels[:, : width // 3, 0] += 200
        pixels[height // 2 :, :, 1] += 150
        images.append(Image.fromarray(pixels.astype(np.uint8)))
    return images


@pytest.fixture(scope="session")
def frame(pictures, tmp_path_factory) -> dict:
    """A frame of three cameras that took them."""
    folder, images = tmp_path_factory.mktemp("images"), []
    for name, picture in zip("ABC", pictures, strict=True):
        picture.save(folder / f"{name}.png")
        images.append({"bytes": None, "path": str(folder / f"{name}.png")})
    return {"frame_id": "7", "camera_names": ["A", "B", "C"], "images": images}
