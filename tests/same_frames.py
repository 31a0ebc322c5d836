"""Whether two frames are the same: every column, arrays and image files to the bit."""

from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.data import FRAME_FEATURES


def assert_same_frame(frame: dict[str, Any], expected: dict[str, Any]):
    assert set(frame) == set(expected) == set(FRAME_FEATURES)
    for column in FRAME_FEATURES:
        if column == "images":
            assert [content_of(image) for image in frame[column]] == [content_of(image) for image in expected[column]]
        elif isinstance(expected[column], np.ndarray):
            assert frame[column].dtype == expected[column].dtype, column
            assert frame[column].shape == expected[column].shape, column
            assert frame[column].tobytes() == expected[column].tobytes(), column
        else:
            assert frame[column] == expected[column], column


def content_of(image: dict[str, Any]) -> bytes:
    return Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
