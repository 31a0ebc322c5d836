"""Segment a cloud larger than a scan in overlapping tiles, each in the frame of a sensor at its origin."""

import math
from collections.abc import Callable

import numpy as np
from tqdm.auto import tqdm

from uov_hf.array_checks import to_numbers
from uov_hf.pipeline_uov import PointCloudSegmentation
from uov_hf.point_files import PointCloud


TILE_RADIUS = 50.0  # metres; nearly all points of a scan lie nearer to the sensor
SCAN_RADIUS = 200.0  # metres: farther than 95 % of the points of any scan
SENSOR_HEIGHT = 1.8  # metres above the ground, as on the roof of a car
LOWEST = 5  # percent of the points of a tile are taken to lie below its ground


def is_larger_than_a_scan(points: np.ndarray) -> bool:
    """Whether more than 5 % of the finite points are farther than 200 m from the origin."""
    distances = np.hypot(points[:, 0], points[:, 1])
    distances = distances[np.isfinite(distances)]
    return bool(np.count_nonzero(distances > SCAN_RADIUS) > 0.05 * len(distances))


def segment_in_tiles(
    cloud: PointCloud,
    segment: Callable[[np.ndarray], PointCloudSegmentation],
    origins: np.ndarray | None = None,
    radius: float = TILE_RADIUS,
) -> PointCloudSegmentation:
    """Segment square tiles around origins; a point takes the prediction of the tile whose origin is nearest.

    A tile has the points within `radius` of its origin along x and y, and those that are nearer to it than to any
    other origin. So neighbours overlap, and a point has points around it on all sides.

    Args:
        cloud (`PointCloud`): The points.
        segment (`Callable`): The result of points `(num_points, 3 or 4)` in the frame of a sensor.
        origins (`np.ndarray` of shape `(num_tiles, 2 or 3)`, *optional*):
            Positions of the sensor in the coordinates of the file. Without z, and by default on a grid whose cells
            are `radius` wide, the sensor is 1.8 m above the lowest points of the tile.
        radius (`float`, *optional*, defaults to 50.0): Half the side of a tile, in metres.

    Returns:
        [`PointCloudSegmentation`] of all points; those that are not finite have no label.

    Raises:
        ValueError: The origins have another shape or are not finite, or the radius is not positive.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"`radius` must be positive and finite, got {radius}.")
    points = cloud.points
    kept = np.flatnonzero(np.isfinite(points[:, :3]).all(axis=1))
    positions = _on_a_grid(points[kept], radius) if origins is None else _relative(origins, cloud.origin)
    nearest = _nearest(points[kept], positions)
    labels, scores, names = np.full(len(points), 255), np.zeros(len(points), np.float32), None
    for row, position in enumerate(tqdm(positions, unit="tile", leave=False, disable=None)):
        own = nearest == row
        if not own.any():
            continue
        inside = own | (np.abs(points[kept, :2] - position[:2]) <= radius).all(axis=1)
        result = segment(_in_frame(points[kept[inside]], position))
        rows, of_tile = kept[own], own[inside]
        labels[rows], scores[rows] = result["segmentation"][of_tile], result["scores"][of_tile]
        names = result["labels"]
    return {"segmentation": labels, "scores": scores, "labels": names or []}


def _on_a_grid(points: np.ndarray, cell: float) -> np.ndarray:
    """The middles `(num_tiles, 2)` of the square cells that have points; one is the origin."""
    return np.unique(np.rint(points[:, :2] / cell), axis=0) * cell


def _relative(origins: np.ndarray, origin: np.ndarray) -> np.ndarray:
    origins = to_numbers("origins", origins).astype(np.float64)
    if origins.ndim != 2 or origins.shape[1] not in (2, 3) or not len(origins) or not np.isfinite(origins).all():
        raise ValueError(f"`origins` must be finite, of shape (num_tiles, 2 or 3), got shape {origins.shape}.")
    return origins - origin[: origins.shape[1]]


def _nearest(points: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The row of the nearest position along x and y for each point."""
    points = points[:, :2].astype(np.float64)  # the squares of 1e20 overflow in float32
    nearest, least = np.zeros(len(points), np.int64), np.full(len(points), np.inf)
    for row, (x, y) in enumerate(positions[:, :2]):
        squares = (points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2
        closer = squares < least
        nearest[closer], least[closer] = row, squares[closer]
    return nearest


def _in_frame(points: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The points in the frame of a sensor at the position; without z, above the ground of the points."""
    height = position[2] if len(position) > 2 else np.percentile(points[:, 2], LOWEST) + SENSOR_HEIGHT
    shift = np.array([*position[:2], height, *[0] * (points.shape[1] - 3)])
    return (points - shift).astype(np.float32)
