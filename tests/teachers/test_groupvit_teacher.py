"""The `groupvit` teacher: its groups are the segments, as transformers computes them."""

import numpy as np
import torch
from PIL import Image
from tiny_models import PROMPTS, frame_of, upsampled
from transformers.models.groupvit.modeling_groupvit import get_grouping_from_attentions


def test_groups_labels_and_embeddings_are_those_of_transformers(load, pictures):
    """At the model's own size, against its forward with `output_segmentation`."""
    teacher, picture = load("groupvit"), pictures[0].resize((64, 64), Image.Resampling.BICUBIC)
    [segments] = teacher.segment(frame_of(picture))
    pixels = teacher.space.transform(picture, (64, 64))[None]
    sentences, model = [f"a photo of a {prompt}." for prompt in PROMPTS], teacher.space.model
    tokens = teacher.space.tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**tokens, pixel_values=pixels, output_segmentation=True)
        embeds = model.visual_projection(outputs.vision_model_output.last_hidden_state[0])
    groups = get_grouping_from_attentions(outputs.vision_model_output.attentions, (64, 64))[0].argmax(dim=0)
    embeds = torch.nn.functional.normalize(embeds, dim=-1)
    probabilities = (model.logit_scale.exp() * embeds @ outputs.text_embeds.T).softmax(dim=-1)
    present = groups.unique()
    assert np.array_equal(present.numpy()[segments.segmentation - 1], groups.numpy())
    np.testing.assert_allclose(segments.embeds, embeds[present].numpy(), atol=1e-5)
    assert segments.labels.tolist() == probabilities[present].argmax(dim=1).tolist()
    np.testing.assert_allclose(segments.scores, probabilities[present].amax(dim=1).numpy(), atol=1e-5)
    assert len(segments.labels) > 1


def test_a_pixel_goes_to_the_group_that_claims_it_most(load, frame, pictures):
    teacher = load("groupvit", window=64)
    pixels = teacher.space.transform(pictures[0], (64, 112))
    windows = {start: pixels[:, :, start * 16 :][:, :, :64] for start in (0, 2, 3)}  # by the patch they begin at
    with torch.inference_mode():
        found = {start: teacher.space.groups(window[None])[0] for start, window in windows.items()}
    claims = torch.zeros(3, 4, 4, 7)
    for row, (start, (_, shares)) in enumerate(found.items()):
        claims[row, :, :, start : start + 4] = shares
    best = upsampled(claims.flatten(0, 1), (90, 160)).argmax(dim=0)
    segments, present = teacher.segment(frame)[0], best.unique()
    assert np.array_equal(present.numpy()[segments.segmentation - 1], best.numpy()) and len(present) > 4
    embeds = torch.cat([embeds for embeds, _ in found.values()])
    np.testing.assert_allclose(segments.embeds, embeds[present].numpy(), atol=1e-5)


def test_groups_below_the_threshold_are_left_out(load, frame):
    plain = load("groupvit").segment(frame)
    threshold = float(np.median(np.concatenate([segments.scores for segments in plain])))
    kept = load("groupvit", min_score=threshold).segment(frame)
    for all_of_them, rest in zip(plain, kept, strict=True):
        good = all_of_them.scores >= threshold
        np.testing.assert_allclose(rest.embeds, all_of_them.embeds[good])
        assert np.array_equal(rest.segmentation > 0, np.append(False, good)[all_of_them.segmentation])
    assert sum(len(segments.labels) for segments in kept) < sum(len(segments.labels) for segments in plain)
