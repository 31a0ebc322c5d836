"""A calibration file is read in YAML and JSON, and a mistake in it is named with its line."""

import json

import numpy as np
import pytest
import small_car

from uov_hf.own_car.calibration import find_calibration, read_calibration


def test_json_says_the_same_as_yaml(tmp_path):
    """Also numbers as JSON writes them, such as 1e-05, which YAML takes for a text."""
    content = small_car.calibration()
    content["cameras"]["left"]["lidar2cam"][0][3] = 1e-5
    in_yaml = read_calibration(small_car.write_calibration(tmp_path, content))
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    assert "1e-05" in (tmp_path / "calibration.json").read_text()
    in_json = read_calibration(tmp_path / "calibration.json")
    for name, mount in in_yaml.cameras.items():
        np.testing.assert_array_equal(mount.camera.lidar2cam, in_json.cameras[name].camera.lidar2cam)
    assert (in_json.intensity_max, in_json.taxonomy) == (200, "semantic_kitti")


def test_a_sequence_may_have_its_own(tmp_path):
    (tmp_path / "drive").mkdir()
    small_car.write_calibration(tmp_path, small_car.calibration())
    assert find_calibration(tmp_path / "drive", tmp_path).parent == tmp_path
    small_car.write_calibration(tmp_path / "drive", small_car.calibration())
    assert find_calibration(tmp_path / "drive", tmp_path).parent == tmp_path / "drive"


def left(key, value):
    """Put a value into the left camera; None takes the key away."""

    def edit(content):
        content["cameras"]["left"][key] = value
        if value is None:
            del content["cameras"]["left"][key]

    return edit


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda content: content.pop("intensity_max"), "`intensity_max` is missing"),
        (lambda content: content.update(intensity_max=0), "expected `intensity_max` to be above 0, got 0"),
        (lambda content: content.update(intensity_max="much"), "expected `intensity_max` to be one finite number"),
        (lambda content: content.update(camera={}), "got 'camera'"),
        (left("image_size", [64]), "expected `image_size` to be 2 finite numbers"),
        (left("image_size", [64, 0.5]), r"expected `image_size` to be \[height, width\] in pixels, got \[64, 0.5\]"),
        (left("image_size", [64, 2**31]), r"expected `image_size` to be \[height, width\] in pixels, got \[64, 2.1"),
        (left("intrinsics", [[1, 0], [0, 1]]), "expected `intrinsics` to be 3 x 3 finite numbers"),
        (left("intrinsics", np.diag([40, -40, 1]).tolist()), r"expected `intrinsics` to be \[\[fx, 0, cx\]"),
        (left("lidar2cam", None), "expected camera 'left' to have either .* got neither"),
        (left("cam2lidar", np.eye(4).tolist()), "got both"),
        (left("lidar2cam", (2 * np.eye(4)).tolist()), "expected `lidar2cam` to be a rotation and a translation"),
        (left("lidar2cam", np.full((4, 4), np.nan).tolist()), "expected `lidar2cam` to be 4 x 4 finite numbers"),
        (left("time_offset", 0.02), "expected `time_offset` to be a whole number"),
        (left("fov", 90), "`time_offset`, got 'fov'"),
        (lambda content: content.update(taxonomy="../mine.yaml"), "`taxonomy`: expected the name of a file in "),
        (lambda content: content.update(taxonomy="a" * 300), "File name too long"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, edit, message):
    content = small_car.calibration()
    edit(content)
    with pytest.raises(ValueError, match=f"calibration.yaml, line \\d+: .*{message}"):
        read_calibration(small_car.write_calibration(tmp_path, content))


def test_aliases_that_repeat_too_many_numbers_are_refused(tmp_path):
    """14 KB were 6 million numbers."""
    rows = f"[&a [{', '.join(['1'] * 3000)}]{', *a' * 2000}]"
    (tmp_path / "calibration.yaml").write_text(f"intensity_max: 255\nlidar2body: {rows}\n")
    with pytest.raises(ValueError, match="calibration.yaml is not a YAML file: more than 100,000 values"):
        read_calibration(tmp_path / "calibration.yaml")
