"""Votes: what segments say about points, added up, and what follows from them."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from uov_hf.configuration_uov import IGNORED


NUM_SOFT_LABELS = 3
# A segment of score 0 still speaks where nobody else does; float16 confidence knows no number as small.
LEAST_SCORE = 1e-9


@dataclass(frozen=True)
class Votes:
    """
    What was said about each of a number of points, or voxels.

    Args:
        scores (`np.ndarray` of shape `(num_points, num_classes + 1)`):
            float32; of each class the sum of the scores of the segments that are for it. The last class is "none":
            background prompts are votes for it.
        weights (`np.ndarray` of shape `(num_points,)`):
            float32; how many votes there were, each with the weight it was counted with.
    """

    scores: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def num_classes(self) -> int:
        return self.scores.shape[1] - 1

    def __add__(self, other: "Votes") -> "Votes":
        return Votes(self.scores + other.scores, self.weights + other.weights)

    def select(self, rows: np.ndarray) -> "Votes":
        """The votes on some of the points."""
        return Votes(self.scores[rows], self.weights[rows])

    def spread(self, listens: csr_array) -> "Votes":
        """What every listener hears: `listens` `(num_listeners, num_points)` is the weight it gives each point."""
        return Votes((listens @ self.scores).astype(np.float32), (listens @ self.weights).astype(np.float32))


def concatenate_votes(parts: list[Votes]) -> Votes:
    return Votes(np.concatenate([part.scores for part in parts]), np.concatenate([part.weights for part in parts]))


def count_votes(
    point: np.ndarray, class_of_vote: np.ndarray, score: np.ndarray, num_points: int, num_classes: int
) -> Votes:
    """
    Add up single votes.

    Args:
        point (`np.ndarray` of shape `(num_votes,)`): The point that is spoken about.
        class_of_vote (`np.ndarray` of shape `(num_votes,)`): Class, 255 = none.
        score (`np.ndarray` of shape `(num_votes,)`): 0…1.
        num_points, num_classes (`int`): Sizes of the result.
    """
    column = np.minimum(class_of_vote, num_classes).astype(np.int64)
    cells = point.astype(np.int64) * (num_classes + 1) + column
    scores = np.bincount(cells, np.maximum(score, LEAST_SCORE), num_points * (num_classes + 1))
    weights = np.bincount(point, minlength=num_points)
    return Votes(scores.reshape(num_points, num_classes + 1).astype(np.float32), weights.astype(np.float32))


def decide(votes: Votes, min_confidence: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """
    The class with the highest score wins. Its confidence is the mean score of all votes, where one for another class
    scores 0: Σ w s [class = c] / Σ w. A single vote's confidence is its score.

    Args:
        votes (`Votes`): Of the points.
        min_confidence (`float`): A class that wins with less gets no label.

    Returns:
        `labels` `(num_points,)` uint8, 255 = none, and `confidence` `(num_points,)` float16, of the class that won, be
        it "none".
    """
    best = votes.scores.argmax(axis=1)
    confidence = np.take_along_axis(votes.scores, best[:, None], axis=1)[:, 0] / _divisor(votes)
    is_named = (confidence > 0) & (best < votes.num_classes) & (confidence >= min_confidence)
    return np.where(is_named, best, IGNORED).astype(np.uint8), confidence.astype(np.float16)


def rank_classes(votes: Votes) -> tuple[np.ndarray, np.ndarray]:
    """
    The three classes with the highest scores, best first.

    Returns:
        `soft_labels` `(num_points, 3)` uint8, 255 where no vote was for a further class, and `soft_scores`
        `(num_points, 3)` float16, the confidence of each as in `decide`.
    """
    order = np.argsort(-votes.scores[:, : votes.num_classes], axis=1, kind="stable")[:, :NUM_SOFT_LABELS]
    ranked = np.take_along_axis(votes.scores, order, axis=1) / _divisor(votes)[:, None]
    missing = NUM_SOFT_LABELS - order.shape[1]  # of a vocabulary with fewer classes
    soft_labels = np.pad(np.where(ranked > 0, order, IGNORED), ((0, 0), (0, missing)), constant_values=IGNORED)
    return soft_labels.astype(np.uint8), np.pad(ranked, ((0, 0), (0, missing))).astype(np.float16)


def _divisor(votes: Votes) -> np.ndarray:
    return np.maximum(votes.weights, np.finfo(np.float32).tiny)
