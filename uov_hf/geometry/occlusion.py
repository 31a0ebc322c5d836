"""Finds lidar points that are hidden from a camera, by a depth image in which the gaps between beams are closed."""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import pad


CELLS_PER_BEAM = 6  # of the depth image, in both directions
PATCH = 5.0  # degrees: side of the patches in which points are counted
FINEST_SPACING = 0.1  # degrees; the depth image grows as its inverse square, however crowded a place is
WIDEST_SPACING = 2.0  # degrees; sparser points do not show whether the space between them is a surface
MOST_STRETCH = 2.0  # of a gap for a camera that is nearer than the lidar


@dataclass(frozen=True)
class OcclusionConfig:
    """When a point counts as hidden from a camera: nearer points cover its place in the image.

    A lidar samples a surface with one point per beam, and the surface between two beams hides points, too. So in an
    image of the camera's viewing angles, every point covers a square of `reach` beam spacings to each side. Then the
    covered area shrinks until it ends `outline` spacings beyond its outermost points: gaps of up to twice `reach` stay
    closed, and the background beside an object stays free. A plane never hides itself, at any angle: its nearer points
    are on one side only.

    The defaults were chosen on synthetic towns with 32 beams; docs/results.md has the results there and for the 64
    beams of PandaSet.

    Args:
        beam_spacing (`float`, *optional*):
            Degrees between neighbouring points. By default it is estimated from the density of the scan in the
            camera's view, at least 0.1, so that it fits any lidar.
        reach (`float`, *optional*, defaults to 1.0):
            In beam spacings at the lidar: the gaps of an object that is nearer to the camera look larger to it.
        outline (`float`, *optional*, defaults to 0.3):
            In beam spacings. A larger value finds more hidden points near outlines, and loses more visible ones.
        tolerance (`float`, *optional*, defaults to 0.5), relative_tolerance (`float`, *optional*, defaults to 0.05):
            Metres, and share of the distance, by which a point of the covering surface itself may lie behind it.

    Raises:
        ValueError: A number is negative or not finite, `beam_spacing` below 0.02, or `outline` more than `reach`.
    """

    beam_spacing: float | None = None
    reach: float = 1.0
    outline: float = 0.3
    tolerance: float = 0.5
    relative_tolerance: float = 0.05

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be a finite number that is not negative, got {value}.")
        if self.beam_spacing is not None and self.beam_spacing < 0.02:  # the depth image grows as its square
            raise ValueError(
                "`beam_spacing` must be at least 0.02 degrees, finer than any lidar's, or None to take it from the "
                f"scan; got {self.beam_spacing}."
            )
        if self.outline > self.reach:
            raise ValueError(f"`outline` must be at most `reach`, which is {self.reach}, got {self.outline}.")


def find_hidden(
    in_camera: torch.Tensor, lidar_range: torch.Tensor, in_view: torch.Tensor, config: OcclusionConfig
) -> torch.Tensor:
    """Which points lie behind others.

    Args:
        in_camera (`torch.Tensor` of shape `(num_points, 3)`):
            Metres, in the camera frame (x right, y down, z forward), float64; all in front of the camera.
        lidar_range (`torch.Tensor` of shape `(num_points,)`): Metres from the lidar.
        in_view (`torch.Tensor` of shape `(num_points,)`):
            Whether the point is inside the image; points outside may hide points at its border.
        config (`OcclusionConfig`): When a point counts as hidden.

    Returns:
        bool of shape `(num_points,)`; False for points that are not in view.
    """
    hidden, seen = torch.zeros_like(in_view), in_view.nonzero().squeeze(1)
    if not len(seen):
        return hidden
    distance = length(in_camera)
    angles = _angles(in_camera)
    spacing = _beam_spacing(angles[seen]) if config.beam_spacing is None else config.beam_spacing
    cells = torch.floor(angles * (CELLS_PER_BEAM / spacing)).long()
    stretch = (lidar_range / distance).nan_to_num(1.0).clamp(1, MOST_STRETCH)  # both may be infinite
    radius = torch.round(config.reach * CELLS_PER_BEAM * stretch).long()

    shrinkage = round(config.reach * CELLS_PER_BEAM) - round(config.outline * CELLS_PER_BEAM)
    # The surface at a cell depends on what is covered up to `shrinkage` away, and that on points a radius away.
    margin, low, high = radius.amax() + shrinkage, *cells[seen].aminmax(dim=0)
    first, last = low - margin, high + margin
    near = ((first <= cells) & (cells <= last)).all(dim=1).nonzero().squeeze(1)
    num_columns, num_rows = (last - first + 1).tolist()
    column, row = (cells[near] - first).unbind(1)
    cell, distance = row * num_columns + column, distance[near]
    covered = _cover(cell, distance, radius[near], (num_rows, num_columns))
    surface = _running_max(covered, shrinkage).view(-1)[cell]
    behind = distance - surface > config.tolerance + config.relative_tolerance * distance
    return hidden.index_copy(0, near, behind) & in_view


def length(vectors: torch.Tensor) -> torch.Tensor:
    """Length of each of `vectors` `(num_points, 3)`; no square overflows on the way."""
    x, y, z = vectors.unbind(1)
    return torch.hypot(torch.hypot(x, y), z)


def _angles(in_camera: torch.Tensor) -> torch.Tensor:
    """Degrees to the right and downwards, (num_points, 2)."""
    x, y, z = in_camera.unbind(1)
    return torch.rad2deg(torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], dim=1))


def _beam_spacing(angles: torch.Tensor) -> float:
    """Degrees between points in the patch of the median point, if they formed a square grid."""
    half = math.ceil(90 / PATCH)  # patches from straight ahead to the side
    column, row = (torch.floor(angles / PATCH).long() + half).unbind(1)
    patch = (2 * half + 1) * column + row
    count = patch.new_zeros((2 * half + 1) ** 2).index_add(0, patch, torch.ones_like(patch))
    return min(max(PATCH / math.sqrt(count[patch].median()), FINEST_SPACING), WIDEST_SPACING)


def _cover(cell: torch.Tensor, distance: torch.Tensor, radius: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The nearest distance in every cell, infinite in empty ones; a point covers `radius` cells to each side."""
    negative = torch.full((size[0] * size[1],), -torch.inf, dtype=distance.dtype, device=distance.device)
    radii = [*reversed(radius.unique().tolist()), 0]
    # Widest first: points that have grown by the difference to the next radius grow on with the points of that radius.
    for this, following in zip(radii, radii[1:], strict=False):
        of_these = (-distance).masked_fill(radius != this, -torch.inf)
        negative = negative.reshape(-1).scatter_reduce(0, cell, of_these, "amax")
        negative = _running_max(negative.view(size), this - following)
    return -negative


def _running_max(image: torch.Tensor, radius: int) -> torch.Tensor:
    """The largest value within `radius` cells of every cell, in both directions."""
    for dim, padding in ((0, (0, 0, radius, radius)), (1, (radius, radius))):
        image = pad(image, padding, value=-torch.inf)
        width, target = 1, 2 * radius + 1  # each step at most doubles the window that a value is the maximum of
        while width < target:
            step = min(width, target - width)
            length = image.shape[dim] - step
            image = torch.maximum(image.narrow(dim, 0, length), image.narrow(dim, step, length))
            width += step
    return image
