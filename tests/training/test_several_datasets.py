"""Several datasets in one training: each reads its own labels, and label sets that do not fit are refused."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import small_car
import torch
from accelerate import PartialState
from safetensors.numpy import load_file, save

from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels
from uov_hf.labels.description import to_sealed_json
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.samples import AnnotatedSamples, DistillationSamples
from uov_hf.training.several_datasets import JoinedSamples, open_label_sets, warn_of_raw_intensities


@pytest.fixture
def parts(tiny_street, street_labels, other_street, other_labels):
    """Two streets of four frames with the same ids and different points."""
    frames = [load_frames("nuscenes", "all", data_dir=root) for root in (tiny_street, other_street)]
    assert frames[0].frame_ids == frames[1].frame_ids
    return [
        DistillationSamples(one, PointLabels(labels), UOVFeatureExtractor(), AugmentationConfig(), seed=3)
        for one, labels in zip(frames, (street_labels, other_labels), strict=True)
    ]


def test_a_sample_has_the_points_and_labels_of_its_own_dataset(parts):
    joined = JoinedSamples(parts)
    assert len(joined) == 8
    for index in range(8):
        place, own = divmod(index, 4)
        sample, alone = joined[1, index], parts[place][1, own]
        assert sample.keys() == alone.keys() and all(torch.equal(sample[name], alone[name]) for name in alone)
        labels = parts[place].point_labels.read(parts[place].frames.frame_ids[own], ["labels"])["labels"]
        assert np.array_equal(sample["labels"], labels)
        assert len(labels) != len(parts[1 - place][1, own]["labels"])


def test_a_dataset_without_frames_leaves_the_others_in_place(parts):
    empty = DistillationSamples(parts[0].frames[:0], parts[0].point_labels, UOVFeatureExtractor())
    joined = JoinedSamples([empty, parts[0], empty, parts[1]])
    assert len(joined) == 8
    for index in range(8):
        assert torch.equal(joined[0, index]["labels"], JoinedSamples(parts)[0, index]["labels"])


@pytest.mark.parametrize(
    "scaling, names, warns",
    [("raw", ["street", "car"], True), ("unit", ["street", "car"], False), ("raw", ["street", "street"], False)],
)
def test_raw_intensities_of_different_scales_warn(scaling, names, warns, tiny_street, tmp_path, caplog):
    PartialState(cpu=True)
    car = small_car.write_car(tmp_path / "car").parent
    sources = {"street": ("nuscenes", "all", tiny_street), "car": ("point_cloud_folder", "all", car)}
    extractor = UOVFeatureExtractor(intensity_scaling=scaling)
    frames = [load_frames(dataset, split, data_dir=root) for dataset, split, root in (sources[name] for name in names)]
    warn_of_raw_intensities(JoinedSamples(AnnotatedSamples(one, extractor) for one in frames))
    assert ("up to 255, 200. For one scale" in caplog.text) == warns


@pytest.fixture
def changed(street_labels, tmp_path):
    """A copy of the labels of the street with other embeddings, or where the description has another first entry."""

    def change(scale: float = 1.0, **first):
        folder = shutil.copytree(street_labels, tmp_path / "changed")
        path = folder / "label_set.json"
        embeds = load_file(folder / "prompt_embeds.safetensors")["prompt_embeds"]
        content = save({"prompt_embeds": embeds * scale})
        (folder / "prompt_embeds.safetensors").write_bytes(content)
        description = json.loads(path.read_text()) | {"prompt_embeds_sha256": hashlib.sha256(content).hexdigest()}
        for name, value in first.items():
            description[name][0] = value
        path.write_bytes(to_sealed_json(description))
        return str(folder)

    return change


def test_label_sets_that_differ_in_their_classes_are_refused(street_labels, changed):
    other = changed(class_names="tuk-tuk")
    with pytest.raises(ValueError, match=r"They differ in their classes: \['barrier', .*, \['tuk-tuk', "):
        open_label_sets([str(street_labels), other])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompts": "tuk-tuk"}, r"differ in their prompts: .*, \['tuk-tuk', .*\] …"),
        ({"prompt_groups": 15}, "differ in prompt_groups. Make both with the same --vocabulary"),
        ({"scale": -1.0}, "differ in the text space of their teachers: synthetic, synthetic"),
        ({"scale": 1 + 1e-5}, None),
    ],
)
def test_pre_training_needs_one_text_space_and_distillation_does_not(street_labels, changed, change, message):
    names = [str(street_labels), changed(**change)]
    assert [str(label_set.folder) for label_set in open_label_sets(names)] == names
    if message is None:
        assert len(open_label_sets(names, same_space=True)) == 2
        return
    with pytest.raises(ValueError, match=message):
        open_label_sets(names, same_space=True)


def test_one_label_set_needs_no_comparison(street_labels):
    (label_set,) = open_label_sets([str(street_labels)], same_space=True)
    assert isinstance(label_set, LabelSet)
