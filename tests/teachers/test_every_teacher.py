"""Every teacher, from a tiny random model of its real architecture: six real images to ten steps of pre-training."""

import json

import numpy as np
import pytest
from ten_steps import losses_of_ten_steps
from tiny_mask_models import load_tiny_mask_teacher, saved
from tiny_models import save_tiny_clip, save_tiny_clipseg, save_tiny_groupvit, save_tiny_tipsv2

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import TEACHERS, load_teacher
from uov_hf.vocabulary import load_vocabulary


NO_MODEL_OF_THEIR_OWN = {"synthetic", "files"}
# model and settings of the teachers that tiny_mask_models.py does not have
DENSE_TEACHERS = {
    "clip": (save_tiny_clip, {}),
    "tipsv2": (save_tiny_tipsv2, {}),
    "groupvit": (save_tiny_groupvit, {"window": 64}),
    "clipseg": (save_tiny_clipseg, {"embed_short_side": 64}),
}
FEWER_MASKS = {"sam2": {"points_per_side": 2}, "sam3_points": {"points_per_side": 2}}
VOCABULARY = """\
name: street
classes:
  - {name: vehicle, prompts: [car, truck, bus], is_thing: true}
  - {name: person, prompts: [pedestrian, cyclist], is_thing: true}
  - {name: ground, prompts: [road, sidewalk]}
  - {name: rest, prompts: [building, tree]}
background: [sky]
"""


@pytest.fixture(scope="module")
def real_frames(shared_data):
    return load_frames("nuscenes", "all", data_dir=shared_data / "nuscenes")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "street.yaml"
    path.write_text(VOCABULARY)
    return load_vocabulary(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny_models")


def load_tiny_teacher(name: str, folder, prompts: list[str]):
    """The teacher called `name` with tiny models, which are saved to `folder` if they are not there yet."""
    if name not in DENSE_TEACHERS:
        return load_tiny_mask_teacher(name, folder, prompts, templates="none", **FEWER_MASKS.get(name, {}))
    save_model, settings = DENSE_TEACHERS[name]
    if name == "clipseg":
        settings = settings | {"embed_model_name_or_path": saved(save_tiny_clip, folder)}
    return load_teacher(name, saved(save_model, folder), prompts=prompts, short_side=64, templates="none", **settings)


@pytest.mark.parametrize("name", [name for name in TEACHERS if name not in NO_MODEL_OF_THEIR_OWN])
def test_real_images_become_point_labels_that_a_network_learns_from(name, real_frames, vocabulary, models, tmp_path):
    teacher = load_tiny_teacher(name, models, vocabulary.prompts)
    assert json.loads(json.dumps(teacher.settings)) == teacher.settings

    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={"cameras": None})
    label_set.write(real_frames, teacher)
    said = label_set.read(real_frames.frame_ids[0])
    assert len(said["segment_labels"]) >= 6 and len(set(said["segment_camera"].tolist())) >= 5
    assert said["segment_embeds"].shape == (len(said["segment_labels"]), teacher.embed_dim)
    assert label_set.prompt_embeds.shape == (len(vocabulary.prompts), teacher.embed_dim)

    label_points(label_set, real_frames)
    labels = PointLabels(label_set.folder).read(real_frames.frame_ids[0])["labels"]
    assert (labels < len(vocabulary.class_names)).mean() > 0.05

    losses = losses_of_ten_steps(real_frames, label_set)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
