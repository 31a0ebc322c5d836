"""The small rotation and time offset of a camera with which points fit the image best, and their standard errors."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from uov_hf.geometry.projection import Camera
from uov_hf.geometry.rotation import rigid_motion
from uov_hf.geometry.trajectory import travel
from uov_hf.own_car.outlines import NUM_PARTS, Outlines


REACH, STEP = 3.0, 0.5  # degrees up, down, left and right that are searched
TIME_REACH, TIME_STEP = 0.15, 0.02  # seconds
SCALE = np.array([0.2, 0.2, 0.4, 0.02])  # degrees about x, y, z, and seconds: the first steps of the fine search
SURE_ENOUGH = 2.0  # standard errors by which an optimum must be better to replace one nearer to no correction
FARTHEST = np.array([*[REACH + STEP] * 3, TIME_REACH + TIME_STEP])  # an optimum beyond it was not searched for
ROTATION, WITH_TIME = np.array([True, True, True, False]), np.full(4, True)  # the parameters that are free

Values = NDArray[np.float64]  # (4,): three angles in degrees and a time in seconds, as the search varies them
Free = NDArray[np.bool_]  # (4,): which of the values vary


@dataclass(frozen=True, eq=False)
class Correction:
    """A small change of a calibration."""

    rotation: NDArray[np.float64]  # (3,): degrees about the camera's axes: x right, y down, z forward
    time_offset: float = 0.0  # seconds to add to the camera's timestamps

    @property
    def turn(self) -> NDArray[np.float64]:
        """The rotation as a motion (4, 4): the corrected `lidar2cam` is `turn @ lidar2cam`."""
        return rigid_motion(Rotation.from_rotvec(self.rotation, degrees=True).as_matrix(), np.zeros(3))

    def apply(self, camera: Camera, velocity: NDArray[np.float64] | None = None) -> Camera:
        """The corrected camera, for a lidar that moves at `velocity` (6,)."""
        return Camera(self.correct(camera.lidar2cam, velocity), camera.intrinsics, camera.image_size)

    def correct(
        self, lidar2cam: NDArray[np.float64], velocity: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """The corrected motion (4, 4), or motions (num_views, 4, 4) at velocities (num_views, 6)."""
        if velocity is None or not self.time_offset:
            return self.turn @ lidar2cam
        return self.turn @ lidar2cam @ travel(velocity, -self.time_offset)


def best_correction(outlines: Outlines, with_time: bool) -> tuple[Values, Values]:
    """The values of the correction with the best score, and their standard errors.

    The optimum next to no correction counts, unless another rotation, or one with a time offset, is surely better.

    Args:
        outlines (`Outlines`): The pairs of points to compare.
        with_time (`bool`): Whether to search for a time offset, too.
    """
    angles = np.arange(-REACH, REACH + STEP / 2, STEP)
    turns = [np.array([pitch, yaw, 0, 0]) for pitch in angles for yaw in angles]
    nearest = _refine(outlines, np.zeros(4), ROTATION)
    best, errors = _prefer(outlines, turns, ROTATION, nearest, _errors(outlines, nearest, ROTATION))
    if not with_time:
        return best, errors
    # A wrong time looks like a wrong yaw and hides one: try times with no rotation, with the best one, with many.
    times = [np.array([0, 0, 0, time]) for time in np.arange(-TIME_REACH, TIME_REACH + TIME_STEP / 2, TIME_STEP)]
    many = [turn + time for turn in turns if turn[0] % (2 * STEP) == 0 for time in times]
    for starts in ([nearest], times, [best], many):
        best, errors = _prefer(outlines, starts, WITH_TIME, best, errors)
    return best, errors


def _prefer(
    outlines: Outlines, starts: list[Values], free: Free, best: Values, errors: Values
) -> tuple[Values, Values]:
    """The optimum near the best of some starts, and its errors, if it is surely better than the best so far."""
    start = max(starts, key=lambda values: score_of(outlines, values, "coarse"))
    other = _refine(outlines, _refine(outlines, start, free, "coarse"), free)
    other_errors = _errors(outlines, other, free)
    # A real optimum falls off in all directions; anything else scores high for another reason than matching outlines.
    is_top = np.isfinite(other_errors[free]).all() and (np.abs(other) < FARTHEST).all()
    if is_top and (np.isinf(errors[:3]).any() or is_better(outlines, other, best, SURE_ENOUGH)):
        return other, other_errors
    return best, errors


def is_better(outlines: Outlines, values: Values, others: Values, num_errors: float) -> bool:
    """Whether the first values score better than the others by `num_errors` standard errors."""
    gains = _scores_without(outlines, values) - _scores_without(outlines, others)
    return bool(gains.mean() > num_errors * np.sqrt((NUM_PARTS - 1) * gains.var()))


def _refine(outlines: Outlines, start: Values, free: Free, level: str = "fine") -> Values:
    """The local optimum near `start`, by Nelder and Mead's simplex, which needs no gradient."""

    def badness(steps: NDArray[np.float64]) -> float:
        return -score_of(outlines, start + _spread(steps, free), level)

    size = int(free.sum())
    steps = np.zeros(size)
    for first_step in (1.0, -0.5) if level == "fine" else (1.0,):
        simplex = steps + np.vstack([np.zeros(size), first_step * np.eye(size)])
        steps = minimize(
            badness,
            steps,
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "xatol": 0.05, "fatol": 1e-5, "maxfev": 150},
        ).x
    return start + _spread(steps, free)


def _errors(outlines: Outlines, best: Values, free: Free) -> Values:
    """Standard errors (4,) by the jackknife: how far the optimum moves when a part of the pairs is left out.

    Near the optimum the score is approximated by a paraboloid, fitted one step to each side and at the corners of all
    pairs of directions. If it has no maximum, the pairs do not determine a direction: then errors are infinite.
    """
    size = int(free.sum())
    sides = np.vstack([np.eye(size), -np.eye(size)])
    corners = [a + b for a, b in combinations(sides, 2) if np.abs(a + b).max() == 1]
    steps = np.vstack([np.zeros(size), sides, corners])  # (num_steps, size)
    scores = np.array([_scores_without(outlines, best + _spread(step, free)) for step in steps])
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


def _spread(steps: NDArray[np.float64], free: Free) -> Values:
    """All four values of steps of the free parameters."""
    values = np.zeros(4)
    values[free] = steps * SCALE[free]
    return values


def as_correction(values: Values) -> Correction:
    return Correction(values[:3], float(values[3]))


def score_of(outlines: Outlines, values: Values, level: str = "fine") -> float:
    """The score of the outlines in the corrected cameras."""
    return outlines.score(as_correction(values).correct(outlines.lidar2cam, outlines.velocity), level)


def _scores_without(outlines: Outlines, values: Values) -> NDArray[np.float64]:
    return outlines.scores_without(as_correction(values).correct(outlines.lidar2cam, outlines.velocity))
