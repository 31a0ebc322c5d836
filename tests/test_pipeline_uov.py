"""`pipeline("point-cloud-segmentation")`: three lines from a scan and words to a label for every point."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTextModelWithProjection, pipeline
from transformers.utils.logging import get_logger

from uov_hf import (
    PointCloudSegmentationPipeline,
    UOVConfig,
    UOVFeatureExtractor,
    UOVForSemanticSegmentation,
    UOVModel,
    UOVProcessor,
    save_checkpoint,
)


CLASSES = ["car", "driveable_surface", "tree"]
PROMPTS = ["car", "road", "tree", "sedan", "sky"]


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder for each head."""
    folders = {}
    for head in ("text", "linear"):
        torch.manual_seed(0)
        uov = UOVModel(UOVConfig.from_preset("tiny", hidden_sizes=[8] * 8, stem_channels=8, projection_dim=12))
        uov.set_classes(CLASSES, unit(5, 12), torch.tensor([0, 1, 2, 0, 255]), PROMPTS)
        folders[head] = tmp_path_factory.mktemp(head)
        model = UOVForSemanticSegmentation.from_backbone(uov, head)
        save_checkpoint(folders[head], model, UOVProcessor.from_teacher(UOVFeatureExtractor()))
    return folders


@pytest.fixture(scope="module")
def words(checkpoints) -> PointCloudSegmentationPipeline:
    return pipeline("point-cloud-segmentation", model=str(checkpoints["text"]), device="cpu")


@pytest.fixture(scope="module")
def classes(checkpoints) -> PointCloudSegmentationPipeline:
    return pipeline("point-cloud-segmentation", model=str(checkpoints["linear"]), device="cpu")


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> PointCloudSegmentationPipeline:
    """It has its teacher's text tower, and a network that scales intensities."""
    folder = tmp_path_factory.mktemp("reader")
    example = Path(__file__).parents[1] / "examples" / "make_tiny_clip.py"
    runpy.run_path(str(example))["save_tiny_clip"](str(folder / "clip"), projection_dim=12)
    clip = CLIPModel.from_pretrained(folder / "clip")
    clip.config.text_config.projection_dim = 12
    tower = CLIPTextModelWithProjection(clip.config.text_config)
    tower.text_model, tower.text_projection = clip.text_model, clip.text_projection
    uov = UOVModel(UOVConfig.from_preset("tiny", hidden_sizes=[8] * 8, projection_dim=12, teacher="clip"))
    uov.set_classes(CLASSES, unit(5, 12), torch.tensor([0, 1, 2, 0, 255]), PROMPTS)
    uov.set_text_tower(tower, source="clip")
    processor = UOVProcessor.from_teacher(UOVFeatureExtractor(intensity_scaling="unit"), str(folder / "clip"))
    save_checkpoint(folder / "uov", uov, processor)
    return pipeline("point-cloud-segmentation", model=str(folder / "uov"), device="cpu")


@pytest.fixture
def warnings(caplog):
    """What the pipeline warns of, whatever it warned of before."""
    type(get_logger("uov_hf.pipeline_uov")).warning_once.cache_clear()
    return caplog


def scan(num_points=60, seed=0):
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(-4, 4, (num_points, 3)), rng.uniform(0, 255, (num_points, 1))], axis=1)
    return points.astype(np.float32)


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
def test_without_candidates_it_answers_in_the_classes_of_the_checkpoint(request, head):
    segmenter = request.getfixturevalue(head)
    result = segmenter(scan())
    expected = by_hand(segmenter, scan())
    assert result["labels"] == CLASSES
    np.testing.assert_array_equal(result["segmentation"], expected.argmax(1))
    np.testing.assert_allclose(result["scores"], expected.max(1), atol=1e-5)


def test_a_pre_trained_network_needs_no_head_of_its_own(words, tmp_path):
    save_checkpoint(tmp_path, words.model.uov, words.processor)
    segmenter = pipeline("point-cloud-segmentation", model=str(tmp_path), device="cpu")
    assert_same(segmenter(scan()), words(scan()))


def test_candidates_are_classes_by_name_or_baked_prompts(words):
    result = words(scan(), candidate_labels="sky, driveable surface,sedan")
    uov, inputs = words.model.uov, words.processor(scan())
    with torch.no_grad():
        embeds = uov.get_point_features(inputs["voxel_coords"], inputs["voxel_features"], inputs["point_to_voxel"])
        expected = uov.config.logit_scale * embeds @ uov.prompt_embeds[[4, 1, 3]].T
    assert result["labels"] == ["sky", "driveable surface", "sedan"]
    np.testing.assert_array_equal(result["segmentation"], expected.argmax(1))


def test_a_class_scores_as_the_best_of_its_prompts(words):
    assert_same(
        words(scan(), candidate_labels=["car", "tree", "driveable_surface"]),
        {
            **(everything := words(scan())),
            "labels": ["car", "tree", "driveable_surface"],
            "segmentation": np.array([0, 2, 1])[everything["segmentation"]],
        },
    )


def test_embeddings_of_pictures_stand_beside_words(words):
    own = words.model.uov.prompt_embeds[[4, 1]]
    mixed = words(scan(), candidate_labels=["tree"], candidate_embeds={"by picture": 3 * own.numpy()})
    assert mixed["labels"] == ["tree", "by picture"]
    alone = words(scan(), candidate_embeds={"sky": own[0], "road": own[1]})
    assert_same(alone, words(scan(), candidate_labels=["sky", "road"]))


@pytest.mark.parametrize("head", ["words", "classes"])
def test_a_batch_answers_as_its_scans_do_alone(request, head):
    segmenter = request.getfixturevalue(head)
    scans = [scan(40, 1), scan(7, 2), np.zeros((0, 4), np.float32), scan(30, 3)]
    for result, alone in zip(segmenter(scans, batch_size=3), scans, strict=True):
        assert_same(result, segmenter(alone))


def test_each_scan_may_have_words_of_its_own(words):
    scans, lists = [scan(20, 1), scan(30, 2)], [["car", "sky"], ["tree", "road", "sedan"]]
    results = words(scans, candidate_labels=lists, batch_size=2)
    for result, own, labels in zip(results, scans, lists, strict=True):
        assert_same(result, words({"points": own, "candidate_labels": labels}))


def test_scans_with_words_and_without_share_a_batch(words):
    scans = [{"points": scan(20, 1), "candidate_labels": "car, sky"}, {"points": scan(30, 2)}]
    for result, own in zip(words(scans, batch_size=2), scans, strict=True):
        assert_same(result, words(own))


def test_two_workers_read_a_generator_once(words):
    assert len(list(words((scan(5, seed) for seed in range(4)), num_workers=2))) == 4


def test_a_path_a_tensor_and_a_generator_are_scans_too(words, tmp_path):
    scan().tofile(tmp_path / "scan.bin")
    expected = words(scan())
    assert_same(words(str(tmp_path / "scan.bin")), expected)
    assert_same(words(torch.from_numpy(scan())), expected)
    (from_generator,) = words(own for own in [scan()])
    assert_same(from_generator, expected)


def test_points_that_nobody_can_name_and_unsure_ones_get_255(words):
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


def test_words_that_are_not_baked_go_to_the_text_tower_once(reader, monkeypatch):
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


def test_the_sentence_is_what_the_text_tower_reads(reader):
    inputs, uov = reader.processor(scan(), intensity_max=255), reader.model.uov
    with torch.no_grad():
        embeds = uov.get_point_features(inputs["voxel_coords"], inputs["voxel_features"], inputs["point_to_voxel"])
        text = uov.get_text_features(**reader.processor(text=["the tuk-tuk", "the cart"])).pooler_output
        expected = (uov.config.logit_scale * embeds @ text.T).softmax(1)
    result = reader(scan(), "tuk-tuk, cart", hypothesis_template="the {}", intensity_max=255)
    np.testing.assert_array_equal(result["segmentation"], expected.argmax(1))
    np.testing.assert_allclose(result["scores"], expected.amax(1), atol=1e-5)


def test_a_word_may_have_embeddings_besides(words):
    own = words.model.uov.prompt_embeds
    both = words(scan(), ["tree", "sky"], candidate_embeds={"tree": own[1].numpy()})
    apart = words(scan(), ["tree", "sky", "road"])
    np.testing.assert_array_equal(both["segmentation"], np.array([0, 1, 0])[apart["segmentation"]])


@pytest.mark.parametrize("largest, scale", [(0.99, 1), (254.0, 255), (60000.0, 65535)])
def test_the_full_scale_of_the_intensity_is_guessed_aloud(reader, warnings, largest, scale):
    points = scan()
    points[:, 3] *= largest / points[:, 3].max()
    points[0, 3] = np.nan
    assert_same(reader(points), reader(points, intensity_max=scale))
    assert f"All intensities are at most {scale}" in warnings.text


def test_scans_with_intensity_and_without_share_a_batch(reader, warnings):
    scans = [scan(20, 1), scan(30, 2)[:, :3], {"points": scan(9, 3), "intensity_max": 511}]
    for result, own in zip(reader(scans, batch_size=3), scans, strict=True):
        assert_same(result, reader(own))
    assert "the feature of all its points is 0.25" in warnings.text


def test_columns_beyond_the_intensity_are_not_looked_at(words, tmp_path):
    five = np.column_stack([scan(), np.arange(60, dtype=np.float32)])
    five.tofile(tmp_path / "scan.pcd.bin")
    assert_same(words(five), words(scan()))
    assert_same(words(str(tmp_path / "scan.pcd.bin")), words(scan()))


def test_bfloat16_answers_nearly_as_float32(reader, checkpoints, words):
    for folder, expected in ((reader.model.name_or_path, reader), (checkpoints["text"], words)):
        half = pipeline("point-cloud-segmentation", model=str(folder), dtype=torch.bfloat16, device="cpu")
        assert half.model.dtype == torch.bfloat16
        result = half(scan(200), intensity_max=255, top_k=3)
        assert result["scores"].dtype == np.float32
        np.testing.assert_allclose(result["scores"], expected(scan(200), intensity_max=255)["scores"], atol=0.05)
    assert half(scan(200), candidate_labels="sky, car")["labels"] == ["sky", "car"]


def test_no_scans_have_no_answers(words):
    assert words([]) == []


@pytest.mark.parametrize(
    "head, options, message",
    [
        (
            "classes",
            {"candidate_labels": ["car"]},
            'require a checkpoint with `head="text"`, but its head is linear, with the classes car, drive',
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
        (
            "words",
            {"points": {"candidate_labels": "car"}},
            "must have `points`, .*got candidate_labels",
        ),
        ("words", {"top_k": 0}, "`top_k` must be at least 1, got 0"),
        (
            "reader",
            {"intensity_max": None, "points": 1e6 * np.ones((5, 4), "f")},
            "full scale: .*1000000",
        ),
        ("words", {"refine": "crf"}, '`refine` must be "afi" or None'),
    ],
)
def test_what_it_cannot_do_it_says(request, head, options, message):
    with pytest.raises(ValueError, match=message):
        request.getfixturevalue(head)(**{"points": scan()} | options)


def test_a_saved_pipeline_has_the_processor_it_was_loaded_with(words, tmp_path):
    extractor = UOVFeatureExtractor([0.5] * 3, "cartesian", intensity_scaling="unit")
    save_checkpoint(tmp_path / "first", words.model, UOVProcessor.from_teacher(extractor))
    loaded = pipeline("point-cloud-segmentation", model=str(tmp_path / "first"), device="cpu")
    loaded.save_pretrained(tmp_path / "second")
    again = pipeline("point-cloud-segmentation", model=str(tmp_path / "second"), device="cpu")
    assert again.processor.to_dict() == loaded.processor.to_dict()
    assert_same(again(scan(), intensity_max=255), loaded(scan(), intensity_max=255))
