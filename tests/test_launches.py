"""What each public path costs on an accelerator: launches, waits of the host, and copies, counted on the fake GPU."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from afi_oracle import scene, street
from fake_gpu import NAME, FakeGPU, to_gpu
from transformers import pipeline

from uov_hf import (
    UOVConfig,
    UOVFeatureExtractor,
    UOVForPreTraining,
    UOVForSemanticSegmentation,
    UOVModel,
    UOVProcessor,
    point_neighbors,
)
from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores
from uov_hf.geometry.occlusion import OcclusionConfig
from uov_hf.geometry.projection import Camera, project_points, visible_points
from uov_hf.ground_ring import GroundRing
from uov_hf.losses import pool_superpoints
from uov_hf.training.augmentation import rotated


# The most that a call may cost, whatever the number of points: launches, syncs, copies.
BUDGETS = {
    "MinkUNet34, inference": (1530, 7, 6),
    "MinkUNet34, distillation, forward": (1660, 7, 6),
    "MinkUNet34, distillation, backward": (2720, 0, 0),
    "MinkUNet34, pre-training, forward": (1660, 7, 6),
    "MinkUNet34, pre-training, backward": (2720, 0, 0),
    "AFI, the paper's constants": (680, 2, 15),
    "AFI, dense": (130, 2, 6),
    "AFI, with a ground ring": (690, 2, 18),
    "AFI, points on the host": (130, 1, 5),
    "labels_to_scores": (10, 1, 0),
    "project_points": (30, 1, 2),
    "visible_points": (130, 7, 4),
    "post_process, of points": (20, 2, 3),
    "post_process, of voxels": (20, 2, 3),
    "post_process, refined": (147, 3, 8),
    "feature extractor, of two scans": (0, 3, 3),
    "pipeline, but for the network": (0, 1, 3),
    "pipeline with candidates, but for the network": (0, 3, 7),
}
NUSCENES = 34_688  # points of a scan


@pytest.fixture(scope="module")
def processor():
    return UOVProcessor.from_teacher(UOVFeatureExtractor())


def check_budget(traffic: FakeGPU, path: str, made_by: str = "") -> None:
    """Fail where the path cost more than its budget; the lines that cost it are in the message."""
    counts = traffic.launches, traffic.syncs, traffic.copies
    spent = [sum(times for (_, where), times in count.items() if where.startswith(made_by)) for count in counts]
    assert all(cost <= most for cost, most in zip(spent, BUDGETS[path], strict=True)), f"{path}: {spent}\n{traffic}"


def run_on_gpu(traffic: FakeGPU, path: str, function, *inputs: torch.Tensor):
    """The result of a function of tensors on the device, within the budget of `path`."""
    inputs = to_gpu(inputs)
    traffic.clear()
    result = function(*inputs)
    check_budget(traffic, path)
    return result


def scan(num_points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points `(N, 3)` of a street and one-hot scores `(N, 5)`, on the host."""
    points, scores = scene(num_points, dtype=np.float32)
    return torch.from_numpy(points), torch.from_numpy(scores)


def looking_ahead() -> Camera:
    lidar2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    return Camera(lidar2cam, np.array([[126, 0, 80], [0, 126, 45], [0, 0, 1]]), (90, 160))


# --- approximate flat interaction -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_points", [1500, 6000, pytest.param(NUSCENES, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "path, config",
    [
        ("AFI, the paper's constants", AFIConfig()),
        ("AFI, dense", DENSE),
        ("AFI, with a ground ring", AFIConfig(ground_ring=GroundRing((0, 4)))),
    ],
)
def test_afi_costs_the_same_for_every_number_of_points(traffic, path, config, num_points):
    refine = partial(approximate_flat_interaction, config=config)
    refined = run_on_gpu(traffic, path, refine, *scan(num_points))
    assert refined.device.type == NAME and (refined.cpu() - refine(*scan(num_points))).abs().max() < 1e-5


def test_afi_takes_points_from_the_host_and_those_that_are_not_finite(traffic):
    points, scores = scan(1500)
    on_gpu = to_gpu(scores)
    traffic.clear()
    refined = approximate_flat_interaction(points, on_gpu, DENSE)
    check_budget(traffic, "AFI, points on the host")
    assert (refined.cpu() - approximate_flat_interaction(points, scores, DENSE)).abs().max() < 1e-5
    points[::9] = torch.nan
    refined = approximate_flat_interaction(points, on_gpu, DENSE)
    assert (refined.cpu() - approximate_flat_interaction(points, scores, DENSE)).abs().max() < 1e-5


def test_without_scipy_an_accelerator_searches_in_a_few_launches_with_the_same_result(traffic, monkeypatch):
    points, scores = scan(1500)
    configs = (AFIConfig(), DENSE)
    expected = [approximate_flat_interaction(points, scores, config) for config in configs]
    monkeypatch.setattr(point_neighbors, "cKDTree", None)
    on_gpu = to_gpu([points, scores])
    traffic.clear()
    point_neighbors.nearest_points(on_gpu[0], on_gpu[0], 6)
    assert traffic.launches.total() < 60
    for config, exact in zip(configs, expected, strict=True):
        assert (approximate_flat_interaction(*on_gpu, config).cpu() - exact).abs().max() < 1e-5


def test_labels_become_scores_where_they_lie(traffic):
    labels = torch.arange(300) % 5
    scores = run_on_gpu(traffic, "labels_to_scores", partial(labels_to_scores, num_labels=5), labels)
    assert torch.equal(scores.cpu(), labels_to_scores(labels, 5))


# --- cameras --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_points", [1000, 20_000])
def test_projection_and_occlusion_cost_the_same_for_every_number_of_points(traffic, num_points):
    points, camera = scan(num_points)[0], looking_ahead()
    project = partial(project_points, camera=camera)
    find_visible = partial(visible_points, camera=camera, occlusion=OcclusionConfig())
    pixels, in_view = run_on_gpu(traffic, "project_points", project, points)
    visible = run_on_gpu(traffic, "visible_points", find_visible, points)
    expected_pixels, expected_in_view = project(points)
    assert torch.equal(in_view.cpu(), expected_in_view) and torch.equal(visible.cpu(), find_visible(points))
    assert torch.allclose(pixels.cpu(), expected_pixels, equal_nan=True)
    assert 0 < find_visible(points).sum() < expected_in_view.sum()


# --- the network ----------------------------------------------------------------------------------------------------


def voxels(num_scans: int = 1, num_points: int = 17_000) -> dict[str, torch.Tensor]:
    """A batch of scans of a street, each turned by another angle, in voxels of the paper."""
    scans = []
    for number in range(num_scans):
        points, _, _ = street(num_points, dtype=np.float32)
        intensity = np.arange(len(points)) % 255
        scans.append(np.c_[rotated(points[:, :2], number), points[:, 2], intensity].astype(np.float32))
    return dict(UOVFeatureExtractor()(scans, intensity_max=255.0))


def pairs_of_a_label_set(num_points: int, projection_dim: int) -> dict[str, torch.Tensor]:
    """20,000 pairs of points with 100 segments, a tenth of them outside the grid, and 60 prompts."""
    generator = torch.Generator().manual_seed(0)
    embeds = torch.nn.functional.normalize(torch.randn(160, projection_dim, generator=generator), dim=1)
    return {
        "pair_to_point": torch.randint(num_points, (20_000,), generator=generator),
        "superpoint_ids": torch.randint(100, (20_000,), generator=generator),
        "segment_embeds": embeds[:100],
        "segment_labels": torch.arange(100) % 60,
        "prompt_embeds": embeds[100:],
        "prompt_groups": torch.arange(60) // 6,
        "scene_ids": torch.zeros(100, dtype=torch.long),
    }


def segmenter(preset: str = "minkunet34") -> UOVForSemanticSegmentation:
    torch.manual_seed(0)
    network = UOVModel(UOVConfig.from_preset(preset))
    return UOVForSemanticSegmentation.from_backbone(network, "linear", ["car", "road", "tree"])


def test_inference_makes_few_launches_and_waits_once_a_level(traffic):
    batch, model = voxels(), segmenter().eval()
    assert 12_000 < len(batch["voxel_coords"]) < 20_000
    with torch.no_grad():
        expected = model(**batch).logits
        model, batch = to_gpu(model), to_gpu(batch)
        traffic.clear()
        logits = model(**batch).logits
    check_budget(traffic, "MinkUNet34, inference")
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_sixteen_scans_make_as_many_products_as_one_and_few_more_gathers(traffic):
    model, batch = to_gpu(segmenter().eval()), to_gpu(voxels(num_scans=16))
    with torch.no_grad():
        traffic.clear()
        model(**batch)
    made = [times for (name, _), times in traffic.launches.items() if name in ("bmm", "mm", "addmm", "index_select")]
    assert sum(made) <= 1500
    assert traffic.syncs.total() <= BUDGETS["MinkUNet34, inference"][1]


@pytest.mark.parametrize("stage", ["distillation", "pre-training"])
@pytest.mark.parametrize("preset, precision", [("minkunet34", "float32"), ("tiny", "bfloat16")])
def test_a_training_step_never_waits_but_for_the_sizes_of_its_levels(traffic, stage, preset, precision):
    batch = voxels(num_points=3000)
    num_points = len(batch["point_to_voxel"])
    if stage == "distillation":
        model, batch = segmenter(preset), batch | {"labels": torch.arange(num_points) % 3}
    else:
        torch.manual_seed(0)
        model = UOVForPreTraining(UOVConfig.from_preset(preset))
        batch |= pairs_of_a_label_set(num_points, model.config.projection_dim)
    model, batch = to_gpu(model.train()), to_gpu(batch)
    traffic.clear()
    with torch.autocast(NAME, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(**batch).loss
    check_budget(traffic, f"MinkUNet34, {stage}, forward")
    traffic.clear()
    loss.backward()
    check_budget(traffic, f"MinkUNet34, {stage}, backward")
    assert loss.cpu().isfinite()


def test_gradients_on_an_accelerator_are_those_of_the_cpu(traffic):
    """There, products have all pairs of an offset, sums another order, and the host reads no checks of values."""
    batch, model = voxels(num_scans=2, num_points=3000), segmenter("tiny").train()
    batch["labels"] = torch.arange(len(batch["point_to_voxel"])) % 3
    on_gpu, batch_on_gpu = to_gpu(copy.deepcopy(model)), to_gpu(batch)
    losses = [model(**batch).loss, on_gpu(**batch_on_gpu).loss]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1].cpu(), losses[0])
    for (name, parameter), other in zip(model.named_parameters(), on_gpu.parameters(), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(other.grad.cpu(), parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_wrong_labels_and_ids_make_a_loss_nan_where_the_host_does_not_wait(traffic):
    batch, model = voxels(num_points=3000), segmenter("tiny").train()
    batch["labels"] = torch.full((len(batch["point_to_voxel"]),), 7)  # there are three classes
    assert to_gpu(model)(**to_gpu(batch)).loss.cpu().isnan()
    embeds, ids = to_gpu([torch.randn(4, 5), torch.tensor([0, 1, 2, 3])])
    assert pool_superpoints(embeds, ids, 3).cpu().isnan().all()


# --- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, num_points, per_voxel, refine",
    [
        ("post_process, of points", [700, 0, 800], False, None),
        ("post_process, of voxels", [700, 0, 800], True, None),
        ("post_process, refined", [1500], False, "afi"),
        ("", [700, 0, 800], True, "afi"),  # as many times the budget of one as there are scans
    ],
)
def test_results_of_many_scans_are_computed_at_once(traffic, processor, path, num_points, per_voxel, refine):
    points, scores = scan(1500)
    to_voxel = torch.arange(1500).flip(0).masked_fill(torch.arange(1500) % 50 == 0, -1)
    options = {"per_voxel": per_voxel, "refine": refine, "points": points, "top_k": 2}
    expected = processor.post_process_semantic_segmentation(3 * scores, to_voxel, num_points, **options)
    on_gpu = to_gpu([3 * scores, to_voxel])
    traffic.clear()
    found = processor.post_process_semantic_segmentation(*on_gpu, num_points, **options)
    if path:
        check_budget(traffic, path)
    for one, other in zip(found, expected, strict=True):
        assert (one["segmentation"].cpu() == other["segmentation"]).float().mean().nan_to_num(1) > 0.99
        assert torch.allclose(one["scores"].cpu(), other["scores"], atol=1e-5)


def test_scans_on_the_device_are_read_once_and_their_full_scales_together(traffic):
    scans, full_scales = [torch.rand(300, 4) * 20, torch.rand(200, 4) * 20], torch.tensor([255.0, 20.0])
    extractor, on_gpu = UOVFeatureExtractor(intensity_scaling="unit"), to_gpu([scans, full_scales])
    voxels = extractor(*on_gpu)
    check_budget(traffic, "feature extractor, of two scans")
    expected = extractor(scans, full_scales)
    assert all(torch.equal(voxels[name], expected[name]) for name in ("voxel_coords", "voxel_features"))


@pytest.mark.parametrize(
    "path, options",
    [
        ("pipeline, but for the network", {"refine": "afi"}),
        ("pipeline with candidates, but for the network", {"candidate_labels": ["tree", "car"]}),
    ],
)
def test_the_pipeline_itself_costs_two_copies_in_and_one_out(traffic, tiny_segmenter, path, options):
    points = scan(800)[0].numpy()
    on_host = pipeline("point-cloud-segmentation", model=tiny_segmenter, device="cpu")(points, **options)
    segmenter = pipeline("point-cloud-segmentation", model=tiny_segmenter, device=NAME)
    traffic.clear()
    on_gpu = segmenter(points, **options)
    assert traffic.launches, "The network ran on the device."
    check_budget(traffic, path, made_by="pipeline_uov.py")
    assert on_gpu["labels"] == on_host["labels"]
    assert (on_gpu["segmentation"] == on_host["segmentation"]).mean() > 0.99
