"""Fixtures of the small scene in `tests/halves_teacher.py`."""

from halves_teacher import frames, teacher, vocabulary  # noqa: F401
