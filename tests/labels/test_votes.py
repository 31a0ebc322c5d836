"""Votes: they add up to the best class and its confidence, or to no label."""

import numpy as np
import pytest

from uov_hf.labels.votes import count_votes, decide, rank_classes


CAR, ROAD, NONE = 0, 1, 255


def votes_on_one_point(*votes):
    classes, scores = zip(*votes, strict=True)
    return count_votes(np.zeros(len(votes), int), np.array(classes), np.array(scores, np.float32), 1, num_classes=2)


def test_numbers_decide_whatever_the_scores():
    """A network's scores are higher for large things than for thin ones, right or wrong."""
    votes = votes_on_one_point((CAR, 0.9), (ROAD, 0.4), (ROAD, 0.4))
    labels, confidence = decide(votes)
    assert labels.tolist() == [ROAD] and confidence == pytest.approx([0.8 / 3], abs=1e-3)  # 0.4 + 0.4 of three votes
    soft_labels, soft_scores = rank_classes(votes)
    assert soft_labels.tolist() == [[ROAD, CAR, NONE]]
    assert soft_scores[0] == pytest.approx([0.8 / 3, 0.3, 0], abs=1e-3)


def test_of_equally_many_votes_the_higher_score_wins():
    votes = votes_on_one_point((CAR, 0.4), (ROAD, 0.5))
    assert decide(votes)[0].tolist() == [ROAD] and rank_classes(votes)[0].tolist() == [[ROAD, CAR, NONE]]


def test_background_is_a_vote_for_no_class():
    votes = votes_on_one_point((CAR, 0.5), (NONE, 0.8))
    labels, confidence = decide(votes)
    assert labels.tolist() == [NONE] and confidence == pytest.approx([0.4], abs=1e-3)
    assert rank_classes(votes)[0].tolist() == [[CAR, NONE, NONE]]


def test_a_point_without_votes_has_no_label():
    votes = count_votes(np.array([1]), np.array([CAR]), np.array([1.0]), 2, num_classes=2)
    labels, confidence = decide(votes)
    assert labels.tolist() == [NONE, CAR] and confidence.tolist() == [0, 1]
    assert rank_classes(votes)[0].tolist() == [[NONE] * 3, [CAR, NONE, NONE]]


def test_a_label_of_just_the_least_confidence_stays():
    votes = votes_on_one_point((CAR, 0.5))
    assert decide(votes, min_confidence=0.5)[0].tolist() == [CAR]
    assert decide(votes, min_confidence=0.51)[0].tolist() == [NONE]


def test_only_points_with_votes_have_any():
    votes = count_votes(np.array([1, 1]), np.array([NONE, CAR]), np.array([0.0, 0.0]), 3, num_classes=2)
    assert votes.is_any.tolist() == [False, True, False]
    assert decide(votes)[0].tolist() == [NONE, CAR, NONE]  # a score of 0 is a vote, too


@pytest.mark.parametrize(
    "point, class_of_vote, score, message",
    [
        ([0, 1], [0, -1], [1, 1], "`class_of_vote` must lie between 0 and 1, or be 255, got -1 to -1"),
        ([0, 1], [0, 7], [1, 1], "`class_of_vote` must lie between 0 and 1, or be 255, got 7 to 7"),
        ([0, -1], [0, 0], [1, 1], "`point` must lie between 0 and 1, got -1 to -1"),
        ([0, 2], [0, 0], [1, 1], "`point` must lie between 0 and 1, got 2 to 2"),
        ([0, 1], [0, 0], [1, np.nan], "`score` must lie between 0 and 1, got nan"),
        ([0, 1], [0, 0], [1, 1.01], "`score` must lie between 0 and 1, got 1.0 to 1.01"),
        ([0, 1], [0, 0], [-0.01, 1], "`score` must lie between 0 and 1, got -0.01 to 1.0"),
        ([0, 1], [0], [1, 1], r"`class_of_vote` must be whole numbers of shape \(2,\), got .* \(1,\)"),
    ],
)
def test_a_vote_of_no_point_or_class_is_refused(point, class_of_vote, score, message):
    """The class -1 of a point counted as a vote on the point before it."""
    with pytest.raises(ValueError, match=message):
        count_votes(np.array(point), np.array(class_of_vote), np.array(score, float), 2, num_classes=2)


@pytest.mark.parametrize("num_classes", [0, 255])
def test_labels_of_one_byte_have_room_for_up_to_255_classes(num_classes):
    none = np.zeros(0, int)
    assert count_votes(none, none, none, 1, num_classes).weights.shape == (1, num_classes + 1)
    wrong = {0: -1, 255: 256}[num_classes]
    with pytest.raises(ValueError, match=f"`num_classes` must lie between 0 and 255, got {wrong}"):
        count_votes(none, none, none, 1, wrong)
