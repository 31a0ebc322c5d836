"""Baselines without a 3D network, fitted on the teacher's labels of points: what a student must beat."""

from collections.abc import Callable, Iterable

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.scans import LabelledScan


NUM_FITTED = 100_000  # points, drawn at random
NUM_ROUNDS = 50  # of boosting

PredictLabels = Callable[[LabelledScan], np.ndarray]  # labels `(num_points,)` of a scan


def fit_baselines(scans: Iterable[LabelledScan], seed: int = 0) -> dict[str, PredictLabels]:
    """Fit the majority class, and a classifier of single points by intensity, height and range.

    Args:
        scans (`Iterable[LabelledScan]`): Scans with `teacher_labels`; their true labels are not read. The classifier
            leaves out a class of a single drawn point.
        seed (`int`, *optional*, defaults to 0): Of the drawn points and of the classifier.

    Returns:
        `dict`: `majority_class` and `point_classifier`.

    Raises:
        ValueError: No point of the scans has a label.
    """
    parts = [_labelled_points(scan) for scan in scans]
    if not any(len(labels) for _, labels in parts):
        raise ValueError(f"Baselines need labels of points, got none in {len(parts)} scans.")
    features = np.concatenate([features for features, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    rows = np.random.default_rng(seed).permutation(len(labels))[:NUM_FITTED]
    # From 10,000 points on, the classifier holds some of each class out, which takes two points of it.
    rows = rows[np.bincount(labels[rows])[labels[rows]] > 1]
    majority = np.bincount(labels).argmax()
    classifier = HistGradientBoostingClassifier(max_iter=NUM_ROUNDS, random_state=seed)
    classifier.fit(features[rows], labels[rows])
    return {
        "majority_class": lambda scan: np.full(len(scan.points), majority),
        "point_classifier": lambda scan: classifier.predict(point_features(scan.points)),
    }


def point_features(points: np.ndarray) -> np.ndarray:
    """Intensity, height and range `(num_points, 3)`: the features of a point without its neighbours."""
    return np.stack([points[:, 3], points[:, 2], np.hypot(points[:, 0], points[:, 1])], axis=1)


def _labelled_points(scan: LabelledScan) -> tuple[np.ndarray, np.ndarray]:
    if scan.teacher_labels is None:
        raise ValueError(f"The baselines need the teacher's labels of scan {scan.frame_id}, got none.")
    labelled = scan.teacher_labels != IGNORED
    return point_features(scan.points[labelled]), scan.teacher_labels[labelled].astype(np.int64)
