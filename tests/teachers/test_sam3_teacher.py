"""SAM 3 with words: an image is encoded once, and many phrases give the masks of each phrase alone."""

import pytest
import torch
from tiny_models import PROMPTS, draw_images, frame_of, upsampled
from transformers import AutoTokenizer

from uov_hf.teachers.masks import full_size_masks


SIZES = [(45, 80), (45, 80), (40, 30)]


@pytest.fixture(scope="module")
def teacher(load):
    return load("sam3")


@pytest.fixture(scope="module")
def images():
    return draw_images(*SIZES)


@pytest.fixture(scope="module")
def each_alone(teacher, images):
    """Scores, labels and full-size masks of each image, each phrase in a pass of its own, by transformers' rules."""
    tokenizer = AutoTokenizer.from_pretrained(teacher.model_name_or_path)
    predictions = []
    for image in images:
        scores, labels, masks = [], [], []
        for label, prompt in enumerate(PROMPTS):
            tokens = tokenizer([prompt], padding="max_length", max_length=32, return_tensors="pt")
            with torch.no_grad():
                outputs = teacher.model(teacher.pixels(image)[None], **tokens)
            score = (outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid())[0]
            probabilities = upsampled(outputs.pred_masks.sigmoid()[0], image.size[::-1])
            for query in (score > 0.2).nonzero()[:, 0]:
                scores.append(score[query])
                labels.append(label)
                masks.append(probabilities[query])
        predictions.append((torch.stack(scores), torch.tensor(labels), torch.stack(masks)))
    return predictions


def test_many_phrases_are_answered_as_if_each_were_each_alone(teacher, images, each_alone):
    for image, found, (scores, labels, probabilities) in zip(images, teacher.propose(images), each_alone, strict=True):
        torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
        assert torch.equal(found.labels, labels)
        certain = (probabilities - 0.5).abs() > 1e-5
        masks = full_size_masks(found.masks, image.size[::-1])
        assert torch.equal(masks[certain], (probabilities > 0.5)[certain])
    assert len({label for _, labels, _ in each_alone for label in labels.tolist()}) > 2


def test_an_image_is_encoded_once(teacher, images):
    seen, encoder = [], teacher.model.vision_encoder
    with encoder.register_forward_pre_hook(lambda _, pixel_values: seen.append(len(pixel_values[0]))):
        teacher.propose(images)
    assert seen == [2, 1]  # two images and one, however many phrases


def test_the_label_of_a_segment_is_the_phrase_that_found_it(teacher, images, each_alone):
    predictions = teacher.segment(frame_of(*images))
    for segments, (scores, labels, _) in zip(predictions, each_alone, strict=True):
        for label, score in zip(segments.labels, segments.scores, strict=True):
            assert torch.isclose(scores[labels == label], torch.tensor(score), atol=1e-5).any()
        assert segments.embeds.shape[1] == teacher.space.embed_dim
