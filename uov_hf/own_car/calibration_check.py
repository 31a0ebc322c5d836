"""Whether a camera is calibrated: the small rotation and time offset with which points fit the image best."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import minimize

from uov_hf.geometry.projection import Camera
from uov_hf.own_car.calibration_evidence import NUM_PARTS, Correction, Evidence, View


REACH, STEP = 3.0, 0.5  # degrees up, down, left and right in which the best place is looked for
TIME_REACH, TIME_STEP = 0.15, 0.02  # seconds
SCALE = np.array([0.2, 0.2, 0.4, 0.02])  # degrees about x, y, z, and seconds: the first steps of the fine search
TOLERANCE = np.array([0.5, 0.5, 1.0, 0.02])  # what is not called wrong: a few frames of 32 beams tell no less
TOLERATED_PIXELS = 2.0  # nor is a rotation that moves the points by so little
SURE, SURE_ENOUGH = 3.0, 2.0  # standard errors: to call a calibration wrong, to prefer one optimum to another
FARTHEST = np.array([*[REACH + STEP] * 3, TIME_REACH + TIME_STEP])  # an optimum beyond it was not searched for
ROTATION, WITH_TIME = np.array([True, True, True, False]), np.full(4, True)  # what is looked for
LEAST_JUMPS = 100
LEAST_SPEED = 1.0  # m/s
NAMES = ("pitch", "yaw", "roll", "time")  # about the camera's x, y and z


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """
    What is wrong with a calibration, as far as the views can tell.

    Args:
        correction (`Correction`): That fits best.
        errors (`np.ndarray` of shape `(4,)`):
            Standard errors of the three angles in degrees and of the time offset in seconds. Infinite where the views
            do not tell an angle, NaN where they do not tell the time: the car stood, its motion is not known, or
            the camera looks where it goes.
        num_jumps (`int`): Pairs of neighbours across an outline that were looked at.
        parallax (`float`): Share of the points in view that the camera cannot see, though the lidar does.
        score, best_score (`float`):
            How much more colours differ across outlines than on surfaces, as calibrated and with the correction.
        is_better (`bool`): Whether the difference of the scores is more than three of its standard errors.
        tolerance (`np.ndarray` of shape `(4,)`):
            Of the angles and the time offset: `TOLERANCE`, and for the angles what moves points by two pixels if that
            is more.
    """

    correction: Correction
    errors: np.ndarray
    num_jumps: int
    parallax: float
    score: float
    best_score: float
    is_better: bool
    tolerance: np.ndarray

    @property
    def wrong(self) -> list[str]:
        """Which of pitch, yaw, roll and time are off by more than `tolerance`, and surely so."""
        values = np.append(self.correction.rotation, self.correction.time_offset)
        surely = np.abs(values) > np.maximum(self.tolerance, SURE * self.errors)  # never where an error is NaN
        return [name for name, is_wrong in zip(NAMES, surely, strict=True) if is_wrong and self.is_better]

    @property
    def verdict(self) -> str:
        """`"right"`, `"wrong"`, or `"undecided"`: the views hold too little to tell an error of `tolerance`."""
        if self.wrong:
            return "wrong"
        within = np.maximum(np.abs(self.correction.rotation), self.errors[:3]) < self.tolerance[:3]
        return "right" if within.all() else "undecided"

    def __str__(self) -> str:
        if self.num_jumps < LEAST_JUMPS:
            return f"undecided; {self.num_jumps} outlines, and {LEAST_JUMPS} are needed at least"
        angles = [
            f"{name} {value:+.2f} ± {error:.2f}°"
            for name, value, error in zip(NAMES, self.correction.rotation, self.errors, strict=False)
        ]
        time = f"time {1000 * self.correction.time_offset:+.0f} ± {1000 * self.errors[3]:.0f} ms"
        best = ", ".join([*angles, "time not told" if np.isnan(self.errors[3]) else time])
        verdict = f"wrong ({', '.join(self.wrong)})" if self.wrong else self.verdict
        return (
            f"{verdict}; best correction: {best} ({self.num_jumps} outlines, score {self.score:.2f} → "
            f"{self.best_score:.2f}); parallax: {self.parallax:.1%} of the points in view are hidden from the camera"
        )


def check_calibration(views: Sequence[View]) -> CalibrationReport:
    """
    Compare the outlines that the lidar found with those in the images, and find the correction that fits best.

    Rotations are looked for first, then a rotation with a time offset, which counts only where it explains more. A
    more distant optimum is preferred where the score is better by two of its standard errors, unless it lies beyond
    what was searched. A parameter is wrong if it is off by more than the tolerance and by three of its standard
    errors, and the score is better by three of its own. All errors are told by leaving out an eighth of the evidence
    in turn.

    Args:
        views (sequence of `View`): Of one camera; ten or so, from different places. More tell smaller errors.

    Raises:
        ValueError: there are no views.
    """
    if not views:
        raise ValueError("Expected views of a camera, got none: no frame has an image of it.")
    evidence = Evidence(views)
    num_jumps = int(evidence.is_jump.sum())
    parallax = evidence.num_hidden / max(evidence.num_in_view, 1)
    nothing = np.zeros(4)
    if num_jumps < LEAST_JUMPS:
        unknown = np.full(4, np.nan)
        return CalibrationReport(_correction(nothing), unknown, num_jumps, parallax, np.nan, np.nan, False, TOLERANCE)
    best, errors = _search(evidence, _all_move(views))
    scores = [evidence.score(_correction(values)) for values in (nothing, best)]
    is_better = _is_better(evidence, best, nothing, SURE)
    tolerance = _tolerance(views[0].camera)
    return CalibrationReport(_correction(best), errors, num_jumps, parallax, *scores, is_better, tolerance)


def _tolerance(camera: Camera) -> np.ndarray:
    few_pixels = np.degrees(TOLERATED_PIXELS / camera.intrinsics[0, 0])
    return np.append(TOLERANCE[:3] * max(1.0, few_pixels / TOLERANCE[0]), TOLERANCE[3])


def _all_move(views: Sequence[View]) -> bool:
    known = [view.velocity for view in views if view.velocity is not None]
    return len(known) == len(views) and max(np.linalg.norm(velocity[:3]) for velocity in known) > LEAST_SPEED


def _correction(values: np.ndarray) -> Correction:
    return Correction(values[:3], float(values[3]))


def _search(evidence: Evidence, moving: bool) -> tuple[np.ndarray, np.ndarray]:
    """The optimum beside no correction, unless another rotation, or one with a time offset, is better; its errors."""
    angles = np.arange(-REACH, REACH + STEP / 2, STEP)
    turns = [np.array([pitch, yaw, 0, 0]) for pitch in angles for yaw in angles]
    nearest = _refine(evidence, np.zeros(4), ROTATION)
    best, errors = _prefer(evidence, turns, ROTATION, nearest, _errors(evidence, nearest, ROTATION))
    if not moving:
        return best, errors
    # A wrong time looks like a wrong yaw, and hides one: time is tried beside no rotation, the one found, and many.
    times = [np.array([0, 0, 0, time]) for time in np.arange(-TIME_REACH, TIME_REACH + TIME_STEP / 2, TIME_STEP)]
    many = [turn + time for turn in turns if turn[0] % (2 * STEP) == 0 for time in times]
    for starts in ([nearest], times, [best], many):
        best, errors = _prefer(evidence, starts, WITH_TIME, best, errors)
    return best, errors


def _prefer(
    evidence: Evidence, starts: list[np.ndarray], free: np.ndarray, best: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The optimum near the highest of some places, and its errors, if it is surely higher than the best so far."""
    start = max(starts, key=lambda values: evidence.score(_correction(values), "coarse"))
    other = _refine(evidence, _refine(evidence, start, free, "coarse"), free)
    other_errors = _errors(evidence, other, free)
    # A place that is no top in all directions is high for another reason than that the outlines fit.
    is_top = np.isfinite(other_errors[free]).all() and (np.abs(other) < FARTHEST).all()
    if is_top and (np.isinf(errors[:3]).any() or _is_better(evidence, other, best, SURE_ENOUGH)):
        return other, other_errors
    return best, errors


def _is_better(evidence: Evidence, values: np.ndarray, others: np.ndarray, num_errors: float) -> bool:
    """Whether the score is better by so many of its standard errors."""
    gains = evidence.scores_without(_correction(values)) - evidence.scores_without(_correction(others))
    return bool(gains.mean() > num_errors * np.sqrt((NUM_PARTS - 1) * gains.var()))


def _refine(evidence: Evidence, start: np.ndarray, free: np.ndarray, level: str = "fine") -> np.ndarray:
    """The local optimum near `start`, by Nelder and Mead's simplex, which needs no slope."""

    def badness(steps: np.ndarray) -> float:
        return -evidence.score(_correction(start + _spread(steps, free)), level)

    steps, size = np.zeros(free.sum()), int(free.sum())
    for first_step in (1.0, -0.5) if level == "fine" else (1.0,):
        simplex = steps + np.vstack([np.zeros(size), first_step * np.eye(size)])
        options = {"initial_simplex": simplex, "xatol": 0.05, "fatol": 1e-5, "maxfev": 150}
        steps = minimize(badness, steps, method="Nelder-Mead", options=options).x
    return start + _spread(steps, free)


def _errors(evidence: Evidence, best: np.ndarray, free: np.ndarray) -> np.ndarray:
    """
    Standard errors (4,) by the jackknife: how far the optimum moves when a part of the evidence is left out.

    Around the optimum the score is taken for a paraboloid, fitted to it one step to each side and at the corners of
    all pairs of directions. It has no top where the evidence does not hold a direction: then errors are infinite.
    """
    size = int(free.sum())
    sides = np.vstack([np.eye(size), -np.eye(size)])
    corners = [a + b for a, b in combinations(sides, 2) if np.abs(a + b).max() == 1]
    steps = np.vstack([np.zeros(size), sides, corners])  # (num_steps, size)
    scores = np.array([evidence.scores_without(_correction(best + _spread(step, free))) for step in steps])
    rows, columns = np.triu_indices(size)
    design = np.hstack([np.ones((len(steps), 1)), steps, steps[:, rows] * steps[:, columns]])
    fits = np.linalg.lstsq(design, scores, rcond=None)[0].T  # (NUM_PARTS, 1 + size + size (size + 1) / 2)
    tops = []
    for fit in fits:
        curvature = np.zeros((size, size))
        curvature[rows, columns] = fit[1 + size :]
        curvature += curvature.T
        if np.linalg.eigvalsh(curvature).max() >= 0:
            return np.where(free, np.inf, np.nan)
        tops.append(np.linalg.solve(curvature, -fit[1 : 1 + size]))
    errors = np.full(4, np.nan)
    errors[free] = np.sqrt((NUM_PARTS - 1) * np.var(tops, axis=0)) * SCALE[free]
    return errors


def _spread(steps: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Steps of the free parameters as values of all four."""
    values = np.zeros(4)
    values[free] = steps * SCALE[free]
    return values
