"""A label set of which one bit has changed is refused by the name of the file, or is read as it was written."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.labels.description import to_sealed_json
from uov_hf.vocabulary import load_vocabulary


NUM_FLIPS = 60
TEACHER = {"name": "halves", "model_name_or_path": None, "revision": None, "embed_dim": 4}


def flip_one_bit(path: Path, content: bytes, rng: random.Random) -> None:
    changed, place = bytearray(content), rng.randrange(len(content))
    changed[place] ^= 1 << rng.randrange(8)
    path.unlink()  # a new file: the pages of the last one may still be mapped
    path.write_bytes(changed)


def read_all(folder: Path, kind: str) -> str:
    """All that is read of a label set; text, so that NaN equals itself."""
    np.set_printoptions(threshold=10**9)
    if kind == "points":
        labels = PointLabels(folder)
        return repr([labels.read(frame_id) for frame_id in labels.frame_ids])
    label_set = LabelSet(folder)
    rows = [label_set.read(frame_id) for frame_id in label_set.frame_ids]
    return repr((label_set.description, label_set.prompt_embeds, label_set.num_missing, rows))


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("images/*.parquet", "images"),
        ("points/paper/*.parquet", "points"),
        ("points/paper/point_labels.json", "points"),
        ("label_set.json", "images"),
        ("prompt_embeds.safetensors", "images"),
    ],
)
def test_no_changed_bit_is_read_as_labels(make_label_set, frames, teacher, pattern, kind):
    label_set = make_label_set(frames, teacher)
    label_points(label_set, frames)
    path, truth = next(label_set.folder.glob(pattern)), read_all(label_set.folder, kind)
    content, rng, num_refused = path.read_bytes(), random.Random(0), 0
    for _ in range(NUM_FLIPS):
        flip_one_bit(path, content, rng)
        try:
            assert read_all(label_set.folder, kind) == truth
        except ValueError as error:
            assert str(path) in str(error) and "again" in str(error)
            num_refused += 1
    assert num_refused > NUM_FLIPS / 2  # the other bits are of no value: the index of pages, and white space


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_groups": ["a"]},
        {"prompt_to_class": [10**9] * len(load_vocabulary("nuscenes").prompts)},
        {"prompt_groups": [10**30] * len(load_vocabulary("nuscenes").prompts)},
        {"prompts": None},
        {"dataset": 3},
        {"dataset": {"num_frames": "3"}},
        {"settings": {"augmentations": "flip"}},
        {"settings": {"augmentations": [1]}},
        {"is_thing": []},
        {"teacher": {"name": 5}},
        {"teacher": TEACHER | {"embed_dim": True}},
        {"teacher": TEACHER | {"embed_dim": 2**31}},
        {"teacher": TEACHER | {"embed_dim": -(10**400)}},
        {"teacher": TEACHER | {"embed_model_name_or_path": "a/b"}},
        {"teacher": TEACHER | {"embed_revision": None}},
        {"teacher": TEACHER | {"embed_model_name_or_path": ["a"], "embed_revision": None}},
        {"teacher": TEACHER | {"embed_model_name_or_path": "a/b", "embed_revision": 5}},
        {"teacher": TEACHER | {"model_name_or_path": "/a\0"}},
        {"teacher": TEACHER | {"embed_model_name_or_path": "/a\0", "embed_revision": None}},
        {"class_names": ["a"] * 256, "is_thing": [False] * 256},
        *({"teacher": TEACHER | {name: 4.0}} for name in TEACHER),
        *({"teacher": {own: value for own, value in TEACHER.items() if own != name}} for name in TEACHER),
    ],
    ids=lambda change: "-".join(f"{name}-{value}"[:30] for name, value in change.items()),
)
def test_a_description_with_right_checksums_and_wrong_fields_is_named(make_label_set, frames, teacher, change):
    path = make_label_set(frames, teacher).folder / "label_set.json"
    path.write_bytes(to_sealed_json(json.loads(path.read_bytes()) | change))
    with pytest.raises(ValueError, match="label_set.json: expected"):
        LabelSet(path.parent)


def test_a_field_that_is_no_list_is_named_with_the_type_that_it_should_have(make_label_set, frames, teacher):
    path = make_label_set(frames, teacher).folder / "label_set.json"
    path.write_bytes(to_sealed_json(json.loads(path.read_bytes()) | {"class_names": "car"}))
    with pytest.raises(ValueError, match="expected 'class_names' to be a list of str, got 'car'"):
        LabelSet(path.parent)


def test_a_field_that_is_no_mapping_is_named_with_the_type_that_it_should_have(make_label_set, frames, teacher):
    path = make_label_set(frames, teacher).folder / "label_set.json"
    path.write_bytes(to_sealed_json(json.loads(path.read_bytes()) | {"settings": 1}))
    with pytest.raises(ValueError, match="expected 'settings' to be a dict, got 1"):
        LabelSet(path.parent)


def test_a_description_with_its_fields_in_another_order_is_the_same(make_label_set, frames, teacher):
    label_set = make_label_set(frames, teacher)
    path = label_set.folder / "label_set.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_bytes()).items()))))
    assert LabelSet(path.parent).description == label_set.description


WHOLE = np.ones((len(load_vocabulary("nuscenes").prompts), 4), np.float32)


@pytest.mark.parametrize(
    "content",
    [
        b"no tensors",
        save({"other": WHOLE}),
        save({"prompt_embeds": WHOLE[1:]}),
        save({"prompt_embeds": WHOLE.astype(np.float64)}),
        save({"prompt_embeds": WHOLE * np.float32("nan")}),
    ],
)
def test_embeddings_with_right_checksums_and_another_form_are_named(make_label_set, frames, teacher, content):
    folder = make_label_set(frames, teacher).folder
    (folder / "prompt_embeds.safetensors").write_bytes(content)
    digest = {"prompt_embeds_sha256": hashlib.sha256(content).hexdigest()}
    path = folder / "label_set.json"
    path.write_bytes(to_sealed_json(json.loads(path.read_bytes()) | digest))
    with pytest.raises(ValueError, match="prompt_embeds.safetensors: expected"):
        _ = LabelSet(folder).prompt_embeds
