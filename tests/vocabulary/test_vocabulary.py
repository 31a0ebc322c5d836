"""The nuScenes vocabulary is the paper's."""

import json

import numpy as np
import pytest

from uov_hf.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def nuscenes():
    return load_vocabulary("nuscenes")


def test_the_numbers_are_those_of_the_paper(nuscenes):
    assert (len(nuscenes.prompts), nuscenes.prompt_groups.max() + 1) == (175, 31)
    assert (len(nuscenes.class_names), len(nuscenes.raw_names)) == (16, 32)
    assert nuscenes.colors.shape == (16, 3) and nuscenes.is_thing.sum() == 10
    per_class = np.bincount(nuscenes.prompt_to_class[nuscenes.prompt_to_class != 255])
    assert per_class.tolist() == [3, 5, 7, 8, 4, 4, 13, 2, 5, 7, 8, 4, 4, 6, 47, 4]
    assert (nuscenes.prompt_to_class == 255).sum() == 44


def test_misspelt_and_repeated_prompts_stay_as_they_are(nuscenes):
    assert nuscenes.prompts[111] == " rolling hills"
    assert {"dolley", "generater", "bicycle_rack"} <= set(nuscenes.prompts)
    assert nuscenes.prompts[28] == nuscenes.prompts[74] == "scooter"
    assert nuscenes.class_names[nuscenes.prompt_to_class[28]] == "motorcycle" and nuscenes.prompt_to_class[74] == 255
    assert nuscenes.prompts[149] == nuscenes.prompts[161] == "pavilion"


def test_background_ids_are_those_of_the_label_files(nuscenes):
    """The devkit's instructions number 25 to 30 otherwise; see the head of nuscenes.yaml."""
    named = {24: "driveable_surface", 25: "other_flat", 26: "sidewalk", 27: "terrain", 28: "manmade", 30: "vegetation"}
    assert {raw: nuscenes.class_names[nuscenes.raw_to_class[raw]] for raw in named} == named
    assert nuscenes.raw_to_class[[0, 29, 31]].tolist() == [255, 255, 255]


def test_a_group_means_one_raw_class(nuscenes):
    for group in range(31):
        assert len(set(nuscenes.prompt_to_raw[nuscenes.prompt_groups == group])) == 1
    np.testing.assert_array_equal(nuscenes.prompt_to_class, nuscenes.raw_to_class[nuscenes.prompt_to_raw])


def test_prompts_equal_the_official_list(nuscenes, shared_data):
    official = json.loads((shared_data / "class_lists/uov_nuscenes_detailed.json").read_text())
    assert nuscenes.prompts == official


def test_raw_classes_and_colours_equal_the_devkits(nuscenes, shared_data):
    tables = json.loads((shared_data / "class_lists/nuscenes_lidarseg.json").read_text())
    assert nuscenes.raw_names == [row["name"] for row in tables["general"]]
    assert nuscenes.class_names == [row["name"] for row in tables["challenge"][1:]]
    official = [row["challenge_index"] for row in tables["general"]]  # 0 = ignored
    np.testing.assert_array_equal(nuscenes.raw_to_class, np.array(official, dtype=np.uint8) - np.uint8(1))
    for row in tables["general"]:
        if row["challenge_index"] and row["name"].endswith(nuscenes.class_names[row["challenge_index"] - 1]):
            assert nuscenes.colors[row["challenge_index"] - 1].tolist() == row["rgb"]


@pytest.mark.parametrize("labels", [[1.7], [True], ["1"], [None]])
def test_raw_labels_that_are_no_whole_numbers_are_refused(nuscenes, labels):
    """1.7 was the class of 1."""
    with pytest.raises(ValueError, match="`raw_labels` must be whole numbers"):
        nuscenes.classes_of(np.array(labels))


def test_a_raw_label_beyond_int64_is_unknown(nuscenes):
    with pytest.raises(ValueError, match="ids that nuscenes does not have"):
        nuscenes.classes_of(np.array([2**64 - 1], np.uint64))


@pytest.mark.parametrize("empty", [[], np.zeros((2, 0), complex)])
def test_no_labels_have_no_classes(empty):
    classes = load_vocabulary("nuscenes").classes_of(empty)
    assert classes.shape == np.shape(empty) and classes.dtype == np.uint8
