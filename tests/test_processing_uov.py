"""The processor makes one batch of points, images and words, and hands labels back to the original points."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_config
from transformers import AutoProcessor, CLIPModel, CLIPTextModelWithProjection

from uov_hf import UOVFeatureExtractor, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores


@pytest.fixture
def processor():
    return UOVProcessor.from_teacher(UOVFeatureExtractor())


def scan(num_points, seed=0):
    generator = np.random.default_rng(seed)
    positions = generator.uniform(-20, 20, (num_points, 3))
    return np.concatenate([positions, generator.uniform(0, 255, (num_points, 1))], 1).astype(np.float32)


def image(width=40, height=30):
    return Image.new("RGB", (width, height), (200, 30, 90))


@pytest.fixture
def with_tower(clip_folder):
    """With the tokenizer and the image processor of a teacher."""
    return UOVProcessor.from_teacher(UOVFeatureExtractor(voxel_size=(0.2, 0.2, 0.2)), clip_folder)


def test_points_images_and_words_go_through_in_one_call(with_tower):
    batch = with_tower(points=scan(50), images=[image(), image()], text=["car", "traffic cone"])
    assert batch["voxel_coords"].shape[1] == 4
    assert batch["point_to_voxel"].shape == (50,) and batch["num_points"].tolist() == [50]
    assert batch["pixel_values"].shape == (1, 2, 3, 64, 64)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 13]


def test_scans_of_a_batch_are_concatenated_never_padded_as_the_model_needs_them(processor):
    batch = processor(points=[scan(50), scan(20, seed=1)])
    assert batch["num_points"].tolist() == [50, 20]
    first, second = batch["point_to_voxel"].split([50, 20])
    assert batch["voxel_coords"][first, 0].eq(0).all() and batch["voxel_coords"][second, 0].eq(1).all()
    assert UOVModel(small_config()).eval()(**batch).point_embeds.shape == (70, 12)


def test_images_of_several_scans_keep_their_cameras_apart(processor):
    assert processor(images=[[image()] * 3, [image(64, 48)] * 3])["pixel_values"].shape == (2, 3, 3, 224, 224)


def test_one_image_is_one_camera_of_one_scan(processor):
    expected = processor(images=[image()])["pixel_values"]
    assert expected.shape == (1, 1, 3, 224, 224)
    array = np.asarray(image())  # (height, width, 3)
    for one in (image(), array, torch.from_numpy(array.copy()).permute(2, 0, 1), array[None]):
        assert torch.equal(processor(images=one)["pixel_values"], expected)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "at least one of `points`, `images` and `text`"),
        ({"text": "car"}, "no text tower.*pass them to `model.set_classes`"),
        ({"images": [[image()], [image()] * 2]}, r"as many cameras for each scan, and at least one, got \[1, 2\]"),
        *(({"images": none}, r"at least one, got \[0\]") for none in ([], [[]], [[], []])),
    ],
)
def test_inputs_that_cannot_be_processed_are_refused(processor, inputs, message):
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


def test_a_saved_processor_comes_back_as_it_was(tmp_path, with_tower):
    inputs = {"points": scan(60), "images": [image()], "text": ["car", "traffic cone"]}
    expected = with_tower(**inputs)
    with_tower.save_pretrained(tmp_path)
    for loaded in (UOVProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is UOVProcessor and loaded.has_text_tower
        result = loaded(**inputs)
        assert result.keys() == expected.keys()
        assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_a_processor_is_one_json_file_and_the_tokenizer(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    content = json.loads((tmp_path / "processor_config.json").read_text())
    assert content["processor_class"] == "UOVProcessor"
    assert content["has_text_tower"] is False
    assert content["feature_extractor"]["coordinate_system"] == "cylindrical"


def test_a_call_leaves_no_padding_or_truncation_in_the_saved_tokenizer(tmp_path, with_tower):
    with_tower.save_pretrained(tmp_path / "fresh")
    with_tower(text=["car", "traffic cone"], padding="max_length", max_length=9, truncation=True)
    with_tower.save_pretrained(tmp_path / "used")
    fresh, used = ((tmp_path / name / "tokenizer.json").read_text() for name in ("fresh", "used"))
    assert fresh == used


def test_scores_of_points_become_labels_and_probabilities_scan_by_scan(processor):
    scores = torch.tensor([[9.0, 0.0], [0.0, 9.0], [5.0, 0.0], [0.0, 0.0]])
    first, second = processor.post_process_semantic_segmentation(scores, torch.tensor([1, 0, -1, 2]), [1, 3])
    assert first["segmentation"].tolist() == [0]
    assert second["segmentation"].tolist() == [1, 255, 0]
    assert torch.allclose(second["scores"], torch.tensor([9.0, 0, 0]).sigmoid() * torch.tensor([1, 0, 1]))


def test_scores_of_voxels_give_what_scores_of_points_do(processor):
    voxel_scores, point_to_voxel = torch.randn(4, 3), torch.tensor([3, 3, -1, 0, 2, 1, -1])
    per_voxel = processor.post_process_semantic_segmentation(voxel_scores, point_to_voxel, [3, 4], per_voxel=True)
    per_point = processor.post_process_semantic_segmentation(voxel_scores[point_to_voxel], point_to_voxel, [3, 4])
    for voxels, points in zip(per_voxel, per_point, strict=True):
        assert torch.equal(voxels["segmentation"], points["segmentation"])
        assert torch.equal(voxels["scores"], points["scores"])


def test_a_scan_wholly_outside_the_grid_has_no_labels(processor):
    nowhere = torch.full((3,), -1)
    (result,) = processor.post_process_semantic_segmentation(torch.zeros(0, 2), nowhere, per_voxel=True)
    assert result["segmentation"].tolist() == [255] * 3 and result["scores"].tolist() == [0] * 3


def test_background_wins_as_the_ignored_label(processor):
    scores = torch.tensor([[0.0, 1.0, 5.0], [0.0, 9.0, 5.0]])
    (result,) = processor.post_process_semantic_segmentation(scores, torch.arange(2), include_background=True)
    assert result["segmentation"].tolist() == [255, 1]


@pytest.mark.parametrize(
    "num_rows, to_voxel, options, message",
    [
        (3, [0] * 5, {}, "one row for each of the 5 points, got 3.*`per_voxel=True`"),
        (3, [0, 3], {"per_voxel": True}, "has 3 rows, but `point_to_voxel` contains voxel 3"),
        (2, [0, 1], {"num_points": [1]}, "`num_points` must .* sum to 2, the rows of `point_to_voxel`, got .1."),
        (2, [0, 1], {"refine": "crf"}, "`refine` must be"),
        (2, [0, 1], {"refine": "afi"}, "needs the `points`"),
        (2, [0, 1], {"refine": "afi", "points": [np.ones((9, 4))]}, r"scans of \[2\] points.*got \[9\]"),
    ],
)
def test_scores_and_points_that_do_not_fit_are_refused(processor, num_rows, to_voxel, options, message):
    with pytest.raises(ValueError, match=message):
        processor.post_process_semantic_segmentation(torch.zeros(num_rows, 2), torch.tensor(to_voxel), **options)


# --- refined results ------------------------------------------------------------------------------------------------


def flat_scan(num_points=400, seed=0):
    """Ground on the left of two classes, half and half, and a logit for each; a fifth of them wrong."""
    generator = np.random.default_rng(seed)
    positions = np.concatenate([generator.uniform(-20, 20, (num_points, 2)), np.full((num_points, 1), -1.8)], 1)
    labels = (positions[:, 0] > 0) ^ (generator.random(num_points) < 0.2)
    points = np.concatenate([positions, np.zeros((num_points, 1))], 1).astype(np.float32)
    return points, 2.0 * torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 2)


@pytest.mark.parametrize("evidence", ["labels", "scores"])
def test_a_refined_answer_is_that_of_the_interaction(processor, evidence):
    processor.afi = {"evidence": evidence, "level_sizes": [40, 13]}
    points, logits = flat_scan()
    nowhere = torch.arange(400) % 7 == 0
    to_voxel = torch.arange(400).masked_fill(nowhere, -1)
    (result,) = processor.post_process_semantic_segmentation(logits, to_voxel, refine="afi", points=[points])
    given = logits.softmax(1) if evidence == "scores" else labels_to_scores(logits.argmax(1), 2)
    config = AFIConfig(level_sizes=(40, 13))
    expected = approximate_flat_interaction(points[~nowhere, :3], given[~nowhere].numpy(), config)
    assert result["segmentation"][nowhere].eq(255).all() and result["scores"][nowhere].eq(0).all()
    assert np.array_equal(result["segmentation"][~nowhere], expected.argmax(1))
    assert np.allclose(result["scores"][~nowhere], expected.max(1))


def test_no_setting_means_the_papers_constants_and_ours_are_the_default(processor):
    points, logits = flat_scan()
    evidence = {"labels": labels_to_scores(logits.argmax(1), 2), "scores": logits.softmax(1)}
    for afi, kind, config in ((processor.afi, "scores", DENSE), ({}, "labels", AFIConfig())):
        processor.afi = afi
        (result,) = processor.post_process_semantic_segmentation(
            logits, torch.arange(400), refine="afi", points=points
        )
        expected = approximate_flat_interaction(torch.from_numpy(points), evidence[kind], config)
        assert torch.equal(result["scores"], expected.amax(1))


def test_scans_are_refined_one_by_one_from_scores_of_points_or_voxels(processor):
    scans = [flat_scan(300, seed=1), flat_scan(0), flat_scan(200, seed=2)]
    clouds, num_points = [points for points, _ in scans], [300, 0, 200]
    logits, to_voxel = torch.cat([logits for _, logits in scans]), torch.arange(500)
    post_process = processor.post_process_semantic_segmentation
    together = post_process(logits, to_voxel, num_points, refine="afi", points=clouds)
    cloud = torch.from_numpy(np.concatenate(clouds))
    voxels = post_process(logits.flip(0), to_voxel.flip(0), num_points, True, refine="afi", points=cloud)
    for index, (points, scan_logits) in enumerate(scans):
        (alone,) = post_process(scan_logits, torch.arange(len(points)), refine="afi", points=points)
        for result in (together[index], voxels[index]):
            assert torch.equal(result["segmentation"], alone["segmentation"])
            assert torch.equal(result["scores"], alone["scores"])


def test_background_is_a_class_among_others_until_the_end(processor):
    points, logits = flat_scan()
    refine = partial(processor.post_process_semantic_segmentation, refine="afi", points=points)
    (plain,), (result,) = (refine(logits, torch.arange(400), include_background=flag) for flag in (False, True))
    assert torch.equal(plain["segmentation"].masked_fill(plain["segmentation"] == 1, 255), result["segmentation"])


def test_settings_of_the_refinement_are_saved_with_the_ring_by_name(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "processor_config.json").read_text())["afi"]
    assert written == {"evidence": "scores", "level_shares": [1.0], "base_vote": 0.01}  # a later default is another's
    processor.afi = {"num_voters": 3, "ground_ring": {"classes": ["road"], "sensor_height": 1.8, "max_radius": 15.0}}
    processor.save_pretrained(tmp_path)
    loaded = UOVProcessor.from_pretrained(tmp_path)
    assert loaded.afi == processor.afi
    points, logits = flat_scan()  # of "thing" at the left and "road" at the right
    (result,) = loaded.post_process_semantic_segmentation(
        logits, torch.arange(400), refine="afi", points=points, label2id={"thing": 0, "road": 1}
    )
    radius = np.hypot(points[:, 0], points[:, 1])
    assert (result["segmentation"][(radius > 2) & (radius < 15)] == 1).float().mean() > 0.9
    with pytest.raises(ValueError, match="label2id=model.config.label2id"):
        loaded.post_process_semantic_segmentation(logits, torch.arange(400), refine="afi", points=points)


@pytest.mark.parametrize(
    "afi, message",
    [
        ({"num_neighbors": 2.5}, "`num_neighbors` must be whole numbers, got 2.5"),
        ({"num_voters": True}, "`num_voters` must be whole numbers, got True"),
        ({"level_sizes": [1.5]}, r"`level_sizes` must be whole numbers, got \(1.5,\)"),
        ({"level_shares": ["1"]}, "`level_shares` must be finite numbers"),
        ({"base_vote": 10**400}, "`base_vote` must be finite numbers, got 1000"),
        ({"num_directions": 10**9}, "`num_directions` must be 10000 or less"),
        ({"ground_ring": {"classes": ["road"], "seed": "x"}}, "`seed` must be whole numbers, got 'x'"),
        ({"ground_ring": {"classes": ["road"], "seed": -1}}, "`seed` must be 0 or more, got -1"),
        ({"ground_ring": {"classes": ["road"], "sensor_height": None}}, "`sensor_height` must be finite numbers"),
        ({"ground_ring": {"classes": ["road"], "max_height": [1]}}, "`max_height` must be finite numbers"),
        ({"ground_ring": {"classes": ["road"], "max_residual": float("nan")}}, "`max_residual` must be finite"),
        ({"levels": [3]}, r"\['levels'\] are no settings of AFIConfig: it has level_sizes"),
        ({"num_voters": 0}, "`num_voters` must be 1 or more"),
        ({"evidence": "votes"}, "`evidence` of `afi` must be one of labels, scores, got 'votes'"),
        ({"ground_ring": {"sensor_height": 2.0}}, "names the `classes`"),
        ({"ground_ring": {"classes": ["road"], "height": 2.0}}, r"\['height'\] are no settings of GroundRing"),
    ],
)
def test_an_invalid_setting_is_refused_when_the_processor_is_made(processor, afi, message):
    with pytest.raises(ValueError, match=message):
        UOVProcessor(processor.feature_extractor, processor.image_processor, processor.tokenizer, afi=afi)


# --- with a checkpoint ----------------------------------------------------------------------------------------------


def test_words_go_through_a_saved_checkpoint_as_through_the_teacher(tmp_path, clip_folder):
    teacher = str(clip_folder)
    model = UOVModel(small_config(projection_dim=8, teacher=teacher))
    model.set_text_tower(CLIPTextModelWithProjection.from_pretrained(teacher, projection_dim=8), source=teacher)
    save_checkpoint(tmp_path, model, UOVProcessor.from_teacher(UOVFeatureExtractor(), teacher))
    tokens = UOVProcessor.from_pretrained(tmp_path)(text=["car", "traffic cone"])
    embeds = UOVModel.from_pretrained(tmp_path).get_text_features(**tokens).pooler_output
    clip = CLIPModel.from_pretrained(teacher)
    expected = torch.nn.functional.normalize(clip.get_text_features(**tokens).pooler_output, dim=-1)
    assert torch.allclose(embeds, expected, atol=1e-6)


def test_a_checkpoint_without_the_tower_refuses_words_even_with_the_teachers_tokenizer(tmp_path, clip_folder):
    model = UOVModel(small_config())
    save_checkpoint(tmp_path, model, UOVProcessor.from_teacher(UOVFeatureExtractor(), clip_folder))
    with pytest.raises(ValueError, match="no text tower"):
        UOVProcessor.from_pretrained(tmp_path)(text="car")


def test_options_reach_the_tokenizer_and_the_image_with_tower(with_tower):
    inputs = {"points": scan(5), "images": image(), "text": ["car", "traffic cone"]}
    nested = with_tower(
        **inputs,
        images_kwargs={"do_normalize": False, "crop_size": {"height": 16, "width": 16}},
        text_kwargs={"padding": "max_length", "max_length": 9, "truncation": True},
    )
    assert nested["pixel_values"].shape == (1, 1, 3, 16, 16) and nested["pixel_values"].min() >= 0
    assert nested["input_ids"].shape == (2, 9)
    flat = with_tower(**inputs, do_normalize=False, padding="max_length", max_length=20, return_tensors="np")
    assert flat["pixel_values"].min() >= 0 and flat["input_ids"].shape == (2, 20)
    assert all(isinstance(value, np.ndarray) for value in flat.values())
    with pytest.raises(TypeError, match="has no option paddings. Pass options of the tokenizer in `text_kwargs`"):
        with_tower(**inputs, paddings=True)


def test_scores_that_are_not_numbers_and_a_negative_count_of_labels_are_refused(processor):
    scores = torch.tensor([[0.0, torch.nan], [0.0, 1.0]])
    with pytest.raises(ValueError, match="`class_scores` must be logits that are no NaN"):
        processor.post_process_semantic_segmentation(scores, torch.arange(2))
    with pytest.raises(ValueError, match="`top_k` must be at least 1, got -1"):
        processor.post_process_semantic_segmentation(torch.zeros(2, 2), torch.arange(2), top_k=-1)
