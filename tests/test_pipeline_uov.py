"""`pipeline("point-cloud-segmentation")`: three lines from a scan and words to a label for every point."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import pipeline

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

SEGMENT_WITHOUT_THE_PACKAGE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == "uov_hf" or name.startswith("uov_hf."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())

import numpy as np
from transformers import pipeline

folder, points, result = sys.argv[1:]
segmenter = pipeline("point-cloud-segmentation", model=folder, trust_remote_code=True, device="cpu")
assert type(segmenter).__module__.startswith("transformers_modules."), type(segmenter).__module__
answer = segmenter(points, candidate_labels=["sky", "car"], threshold=0.1)
np.savez(result, **answer)
"""


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


@pytest.mark.parametrize(
    "head, options, message",
    [
        (
            "classes",
            {"candidate_labels": ["car"]},
            "the head of this checkpoint is linear: its classes are car, drive",
        ),
        ("words", {"candidate_labels": ["unicorn"]}, "unicorn.*are not among the 5 baked prompts"),
        ("words", {"candidate_labels": ["car", "car"]}, "must be words, each once"),
        ("words", {"candidate_labels": []}, "must be words, each once"),
        ("words", {"candidate_labels": [["car"], ["tree"]]}, "has 2 lists: give a list of as many scans"),
        ("words", {"candidate_embeds": {"x": np.ones(5)}}, r"of 'x' must be finite, of shape \(12,\)"),
        ("words", {"candidate_words": ["car"]}, "has no parameter candidate_words"),
        ("words", {"refine": "crf"}, '`refine` must be "afi" or None'),
    ],
)
def test_what_it_cannot_do_it_says(request, head, options, message):
    with pytest.raises(ValueError, match=message):
        request.getfixturevalue(head)(scan(), **options)


def test_without_the_package_the_code_in_the_checkpoint_is_the_pipeline(checkpoints, words, tmp_path):
    np.save(tmp_path / "scan.npy", scan())
    command = [sys.executable, "-c", SEGMENT_WITHOUT_THE_PACKAGE, str(checkpoints["text"]), "scan.npy", "result.npz"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result, expected = np.load(tmp_path / "result.npz"), words(scan(), candidate_labels=["sky", "car"], threshold=0.1)
    assert_same({**result, "labels": result["labels"].tolist()}, expected)


def test_with_the_package_a_checkpoint_that_carries_its_pipeline_needs_no_trust(checkpoints):
    config = json.loads((checkpoints["text"] / "config.json").read_text())
    assert "point-cloud-segmentation" in config["custom_pipelines"]
    segmenter = pipeline("point-cloud-segmentation", model=str(checkpoints["text"]), device="cpu")
    assert type(segmenter) is PointCloudSegmentationPipeline and type(segmenter.model) is UOVForSemanticSegmentation


def test_with_the_package_trust_may_be_given_too(checkpoints, words):
    segmenter = pipeline(
        "point-cloud-segmentation", model=str(checkpoints["text"]), trust_remote_code=True, device="cpu"
    )
    assert_same(segmenter(scan()), words(scan()))
