"""Votes of segments on points: their sums, and the labels that they give."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from uov_hf.array_checks import check_array, check_ids
from uov_hf.configuration_uov import IGNORED


NUM_SOFT_LABELS = 3
# A segment of score 0 still labels a point that has no other vote; in float16 this confidence is 0.
LEAST_SCORE = 1e-9
ROUNDING = 1e-3  # by which a mean of float16 probabilities may leave 0…1
TIE_BREAK = 1e-3  # the effect of scores on the order of classes, against that of the number of votes


@dataclass(frozen=True)
class Votes:
    """
    The sums of the votes on each of a number of points, or voxels.

    Args:
        weights (`np.ndarray` of shape `(num_points, num_classes + 1)`):
            float32; for each class the number of its votes, each counted with its weight. The last column is "none",
            the class of background prompts.
        scores (`np.ndarray` of shape `(num_points, num_classes + 1)`):
            float32; the same sums, of each vote's weight times the score of its segment.
    """

    weights: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def num_classes(self) -> int:
        return self.weights.shape[1] - 1

    @property
    def is_any(self) -> np.ndarray:
        """Which points have votes, `(num_points,)` bool."""
        return np.any(self.weights > 0, axis=1)

    def __add__(self, other: "Votes") -> "Votes":
        return Votes(self.weights + other.weights, self.scores + other.scores)

    def select(self, rows: np.ndarray) -> "Votes":
        """The votes on some of the points."""
        return Votes(self.weights[rows], self.scores[rows])

    def expand(self, rows: np.ndarray) -> "Votes":
        """The votes on all of the points, where `self` has those on the `rows` `(num_points,)` bool of them."""
        weights, scores = np.zeros((2, len(rows), self.num_classes + 1), np.float32)
        weights[rows], scores[rows] = self.weights, self.scores
        return Votes(weights, scores)

    def where(self, kept: np.ndarray) -> "Votes":
        """The votes without some; `kept` is bool of shape `(num_points, num_classes + 1)`."""
        return Votes(np.where(kept, self.weights, 0), np.where(kept, self.scores, 0))

    def spread(self, weights: csr_array) -> "Votes":
        """The weighted sums of the votes; `weights` is `(num_targets, num_points)`."""
        return Votes((weights @ self.weights).astype(np.float32), (weights @ self.scores).astype(np.float32))


def concatenate_votes(parts: list[Votes]) -> Votes:
    """The votes of several scans, one after another."""
    return Votes(np.concatenate([part.weights for part in parts]), np.concatenate([part.scores for part in parts]))


def count_votes(
    point: np.ndarray, class_of_vote: np.ndarray, score: np.ndarray, num_points: int, num_classes: int
) -> Votes:
    """
    Add up single votes.

    Args:
        point (`np.ndarray` of shape `(num_votes,)`): The point of each vote.
        class_of_vote (`np.ndarray` of shape `(num_votes,)`): Its class, 255 = none.
        score (`np.ndarray` of shape `(num_votes,)`): Its score, 0…1.
        num_points, num_classes (`int`): Sizes of the result.

    Raises:
        ValueError: The arrays have other shapes, a vote is of no point or class, or a score is not from 0 to 1.
    """
    if not 0 <= num_classes <= IGNORED:
        raise ValueError(f"`num_classes` must lie between 0 and {IGNORED}, got {num_classes}.")
    check_ids("point", point, "num_votes", num_points)
    check_ids("class_of_vote", class_of_vote, len(point), num_classes, IGNORED)
    check_array("score", score, (len(point),))
    if not ((score >= -ROUNDING) & (score <= 1 + ROUNDING)).all():  # false for NaN
        raise ValueError(f"`score` must lie between 0 and 1, got {score.min()} to {score.max()}.")
    column = np.minimum(class_of_vote, num_classes).astype(np.int64)
    cells, shape = point.astype(np.int64) * (num_classes + 1) + column, (num_points, num_classes + 1)
    weights = np.bincount(cells, minlength=num_points * (num_classes + 1))
    scores = np.bincount(cells, np.maximum(score, LEAST_SCORE), num_points * (num_classes + 1))
    return Votes(weights.reshape(shape).astype(np.float32), scores.reshape(shape).astype(np.float32))


def decide(votes: Votes, min_confidence: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """
    Label each point with the class that has the most votes; of classes with as many, the one of higher scores.

    Its confidence is Σ w s [class = c] / Σ w: the mean score of all votes, where votes for other classes count as 0.
    The confidence of a single vote is its score. A point with less than `min_confidence` gets no label.

    Returns:
        `labels` `(num_points,)` uint8, 255 = none, and `confidence` `(num_points,)` float16 of the best class, also
        where that is "none".
    """
    best = _rank(votes).argmax(axis=1)
    confidence = np.take_along_axis(votes.scores, best[:, None], axis=1)[:, 0] / _divisor(votes)
    is_named = (confidence > 0) & (best < votes.num_classes) & (confidence >= min_confidence)
    return np.where(is_named, best, IGNORED).astype(np.uint8), confidence.astype(np.float16)


def rank_classes(votes: Votes) -> tuple[np.ndarray, np.ndarray]:
    """
    The three classes with the most votes, best first.

    Returns:
        `soft_labels` `(num_points, 3)` uint8, 255 where fewer classes have votes, and `soft_scores` `(num_points, 3)`
        float16, the confidence of each as in `decide`.
    """
    order = np.argsort(-_rank(votes)[:, : votes.num_classes], axis=1, kind="stable")[:, :NUM_SOFT_LABELS]
    ranked = np.take_along_axis(votes.scores, order, axis=1) / _divisor(votes)[:, None]
    missing = NUM_SOFT_LABELS - order.shape[1]  # positive if the vocabulary has fewer classes
    soft_labels = np.pad(np.where(ranked > 0, order, IGNORED), ((0, 0), (0, missing)), constant_values=IGNORED)
    return soft_labels.astype(np.uint8), np.pad(ranked, ((0, 0), (0, missing))).astype(np.float16)


def _rank(votes: Votes) -> np.ndarray:
    """What orders the classes of each point: the votes, and between equal ones the scores."""
    # Votes count alike, whatever their scores. A network's scores differ more between classes than between right and
    # wrong labels: with scores as weights, large things outvote the thin things before them (docs/results.md).
    return votes.weights + TIE_BREAK * votes.scores


def _divisor(votes: Votes) -> np.ndarray:
    return np.maximum(votes.weights.sum(axis=1), np.finfo(np.float32).tiny)
