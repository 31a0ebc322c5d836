"""Segments of a teacher that do not fit are refused by the name of the frame and the camera."""

import dataclasses

import numpy as np
import pytest

from uov_hf.vocabulary import load_vocabulary


NUM_PROMPTS = len(load_vocabulary("nuscenes").prompts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": np.ones((3, 4), int)}, "expected a segmentation of .* as the image, got .3, 4."),
        (
            {"labels": np.array([0, NUM_PROMPTS])},
            f"expected labels that .* prompts, got 0…{NUM_PROMPTS}",
        ),
        ({"labels": np.array([-1, 0])}, "expected labels that are rows of its .* prompts, got -1…0"),
        ({"embeds": np.eye(3)[:2]}, "expected embeddings of 4 dimensions, got 3"),
    ],
)
def test_segments_that_do_not_fit_their_image_or_their_teacher_are_named(
    make_label_set, frames, teacher, monkeypatch, change, message
):
    segments = dataclasses.replace(teacher.CAM_A(), **change)
    monkeypatch.setattr(teacher, "CAM_A", lambda: segments)
    with pytest.raises(ValueError, match=f"The teacher 'halves', frame .*, camera CAM_A: {message}"):
        make_label_set(frames, teacher)


@pytest.mark.parametrize("scores", [[float("nan"), 0.5], [1.5, 0.5], [-0.5, 0.5]])
def test_scores_that_no_reader_accepts_are_not_written(make_label_set, frames, teacher, monkeypatch, scores):
    segments = dataclasses.replace(teacher.CAM_A(), scores=np.array(scores))
    monkeypatch.setattr(teacher, "CAM_A", lambda: segments)
    with pytest.raises(ValueError, match="The teacher 'halves', frame .*, camera CAM_A: expected scores from 0 to 1"):
        make_label_set(frames, teacher)
