"""The eight corruptions of Robo3D's nuScenes-C (Kong et al., ICCV 2023), each in three severities.

docs/explanation/corruptions.md has the constants, and what differs from Robo3D.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.corruptions.scene import CleanScan, Echoes
from uov_hf.evaluation.corruptions.sensor import beam_missing, cross_sensor, crosstalk, incomplete_echo, motion_blur
from uov_hf.evaluation.corruptions.weather import fog, snow, wet_ground
from uov_hf.evaluation.scans import LabelledScan


SEVERITIES = ("light", "moderate", "heavy")
Level = TypeVar("Level")
Change = Callable[[CleanScan, np.random.Generator], Echoes]


def _severities(change: Callable[[CleanScan, Level, np.random.Generator], Echoes], *levels: Level) -> list[Change]:
    def of(level: Level) -> Change:
        return lambda scan, rng: change(scan, level, rng)

    return [of(level) for level in levels]


# The constants of the severities are those of the programs that made nuScenes-C.
CORRUPTIONS: dict[str, list[Change]] = {
    "fog": _severities(fog, 0.008, 0.05, 0.2),
    "wet_ground": _severities(wet_ground, (0.2, 0.2), (1.0, 0.3), (1.2, 0.7)),
    "snow": _severities(snow, (0.5, 2.0), (1.0, 1.6), (2.5, 1.6)),
    "motion_blur": _severities(motion_blur, 0.2, 0.25, 0.3),
    "beam_missing": _severities(beam_missing, 0.25, 0.5, 0.75),
    # The programs have only the 3 % of the light severity; the others are our choice.
    "crosstalk": _severities(crosstalk, 0.03, 0.07, 0.12),
    "incomplete_echo": _severities(incomplete_echo, 0.75, 0.85, 0.95),
    "cross_sensor": _severities(cross_sensor, 1, 2, 3),
}
# Names in our vocabularies. Robo3D's wet ground and incomplete echo are defined by the true classes.
GROUND = {"road", "driveable_surface", "driveway", "parking", "sidewalk", "other_flat", "other-ground"}
VEHICLES = {
    "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "other-vehicle", "towed_object", "trailer", "train",
    "truck",
}  # fmt: skip
NEEDED = {"wet_ground": GROUND, "incomplete_echo": VEHICLES}
MIN_DISTANCE = 0.1  # metres; drivers write nearer points where a beam has no echo


@dataclass(frozen=True)
class Corruption:
    """One corruption of one severity: `Corruption("fog", "heavy", class_names)(scan, intensity_max)` is a new scan.

    The result is a function of the scan, the frame id, the seed, the corruption and its severity. The severities of a
    corruption share their random numbers, so that a heavier one is a lighter one made worse.

    Args:
        name (`str`): One of `CORRUPTIONS`.
        severity (`str`): One of `SEVERITIES`.
        class_names (sequence of `str`): The classes of the true labels.
        seed (`int`, *optional*, defaults to 0): Of the random numbers.

    Raises:
        ValueError: There is no such corruption or severity, or none of the classes that it changes.
    """

    name: str
    severity: str
    class_names: Sequence[str]
    seed: int = 0

    def __post_init__(self) -> None:
        check_names([self.name])
        if self.severity not in SEVERITIES:
            raise ValueError(f"The severity must be one of {', '.join(SEVERITIES)}, got {self.severity!r}.")
        needed = NEEDED.get(self.name)
        if needed and not needed & set(self.class_names):
            raise ValueError(
                f"The corruption {self.name} changes only points of the classes {', '.join(sorted(needed))}, and the "
                f"ground truth has none of them: {', '.join(self.class_names)}. Leave it out of --corruptions."
            )

    def __str__(self) -> str:
        return f"{self.name} {self.severity}"

    def __call__(self, scan: LabelledScan, intensity_max: float) -> LabelledScan:
        """The scan as the sensor measures it under the corruption; the voxels are not made anew.

        Echoes without a true class, such as those of snowflakes, are not scored: their label is 255, as in nuScenes-C.
        Points that are not finite or lie at the sensor stay as they are.

        Args:
            scan (`LabelledScan`): The clean scan.
            intensity_max (`float`): The full scale of its intensities.
        """
        change = CORRUPTIONS[self.name][SEVERITIES.index(self.severity)]
        real = np.isfinite(scan.points).all(axis=1)
        real[real] = np.linalg.norm(scan.points[real, :3], axis=1) > MIN_DISTANCE
        echoes = change(self._clean(scan, real, intensity_max), self._rng(scan))
        changed = np.flatnonzero(real)[echoes.rows]
        points, is_noise = scan.points.copy(), np.zeros(len(real), dtype=bool)
        points[changed, :3], points[changed, 3] = echoes.xyz, echoes.intensity * intensity_max
        is_noise[changed] = echoes.is_noise
        kept = ~real
        kept[changed] = True
        return _select(replace(scan, points=points, labels=np.where(is_noise, IGNORED, scan.labels)), kept)

    def _clean(self, scan: LabelledScan, real: NDArray[np.bool_], intensity_max: float) -> CleanScan:
        xyz, intensity = np.split(scan.points[real].astype(np.float64), [3], axis=1)
        ground, vehicles = (
            np.flatnonzero([name in group for name in self.class_names]) for group in (GROUND, VEHICLES)
        )
        return CleanScan(xyz, intensity[:, 0] / intensity_max, scan.labels[real], ground, vehicles)

    def _rng(self, scan: LabelledScan) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.name}/{scan.frame_id}".encode()).digest()
        return np.random.default_rng([self.seed, *digest])


def check_names(names: Sequence[str]) -> None:
    """Raise a `ValueError` if one of the names is no corruption."""
    if unknown := [name for name in names if name not in CORRUPTIONS]:
        raise ValueError(f"The corruptions are {', '.join(CORRUPTIONS)}; got {', '.join(unknown)}.")


def _select(scan: LabelledScan, kept: NDArray[np.bool_]) -> LabelledScan:
    """The points of a scan that are in a mask `(num_points,)`, with all that belongs to them."""
    return replace(
        scan,
        points=scan.points[kept],
        labels=scan.labels[kept],
        regions={name: region[kept] for name, region in scan.regions.items()},
        teacher_labels=None if scan.teacher_labels is None else scan.teacher_labels[kept],
        instances=None if scan.instances is None else np.asarray(scan.instances)[kept],
    )
