"""The synthetic teacher errs at its rates, the same way every time, and only in the configured ways."""

import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from uov_hf.teachers import load_teacher
from uov_hf.teachers.mistakes import CONFUSIONS, bleed, draw_shift, touching
from uov_hf.teachers.protocol import Augmentation
from uov_hf.vocabulary import load_vocabulary


VOCABULARY = load_vocabulary("nuscenes")
# Class of each prompt: a phrase that occurs twice has that of its first row.
CLASSES = VOCABULARY.prompt_to_class[[VOCABULARY.prompts.index(prompt) for prompt in VOCABULARY.prompts]]
FAULTLESS = {
    "confusion_rate": 0,
    "region_confusion_rate": 0,
    "unseen_rate": 0,
    "missing_rate": 0,
    "min_area": 0,
    "merge_rate": 0,
    "border": 0,
}


def teacher_of(root, prompts=VOCABULARY.prompts, **settings):
    return load_teacher("synthetic", prompts=prompts, data_dir=str(root), **settings)


def images_of(root):
    return list(json.loads((root / "synthetic" / "segments.json").read_text())["images"])


def predicted_and_true(teacher, image_id, augmentation=None):
    """Training class per pixel (255 = background or no mask) of the plain image, predicted and true."""
    segments, (ids, raw_of_id) = teacher.segment_image(image_id, augmentation), teacher.read_truth(image_id)
    segmentation = Augmentation.parse(augmentation).restore(segments.segmentation, ids.shape)
    predicted = np.append(255, CLASSES[segments.labels])[segmentation]
    return predicted, VOCABULARY.raw_to_class[raw_of_id][ids]


def all_pairs(teacher, root, augmentation=None):
    return [predicted_and_true(teacher, image_id, augmentation) for image_id in images_of(root)]


def wrong_pixels(teacher, root, augmentation=None):
    pairs = all_pairs(teacher, root, augmentation)
    return np.concatenate([(predicted != true)[true < 255] for predicted, true in pairs])


def pixel_accuracy(teacher, root):
    return 1 - wrong_pixels(teacher, root).mean()


def test_by_default_80_to_92_percent_of_the_pixels_are_right(tiny_street):
    shares = [pixel_accuracy(teacher_of(tiny_street, seed=seed), tiny_street) for seed in range(3)]
    assert 0.80 < min(shares) and max(shares) < 0.92, shares


def test_ragged_borders_cost_little_and_only_near_borders(tiny_street):
    teacher = teacher_of(tiny_street, **FAULTLESS | {"border": 0.01})
    assert 0.85 < pixel_accuracy(teacher, tiny_street) < 0.99
    ids = np.zeros((60, 100), dtype=int)
    ids[:, 50:] = 1
    ragged = bleed(ids, 2.0 * draw_shift(np.random.default_rng(0), ids.shape))
    assert (ragged != ids)[:, 40:60].any() and not (ragged != ids)[:, :30].any() and not (ragged != ids)[:, 70:].any()


def test_an_image_has_the_same_segments_in_any_order_and_by_recorded_settings(tiny_street):
    one, two = images_of(tiny_street)[:2]
    teacher = teacher_of(tiny_street, seed=3, border=0.01)
    other = teacher_of(tiny_street, **json.loads(json.dumps(teacher.settings)))
    first = teacher.segment({"image_ids": [one, two]})
    second = other.segment({"image_ids": [two, one]})[::-1]
    for a, b in zip(first, second, strict=True):
        for name in ("segmentation", "labels", "scores", "embeds"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    reseeded = teacher_of(tiny_street, seed=1, border=0.01).segment_image(one)
    assert not np.array_equal(reseeded.segmentation, first[0].segmentation)


def test_a_confused_thing_gets_a_class_of_the_list(tiny_street):
    teacher = teacher_of(tiny_street, **FAULTLESS | {"confusion_rate": 1})
    for predicted, true in all_pairs(teacher, tiny_street):
        for index, name in enumerate(VOCABULARY.class_names):
            classes = {VOCABULARY.class_names[c] for c in np.unique(predicted[true == index])}
            assert classes <= (set(CONFUSIONS[name]) if VOCABULARY.is_thing[index] else {name})


def test_missing_masks_are_holes(tiny_street):
    pairs = all_pairs(teacher_of(tiny_street, **FAULTLESS | {"missing_rate": 1}), tiny_street)
    assert all((predicted == 255).all() for predicted, _ in pairs)
    pairs = all_pairs(teacher_of(tiny_street, **FAULTLESS | {"missing_rate": 0.3}), tiny_street)
    assert all((predicted == true)[predicted != 255].all() for predicted, true in pairs)
    missing = np.concatenate([(predicted == 255)[true < 255] for predicted, true in pairs])
    assert 0.15 < missing.mean() < 0.45


def test_small_parts_have_no_mask(tiny_street):
    teacher = teacher_of(tiny_street, **FAULTLESS | {"min_area": 0.002})
    for image_id in images_of(tiny_street)[:6]:
        segments = teacher.segment_image(image_id)
        areas = np.bincount(segments.segmentation.reshape(-1), minlength=len(segments.labels) + 1)[1:]
        assert (areas >= 0.002 * segments.segmentation.size).all()


def test_unseen_classes_get_another_class(tiny_street):
    teacher = teacher_of(tiny_street, **FAULTLESS | {"unseen_rate": 1})
    other_flat, sidewalk = (VOCABULARY.class_names.index(name) for name in ("other_flat", "sidewalk"))
    classes = [predicted[true == other_flat] for predicted, true in all_pairs(teacher, tiny_street)]
    assert set(np.concatenate(classes)) == {sidewalk}


def test_merging_makes_fewer_masks_with_the_same_names(tiny_street):
    counts = []
    for teacher in (teacher_of(tiny_street, **FAULTLESS | {"merge_rate": 1}), teacher_of(tiny_street, **FAULTLESS)):
        counts.append(sum(len(teacher.segment_image(image_id).labels) for image_id in images_of(tiny_street)))
        assert pixel_accuracy(teacher, tiny_street) == 1.0  # without errors it predicts the truth
    assert counts[0] < counts[1]


def test_touching_units_are_found_once():
    assert touching(np.array([[0, 0, 1], [2, 2, 1]])).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_prompts_lie_near_their_synonyms_and_far_from_others(tiny_street):
    teacher = teacher_of(tiny_street)
    embeds = teacher.encode_prompts(VOCABULARY.prompts)
    assert embeds.shape == (175, teacher.embed_dim) and embeds.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-6)

    def cosine(one, other):
        return float(np.dot(*teacher.encode_prompts([one, other])))

    assert 0.6 < cosine("car", "sedan") < 0.95
    assert cosine("car", "sedan") > cosine("car", "truck") > cosine("car", "sidewalk")
    firsts = np.array([VOCABULARY.prompts.index(prompt) == row for row, prompt in enumerate(VOCABULARY.prompts)])
    groups, cosines = VOCABULARY.prompt_groups[firsts], (embeds @ embeds.T)[np.ix_(firsts, firsts)]
    same = (groups[:, None] == groups) & ~np.eye(len(groups), dtype=bool)
    assert 0.7 < cosines[same].mean() < 0.9
    assert abs(cosines[groups[:, None] != groups].mean()) < 0.1


def test_segment_embeddings_are_nearest_to_their_own_class(tiny_street):
    teacher, right = teacher_of(tiny_street), []
    for image_id in images_of(tiny_street):
        segments = teacher.segment_image(image_id)
        nearest = (segments.embeds @ teacher.prompt_embeds.T).argmax(axis=1)
        right.append(VOCABULARY.prompt_to_class[nearest] == VOCABULARY.prompt_to_class[segments.labels])
    assert np.concatenate(right).mean() > 0.95


def test_fewer_prompts_are_enough(tiny_street):
    prompts = ["sky", "road", "tree", "building", "car"]
    teacher = teacher_of(tiny_street, prompts=prompts)
    labels = np.concatenate([segments.labels for segments in teacher.segment({"image_ids": images_of(tiny_street)})])
    assert set(labels) == set(range(len(prompts)))


def test_an_augmented_image_shares_a_part_of_the_mistakes(tiny_street):
    """Of the pixels that are wrong in the plain image, the more are wrong in the mirrored one the more persists."""
    again = []
    for teacher in (teacher_of(tiny_street, persistence=share, min_area=0) for share in (0, 0.8, 1)):
        again.append(wrong_pixels(teacher, tiny_street, "flip")[wrong_pixels(teacher, tiny_street)].mean())
    nothing, most, all_of_them = again
    assert nothing < 0.5 < most < 0.95 and all_of_them == 1


@pytest.mark.parametrize("rates", [{"confusion_rate": 0.5}, {"region_confusion_rate": 0.5}, {"missing_rate": 0.5}])
def test_an_error_that_persists_is_that_of_an_object_or_a_place_in_every_image(tiny_street, rates):
    def num_labels(persistence):
        """Labels of each object, and of each kind of stuff at each place, counted over all images."""
        teacher, found = teacher_of(tiny_street, **FAULTLESS | rates, persistence=persistence), defaultdict(set)
        segments = json.loads((tiny_street / "synthetic" / "segments.json").read_text())
        for image_id, scene in segments["images"].items():
            predicted, true = predicted_and_true(teacher, image_id)
            ids, raw_of_id = teacher.read_truth(image_id)
            with Image.open(tiny_street / "synthetic" / "places" / f"{image_id}.png") as png:
                places = np.array(png).astype(int)
            is_thing = np.append(VOCABULARY.is_thing, False)[np.minimum(true, 16)]
            owners = np.where(is_thing, ids, -1), np.where(is_thing, -1, places), raw_of_id[ids]
            for owner in np.unique(np.stack([*owners, predicted]).reshape(4, -1), axis=1).T.tolist():
                found[scene, *owner[:3]].add(owner[3])
        return np.array([len(labels) for labels in found.values()])

    assert num_labels(1).max() == 1
    assert (num_labels(0) > 1).sum() > 3


def test_an_augmented_image_is_segmented_as_well_as_the_plain_one(tiny_street):
    teacher = teacher_of(tiny_street)
    plain, *augmented = (wrong_pixels(teacher, tiny_street, name).mean() for name in (None, "flip", "scale=0.75"))
    assert np.abs(np.subtract(augmented, plain)).max() < 0.05
    frame = {"image_ids": images_of(tiny_street)[:1], "augmentation": "scale=0.75"}
    assert teacher.segment(frame)[0].segmentation.shape == (48, 84)


def test_bad_input_is_refused_with_a_reason(tiny_street, tmp_path):
    with pytest.raises(ValueError, match="no text tower.*'a flying saucer'"):
        teacher_of(tiny_street).encode_prompts(["car", "a flying saucer"])
    with pytest.raises(FileNotFoundError, match="python -m uov_hf.synthetic"):
        teacher_of(tmp_path)
    with pytest.raises(ValueError, match="needs `data_dir`"):
        load_teacher("synthetic", prompts=["car"])
    with pytest.raises(ValueError, match="`missing_rate` must be between 0 and 1, got 2"):
        teacher_of(tiny_street, missing_rate=2)
    with pytest.raises(FileNotFoundError, match="true segmentation of image nobody"):
        teacher_of(tiny_street).segment_image("nobody")
