"""SemanticKITTI, PandaSet and Cityscapes equal their official lists."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from uov_hf.configuration_uov import IGNORED
from uov_hf.vocabulary import available_vocabularies, load_vocabulary


@pytest.fixture(scope="module")
def vocabularies():
    return {name: load_vocabulary(name) for name in available_vocabularies()}


def test_every_vocabulary_is_named_as_its_file_and_has_words_for_every_class(vocabularies):
    assert {"cityscapes", "nuscenes", "pandaset", "semantic_kitti"} <= set(vocabularies)
    for name, vocabulary in vocabularies.items():
        assert vocabulary.name == name
        assert set(range(len(vocabulary.class_names))) <= set(vocabulary.prompt_to_class), name
        np.testing.assert_array_equal(vocabulary.prompt_to_class, vocabulary.classes_of(vocabulary.prompt_to_raw))
        assert len(np.unique(vocabulary.colors, axis=0)) == len(vocabulary.class_names), name
        assert 0 < vocabulary.is_thing.sum() < len(vocabulary.class_names)


def test_the_documentation_counts_right(vocabularies):
    document = (Path(__file__).parents[2] / "docs/reference/classes.md").read_text(encoding="utf-8")
    for name, vocabulary in vocabularies.items():
        num_raw, num_prompts = len(vocabulary.raw_names), len(vocabulary.prompts)
        assert f"| `{name}` | {len(vocabulary.class_names)} | {num_raw}" in document
        assert f"| {num_prompts} in {vocabulary.prompt_groups.max() + 1} groups |" in document, name


def test_semantic_kitti_is_the_official_file(vocabularies, shared_data):
    official = yaml.safe_load((shared_data / "class_lists/semantic-kitti.yaml").read_text())
    ours = vocabularies["semantic_kitti"]
    assert dict(zip(ours.raw_ids.tolist(), ours.raw_names, strict=True)) == official["labels"]
    for raw_id, label in official["learning_map"].items():
        assert ours.raw_to_class[raw_id] == (label - 1 if label else IGNORED), official["labels"][raw_id]
    for label in range(1, 20):
        raw_id = official["learning_map_inv"][label]
        assert ours.class_names[label - 1] == official["labels"][raw_id]
        assert ours.colors[label - 1].tolist() == official["color_map"][raw_id][::-1]


def test_pandaset_has_the_classes_of_its_label_files(vocabularies, shared_data):
    folder, ours = shared_data / "pandaset/001", vocabularies["pandaset"]
    official = {int(raw_id): name for raw_id, name in json.loads((folder / "classes.json").read_text()).items()}
    assert dict(zip(ours.raw_ids.tolist(), ours.raw_names, strict=True)) == {0: "Unlabeled"} | official
    labels = ours.classes_of(np.fromfile(folder / "labels/00.label", np.uint32))
    assert (labels != IGNORED).mean() > 0.9


def test_cityscapes_has_its_own_ids_the_one_below_zero_is_ignored_and_others_are_refused(vocabularies):
    ours = vocabularies["cityscapes"]
    trained_on = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert ours.classes_of(np.array(trained_on)).tolist() == list(range(19))
    assert sorted(ours.raw_ids) == list(range(-1, 34))
    assert ours.classes_of(np.array([[-1, 0], [33, 9]])).tolist() == [[255, 255], [18, 255]]
    assert ours.is_thing[ours.is_thing.argmax() :].all()
    with pytest.raises(ValueError, match=r"cityscapes does not have: \[-2, 260\]"):
        ours.classes_of(np.array([0, 260, 10, -2, 260]))
