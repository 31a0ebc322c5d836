"""Segmenter: views of a scan are averaged by point, void gives no label, AFI goes through the processor."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVProcessor
from uov_hf.evaluation.predictions import Segmenter
from uov_hf.evaluation.scans import LabelledScans
from uov_hf.views import average_over_views, views


CLASSES = {0: "car", 1: "road", 2: "tree"}
SMALL = {"hidden_sizes": [8] * 8, "stem_channels": 8, "projection_dim": 12, "sparse_backend": "torch"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = UOVConfig.from_preset("tiny", **SMALL, id2label=CLASSES, head="linear", has_void=True)
    return UOVForSemanticSegmentation(config).eval()


@pytest.fixture(scope="module")
def processor():
    return UOVProcessor.from_teacher(UOVFeatureExtractor(voxel_size=(0.5, 0.1, 0.5)))


@pytest.fixture
def points():
    generator = np.random.default_rng(0)
    points = np.column_stack([generator.uniform(-9, 9, (400, 2)), generator.normal(0, 0.1, 400), np.full(400, 5.0)])
    points[7] = np.nan
    return points.astype(np.float32)


def scan_of(points, processor, num_views=1):
    frame = {"frame_id": "a", "points": points, "intensity_max": 255.0, "labels": None, "instances": None}
    frame |= {name: [] for name in ("lidar2cam", "intrinsics", "image_sizes")}
    frames = SimpleNamespace(select_columns=lambda columns: [frame])
    scans = LabelledScans(frames, processor.feature_extractor, num_views=num_views, needs_truth=False)
    return scans[0]


def test_views_are_turned_evenly_and_by_parts_of_a_cell_and_every_other_one_is_mirrored():
    points = np.array([[1, 0, 3, 9], [0, 2, 4, 8]], dtype=np.float32)
    seen = views(points, 4, azimuth_cell=math.radians(2))
    assert seen[0] is points and len(seen) == 4
    for turned, degrees, sign in zip(seen, [0, 90.5, 181, 271.5], [1, -1, 1, -1], strict=True):
        angle = math.radians(degrees)
        expected = [[math.cos(angle), sign * math.sin(angle)], [-2 * math.sin(angle), sign * 2 * math.cos(angle)]]
        np.testing.assert_allclose(turned[:, :2], expected, atol=1e-6)
        assert np.array_equal(turned[:, 2:], points[:, 2:])


@pytest.mark.parametrize("num_views", [2, 3, 4, 19])
def test_no_two_views_of_a_scan_put_the_same_points_into_a_voxel(num_views):
    """In the paper's grid. Two views that only number the voxels differently show the network the same scan twice."""
    generator = np.random.default_rng(0)
    points = generator.uniform([-4, -4, 0, 0], [4, 4, 0.3, 255], (20_000, 4)).astype(np.float32)
    scan = scan_of(points, UOVProcessor.from_teacher(UOVFeatureExtractor()), num_views)
    # Voxels are numbered in the order of their first points: equal groups have equal numbers.
    groups = [voxels["point_to_voxel"].numpy() for voxels in (scan.voxels, *scan.further_views)]
    for first, second in itertools.combinations(groups, 2):
        num_common = len(np.unique([first, second], axis=1).T)
        assert num_common > 1.02 * max(first.max(), second.max())


def test_probabilities_are_averaged_over_the_views_in_which_a_point_has_a_voxel():
    first, second = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 3.0]])
    in_first, in_second = torch.tensor([0, 1, -1, -1]), torch.tensor([0, -1, 0, -1])
    logits, rows = average_over_views([(first, in_first), (second, in_second)])
    assert rows.tolist() == [0, 1, 2, -1]
    first, second = first.softmax(1), second.softmax(1)
    expected = torch.stack([(first[0] + second[0]) / 2, first[1], second[0]])
    torch.testing.assert_close(logits.softmax(1)[:3], expected)
    assert logits.isfinite().all()


def test_several_views_give_the_mean_of_what_each_of_them_gives(model, processor, points):
    scan = scan_of(points, processor, num_views=3)
    answer = Segmenter(model, processor)(scan)
    mean = 0.0
    for turned in views(points, 3, azimuth_cell=0.1):
        voxels = processor.feature_extractor(turned, intensity_max=255.0, return_tensors="pt")
        logits = model(**voxels).logits
        mean = mean + logits.softmax(dim=1).detach() / 3
    inside = scan.voxels["point_to_voxel"] >= 0
    assert answer.labels[7] == 255 and answer.confidences[7] == 0  # the point that is not finite
    assert np.array_equal(answer.labels[inside], mean[inside].argmax(dim=1))
    np.testing.assert_allclose(answer.confidences[inside], mean[inside].amax(dim=1), atol=1e-6)


@pytest.mark.parametrize("num_views", [1, 2])
def test_void_competes_only_on_request_and_its_points_get_no_label(model, processor, points, num_views):
    with torch.no_grad():
        model.classifier.bias[3] = 100.0
    scan = scan_of(points, processor, num_views)
    assert set(Segmenter(model, processor)(scan).labels[:7]) <= {0, 1, 2}
    assert set(Segmenter(model, processor, predict_void=True)(scan).labels) == {255}


@pytest.mark.parametrize("num_views", [1, 2])
def test_afi_refines_what_the_processor_would_read_out(model, processor, points, num_views):
    scan = scan_of(points, processor, num_views)
    refined = Segmenter(model, processor, refine="afi")(scan)
    if num_views == 1:
        (expected,) = processor.post_process_semantic_segmentation(
            model(**scan.voxels).logits, scan.voxels["point_to_voxel"], refine="afi", points=points
        )
        assert np.array_equal(refined.labels, expected["segmentation"])
    assert set(refined.labels) <= {0, 1, 2, 255} and refined.labels[7] == 255
    assert ((refined.confidences > 0) == (refined.labels != 255)).all()
