"""Points behind nearer ones get no pair; points beside them, and the ground itself, keep theirs."""

import dataclasses

import numpy as np
import pytest
import torch

from uov_hf.geometry import occlusion
from uov_hf.geometry.projection import Camera, OcclusionConfig, pair_points_with_pixels, project_points, visible_points


# The lidar frame has x forward, y left, z up; the camera frame x right, y down, z forward.
AXES = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
OCCLUSION = OcclusionConfig()


def camera_at(x: float, y: float, z: float, size=(900, 1600), focal_length=1266) -> Camera:
    """Looks ahead from a place in the lidar frame."""
    lidar2cam = np.eye(4)
    lidar2cam[:3] = np.concatenate([AXES, -AXES @ [[x], [y], [z]]], axis=1)
    height, width = size
    return Camera(lidar2cam, [[focal_length, 0, width / 2], [0, focal_length, height / 2], [0, 0, 1]], size)


BELOW = camera_at(0.8, 0, -0.35)  # nuScenes's front camera, seen from its lidar
BESIDE = camera_at(0.8, -0.5, 0)


def beams(spacing: tuple[float, float], width=30.0, lowest=-15.0, highest=10.0) -> np.ndarray:
    """Unit directions (num_beams, 3) every `spacing` degrees, sideways and up."""
    azimuth, elevation = np.radians(
        np.meshgrid(np.arange(-width, width, spacing[0]), np.arange(lowest, highest, spacing[1]))
    )
    directions = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    return np.stack(directions, axis=-1).reshape(-1, 3)


NUSCENES = beams((0.33, 1.33))
PANDAR = beams((0.2, 0.17))


def meet_board(directions: np.ndarray, start: np.ndarray, board) -> np.ndarray:
    """Metres along each ray to an upright board (x, (right, left), (bottom, top)); infinite where it goes past."""
    x, (right, left), (bottom, top) = board
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = (x - start[0]) / directions[:, 0]
        _, y, z = (start + metres[:, None] * directions).T
    hit = (metres > 0) & (right <= y) & (y <= left) & (bottom <= z) & (z <= top)
    return np.where(hit, metres, np.inf)


def scan(directions: np.ndarray, *boards) -> np.ndarray:
    """What a lidar at the origin sees of some boards."""
    metres = np.min([meet_board(directions, np.zeros(3), board) for board in boards], axis=0)
    return (metres[:, None] * directions)[np.isfinite(metres)]


def truly_hidden(points: np.ndarray, camera: Camera, board, margin: float) -> np.ndarray:
    """Whether the way from the camera to a point goes through a board that is larger by `margin` metres all round."""
    eye = np.linalg.inv(camera.lidar2cam)[:3, 3]
    x, (right, left), (bottom, top) = board
    board = x, (right - margin, left + margin), (bottom - margin, top + margin)
    return (points[:, 0] > x + 1) & (meet_board(points - eye, eye, board) < 1)


WALL, FAR = (10.0, (-2.0, 2.0), (-2.0, 0.3)), (30.0, (-40.0, 40.0), (-2.0, 9.0))


@pytest.mark.parametrize("camera", [BELOW, BESIDE], ids=["below", "beside"])
@pytest.mark.parametrize("directions, spacing", [(NUSCENES, 0.66), (PANDAR, 0.2)], ids=["32 beams", "64 beams"])
def test_a_wall_hides_what_is_behind_it_and_nothing_beside_it(camera, directions, spacing):
    points = scan(directions, WALL, FAR)
    _, in_view = project_points(points, camera)
    visible = visible_points(points, camera, OCCLUSION)
    beam = np.radians(spacing) * 10  # metres between neighbouring beams on the wall
    well_hidden = in_view & truly_hidden(points, camera, WALL, margin=-beam)
    well_seen = in_view & ~truly_hidden(points, camera, WALL, margin=beam)
    assert well_hidden.sum() > 20 and not visible[well_hidden].any()
    assert visible[well_seen].all() and not visible[~in_view].any()


def test_the_gaps_between_beams_are_closed_and_the_place_beside_the_wall_is_open():
    wall = scan(NUSCENES, (10.0, (-2.0, 2.0), (-2.0, 1.0)))
    between_beams = wall[len(wall) // 2] * [1, 1, 1] + [0, 0.03, 0.115]
    behind, beside = 3 * between_beams, 3 * np.array([10.0, 2.3, 0])
    points = np.concatenate([wall, [behind, beside]])
    assert visible_points(points, camera_at(0, 0, 0), OCCLUSION)[-2:].tolist() == [False, True]


def test_a_pole_thinner_than_a_beam_hides_what_is_right_behind_it_only():
    height = 10 * np.tan(np.radians(np.arange(-8, 8, 1.33)))
    pole = np.stack([np.full(len(height), 10.0), np.zeros(len(height)), height], axis=1)
    degrees = np.radians([0, 0.5, 1, -1])
    behind = np.stack([np.full(4, 25.0), 25 * np.tan(degrees), np.full(4, 0.2)], axis=1)
    occlusion = OcclusionConfig(beam_spacing=0.66)
    visible = visible_points(np.concatenate([pole, behind]), camera_at(0, 0, 0), occlusion)
    assert visible.tolist() == [*[True] * len(pole), False, True, True, True]


@pytest.mark.parametrize("directions", [NUSCENES, PANDAR], ids=["32 beams", "64 beams"])
@pytest.mark.parametrize("camera", [BELOW, BESIDE, camera_at(-0.9, 0, -0.3)], ids=["below", "beside", "behind"])
def test_flat_ground_does_not_hide_itself(directions, camera):
    down = directions[directions[:, 2] < -0.02]  # to 90 m
    metres = -1.84 / down[:, 2] + np.random.default_rng(0).normal(0, 0.02, len(down))
    points = metres[:, None] * down
    _, in_view = project_points(points, camera)
    assert in_view.sum() > 500
    assert visible_points(points, camera, OCCLUSION)[in_view].mean() > 0.99


def test_a_wall_along_the_street_does_not_hide_itself():
    to_the_left = PANDAR[PANDAR[:, 1] > 0.08]
    points = 4 / to_the_left[:, 1:2] * to_the_left
    _, in_view = project_points(points, BESIDE)
    assert in_view.sum() > 500
    assert visible_points(points, BESIDE, OCCLUSION)[in_view].mean() > 0.99


def test_a_surface_may_be_as_deep_as_the_tolerance():
    occlusion = OcclusionConfig(beam_spacing=1.0, tolerance=0.5, relative_tolerance=0.1)
    points = np.array([[10.0, 0, 0], [11.6, 0, 0], [11.7, 0, 0]])  # 10 + 0.5 + 0.1 · 11.666… = 11.666…
    assert visible_points(points, camera_at(0, 0, 0), occlusion).tolist() == [True, True, False]


def test_what_is_outside_the_image_hides_what_is_at_its_border():
    occlusion = OcclusionConfig(beam_spacing=1.0)
    camera = camera_at(0, 0, 0, size=(100, 100), focal_length=100)
    points = np.array([[10.0, 5.02, 0], [20, 9.99, 0]])
    assert project_points(points, camera)[1].tolist() == [False, True]
    assert visible_points(points, camera, occlusion).tolist() == [False, False]
    assert visible_points(points, camera, occlusion, min_depth=10).tolist() == [False, True]  # too near to count


def crowd(num_points=400) -> np.ndarray:
    """Points all over the place, not all finite."""
    points = np.random.default_rng(0).normal(0, 1, (num_points, 4)) * [20, 15, 4, 1]
    points[:3, 0] = np.nan, np.inf, -np.inf
    points[3, 1:3] = np.inf, np.nan
    return points


def test_visible_is_what_its_definition_says_point_by_point():
    points, camera, spacing = crowd(), BESIDE, 3.0
    with np.errstate(invalid="ignore"):
        in_camera = points[:, :3] @ camera.lidar2cam[:3, :3].T + camera.lidar2cam[:3, 3]
    in_view = project_points(points, camera)[1]
    solid = [n for n in range(len(points)) if in_camera[n, 2] > 1 and np.isfinite(in_camera[n]).all()]
    cells, covers = {}, {}
    for n in solid:
        x, y, z = in_camera[n]
        angles = np.degrees([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))])
        cells[n] = np.floor(angles * 6 / spacing).astype(int)
        stretch = np.clip(np.linalg.norm(points[n, :3]) / np.linalg.norm(in_camera[n]), 1, 2)
        radius = int(np.rint(6 * stretch))
        for column in range(cells[n][0] - radius, cells[n][0] + radius + 1):
            for row in range(cells[n][1] - radius, cells[n][1] + radius + 1):
                nearest = covers.get((column, row), np.inf)
                covers[column, row] = min(nearest, np.linalg.norm(in_camera[n]))
    expected = in_view.copy()
    for n in solid:
        window = [(cells[n][0] + i, cells[n][1] + j) for i in range(-4, 5) for j in range(-4, 5)]
        distance = np.linalg.norm(in_camera[n])
        behind = distance - max(covers.get(cell, np.inf) for cell in window)
        expected[n] &= not behind > 0.5 + 0.05 * distance
    visible = visible_points(points, camera, OcclusionConfig(beam_spacing=spacing))
    assert 10 < visible.sum() < in_view.sum() - 10
    np.testing.assert_array_equal(visible, expected)


def test_the_order_of_points_does_not_matter_and_torch_gives_torch():
    points = crowd(2000)
    order = np.random.default_rng(1).permutation(len(points))
    visible = visible_points(points, BESIDE, OCCLUSION)
    shuffled = visible_points(torch.from_numpy(points[order]), BESIDE, OCCLUSION)
    assert shuffled.dtype == torch.bool and shuffled.tolist() == visible[order].tolist()


@pytest.mark.parametrize("points", [np.empty((0, 4)), np.full((5, 3), np.nan), np.array([[-5.0, 0, 0]])])
def test_where_nothing_is_in_view_nothing_is_visible(points):
    assert visible_points(points, BESIDE, OCCLUSION).tolist() == [False] * len(points)
    assert len(pair_points_with_pixels(points, [BESIDE], occlusion=OCCLUSION).point_index) == 0


def test_hidden_points_have_no_pair_and_the_others_keep_theirs():
    points, cameras = scan(NUSCENES, WALL, FAR), [BELOW, BESIDE]
    paper, pairs = pair_points_with_pixels(points, cameras), pair_points_with_pixels(points, cameras, 1.0, OCCLUSION)
    visible = np.stack([visible_points(points, camera, OCCLUSION) for camera in cameras])
    kept = visible[paper.camera_index, paper.point_index]
    assert 0.5 < kept.mean() < 1
    for field in dataclasses.fields(paper):
        np.testing.assert_array_equal(getattr(pairs, field.name), getattr(paper, field.name)[kept])


def test_a_crowded_place_does_not_enlarge_the_depth_image(monkeypatch):
    """Estimated from 20,000 points within two centimetres, the spacing of beams would be 0.035 degrees."""
    sizes, cover = [], occlusion._cover
    monkeypatch.setattr(occlusion, "_cover", lambda *args: sizes.append(args[3]) or cover(*args))
    rng = np.random.default_rng(0)
    crowd = np.array([20.0, 0, 0]) + rng.uniform(-0.01, 0.01, (20_000, 3))
    corners = [[20.0, y, z] for y in (-3, 3) for z in (-3, 3)]
    visible_points(np.concatenate([crowd, corners]), camera_at(0, 0, 0), OCCLUSION)
    ((height, width),) = sizes
    degrees, cells_per_degree = 2 * np.degrees(np.arctan(3 / 20)) + 1, 60
    assert height * width < (degrees * cells_per_degree) ** 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": float("nan")}, "`tolerance` must be a finite number that is not negative, got nan"),
        ({"beam_spacing": 0.001}, "`beam_spacing` must be at least 0.02 degrees, .* got 0.001"),
        ({"outline": 2}, "`outline` must be at most `reach`, which is 1.0, got 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OcclusionConfig(**settings)


@pytest.mark.parametrize("outside, is_visible", [(-10, False), (-11, True)])
@pytest.mark.parametrize("side, middle", [(1, 10), (-1, 90)], ids=["left", "right"])
def test_the_gap_at_the_border_is_closed_by_a_point_outside_as_far_as_it_reaches(side, middle, outside, is_visible):
    """In cells of 1/6 degree: points cover 6 to each side, so −10 and 3 leave no gap, and 4 cells shrink back."""
    camera = Camera(camera_at(0, 0, 0).lidar2cam, [[1000, 0, middle], [0, 1000, 50], [0, 0, 1]], (100, 100))
    angles = np.radians((np.array([0, 3, outside]) * side + 0.5) / 6)  # to the right
    points = np.stack([[30, 10, 10] * np.cos(angles), [-30, -10, -10] * np.sin(angles), np.zeros(3)], axis=1)
    assert project_points(points, camera)[1].tolist() == [True, True, False]
    visible = visible_points(points, camera, OcclusionConfig(beam_spacing=1.0))
    assert visible.tolist() == [is_visible, True, False]


def test_gaps_widen_twice_for_a_camera_that_is_much_nearer_than_the_lidar():
    """12 m ahead of the lidar, 3 m before two posts: a gap of four beams is closed, and one of a bit more is not."""
    camera = camera_at(12, 0, 0)
    for degrees, is_visible in ((3.8, False), (4.5, True)):
        angles = np.radians([-degrees / 2, degrees / 2])
        posts = np.stack([12 + 3 * np.cos(angles), 3 * np.sin(angles), np.zeros(2)], axis=1)
        points = np.concatenate([posts, [[22, 0.1, 0]]])
        assert visible_points(points, camera, OcclusionConfig(beam_spacing=1.0))[2] == is_visible


@pytest.mark.parametrize("degrees, spacing", [(0.5, 0.5), (0.05, 0.1), (4.0, 2.0)])
def test_the_spacing_of_beams_is_that_of_a_square_grid_within_limits(degrees, spacing):
    sides = np.arange(-20, 20, degrees) + degrees / 2, np.arange(-5, 5, degrees) + degrees / 2
    angles = torch.from_numpy(np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2))
    assert occlusion._beam_spacing(angles) == pytest.approx(spacing)


def test_the_limits_of_settings_are_allowed_and_infinity_is_not():
    OcclusionConfig(beam_spacing=0.02, reach=0.5, outline=0.5, tolerance=0, relative_tolerance=0)
    with pytest.raises(ValueError, match="`reach` must be a finite number"):
        OcclusionConfig(reach=float("inf"))


def test_a_point_deeper_than_a_metre_may_be_visible_and_have_a_pair():
    points = np.array([[1.5, 0, 0], [0.9, 0, 0]])
    assert visible_points(points, camera_at(0, 0, 0), OCCLUSION).tolist() == [True, False]
    assert pair_points_with_pixels(points, [camera_at(0, 0, 0)]).point_index.tolist() == [0]


@pytest.mark.parametrize("distance", [1e155, 1e300])
def test_a_point_whose_distance_squared_overflows_hides_nothing(distance):
    points = np.array([[distance, 0, 0], [5, 0, 0], [5, 1, 0]])
    assert visible_points(points, BELOW, OCCLUSION)[1:].tolist() == [True, True]
