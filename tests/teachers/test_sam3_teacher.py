"""SAM 3 asked with words: one look at an image, many phrases, each answered as if it were asked alone."""

import pytest
import torch
from tiny_mask_models import draw_frame, load_tiny_mask_teacher
from torch.nn.functional import interpolate
from transformers import AutoTokenizer

from uov_hf.teachers.masks import full_size_masks
from uov_hf.teachers.protocol import open_images


PROMPTS = ["car", "a person on a bicycle", "road", "sky", "tree", "rolling hills (< 20 cm tall)"]
SIZES = [(45, 80), (45, 80), (40, 30)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return load_tiny_mask_teacher("sam3", tmp_path_factory.mktemp("sam3"), PROMPTS, min_score=0.2)


@pytest.fixture(scope="module")
def images():
    return open_images(draw_frame(*SIZES))


@pytest.fixture(scope="module")
def asked_alone(teacher, images):
    """Scores, labels and full-size masks of each image, each phrase in a pass of its own, by transformers' rules."""
    tokenizer = AutoTokenizer.from_pretrained(teacher.model_name_or_path)
    answers = []
    for image in images:
        scores, labels, masks = [], [], []
        for label, prompt in enumerate(PROMPTS):
            tokens = tokenizer([prompt], padding="max_length", max_length=32, return_tensors="pt")
            with torch.no_grad():
                outputs = teacher.model(teacher.pixels(image)[None], **tokens)
            score = (outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid())[0]
            probabilities = interpolate(outputs.pred_masks.sigmoid(), size=image.size[::-1], mode="bilinear")[0]
            for query in (score > 0.2).nonzero()[:, 0]:
                scores.append(score[query])
                labels.append(label)
                masks.append(probabilities[query])
        answers.append((torch.stack(scores), torch.tensor(labels), torch.stack(masks)))
    return answers


def test_many_phrases_are_answered_as_if_each_were_asked_alone(teacher, images, asked_alone):
    for image, found, (scores, labels, probabilities) in zip(
        images, teacher.propose(images), asked_alone, strict=True
    ):
        torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
        assert torch.equal(found.labels, labels)
        certain = (probabilities - 0.5).abs() > 1e-5
        masks = full_size_masks(found.masks, image.size[::-1])
        assert torch.equal(masks[certain], (probabilities > 0.5)[certain])
    assert len({label for _, labels, _ in asked_alone for label in labels.tolist()}) > 2


def test_an_image_is_looked_at_once(teacher, images, monkeypatch):
    seen = []
    look = teacher.model.get_vision_features
    monkeypatch.setattr(teacher.model, "get_vision_features", lambda pixels: seen.append(len(pixels)) or look(pixels))
    monkeypatch.setattr(teacher.model.vision_encoder, "forward", watched(teacher.model.vision_encoder.forward, seen))
    teacher.propose(images)
    assert seen == [2, 2, 1, 1]  # asked for, and done: two images and one, however many phrases


def watched(forward, seen: list[int]):
    def count(pixel_values, **options):
        seen.append(len(pixel_values))
        return forward(pixel_values, **options)

    return count


def test_a_segment_is_called_by_the_phrase_that_found_it(teacher, asked_alone):
    answers = teacher.segment(draw_frame(*SIZES))
    for answer, (scores, labels, _) in zip(answers, asked_alone, strict=True):
        for label, score in zip(answer.labels, answer.scores, strict=True):
            assert torch.isclose(scores[labels == label], torch.tensor(score), atol=1e-5).any()
        assert answer.embeds.shape[1] == teacher.space.embed_dim
