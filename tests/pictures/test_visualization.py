"""Pictures show the given points, in their places and colours."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from uov_hf.geometry.projection import Camera
from uov_hf.pictures.scan_colors import distinct_colors, label_colors, value_colors
from uov_hf.pictures.visualization import (
    draw_birds_eye_view,
    draw_calibrations,
    draw_camera_overlay,
    draw_camera_overlays,
    draw_range_image,
)


CLASS_NAMES = ["car", "road", "tree <low>"]
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
POINTS = np.array([[5.0, 0, 0, 9], [6, 1, 0, 8], [7, -1, 0, 7], [8, 0, 1, 6], [np.nan, 0, 0, 5]], dtype=np.float32)
SEGMENTATION = np.array([0, 1, 1, 255, 2])


def looking_along_x(height=60, width=80):
    lidar2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    return Camera(lidar2cam, np.array([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]]), (height, width))


@pytest.fixture
def written(monkeypatch):
    """The texts on the pictures."""
    texts, write = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda draw, place, text, *args, **kwargs: texts.append(text) or write(draw, place, text, *args, **kwargs),
    )
    return texts


def test_points_are_drawn_on_their_pixels_in_their_colors():
    pixel_coords = np.array([[20.0, 10.0], [60.0, 40.0], [200.0, 40.0]])
    colors = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0]])
    picture = np.asarray(draw_camera_overlay(np.full((60, 80, 3), 255, np.uint8), pixel_coords, colors))
    assert picture.shape == (60, 80, 3)
    assert picture[10, 20].tolist() == [255, 0, 0]
    assert picture[40, 60].tolist() == [0, 0, 255]
    assert picture[30, 30].tolist() == picture[40, 79].tolist() == [255, 255, 255]


def test_a_near_point_hides_the_far_one_behind_it():
    points = np.array([[4.0, 0, 0], [30.0, 0, 0]])
    colors = np.array([[255, 0, 0], [0, 0, 255]])
    image = Image.new("RGB", (80, 60))
    for order in ([0, 1], [1, 0]):
        picture = np.asarray(draw_camera_overlays(points[order], [image], [looking_along_x()], colors[order]))
        assert (picture == [255, 0, 0]).all(-1).any()
        assert not (picture == [0, 0, 255]).all(-1).any()


def test_a_sheet_counts_the_points_each_camera_sees(written):
    camera = looking_along_x()
    turned = Camera(np.diag([-1.0, 1, -1, 1]) @ camera.lidar2cam, camera.intrinsics, camera.image_size)
    draw_camera_overlays(POINTS, [Image.new("RGB", (80, 60))] * 2, [camera, turned], camera_names=["FRONT", "BACK"])
    assert written == ["FRONT: 4 points", "BACK: 0 points"]


def test_points_hidden_from_a_calibration_are_magenta_and_counted(written):
    y, z = np.meshgrid(np.arange(-1, 1, 0.05), np.arange(-1, 1, 0.05))
    wall = np.stack([np.full(y.size, 4.0), y.ravel(), z.ravel()], axis=1)
    points = np.concatenate([wall, [[12.0, 0.01, 0.01]]])
    picture = np.asarray(draw_calibrations(points, np.zeros((60, 80, 3), np.uint8), {"as is": looking_along_x()}))
    assert written == ["as is: 1 of 1,601 points hidden"] and (picture == [255, 0, 255]).all(-1).any()


def test_an_image_of_another_size_than_its_camera_is_refused():
    with pytest.raises(ValueError, match=r"calibrated for .*\(60, 80\)"):
        draw_camera_overlays(POINTS, [Image.new("RGB", (40, 30))], [looking_along_x()])
    with pytest.raises(ValueError, match="2 images, 1 cameras"):
        draw_camera_overlays(POINTS, [Image.new("RGB", (80, 60))] * 2, [looking_along_x()])


def test_the_view_from_above_names_the_classes_within_its_extent(written):
    picture = np.asarray(draw_birds_eye_view(POINTS, SEGMENTATION, CLASS_NAMES, COLORS, extent=7.5, title="a scan"))
    assert written == ["+", "1.5 m", "car (1)", "road (2)", "a scan"]
    assert (picture == COLORS[0]).all(-1).any() and (picture == COLORS[1]).all(-1).any()
    assert not (picture == COLORS[2]).all(-1).any()


def test_in_the_view_from_above_x_is_right_y_is_up_and_the_higher_point_is_on_top():
    points = np.array([[5.0, 0, 1], [5.0, 0, 0], [0, 5.0, 0]])
    picture = np.asarray(draw_birds_eye_view(points, np.array([0, 1, 2]), CLASS_NAMES, COLORS, extent=10))
    picture = picture[-800:, :800]  # below the title, left of the legend
    assert picture[400, 600].tolist() == [255, 0, 0] and picture[200, 400].tolist() == [0, 0, 255]
    assert not (picture == COLORS[1]).all(-1).any()


def test_a_dark_class_is_lightened_in_its_hue():
    colors = label_colors(np.array([0, 1]), np.array([[75, 0, 75], [0, 0, 230]]))
    assert colors.tolist() == [[160, 0, 160], [0, 0, 230]]


def test_colors_of_labels_and_values():
    assert label_colors(np.array([1, 255]), COLORS)[0].tolist() == [0, 255, 0]
    shades = value_colors(np.array([0.0, 0.5, 1.0, np.nan, np.inf]))
    assert shades.dtype == np.uint8 and shades[:3].tolist() == [[0, 0, 255], [0, 255, 0], [255, 0, 0]]
    assert shades[3].tolist() == shades[4].tolist() == label_colors(np.array([255]), COLORS)[0].tolist()
    assert value_colors(np.zeros(3)).shape == (3, 3)


@pytest.mark.parametrize("values", [[1e17] * 3, [-1.7e308, 0, 1.7e308], [0] * 200 + [5e-324] * 3 + [1e308]])
def test_values_of_any_size_have_colors_from_blue_to_red(values):
    shades = value_colors(np.array(values))
    assert (shades.max(axis=1) == 255).all()
    assert shades[0].tolist() == [0, 0, 255] and (len(set(values)) == 1 or shades[-1].tolist() == [255, 0, 0])


def test_classes_without_colors_get_some_that_differ():
    colors = distinct_colors(40).astype(int)
    difference = np.abs(colors[:, None] - colors).sum(axis=-1) + 1000 * np.eye(40)
    assert difference.min() > 15
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 150  # neighbours in the list


def all_around(elevations, num_columns=360):
    """A point in every direction: `len(elevations)` beams of `num_columns` points, 10 m away."""
    elevation, azimuth = np.meshgrid(np.deg2rad(elevations), np.deg2rad(np.arange(num_columns) + 0.5), indexing="ij")
    directions = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    return 10 * np.stack(directions, axis=-1).reshape(-1, 3), np.repeat(np.arange(len(elevations)), num_columns)


def cells_of(picture, num_rows, num_columns):
    return np.asarray(picture.resize((num_columns, num_rows), Image.Resampling.NEAREST))


def test_a_range_image_has_a_row_for_each_beam_and_the_left_on_the_left():
    points, ring = all_around([-20, 0, 3])  # numbered from below, as nuScenes does
    colors = np.zeros((len(points), 3), np.uint8)
    colors[ring == 2] = COLORS[0]
    left = np.abs(np.arctan2(points[:, 1], points[:, 0]) - np.pi / 2) < 0.1
    colors[left] = COLORS[2]
    picture = cells_of(draw_range_image(points, colors, ring, num_columns=360), 3, 360)
    assert picture[0, 180].tolist() == [255, 0, 0] and picture[1, 180].tolist() == [0, 0, 0]
    assert (picture[:, 90] == COLORS[2]).all() and not (picture[:, 270] == COLORS[2]).all(-1).any()


def test_a_range_image_without_rings_has_rows_of_elevation():
    points, _ = all_around(np.linspace(-25, 10, 32))
    higher = np.where((points[:, 2] > 0)[:, None], COLORS[0], COLORS[1])
    picture = cells_of(draw_range_image(points, higher, num_rows=32, num_columns=360), 32, 360)
    assert (picture[0] == COLORS[0]).all() and (picture[-1] == COLORS[1]).all()


def test_in_a_range_image_the_near_point_hides_the_far_one():
    points = np.array([[30.0, 0.01, 0], [4.0, 0.001, 0], [np.nan, 0, 0]])
    for order in ([0, 1, 2], [2, 1, 0]):
        shades = np.array([[0, 0, 255], [255, 0, 0], [0, 255, 0]])[order]
        picture = cells_of(draw_range_image(points[order], shades, num_rows=4), 4, 1024)
        assert (picture == [255, 0, 0]).all(-1).sum() == 1
        assert not (picture == [0, 0, 255]).all(-1).any() and not (picture == [0, 255, 0]).all(-1).any()


def test_a_range_image_without_points_is_black():
    assert not np.asarray(draw_range_image(np.zeros((0, 3)))).any()
    with pytest.raises(ValueError, match="`ring` must have one value per point"):
        draw_range_image(POINTS, ring=np.zeros(3))


@pytest.mark.parametrize("value", [-1, 256])
def test_a_color_outside_a_byte_is_refused(value):
    with pytest.raises(ValueError, match=r"`colors` must be integers 0…255"):
        label_colors(np.array([0]), np.array([[0, 0, value]]))
