"""OWLv2's and Grounding DINO's boxes against transformers' own post-processing, and SAM 2's masks in them."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import PROMPTS, draw_images, frame_of
from transformers import AutoTokenizer, GroundingDinoProcessor
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from uov_hf.teachers.boxes import Detections, best_boxes
from uov_hf.teachers.grounding_dino import best_phrases, join_phrases


@pytest.fixture(scope="module")
def owlv2(load):
    return load("owlv2")


@pytest.fixture(scope="module")
def grounding_dino(load):
    return load("grounding_dino")


def test_of_boxes_that_overlap_the_best_one_stays():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.45], [0.5, 0.5, 1.0, 1.0]])
    best = best_boxes(Detections(boxes, torch.tensor([0.5, 0.9, 0.3]), torch.arange(3), torch.eye(3)), max_overlap=0.7)
    assert best.labels.tolist() == [1, 2] and torch.equal(best.embeds, torch.eye(3)[1:])


def assert_same_boxes(found: torch.Tensor, wanted: torch.Tensor, image: Image.Image) -> None:
    """Boxes as fractions of the image against boxes in pixels, which may reach beyond the image."""
    sides = torch.tensor([image.width, image.height] * 2)
    torch.testing.assert_close(found * sides, torch.minimum(wanted.clamp(min=0), sides), atol=1e-3, rtol=0)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_owlv2s_boxes_are_those_of_transformers(load, images, threshold):
    """Boxes, scores and labels, on images that are padded at the bottom and at the right."""
    owlv2 = load("owlv2", min_score=threshold)
    tokenizer = AutoTokenizer.from_pretrained(owlv2.model_name_or_path)
    texts = [f"a photo of a {prompt}." for prompt in PROMPTS]
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    for image, found in zip(images, owlv2.detect(images), strict=True):
        outputs = owlv2.model(pixel_values=owlv2.pixels(image)[None], **tokens)
        [wanted] = Owlv2ImageProcessorPil().post_process_object_detection(
            outputs, threshold, [(image.height, image.width)]
        )
        assert_same_boxes(found.boxes, wanted["boxes"], image)
        torch.testing.assert_close(found.scores, wanted["scores"], atol=1e-5, rtol=0)
        assert torch.equal(found.labels, wanted["labels"])


def test_owlv2s_embeddings_lie_in_the_space_of_its_words(owlv2, images):
    """Which prompt a box is called is decided by the cosine alone: scale and shift are the box's own."""
    assert owlv2.embed_dim == owlv2.encode_prompts(["car"]).shape[1]
    for found in owlv2.detect(images):
        cosines = found.embeds @ torch.from_numpy(owlv2.encode_prompts(PROMPTS)).T
        assert torch.equal(cosines.argmax(dim=1), found.labels)


def test_owlv2_sees_nearly_what_its_processor_shows(owlv2):
    """PIL smooths differently from SciPy where it makes an image smaller; where it need not, both are the same."""
    processor = Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    for image, tolerance in ((Image.fromarray(pixels), 1e-5), (draw_images((90, 160))[0], 0.05)):
        wanted = processor(image, return_tensors="pt")["pixel_values"][0]
        assert (owlv2.pixels(image) - wanted).abs().mean() < tolerance


def test_phrases_are_joined_into_as_few_texts_as_hold_them_and_long_ones_are_cut():
    texts = join_phrases([[5, 6], [7], [8, 9, 10]], start=1, dot=2, end=3, max_length=9)
    assert [ids.tolist() for ids, _ in texts] == [[1, 5, 6, 2, 7, 2, 3], [1, 8, 9, 10, 2, 3]]
    assert [phrase_of.tolist() for _, phrase_of in texts] == [[-1, 0, 0, -1, 1, -1, -1], [-1, 2, 2, 2, -1, -1]]
    [(ids, phrase_of)] = join_phrases([[5, 6, 7, 8, 9]], start=1, dot=2, end=3, max_length=6)
    assert ids.tolist() == [1, 5, 6, 7, 2, 3] and phrase_of.tolist() == [-1, 0, 0, 0, -1, -1]


def test_a_phrase_scores_the_mean_of_its_tokens():
    phrase_of = torch.tensor([-1, 4, 4, -1, 7, -1, -1])
    token_scores = torch.tensor([[0.9, 0.8, 0.2, 0.9, 0.4, 0.9, 0.9], [0.0, 0.2, 0.2, 0.0, 0.4, 0.0, 0.0]])
    scores, labels = best_phrases(token_scores, phrase_of)
    assert labels.tolist() == [4, 7]
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.4]))


def test_grounding_dino_reads_the_text_that_its_processor_writes(grounding_dino):
    tokenizer = AutoTokenizer.from_pretrained(grounding_dino.model_name_or_path)
    processor = GroundingDinoProcessor(grounding_dino.image_processor, tokenizer)
    ids, phrase_of = grounding_dino.texts[0]
    shown = sorted({row for row in phrase_of.tolist() if row >= 0})
    labels = [PROMPTS[row].replace(".", "") for row in shown]
    assert len(shown) > 1 and len(grounding_dino.texts) > 1
    assert processor(text=[labels], return_tensors="pt")["input_ids"][0].tolist() == ids.tolist()


@torch.inference_mode()
@pytest.mark.parametrize("threshold", [0.0, "of a box"])
def test_grounding_dinos_boxes_are_those_of_transformers(load, grounding_dino, images, threshold):
    """A box stays if its best token scores more than the threshold, not as much."""
    tokenizer = AutoTokenizer.from_pretrained(grounding_dino.model_name_or_path)
    processor = GroundingDinoProcessor(grounding_dino.image_processor, tokenizer)
    for image in images:
        pixels = grounding_dino.image_processor(image, return_tensors="pt")["pixel_values"]
        outputs = [grounding_dino.model(pixels, ids[None]) for ids, _ in grounding_dino.texts]
        least = 0.0 if threshold == 0 else outputs[0].logits.sigmoid().amax(dim=2).median().item()
        wanted = [
            processor.post_process_grounded_object_detection(
                of_text, ids[None], threshold=least, target_sizes=[(image.height, image.width)]
            )[0]["boxes"]
            for of_text, (ids, _) in zip(outputs, grounding_dino.texts, strict=True)
        ]
        [found] = load("grounding_dino", min_score=least).detect([image])
        assert_same_boxes(found.boxes, torch.cat(wanted), image)
        assert set(found.labels.tolist()) <= set(range(len(PROMPTS)))
        assert (len(found.boxes) == 12) == (threshold == 0.0)


def test_a_mask_scores_as_its_box_times_its_quality(owlv2, images):
    """And keeps the label and the embedding of its box."""
    found = [best_boxes(boxes, 0.9) for boxes in owlv2.detect(images)]
    for boxes, masks, encoded in zip(found, owlv2.propose(images), owlv2.sam.encode(images, 1), strict=True):
        logits, qualities = owlv2.sam.masks_in_boxes(encoded, boxes.boxes)
        torch.testing.assert_close(masks.scores, boxes.scores * qualities)
        torch.testing.assert_close(masks.masks, logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(masks.labels, boxes.labels) and torch.equal(masks.embeds, boxes.embeds)
        assert len(masks.scores) > 1


def test_an_image_without_boxes_has_no_segments(load, images):
    teacher = load("owlv2", min_score=1.0)
    for segments in teacher.segment(frame_of(*images)):
        assert not segments.segmentation.any() and segments.embeds.shape == (0, teacher.embed_dim)
