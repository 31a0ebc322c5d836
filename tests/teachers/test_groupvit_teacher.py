"""The `groupvit` teacher: its groups are the segments, as transformers computes them."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_tiny_groupvit
from torch.nn.functional import interpolate
from transformers.models.groupvit.modeling_groupvit import get_grouping_from_attentions

from uov_hf.teachers import load_teacher


PROMPTS = ["car", "a person on a bicycle", "road", "sky", "tree"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_groupvit(tmp_path_factory.mktemp("tiny_groupvit"))


def load(folder, **settings):
    return load_teacher("groupvit", folder, **{"prompts": PROMPTS, "short_side": 64, "templates": "photo"} | settings)


def square_frame(pictures, tmp_path) -> dict:
    path = tmp_path / "square.png"
    pictures[0].resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return {"frame_id": "7", "camera_names": ["A"], "images": [{"bytes": None, "path": str(path)}]}


def test_groups_labels_and_embeddings_are_those_of_transformers(folder, pictures, tmp_path):
    """At the model's own size, against its forward with `output_segmentation`."""
    teacher, frame = load(folder), square_frame(pictures, tmp_path)
    [answer] = teacher.segment(frame)
    pixels = teacher.transform(Image.open(frame["images"][0]["path"]), (64, 64))[None]
    tokens = teacher.tokenizer([f"a photo of a {prompt}." for prompt in PROMPTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = teacher.model(**tokens, pixel_values=pixels, output_segmentation=True)
        embeds = teacher.model.visual_projection(outputs.vision_model_output.last_hidden_state[0])
    groups = get_grouping_from_attentions(outputs.vision_model_output.attentions, (64, 64))[0].argmax(dim=0)
    embeds = torch.nn.functional.normalize(embeds, dim=-1)
    probabilities = (teacher.model.logit_scale.exp() * embeds @ outputs.text_embeds.T).softmax(dim=-1)
    present = groups.unique()
    assert np.array_equal(present.numpy()[answer.segmentation - 1], groups.numpy())
    np.testing.assert_allclose(answer.embeds, embeds[present].numpy(), atol=1e-5)
    assert answer.labels.tolist() == probabilities[present].argmax(dim=1).tolist()
    np.testing.assert_allclose(answer.scores, probabilities[present].amax(dim=1).numpy(), atol=1e-5)
    assert len(answer.labels) > 1


def test_images_of_any_shape_are_grouped_in_one_piece_or_in_windows(folder, frame, pictures):
    for answer, picture in zip(load(folder).segment(frame), pictures, strict=True):
        assert answer.segmentation.shape == (picture.height, picture.width)
        assert 1 <= len(answer.labels) <= 4
    assert max(len(answer.labels) for answer in load(folder, window=32).segment(frame)) > 4


def test_a_pixel_goes_to_the_group_that_claims_it_most(folder, pictures, frame):
    teacher = load(folder, window=64)
    pixels = teacher.transform(pictures[0], (64, 112))
    windows = {start: pixels[:, :, start * 16 :][:, :, :64] for start in (0, 2, 3)}  # by the patch they begin at
    with torch.inference_mode():
        found = {start: teacher._groups(window[None])[0] for start, window in windows.items()}
    claims = torch.zeros(3, 4, 4, 7)
    for row, (start, (_, shares)) in enumerate(found.items()):
        claims[row, :, :, start : start + 4] = shares
    best = interpolate(claims.flatten(0, 1)[None], size=(90, 160), mode="bilinear")[0].argmax(dim=0)
    answer, present = teacher.segment(frame)[0], best.unique()
    assert np.array_equal(present.numpy()[answer.segmentation - 1], best.numpy())
    embeds = torch.cat([embeds for embeds, _ in found.values()])
    np.testing.assert_allclose(answer.embeds, embeds[present].numpy(), atol=1e-5)


def test_groups_below_the_threshold_are_left_out(folder, frame):
    plain = load(folder).segment(frame)
    threshold = float(np.median(np.concatenate([answer.scores for answer in plain])))
    kept = load(folder, min_score=threshold).segment(frame)
    for all_of_them, rest in zip(plain, kept, strict=True):
        good = all_of_them.scores >= threshold
        np.testing.assert_allclose(rest.embeds, all_of_them.embeds[good])
        assert np.array_equal(rest.segmentation > 0, np.append(False, good)[all_of_them.segmentation])
    assert sum(len(answer.labels) for answer in kept) < sum(len(answer.labels) for answer in plain)


def test_batches_and_half_precision_change_nothing_that_matters(folder, frame):
    plain, one_by_one = load(folder).segment(frame), load(folder, batch_size=1).segment(frame)
    half = load(folder, dtype=torch.float16).segment(frame)
    for answer, alone, rounded in zip(plain, one_by_one, half, strict=True):
        assert np.array_equal(answer.segmentation, alone.segmentation)
        np.testing.assert_allclose(answer.embeds, alone.embeds, atol=1e-5)
        assert (answer.segmentation == rounded.segmentation).mean() > 0.8
        np.testing.assert_allclose(answer.embeds, rounded.embeds, atol=0.02)


def test_words_and_groups_share_a_space_and_everything_is_frozen(folder):
    teacher = load(folder)
    assert teacher.encode_prompts(["bus"]).shape == (1, teacher.embed_dim) == (1, 16)
    assert teacher.settings["templates"] == ["a photo of a {}."]
    with pytest.raises(RuntimeError, match="no train mode"):
        teacher.model.train()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 5}, "`window` must hold a patch of 16 pixels, got 5"),
        ({"min_score": -1}, "`min_score` must be between 0 and 1, got -1"),
        ({"model_name_or_path": None}, "`groupvit` needs `model_name_or_path`, .* nvidia/groupvit-gcc-yfcc"),
    ],
)
def test_wrong_groupvit_settings_are_refused(folder, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_teacher("groupvit", **{"model_name_or_path": folder, "prompts": PROMPTS} | wrong)
