"""Voxels equal those of a plain loop over the points, whatever form the scans come in."""

import math

import numpy as np
import pytest
import torch

from uov_hf.feature_extraction_uov import UOVFeatureExtractor
from uov_hf.point_files import read_points


def scan(num_points=500, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(0, 0.4, (num_points, 3)), rng.integers(0, 256, (num_points, 1))], axis=1)
    return points.astype(np.float32)


def plain_loop(points, cylindrical=True):
    """Section 1.7 of the method, a point at a time: the first point of a voxel stands for it."""
    voxels, features, point_to_voxel = {}, [], []
    for x, y, z, intensity in points:
        if cylindrical:
            rho, phi = np.sqrt(x * x + y * y) / np.float32(0.1), np.arctan2(y, x) / np.float32(math.pi / 180)
            key = (math.floor(rho), math.floor(phi), math.floor(z / np.float32(0.1)))
        else:
            key = tuple(math.floor(value / np.float32(0.1)) for value in (x, y, z))
        if key not in voxels:
            voxels[key] = len(voxels)
            features.append([float(intensity)])
        point_to_voxel.append(voxels[key])
    return list(voxels), features, point_to_voxel


@pytest.mark.parametrize("coordinate_system", ["cylindrical", "cartesian"])
def test_voxels_equal_a_plain_loop(coordinate_system):
    points = scan()
    batch = UOVFeatureExtractor(coordinate_system=coordinate_system)(points)
    coords, features, point_to_voxel = plain_loop(points, coordinate_system == "cylindrical")
    assert batch["voxel_coords"].tolist() == [[0, *key] for key in coords]
    assert batch["voxel_features"].tolist() == features
    assert batch["point_to_voxel"].tolist() == point_to_voxel
    assert len(coords) < len(points)  # so that some voxel has two points
    dtypes = {"voxel_coords": torch.int32, "voxel_features": torch.float32, "point_to_voxel": torch.int64}
    assert {name: values.dtype for name, values in batch.items()} == dtypes | {"num_points": torch.int64}


def test_the_first_point_in_the_order_of_the_file_stands_for_its_voxel():
    points = np.array([[1.01, 1.01, 0.01, 7], [5, 5, 0, 1], [1.02, 1.02, 0.02, 9]], dtype=np.float32)
    assert UOVFeatureExtractor()(points)["voxel_features"].tolist() == [[7], [1]]
    assert UOVFeatureExtractor()(points[::-1])["voxel_features"].tolist() == [[9], [1]]
    assert UOVFeatureExtractor(voxel_reduction="mean")(points)["voxel_features"].tolist() == [[8], [1]]


def test_the_seam_lies_behind_and_parts_neighbours():
    points = np.array([[-10, 0.01, 0.05, 1], [-10, -0.01, 0.05, 1]], dtype=np.float32)
    assert UOVFeatureExtractor()(points)["voxel_coords"].tolist() == [[0, 100, 179, 0], [0, 100, -180, 0]]


def test_points_that_are_not_finite_or_out_of_range_belong_to_no_voxel():
    points = scan(6)
    points[1, 0], points[2, 2], points[3, 1], points[4, :2] = np.nan, -np.inf, np.inf, (30, 40)
    extractor = UOVFeatureExtractor(point_cloud_range=(0, -math.pi, -10, 50, math.pi, 10))
    batch = extractor(points)
    assert batch["point_to_voxel"].tolist() == [0, -1, -1, -1, -1, 1]
    assert batch["voxel_features"].isfinite().all() and batch["num_points"].tolist() == [6]


@pytest.mark.parametrize("scaling, feature", [("raw", 0.0), ("unit", 0.25), ("unit_plus_one", 1.25)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_point_whose_intensity_is_not_finite_has_the_missing_intensity(scaling, feature, value):
    points = scan(50)
    points[:30, 3] = value
    for reduction in ("first", "mean"):
        extractor = UOVFeatureExtractor(intensity_scaling=scaling, voxel_reduction=reduction, voxel_size=[1e-3] * 3)
        batch = extractor(points, intensity_max=255)
        assert batch["point_to_voxel"].tolist() == list(range(50))
        assert set(batch["voxel_features"][:30, 0].tolist()) == {feature}
        assert torch.equal(batch["voxel_features"][30:], extractor(points[30:], intensity_max=255)["voxel_features"])


@pytest.mark.parametrize(
    "points, message",
    [
        (np.zeros((4, 300)), r"\(4, 300\), which looks transposed. Use its transpose: `points.T`"),
        (np.zeros((64, 1024, 4)), r"shape \(num_points, 3 or more\), got \(64, 1024, 4\)"),
        (np.full((9, 4), 1500, np.int32), "got whole numbers .int32., which are probably millimetres"),
        (np.zeros((9, 4), complex), "expected numbers, got an array of complex128"),
        (
            np.zeros(9, [("x", "f4"), ("y", "f4")]),
            "x, y and z, got x, y. .* The array is structured",
        ),
    ],
)
def test_an_array_that_can_only_be_a_mistake_is_refused(points, message):
    for form in (points, torch.from_numpy(points)) if points.dtype.names is None else (points,):
        with pytest.raises(ValueError, match=f"`points`: .*{message}"):
            UOVFeatureExtractor()(form)


def test_a_structured_array_is_read_by_its_names():
    points = scan(50)
    fields = np.zeros((5, 10), [("Y", "f8"), ("Intensity", "u1"), ("x", "f4"), ("z", "f4"), ("rgb", "u1", 3)])
    for name, column in zip(("x", "Y", "z"), points.T, strict=False):
        fields[name] = column.reshape(5, 10)
    expected = UOVFeatureExtractor()(np.column_stack([points[:, :3], np.zeros(50)]))
    assert torch.equal(UOVFeatureExtractor()(fields)["voxel_coords"], expected["voxel_coords"])


def test_a_batch_is_its_scans_one_after_the_other():
    extractor, scans = UOVFeatureExtractor(), [scan(50), scan(0), scan(80, seed=1)]
    scans[0][0] = np.nan
    batch = extractor(scans)
    assert batch["num_points"].tolist() == [50, 0, 80]
    for index, rows in enumerate(batch["point_to_voxel"].split([50, 0, 80])):
        alone, kept = extractor(scans[index]), rows >= 0
        own = batch["voxel_coords"][:, 0] == index
        assert torch.equal(batch["voxel_coords"][own, 1:], alone["voxel_coords"][:, 1:])
        assert torch.equal(kept, alone["point_to_voxel"] >= 0)
        expected = alone["voxel_coords"][alone["point_to_voxel"][kept], 1:]
        assert torch.equal(batch["voxel_coords"][rows[kept], 1:], expected)


@pytest.mark.parametrize("columns", [3, 4])
def test_an_empty_scan_has_no_voxels(columns):
    batch = UOVFeatureExtractor(voxel_reduction="mean")(np.empty((0, columns)))
    assert batch["voxel_coords"].shape == (0, 4) and batch["voxel_features"].shape == (0, 1)
    assert batch["num_points"].tolist() == [0]


def test_numpy_torch_and_a_file_give_the_same(tmp_path):
    points = scan()
    np.save(tmp_path / "scan.npy", points)
    path, extractor = tmp_path / "scan.npy", UOVFeatureExtractor()
    batches = [extractor(form) for form in (points.astype(np.float64), torch.from_numpy(points), path, str(path))]
    batches.append({name: torch.from_numpy(own) for name, own in extractor(points, return_tensors="np").items()})
    for batch in batches:
        assert all(torch.equal(batch[name], own) for name, own in extractor(points).items())


def test_intensity_is_scaled_as_named():
    points = np.array([[1, 1, 1, 51]], dtype=np.float32)
    assert UOVFeatureExtractor()(points)["voxel_features"].item() == 51
    unit = UOVFeatureExtractor(intensity_scaling="unit")
    assert unit(points, intensity_max=255)["voxel_features"].item() == pytest.approx(0.2)
    plus_one = UOVFeatureExtractor(intensity_scaling="unit_plus_one")
    for scales in ([255, 102], np.array([255, 102]), torch.tensor([255.0, 102.0])):
        features = plus_one([points, points], intensity_max=scales)["voxel_features"].flatten()
        assert features.tolist() == pytest.approx([1.2, 1.5])
    for scale in (np.float32(255), np.array(255), torch.tensor(255)):
        assert unit([points, points], intensity_max=scale)["voxel_features"].tolist() == [[pytest.approx(0.2)]] * 2
    with pytest.raises(ValueError, match="needs the sensor's full scale"):
        unit(points)


@pytest.mark.parametrize(
    "settings, value",
    [
        ({"intensity_scaling": "raw"}, 0),
        ({"intensity_scaling": "unit"}, 0.25),
        ({"intensity_scaling": "unit_plus_one"}, 1.25),
        ({"missing_intensity": 18}, 18),
    ],
)
def test_missing_intensity_is_a_value_within_the_range_of_its_scaling_or_a_given_one(settings, value):
    assert UOVFeatureExtractor(**settings)(scan()[:, :3])["voxel_features"].unique().tolist() == [value]


def test_sizes_come_as_any_sequence_of_numbers():
    sizes, bounds = (0.5, 0.25, 1.0), (-1, -1, -1, 1, 1, 1)
    for make in (tuple, np.array, torch.tensor):
        extractor = UOVFeatureExtractor(make(sizes), "cartesian", make(bounds))
        assert extractor.voxel_size == list(sizes) and extractor.point_cloud_range == list(bounds)


def test_settings_survive_saving(tmp_path):
    cells, bounds = (0.2, 0.1, 0.3), (-1, -1, -1, 1, 1, 1)
    extractor = UOVFeatureExtractor(cells, "cartesian", bounds, "mean", "unit", missing_intensity=0.5)
    extractor.save_pretrained(tmp_path)
    assert UOVFeatureExtractor.from_pretrained(tmp_path).to_dict() == extractor.to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coordinate_system": "polar"}, "cylindrical, cartesian, got 'polar'"),
        ({"voxel_reduction": "max"}, "first, mean"),
        ({"intensity_scaling": "log"}, "raw, unit, unit_plus_one"),
        ({"voxel_size": (0.1, 0, 0.1)}, "three positive"),
        ({"voxel_size": (0.1, math.nan, 0.1)}, "three positive"),
        ({"voxel_size": ()}, "`voxel_size` must be 3 numbers"),
        ({"point_cloud_range": (0, 0, 0, 1, 1, 0)}, "lower bounds"),
        ({"point_cloud_range": (0, 1)}, "`point_cloud_range` must be 6 numbers"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        UOVFeatureExtractor(**settings)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.ones((5, 2)), r"\(num_points, 3 or more\), got \(5, 2\)"),
        (np.ones(5), r"got \(5,\)"),
        ({"points": 1}, "got dict"),
        ([], "empty list"),
        (np.array([[4e5, 5e6, 30]]), "lidar frame, not on a map"),
    ],
)
def test_invalid_points_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        UOVFeatureExtractor()(points)


SCALINGS = {"raw": lambda values: values, "unit": lambda values: values / 255, "unit_plus_one": lambda v: v / 255 + 1}


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("value, clipped", [(1e8, 255), (3e38, 255), (256, 255), (-1, 0), (-1e30, 0)])
def test_a_wrong_intensity_is_clipped_to_the_full_scale_and_changes_no_other_point(scaling, value, clipped):
    points = scan()
    points[7, 3] = value
    extractor = UOVFeatureExtractor(intensity_scaling=scaling, voxel_size=[1e-3] * 3)
    features = extractor(points, intensity_max=255, return_tensors="np")["voxel_features"][:, 0]
    points[7, 3] = clipped
    np.testing.assert_allclose(features, SCALINGS[scaling](points[:, 3]), rtol=1e-6)


def test_many_negative_intensities_are_taken_as_zero_with_a_warning():
    points = scan()
    points[::2, 3] *= -1
    extractor = UOVFeatureExtractor(voxel_size=[1e-3] * 3)
    with pytest.warns(UserWarning, match="More than a tenth of the intensities of a scan are negative"):
        features = extractor(points, intensity_max=255, return_tensors="np")["voxel_features"][:, 0]
    np.testing.assert_array_equal(features, np.clip(points[:, 3], 0, None))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_full_scale_that_does_not_fit_the_intensities_is_refused(scaling):
    message = r"full scale \(255 .*\), got 1, but 495 of 500 points have an intensity outside 0 to 1: from 2 to 254"
    extractor = UOVFeatureExtractor(intensity_scaling=scaling)
    with pytest.raises(ValueError, match=message):
        extractor(scan(), intensity_max=1)
    for wrong in (0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"^`intensity_max` must be above 0 and finite, got {wrong}"):
            extractor(scan(), intensity_max=wrong)


def test_no_intensity_of_a_real_scan_is_clipped(shared_data):
    scales = {"kitti_object": 1, "semantickitti": 1, "real/kitti_car": 1, "pandaset": 255, "real/pandaset": 255}
    scales["nuscenes/samples"] = 255
    extractor = UOVFeatureExtractor()
    for folder, intensity_max in scales.items():
        points = read_points(min((shared_data / folder).rglob("*.bin")))
        _, features, _ = extractor.voxelize(points, intensity_max)
        assert np.array_equal(features, extractor.voxelize(points)[1]), folder


def test_the_real_scan_has_the_voxels_of_the_official_formula(shared_data):
    (path,) = (shared_data / "nuscenes/samples/LIDAR_TOP").iterdir()
    points = read_points(path)
    x, y, z, _ = torch.from_numpy(points).T
    official = torch.stack([torch.sqrt(x**2 + y**2) / 0.1, torch.atan2(y, x) * 180 / np.pi, z / 0.1], dim=1)
    official = official.floor().int()
    batch = UOVFeatureExtractor()(points)
    assert torch.equal(batch["voxel_coords"][batch["point_to_voxel"], 1:], official)
    assert len(batch["voxel_coords"]) == len(official.unique(dim=0))


def test_a_misspelt_setting_is_refused_and_the_keys_of_transformers_are_not(tmp_path):
    with pytest.raises(ValueError, match="no setting voxelsize. Its settings are voxel_size, coordinate_system"):
        UOVFeatureExtractor(voxelsize=[0.2] * 3)
    extractor = UOVFeatureExtractor(auto_map={}, processor_class="UOVProcessor", feature_extractor_type="x")
    assert extractor.to_dict() == UOVFeatureExtractor().to_dict()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"missing_intensity": math.nan}, "`missing_intensity` must be finite"),
        ({"missing_intensity": 1e39}, "`missing_intensity` must be finite, also in float32"),
        ({"voxel_size": (1e-50, 1, 1)}, "`voxel_size` must be three positive finite numbers"),
        ({"voxel_size": (1, 1)}, "`voxel_size` must be 3 numbers, got 2"),
        ({"voxel_size": 0.1}, "`voxel_size` must be 3 numbers, got 0.1"),
        ({"point_cloud_range": (0, 1, 2, 3, 4)}, "`point_cloud_range` must be 6 numbers, got 5"),
    ],
)
def test_settings_that_make_no_finite_voxels_are_refused_by_name(settings, message):
    """A size that float32 rounds to 0 put points at 0 into any voxel; NaN became a feature."""
    with pytest.raises(ValueError, match=message):
        UOVFeatureExtractor(**settings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("intensity_max", [1e-50, 1e39])
def test_a_full_scale_that_float32_does_not_have_is_refused_without_a_warning(intensity_max):
    extractor = UOVFeatureExtractor(intensity_scaling="unit")
    with pytest.raises(ValueError, match="`intensity_max` must be above 0 and finite"):
        extractor(np.zeros((3, 4), np.float32), intensity_max=intensity_max)


def test_bfloat16_points_are_voxelised():
    points = torch.tensor([[1.0, 2, 3, 0.5]], dtype=torch.bfloat16)
    assert UOVFeatureExtractor()(points)["voxel_features"].item() == 0.5
