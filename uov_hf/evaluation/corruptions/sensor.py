"""Disturbances and failures of the sensor: motion blur, missing beams, crosstalk, incomplete echo, another sensor."""

import numpy as np

from uov_hf.evaluation.corruptions.beams import find_beams
from uov_hf.evaluation.corruptions.scene import CleanScan, Echoes


JITTER = np.array([0.1, 0.1, 0.05])  # of each point, in shares of the scan's own displacement
CROSSTALK_METRES = 3.0
CROSSTALK_INTENSITY = 3.0 / 255  # Robo3D adds 3 on nuScenes' scale of 255
MIN_INSTANCE_POINTS = 10


def motion_blur(scan: CleanScan, displacement: float, rng: np.random.Generator) -> Echoes:
    """Displace the whole scan, and jitter each point.

    Args:
        scan (`CleanScan`): The scan.
        displacement (`float`): Standard deviation in metres of the displacement on each axis. The jitter has a tenth
            of it on x and y and a twentieth on z, and is limited to three times the displacement.
        rng (`np.random.Generator`): The source of chance.
    """
    shift = rng.normal(0, displacement, 3)
    jitter = rng.normal(0, 1, (len(scan), 3)) * JITTER * displacement
    return scan.echoes(xyz=scan.xyz + shift + jitter.clip(-3 * displacement, 3 * displacement))


def beam_missing(scan: CleanScan, share: float, rng: np.random.Generator) -> Echoes:
    """Lose whole beams.

    Args:
        scan (`CleanScan`): The scan.
        share (`float`): Of the beams that are lost. They are drawn without replacement among those that do not belong
            to the outermost sixteenth at the top and at the bottom, as in Robo3D, whose script draws with replacement
            and so loses fewer.
        rng (`np.random.Generator`): The source of chance.
    """
    beams = find_beams(scan.xyz)
    num_beams = int(beams.max(initial=-1)) + 1
    edge = max(1, round(num_beams / 16))
    # The first of one order, so that a heavier severity loses all beams of a lighter one.
    order = rng.permutation(np.arange(edge, max(edge, num_beams - edge)))
    return scan.echoes(kept=~np.isin(beams, order[: round(share * num_beams)]))


def crosstalk(scan: CleanScan, share: float, rng: np.random.Generator) -> Echoes:
    """Displace points at random, as pulses of another lidar do; they are noise.

    Args:
        scan (`CleanScan`): The scan.
        share (`float`): Of the points that are displaced, by a standard deviation of 3 m on each axis.
        rng (`np.random.Generator`): The source of chance.
    """
    is_noise = np.zeros(len(scan), dtype=bool)
    is_noise[rng.permutation(len(scan))[: int(share * len(scan))]] = True
    offset = rng.normal(0, 1, (len(scan), 4)) * is_noise[:, None]
    return scan.echoes(
        xyz=scan.xyz + CROSSTALK_METRES * offset[:, :3],
        intensity=scan.intensity + CROSSTALK_INTENSITY * offset[:, 3],
        is_noise=is_noise,
    )


def incomplete_echo(scan: CleanScan, share: float, rng: np.random.Generator) -> Echoes:
    """Lose points of vehicles, whose dark or shining paint returns little light.

    Args:
        scan (`CleanScan`): The scan.
        share (`float`): Of the points of each class of vehicles that are lost; a class of at most ten points is kept.
        rng (`np.random.Generator`): The source of chance.
    """
    kept = np.ones(len(scan), dtype=bool)
    for vehicle in scan.vehicles:
        rows = rng.permutation(np.flatnonzero(scan.labels == vehicle))
        if len(rows) > MIN_INSTANCE_POINTS:
            kept[rows[: int(share * len(rows))]] = False
    return scan.echoes(kept=kept)


def cross_sensor(scan: CleanScan, num_lost: int, rng: np.random.Generator) -> Echoes:
    """Take a sensor with fewer beams, and half of the points on each.

    Args:
        scan (`CleanScan`): The scan.
        num_lost (`int`): Of every four beams that the other sensor does not have.
        rng (`np.random.Generator`): Not used: nothing is left to chance.
    """
    beams = find_beams(scan.xyz)
    azimuth = np.arctan2(scan.xyz[:, 1], scan.xyz[:, 0])
    order = np.lexsort((azimuth, beams))
    starts = np.searchsorted(beams[order], beams[order])  # where the beam of each point begins in the order
    is_second = np.empty(len(scan), dtype=bool)
    # Robo3D takes every second point of the file. Where a file has one column of beams after another, as those of
    # nuScenes have, that loses beams instead of columns.
    is_second[order] = (np.arange(len(scan)) - starts) % 2 == 1
    lost = {1: (1,), 2: (1, 3), 3: (1, 2, 3)}[num_lost]
    return scan.echoes(kept=~np.isin(beams % 4, lost) & ~is_second)
