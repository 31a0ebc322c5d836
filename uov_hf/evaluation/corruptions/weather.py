"""Adverse weather: fog, wet ground and snow, by the physical models that Robo3D takes."""

import numpy as np
from numpy.typing import NDArray

from uov_hf.evaluation.corruptions.scene import CleanScan, Echoes


LIGHT = 299_792_458.0  # metres a second

# Fog: Hahner et al., ICCV 2021.
ATTENUATIONS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.06)  # 1/m; Robo3D draws one for each scan
PULSE = 20e-9  # seconds at half of the power
TARGET_BACKSCATTER = 1e-6 / np.pi
OVERLAP = (0.9, 1.0)  # metres; where the receiver begins to see the beam, and where it sees all of it
MAX_RANGE, RANGE_STEP = 200.0, 0.1  # metres
FOG_SPREAD = 10.0  # metres

# Wet ground: Hahner et al., CVPR 2022.
AIR, WATER = 1.0003, 1.33  # refractive indices
PAVEMENT_DEPTH = 1.2  # millimetres of water that fill the texture of the pavement
EMITTED = 15.0  # power of the laser, in units of what dry ground returns
MIN_REFLECTIVITY = 0.05
MIN_GROUND_POINTS = 100  # to fit a line; Robo3D needs 1,000, which sparse sensors do not have

# Snow: Hahner et al., CVPR 2022, with the sizes of flakes by Gunn and Marshall (1958).
SNOW_DENSITY = 0.1  # of water
MAX_FLAKE = 0.02  # metres
DIVERGENCE = 3e-3  # radians, of a beam
FLAKE_INTENSITY = 0.9  # of the full scale, at one metre
SNOW_NOISE_FLOOR = 0.7
MIN_ECHO = 1 / 255  # of the full scale; Robo3D also measures flakes that return less where the target returns nothing
GROUND_BINS = np.linspace(10, 70, 51)  # metres


def fog(scan: CleanScan, backscatter: float, rng: np.random.Generator) -> Echoes:
    """Dim each echo, and replace it by the echo of the fog where that is stronger.

    The target returns i exp(−2αd). The fog returns i d² β/β₀ I(d), where I is the strongest response of the fog up to
    the target. α is drawn for each scan.

    Args:
        scan (`CleanScan`): The scan.
        backscatter (`float`): β of the fog.
        rng (`np.random.Generator`): The source of chance.
    """
    attenuation = rng.choice(ATTENUATIONS)
    spread = rng.uniform(-FOG_SPREAD, FOG_SPREAD, len(scan))
    distance = scan.distance
    target = np.round(255 * scan.intensity * np.exp(-2 * attenuation * distance)) / 255  # of a sensor with 8 bits
    ranges, responses = fog_response(attenuation)
    cells = np.rint(distance / RANGE_STEP).astype(np.int64).clip(max=len(ranges) - 1)
    response = scan.intensity * distance**2 * backscatter / TARGET_BACKSCATTER * responses[cells]
    is_noise = response > target
    # Robo3D spreads the fog in the same way, but its echoes may lie behind the target or behind the sensor.
    fog_range = np.minimum(ranges[cells] * distance / np.maximum(distance + spread, 1e-3), distance)
    xyz = np.where(is_noise, fog_range / distance, 1.0)[:, None] * scan.xyz
    return scan.echoes(xyz, np.where(is_noise, response, target), is_noise=is_noise)


def fog_response(attenuation: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The strongest response of fog in front of a target at 0, 0.1, … 200 m.

    The response at a range R is the integral over the pulse, from t = 0 to 2 τ, of sin²(πt / 2τ) exp(−2αr) ξ(r) / r²,
    with r = R − ct / 2; ξ is the overlap of beam and receiver.

    Returns:
        The range of the response in metres, and its strength in seconds per square metre, each of shape
        `(num_ranges,)`.
    """
    time = np.linspace(0, 2 * PULSE, 401)
    ranges = np.arange(0, MAX_RANGE + RANGE_STEP / 2, RANGE_STEP)
    r = ranges[:, None] - LIGHT * time / 2  # (num_ranges, num_times)
    overlap = np.clip((r - OVERLAP[0]) / (OVERLAP[1] - OVERLAP[0]), 0, 1)
    r = np.maximum(r, OVERLAP[0])  # no division by 0 where nothing overlaps
    pulse = np.sin(np.pi * time / (2 * PULSE)) ** 2
    response = np.trapezoid(pulse * np.exp(-2 * attenuation * r) * overlap / r**2, time, axis=1)
    strongest = np.maximum.accumulate(response)
    place = np.maximum.accumulate(np.where(response == strongest, np.arange(len(ranges)), 0))
    return ranges[place], strongest


def wet_ground(scan: CleanScan, water: tuple[float, float], rng: np.random.Generator) -> Echoes:
    """Dim the paved ground under water, and lose its echoes below the noise of the sensor.

    Args:
        scan (`CleanScan`): The scan.
        water (`tuple` of `float`): Millimetres of water, and the noise floor as a share of what dry ground returns.
        rng (`np.random.Generator`): Not used: nothing is left to chance.
    """
    height, noise_floor = water
    ground = np.flatnonzero(scan.is_ground)
    if len(ground) < MIN_GROUND_POINTS:
        return scan.echoes()
    distance, dry = scan.distance[ground], scan.intensity[ground]
    cosine = np.clip(-scan.xyz[ground, 2] / distance, 0.01, 1.0)  # of the angle of incidence on level ground
    typical = np.maximum(_fit_line(distance, dry / cosine, distance), 1e-6)  # at vertical incidence
    reflectivity = dry / cosine / (EMITTED * typical)
    angle = np.maximum(np.arccos(cosine), 0.01)
    wetness = min(height / PAVEMENT_DEPTH, 1.0)
    # The division by the angle, and not by a cosine, is that of the published programs.
    returned = (1 - wetness) * reflectivity + wetness * below_water(angle, reflectivity) / angle
    wet = np.clip(EMITTED * typical * cosine * returned, 0, dry)
    kept, intensity = np.ones(len(scan), dtype=bool), scan.intensity.copy()
    kept[ground] = wet > noise_floor * typical * cosine
    intensity[ground] = wet
    return scan.echoes(intensity=intensity, kept=kept)


def below_water(angle: NDArray[np.float64], reflectivity: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of light that returns from ground below water, `(num_points,)`, by Fresnel's equations.

    T² ρ / (1 − ρ R) of the polarisation that returns more, where R is the reflectance of the surface and T = 1 − R.

    Args:
        angle (`np.ndarray` of shape `(num_points,)`): Of incidence, in radians.
        reflectivity (`np.ndarray` of shape `(num_points,)`): Of the dry ground.
    """
    rho = np.clip(reflectivity, MIN_REFLECTIVITY, 1.0)
    outside, inside = np.cos(angle), np.sqrt(1 - (np.sin(angle) * AIR / WATER) ** 2)
    shares = []
    for first, second in ((AIR * outside, WATER * inside), (WATER * outside, AIR * inside)):
        reflectance = ((first - second) / (first + second)) ** 2
        shares.append((1 - reflectance) ** 2 * rho / (1 - rho * reflectance))
    return np.maximum(*shares)


def snow(scan: CleanScan, fall: tuple[float, float], rng: np.random.Generator) -> Echoes:
    """Put snowflakes into each beam: they shadow the target, and the strongest echo is measured.

    Args:
        scan (`CleanScan`): The scan.
        fall (`tuple` of `float`): Snowfall in millimetres of water an hour, and the speed of the flakes in m/s.
        rng (`np.random.Generator`): The source of chance.
    """
    beam, distance, share = draw_flakes(scan.distance, *fall, rng)
    # The light that passes all flakes up to each: the product of what each lets through, as if their places in the
    # beam were independent.
    passed = np.cumsum(np.log1p(-share))
    starts = np.searchsorted(beam, np.arange(len(scan) + 1))  # of the flakes of each beam
    before = np.concatenate([[0.0], passed])
    visible = np.exp(before[:-1] - before[starts[beam]])
    overlap = np.clip((distance - OVERLAP[0]) / (OVERLAP[1] - OVERLAP[0]), 0, 1)
    power = FLAKE_INTENSITY * share * visible * overlap / distance**2
    target = scan.intensity * np.exp(before[starts[1:]] - before[starts[:-1]])

    has_flakes = starts[1:] > starts[:-1]
    strongest = np.lexsort((power, beam))[starts[1:][has_flakes] - 1]  # the last flake of each beam in this order
    flake_power, flake_range = np.zeros(len(scan)), scan.distance.copy()
    flake_power[has_flakes], flake_range[has_flakes] = power[strongest], distance[strongest]
    is_noise = flake_power > np.maximum(target, MIN_ECHO)
    # An echo that was dimmer than this in clear air was measured all the same: the level is an estimate.
    noise_level = SNOW_NOISE_FLOOR * _dimmest_ground(scan)
    lost = ~is_noise & (target < noise_level) & (scan.intensity >= noise_level)
    xyz = np.where(is_noise, flake_range / scan.distance, 1.0)[:, None] * scan.xyz
    return scan.echoes(xyz, np.where(is_noise, flake_power, target), ~lost, is_noise)


def draw_flakes(
    target_range: NDArray[np.float64], snowfall: float, speed: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw the flakes in front of targets, in the plane of each beam.

    Args:
        target_range (`np.ndarray` of shape `(num_points,)`): Metres.
        snowfall, speed (`float`): Millimetres of water an hour, and metres a second.
        rng (`np.random.Generator`): The source of chance.

    Returns:
        The beam (ascending), the range in metres (ascending in each beam) and the shadowed share of the beam of each
        flake, all of shape `(num_flakes,)`.
    """
    rain = (snowfall / (487 * SNOW_DENSITY * 0.003 * speed)) ** 1.5  # mm/h, for flakes of 3 mm
    mean_diameter = 0.01 * rain**0.48 / 25.5  # metres
    occupied = snowfall / (3.6e6 * SNOW_DENSITY * speed)  # share of the plane
    # A plane cuts a ball at a random height: the mean area of the disks is π/3 times the squared mean diameter.
    density = occupied / (np.pi / 3 * mean_diameter**2)  # flakes per square metre
    num_flakes = rng.poisson(density * DIVERGENCE / 2 * target_range**2)
    beam = np.repeat(np.arange(len(target_range)), num_flakes)
    distance = target_range[beam] * np.sqrt(rng.random(len(beam)))
    diameter = np.minimum(rng.exponential(mean_diameter, len(beam)), MAX_FLAKE)
    width = diameter * np.sqrt(1 - rng.uniform(-1, 1, len(beam)) ** 2)  # of the disk
    share = np.clip(width / np.maximum(distance * DIVERGENCE, 1e-9), 0, 0.999)
    order = np.lexsort((distance, beam))
    return beam, np.maximum(distance[order], 1e-3), share[order]


def _dimmest_ground(scan: CleanScan) -> NDArray[np.float64]:
    """The lowest intensity that ground returns at the distance of each point: what the sensor can still measure."""
    distance, intensity = scan.distance[scan.is_ground], scan.intensity[scan.is_ground]
    bins = np.digitize(distance, GROUND_BINS)
    inside = (bins > 0) & (bins < len(GROUND_BINS))
    found = np.unique(bins[inside])
    if len(found) < 3:
        return np.zeros(len(scan))
    lowest = np.array([intensity[bins == index].min() for index in found])
    centres = (GROUND_BINS[found - 1] + GROUND_BINS[found]) / 2
    return np.maximum(_fit_line(centres, lowest, scan.distance), 0)


def _fit_line(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least-squares line through (x, y), at other places."""
    slope, offset = np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y, rcond=None)[0]
    return slope * at + offset
