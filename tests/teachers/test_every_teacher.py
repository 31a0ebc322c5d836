"""The promises of every teacher with a model, on tiny random models of the real architectures."""

import json

import numpy as np
import pytest
import torch
from ten_steps import losses_of_ten_steps
from tiny_models import (
    PROMPTS,
    TINY_TEACHERS,
    draw_images,
    frame_of,
    labels_of_pixels,
    load_tiny_teacher,
    saved,
    upsampled,
)
from tiny_segmenters import CITYSCAPES, save_tiny_segformer
from torch.nn.functional import normalize

from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.labels.segments import decode_segmentation, segment_frame
from uov_hf.teachers import TEACHERS, load_teacher
from uov_hf.teachers.checkpoints import dtype_name
from uov_hf.vocabulary import load_vocabulary


WINDOWS = {"tipsv2": {"window": 56}, "grounding_dino": {"window": 70}}  # 64 for the others
# Largest share of pixels, and difference of scores and embeddings, between batches. Masks and heat maps have logits
# near the threshold, which may round either way.
ROUNDING = {**dict.fromkeys(("clip", "tipsv2", "groupvit"), (0, 1e-5, 1e-5)), "clipseg": (1e-3, 1e-4, 1e-3)}
# Share of pixels with the same label. Masks and boxes of random weights come and go at the threshold.
SAME_IN_HALF_PRECISION = {"clip": 0.8, "tipsv2": 0.8, "groupvit": 0.8, "clipseg": 0.7}
VOCABULARY = """\
name: street
classes:
  - {name: vehicle, prompts: [car, truck, bus], is_thing: true}
  - {name: person, prompts: [pedestrian, cyclist], is_thing: true}
  - {name: ground, prompts: [road, sidewalk]}
  - {name: rest, prompts: [building, tree]}
background: [sky]
"""


every_teacher = pytest.mark.parametrize("name", TINY_TEACHERS)


def test_every_teacher_with_a_model_is_tested_here():
    assert {*TINY_TEACHERS, "synthetic", "files", "semantic"} == {*TEACHERS}  # those three have tests of their own


@every_teacher
def test_batches_change_nothing(load, frame, name):
    """Three images together, against each image alone in batches of one."""
    together = load(name).segment(frame)
    batches = dict.fromkeys(("batch_size", "mask_batch_size", "prompts_at_once", "phrases_at_once"), 1)
    own = load(name).config
    alone = load(name, **{key: one for key, one in batches.items() if hasattr(own, key)})
    for row, one in enumerate(together):
        [other] = alone.segment(frame | {key: [frame[key][row]] for key in ("camera_names", "images")})
        pixels, scores, embeds = ROUNDING.get(name, (1e-3, 1e-5, 1e-4))
        assert (one.segmentation != other.segmentation).mean() <= pixels
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=scores)
        np.testing.assert_allclose(one.embeds, other.embeds, atol=embeds)
    assert any(len(segments.labels) for segments in together)


@every_teacher
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_changes_little(load, frame, name, dtype):
    plain, half = load(name), load(name, dtype=dtype)
    for one, other in zip(plain.segment(frame), half.segment(frame), strict=True):
        assert (labels_of_pixels(one) == labels_of_pixels(other)).mean() > SAME_IN_HALF_PRECISION.get(name, -1)
        if name == "groupvit" and dtype == torch.float16:
            assert (one.segmentation == other.segmentation).mean() > 0.8
            np.testing.assert_allclose(one.embeds, other.embeds, atol=0.02)
        assert one.segmentation.shape == other.segmentation.shape
        assert other.embeds.dtype == other.scores.dtype == np.float32
        assert ((other.scores >= 0) & (other.scores <= 1)).all()
    prompt_embeds = half.encode_prompts(PROMPTS)
    assert prompt_embeds.dtype == np.float32 and prompt_embeds.shape == (len(PROMPTS), half.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(prompt_embeds, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(prompt_embeds, plain.encode_prompts(PROMPTS), atol=0.1)
    assert dtype_name(dtype) in json.dumps(half.settings)


@every_teacher
@pytest.mark.parametrize("augmentation", ["flip", "scale=0.5"])
def test_windows_and_augmented_images_keep_their_geometry(load, frame, pictures, name, augmentation):
    window = WINDOWS.get(name, {"window": 64})
    teacher, scale = load(name, **window), 0.5 if augmentation == "scale=0.5" else 1
    for segments, picture in zip(teacher.segment(frame | {"augmentation": augmentation}), pictures, strict=True):
        assert segments.segmentation.shape == (picture.height * scale, picture.width * scale)
        assert segments.embeds.shape == (len(segments.labels), teacher.embed_dim)
    assert teacher.settings["window"] == window["window"]


AUGMENTATIONS = ["flip", "scale=0.1"]


@pytest.fixture
def load_any(load, tiny_street, tiny_clip, models, tmp_path):
    """`load_any(name)`: a teacher, also one of those that are not in `TINY_TEACHERS`."""

    def load_any(name):
        if name == "synthetic":
            return load_teacher(name, prompts=["car"], data_dir=str(tiny_street))
        if name == "files":
            (tmp_path / "categories.json").write_text('[{"id": 1, "name": "car"}]')
            return load_teacher(name, str(tmp_path), prompts=["car"], embed_model_name_or_path=tiny_clip)
        if name == "semantic":
            return load_teacher(name, saved(save_tiny_segformer, models), prompts=CITYSCAPES)
        return load(name)

    return load_any


@pytest.mark.parametrize("name", TEACHERS)
def test_a_frame_without_cameras_has_no_segments(load_any, name):
    frame = {"frame_id": "7", "camera_names": [], "image_ids": [], "images": [], "image_sizes": np.zeros((0, 2), int)}
    augmentations = [] if name == "files" else AUGMENTATIONS  # `files` has plain images only
    teacher = load_any(name)
    row = segment_frame(frame, teacher, augmentations=augmentations)
    assert row["segmentation"] == row["augmented_segmentation"] == [] and len(row["segment_labels"]) == 0
    assert row["segment_embeds"].shape == (0, teacher.embed_dim)


@every_teacher
def test_images_of_odd_sizes_have_segmentations_of_their_sizes(load, name):
    sizes = [(3, 400), (400, 3), (1, 1)]
    frame = frame_of(*draw_images(*sizes)) | {"image_ids": ["a", "b", "c"], "image_sizes": np.array(sizes)}
    row = segment_frame(frame, load(name), augmentations=AUGMENTATIONS)
    wanted = [size for size in sizes for _ in AUGMENTATIONS]
    assert [decode_segmentation(png).shape for png in row["segmentation"]] == sizes
    assert [decode_segmentation(png).shape for png in row["augmented_segmentation"]] == wanted


@pytest.mark.parametrize("name", ["clip", "tipsv2", "clipseg"])
def test_an_embedding_is_the_mean_feature_of_its_pixels_and_never_that_of_the_label(load, frame, scaled, name):
    """Against full-size feature maps."""
    teacher = load(name)
    for segments, image in zip(teacher.segment(frame), scaled, strict=True):
        dense = upsampled(teacher.space.dense_features([image])[0], image.size)
        ids = range(1, len(segments.labels) + 1)
        pooled = [normalize(dense[:, segments.segmentation == one].sum(dim=1), dim=0) for one in ids]
        np.testing.assert_allclose(segments.embeds, torch.stack(pooled).numpy(), atol=1e-5)


@every_teacher
def test_every_model_of_a_teacher_is_frozen(load, name):
    teacher = load(name)
    owners = [teacher, *(getattr(teacher, owner) for owner in ("sam", "space") if hasattr(teacher, owner))]
    models = [owner.model for owner in owners if hasattr(owner, "model")]
    assert len(models) == 1 + len(TINY_TEACHERS[name][1]) and teacher.eval() is teacher
    for model in (teacher, *models):
        assert model is teacher or not any(parameter.requires_grad for parameter in model.parameters())
        with pytest.raises(RuntimeError, match="no train mode"):
            model.train()


@every_teacher
def test_a_missing_model_is_named_with_an_example(load, name):
    for argument in ("model_name_or_path", *(f"{role}_model_name_or_path" for role in TINY_TEACHERS[name][1])):
        with pytest.raises(
            ValueError, match=f"`{name}` needs `{argument}`, the id or folder of a model, e.g. `--teacher_.+/.+`"
        ):
            load(name, **{argument: None})


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("clip", {"templates": "imagenet"}, "`templates` must be one of none, photo, vild, got 'imagenet'"),
        ("clip", {"value_path": "attention"}, "`value_path` must be one of maskclip, values, got 'attention'"),
        ("clip", {"short_side": 5}, "`short_side` must hold a patch of 16 pixels, got 5"),
        ("tipsv2", {"window": 5}, "`window` must hold a patch of 14 pixels, got 5"),
        ("groupvit", {"min_score": -1}, "`min_score` must be between 0 and 1, got -1"),
        ("groupvit", {"window": 5}, "`window` must hold a patch of 16 pixels, got 5"),
        ("clip", {"short_side": "640px"}, "`short_side` must be a number, got '640px'"),
        ("clip", {"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ("clipseg", {"window": 80}, "`window` must be at most `short_side` = 64, got 80"),
        ("clipseg", {"window": 8}, "`window` must hold a patch of 16 pixels, got 8"),
        ("clipseg", {"prompts_at_once": 0}, "`prompts_at_once` must be at least 1, got 0"),
        ("sam2", {"min_quality": 2}, "`min_quality` must be between 0 and 1, got 2"),
        ("sam2", {"points_per_side": 0}, "`points_per_side` must be at least 1, got 0"),
        ("eomt", {"min_visible": -1}, "`min_visible` must be between 0 and 1, got -1"),
        ("eomt", {"window": 30}, "`window` must be more than 40 pixels wide, got 30"),
    ],
)
def test_wrong_settings_are_refused(load, name, wrong, message):
    with pytest.raises(ValueError, match=message):
        load(name, **wrong)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "street.yaml"
    path.write_text(VOCABULARY)
    return load_vocabulary(path)


@every_teacher
def test_real_images_become_point_labels_that_a_network_learns_from(name, real_frames, vocabulary, models, tmp_path):
    settings = {"window": 64} if name == "groupvit" else {}
    teacher = load_tiny_teacher(name, models, vocabulary.prompts, templates="none", **settings)
    assert json.loads(json.dumps(teacher.settings)) == teacher.settings

    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={"cameras": None})
    label_set.write(real_frames, teacher)
    row = label_set.read(real_frames.frame_ids[0])
    assert len(row["segment_labels"]) >= 6 and len(set(row["segment_camera"].tolist())) >= 5
    assert row["segment_embeds"].shape == (len(row["segment_labels"]), teacher.embed_dim)
    assert label_set.prompt_embeds.shape == (len(vocabulary.prompts), teacher.embed_dim)

    label_points(label_set, real_frames)
    labels = PointLabels(label_set.folder).read(real_frames.frame_ids[0])["labels"]
    assert (labels < len(vocabulary.class_names)).mean() > 0.05

    losses = losses_of_ten_steps(real_frames, label_set)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
