"""Fixtures of the small scene in `tests/halves_teacher.py`."""

import pytest
from halves_teacher import frames, teacher, vocabulary  # noqa: F401

from uov_hf.labels import LabelSet


@pytest.fixture
def make_label_set(tmp_path, vocabulary):  # noqa: F811
    """A label set that the teacher has written."""

    def make(frames, teacher, name="labels", cameras=None, **settings):  # noqa: F811
        label_set = LabelSet.create(tmp_path / name, teacher, vocabulary, settings)
        label_set.write(frames, teacher, cameras)
        return label_set

    return make
