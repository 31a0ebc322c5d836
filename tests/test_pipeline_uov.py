"""`pipeline("point-cloud-segmentation")`: three lines from a scan and words to a label for every point."""

import numpy as np
import pytest
import torch
from small_models import CLASSES, small_network, small_segmenter
from transformers import CLIPTextModelWithProjection, pipeline
from transformers.utils.logging import get_logger

from uov_hf import PointCloudSegmentationPipeline, UOVFeatureExtractor, UOVProcessor, save_checkpoint
from uov_hf.views import views


def load(folder, **options) -> PointCloudSegmentationPipeline:
    return pipeline("point-cloud-segmentation", model=str(folder), device="cpu", **options)


def save_and_load(head, folder) -> PointCloudSegmentationPipeline:
    torch.manual_seed(0)
    save_checkpoint(folder, small_segmenter(head), UOVProcessor.from_teacher(UOVFeatureExtractor()))
    return load(folder)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> PointCloudSegmentationPipeline:
    return save_and_load("text", tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> PointCloudSegmentationPipeline:
    return save_and_load("linear", tmp_path_factory.mktemp("linear"))


@pytest.fixture(scope="module")
def reader(clip_folder, tmp_path_factory) -> PointCloudSegmentationPipeline:
    """With its teacher's text tower, and a network that scales intensities."""
    torch.manual_seed(0)
    folder, teacher = tmp_path_factory.mktemp("reader"), str(clip_folder)
    uov = small_network(projection_dim=8, teacher=teacher)
    uov.set_text_tower(CLIPTextModelWithProjection.from_pretrained(teacher, projection_dim=8), source=teacher)
    save_checkpoint(folder, uov, UOVProcessor.from_teacher(UOVFeatureExtractor(intensity_scaling="unit"), teacher))
    return load(folder)


@pytest.fixture
def warnings(caplog):
    """The log, in which warnings of earlier tests can occur again."""
    type(get_logger("uov_hf.pipeline_uov")).warning_once.cache_clear()
    return caplog


def scan(num_points=60, seed=0):
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(-4, 4, (num_points, 3)), rng.uniform(0, 255, (num_points, 1))], axis=1)
    return points.astype(np.float32)


def test_a_candidate_has_the_prompts_of_its_class_even_if_the_labels_are_renamed(tmp_path):
    segmenter = save_and_load("text", tmp_path)
    expected = segmenter(scan(), candidate_labels=["car", "tree"])["segmentation"]
    segmenter.model.config.id2label = {0: "tree", 1: "driveable_surface", 2: "car"}
    assert (segmenter(scan(), candidate_labels=["car", "tree"])["segmentation"] == expected).all()


def by_hand(segmenter, points):
    """Probabilities (num_points, C) of the classes, without the pipeline."""
    inputs = segmenter.processor(points)
    with torch.no_grad():
        logits = segmenter.model(**inputs).logits
    return logits.softmax(1).numpy()


def assert_same(result, other):
    assert result["labels"] == other["labels"]
    np.testing.assert_array_equal(result["segmentation"], other["segmentation"])
    np.testing.assert_allclose(result["scores"], other["scores"], atol=1e-5)


@pytest.mark.parametrize("head", ["words", "classes"])
def test_without_candidates_the_labels_are_the_classes_of_the_checkpoint(request, head):
    segmenter = request.getfixturevalue(head)
    result = segmenter(scan())
    expected = by_hand(segmenter, scan())
    assert result["labels"] == CLASSES
    np.testing.assert_array_equal(result["segmentation"], expected.argmax(1))
    np.testing.assert_allclose(result["scores"], expected.max(1), atol=1e-5)


def test_a_pre_trained_network_needs_no_head_of_its_own(words, tmp_path):
    save_checkpoint(tmp_path, words.model.uov, words.processor)
    assert_same(load(tmp_path)(scan()), words(scan()))


def test_candidates_are_classes_by_name_or_baked_prompts(words):
    result = words(scan(), candidate_labels="sky, driveable surface,sedan")
    uov, inputs = words.model.uov, words.processor(scan())
    with torch.no_grad():
        embeds = uov.get_point_features(inputs["voxel_coords"], inputs["voxel_features"], inputs["point_to_voxel"])
        expected = uov.config.logit_scale * embeds @ uov.prompt_embeds[[4, 1, 3]].T
    assert result["labels"] == ["sky", "driveable surface", "sedan"]
    np.testing.assert_array_equal(result["segmentation"], expected.argmax(1))


def test_a_class_scores_as_the_best_of_its_prompts(words):
    labels, expected = ["car", "tree", "driveable_surface"], words(scan())
    segmentation = np.array([0, 2, 1])[expected["segmentation"]]
    assert_same(words(scan(), candidate_labels=labels), expected | {"labels": labels, "segmentation": segmentation})


def test_candidates_may_be_given_by_embeddings_beside_words_or_as_further_prompts_of_a_word(words):
    sedan, road = own = words.model.uov.prompt_embeds[[3, 1]]
    alone = words(scan(), candidate_embeds={"sedan": sedan, "road": road})
    assert_same(alone, words(scan(), candidate_labels=["sedan", "road"]))
    apart = words(scan(400), ["tree", "sedan", "road"])["segmentation"]
    assert set(apart) == {0, 1, 2}
    mixed = words(scan(400), ["tree"], candidate_embeds={"by picture": 3 * own.numpy()})
    assert mixed["labels"] == ["tree", "by picture"]
    np.testing.assert_array_equal(mixed["segmentation"], np.array([0, 1, 1])[apart])
    both = words(scan(400), ["tree", "road"], candidate_embeds={"road": sedan.numpy()})
    np.testing.assert_array_equal(both["segmentation"], np.array([0, 1, 1])[apart])


@pytest.mark.parametrize("head", ["words", "classes"])
def test_a_batch_has_the_results_of_its_scans_alone(request, head):
    segmenter = request.getfixturevalue(head)
    scans = [scan(40, 1), scan(7, 2), np.zeros((0, 4), np.float32), scan(30, 3)]
    for result, alone in zip(segmenter(scans, batch_size=3), scans, strict=True):
        assert_same(result, segmenter(alone))
    assert segmenter([]) == []


def test_each_scan_may_have_words_of_its_own_or_none(words):
    scans, lists = [scan(20, 1), scan(30, 2)], [["car", "sky"], ["tree", "road", "sedan"]]
    mixed = [{"points": own, "candidate_labels": labels} for own, labels in zip(scans, lists, strict=True)]
    alone = [words(own) for own in (*mixed, scans[1])]
    for result, expected in zip(words(scans, candidate_labels=lists, batch_size=2), alone, strict=False):
        assert_same(result, expected)
    for result, expected in zip(words([*mixed, scans[1]], batch_size=3), alone, strict=True):
        assert_same(result, expected)


def test_two_workers_read_a_generator_once(words):
    assert len(list(words((scan(5, seed) for seed in range(4)), num_workers=2))) == 4


def test_a_scan_is_a_path_an_array_or_a_tensor_whose_further_columns_are_ignored(words, tmp_path):
    five = np.column_stack([scan(), np.arange(60, dtype=np.float32)])
    scan().tofile(tmp_path / "scan.bin")
    five.tofile(tmp_path / "scan.pcd.bin")
    forms = [str(tmp_path / "scan.bin"), str(tmp_path / "scan.pcd.bin"), torch.from_numpy(scan()), five]
    expected = words(scan())
    for result in (*words(forms), *words(own for own in forms)):
        assert_same(result, expected)


def test_points_outside_the_grid_or_below_the_threshold_get_255(words):
    points = scan()
    points[3, 0] = np.nan
    scores = words(points)["scores"]
    threshold = float(np.median(scores))
    result = words(points, threshold=threshold)
    assert result["segmentation"][3] == 255 and result["scores"][3] == 0
    np.testing.assert_array_equal(result["segmentation"] == 255, scores < threshold)


def test_afi_refines_the_answer(words):
    refined = words(scan(400), refine="afi")
    inputs = words.processor(scan(400))
    with torch.no_grad():
        logits = words.model(**inputs).logits
    (expected,) = words.processor.post_process_semantic_segmentation(
        logits, inputs["point_to_voxel"], refine="afi", points=scan(400)
    )
    np.testing.assert_array_equal(refined["segmentation"], expected["segmentation"])


def test_top_k_gives_the_best_labels_of_each_point(words):
    points = scan()
    points[3, 0] = np.nan
    result, probabilities = words(points, top_k=2, threshold=0.99), by_hand(words, points)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    named = np.arange(60) != 3
    np.testing.assert_array_equal(result["top_labels"][named], order[named])
    np.testing.assert_allclose(
        result["top_scores"][named], np.take_along_axis(probabilities, order, 1)[named], atol=1e-5
    )
    assert result["top_labels"][3].tolist() == [255, 255] and result["top_scores"][3].tolist() == [0, 0]
    assert words(points, top_k=99)["top_labels"].shape == (60, 3)
    assert "top_labels" not in words(points)


def test_words_that_are_not_baked_are_embedded_by_the_text_tower_once(reader, monkeypatch):
    read, uov = [], reader.model.uov
    get_text_features = type(uov).get_text_features

    def count(self, input_ids, attention_mask=None):
        read.append(len(input_ids))
        return get_text_features(self, input_ids, attention_mask)

    monkeypatch.setattr(type(uov), "get_text_features", count)
    result = reader(scan(), ["tuk-tuk", "car", "horse cart"], intensity_max=255)
    assert result["labels"] == ["tuk-tuk", "car", "horse cart"] and read == [2]
    reader(scan(), "horse cart, tuk-tuk", intensity_max=255)
    assert read == [2]
    reader(scan(), "horse cart, tuk-tuk", hypothesis_template="a drawing of a {}", intensity_max=255)
    assert read == [2, 2]


def test_the_text_tower_embeds_the_word_in_its_sentence(reader):
    inputs, uov = reader.processor(scan(), intensity_max=255), reader.model.uov
    with torch.no_grad():
        embeds = uov.get_point_features(inputs["voxel_coords"], inputs["voxel_features"], inputs["point_to_voxel"])
        text = uov.get_text_features(**reader.processor(text=["the tuk-tuk", "the cart"])).pooler_output
        expected = (uov.config.logit_scale * embeds @ text.T).softmax(1)
    result = reader(scan(), "tuk-tuk, cart", hypothesis_template="the {}", intensity_max=255)
    np.testing.assert_array_equal(result["segmentation"], expected.argmax(1))
    np.testing.assert_allclose(result["scores"], expected.amax(1), atol=1e-5)


@pytest.mark.parametrize("largest, scale", [(0.99, 1), (254.0, 255), (60000.0, 65535)])
def test_the_full_scale_of_the_intensity_is_guessed_with_a_warning(reader, warnings, largest, scale):
    points = scan()
    points[:, 3] *= largest / points[:, 3].max()
    points[0, 3] = np.nan
    assert_same(reader(points), reader(points, intensity_max=scale))
    assert f"Nine tenths of the intensities or more are at most {scale}, " in warnings.text


@pytest.mark.parametrize("wrong", [300, 1e8, -5, np.inf])
def test_a_wrong_intensity_does_not_change_the_full_scale_that_is_guessed(reader, wrong):
    points = scan(1000)
    points[7, 3] = wrong
    points[100:, 3] = 0  # firings without an echo
    assert_same(reader(points), reader(points, intensity_max=255))


def test_scans_with_intensity_and_without_share_a_batch(reader, warnings):
    scans = [scan(20, 1), scan(30, 2)[:, :3], {"points": scan(9, 3), "intensity_max": 511}]
    for result, own in zip(reader(scans, batch_size=3), scans, strict=True):
        assert_same(result, reader(own))
    assert "the feature of all its points is 0.25" in warnings.text


def test_bfloat16_gives_nearly_the_scores_of_float32(reader, words):
    for expected in (reader, words):
        half = load(expected.model.name_or_path, dtype=torch.bfloat16)
        assert half.model.dtype == torch.bfloat16
        result = half(scan(200), intensity_max=255, top_k=3)
        assert result["scores"].dtype == np.float32
        np.testing.assert_allclose(result["scores"], expected(scan(200), intensity_max=255)["scores"], atol=0.05)
    assert half(scan(200), candidate_labels="sky, car")["labels"] == ["sky", "car"]


@pytest.mark.parametrize(
    "head, options, message",
    [
        (
            "classes",
            {"candidate_labels": ["car"]},
            '`head="text"`, but its head is linear, with the classes car, d',
        ),
        ("words", {"candidate_labels": ["unicorn"]}, "unicorn.*are not among the 5 baked prompts"),
        ("words", {"candidate_labels": ["car", "car"]}, "must be words, each once"),
        ("words", {"candidate_labels": []}, "must be words, each once"),
        ("words", {"candidate_labels": [["car"], ["tree"]]}, "has 2 lists. Pass a list of as many scans"),
        ("words", {"candidate_embeds": {"x": np.ones(5)}}, r"of 'x' must be finite, of shape \(12,\)"),
        ("words", {"candidate_words": ["car"]}, "has no parameter candidate_words"),
        (
            "words",
            {"candidate_embeds": {str(row): np.ones(12) for row in range(256)}},
            "from 1 to 255 candidates, got 256",
        ),
        (
            "words",
            {"candidate_labels": "car, sky", "hypothesis_template": "a car"},
            "must have {} in place of the word",
        ),
        ("words", {"candidate_labels": "car", "hypothesis_template": "a {word}"}, "must have {} in place of the word"),
        ("words", {"candidate_embeds": {}}, "There must be from 1 to 255 candidates, got 0"),
        ("words", {"candidate_embeds": {"x": np.ones((0, 12))}}, r"of 'x' must be .*, got shape \(0, 12\)"),
        (
            "words",
            {"points": {"points": scan(), "candidate_label": "car"}},
            "dictionary of a scan must have .*got points, candidate_l",
        ),
        ("words", {"points": {"candidate_labels": "car"}}, "must have `points`, .*got candidate_labels"),
        ("words", {"top_k": 0}, "`top_k` must be at least 1, got 0"),
        (
            "reader",
            {"intensity_max": None, "points": 1e6 * np.ones((5, 4), "f")},
            "full scale, must be given.* to 1000000",
        ),
        ("words", {"refine": "crf"}, '`refine` must be "afi" or None'),
    ],
)
def test_invalid_arguments_are_refused(request, head, options, message):
    with pytest.raises(ValueError, match=message):
        request.getfixturevalue(head)(**{"points": scan()} | options)


def test_a_saved_pipeline_has_the_processor_it_was_loaded_with(words, tmp_path):
    extractor = UOVFeatureExtractor([0.5] * 3, "cartesian", intensity_scaling="unit")
    save_checkpoint(tmp_path / "first", words.model, UOVProcessor.from_teacher(extractor))
    loaded = load(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    again = load(tmp_path / "second")
    assert again.processor.to_dict() == loaded.processor.to_dict()
    assert_same(again(scan(), intensity_max=255), loaded(scan(), intensity_max=255))


def test_probabilities_are_averaged_over_the_views_of_a_scan(words):
    points = scan()
    points[3] = np.nan
    result = words(points, num_views=3)
    turned = views(points, 3, words.processor.feature_extractor.voxel_size[1])
    mean = sum(by_hand(words, view) for view in turned) / 3
    np.testing.assert_array_equal(np.delete(result["segmentation"], 3), np.delete(mean, 3, axis=0).argmax(axis=1))
    np.testing.assert_allclose(np.delete(result["scores"], 3), np.delete(mean, 3, axis=0).max(axis=1), atol=1e-6)
    assert result["segmentation"][3] == 255 and not np.array_equal(mean, by_hand(words, points))
    assert len(words([points, points], num_views=2, refine="afi")) == 2
    with pytest.raises(ValueError, match="`num_views` must be at least 1, got 0"):
        words(points, num_views=0)
