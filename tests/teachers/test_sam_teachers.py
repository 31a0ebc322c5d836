"""SAM 2 and SAM 3's tracker at points: encodings, coordinates, and the rules of the mask generator."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import draw_images, overlap_of, upsampled
from transformers import ViTImageProcessorPil

from uov_hf.teachers.sam2 import grid_points


SIZE = (45, 80)


@pytest.fixture(scope="module", params=["sam2", "sam3_points"])
def teacher(request, load):
    return load(request.param)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return draw_images(SIZE)[0]


def test_masks_at_points_and_in_boxes_are_those_of_the_model(teacher, image, without_memory):
    sam, points = teacher.sam, torch.tensor([[0.25, 0.5], [0.75, 0.1]])
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.3, 0.3]])
    [encoded] = sam.encode([image], batch_size=1)
    at_points, in_boxes = sam.masks_at_points(encoded, points), sam.masks_in_boxes(encoded, boxes)
    of_points = {"input_points": (points * sam.side)[None, :, None]}
    of_boxes = {"input_boxes": (boxes * sam.side)[None], "multimask_output": False}
    for (logits, qualities), prompts in ((at_points, of_points), (in_boxes, of_boxes)):
        wanted = sam.model(sam.pixels(image)[None], **prompts)
        torch.testing.assert_close(logits, wanted.pred_masks[0].flatten(0, 1))
        torch.testing.assert_close(qualities, wanted.iou_scores[0].flatten())
        assert logits.std() > 0.01 and (logits[0] - logits[-1]).abs().max() > 0.01


@pytest.fixture
def without_memory(teacher):
    """For SAM 3, where transformers adds this embedding to a level that is not read."""
    embedding = teacher.sam.model.no_memory_embedding
    before = embedding.detach().clone()
    if teacher.name == "sam3_points":
        embedding.zero_()
    yield
    embedding.copy_(before)


def test_a_still_image_has_no_memory_at_the_level_that_the_decoder_reads(teacher, image):
    """Also of SAM 3, whose encoder has one level more."""
    sam = teacher.sam
    before = next(sam.encode([image], batch_size=1))
    sam.model.no_memory_embedding.add_(1.0)
    after = next(sam.encode([image], batch_size=1))
    sam.model.no_memory_embedding.sub_(1.0)
    assert [tuple(features.shape[2:]) for features in after] == [(16, 16), (8, 8), (4, 4)]
    torch.testing.assert_close(after[-1], before[-1] + 1.0)
    assert torch.equal(after[0], before[0]) and torch.equal(after[1], before[1])


def test_the_grid_has_a_point_in_the_middle_of_each_cell():
    assert grid_points(1).tolist() == [[0.5, 0.5]]
    assert grid_points(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_pixels_are_those_of_the_image_processor_of_pil(teacher, image):
    side, transform = teacher.sam.side, teacher.sam.transform
    settings = {"image_mean": transform.mean, "image_std": transform.std, "resample": 2}
    processor = ViTImageProcessorPil(size={"height": side, "width": side}, **settings)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(teacher.sam.pixels(image), expected, atol=1e-5, rtol=0)


def test_pixels_are_those_of_the_models_own_image_processor(teacher, image):
    try:
        from transformers.models.sam2.image_processing_sam2 import Sam2ImageProcessor
        from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor
    except (ImportError, RuntimeError) as error:  # of a torchvision that is not there, or of another torch
        pytest.skip(f"torchvision does not load here: {error}")
    side = teacher.sam.side
    processor_class = Sam2ImageProcessor if teacher.name == "sam2" else Sam3ImageProcessor
    settings = {"image_mean": teacher.sam.transform.mean, "image_std": teacher.sam.transform.std}
    processor = processor_class(size={"height": side, "width": side}, **settings)
    difference = processor(image, return_tensors="pt")["pixel_values"][0] - teacher.sam.pixels(image)
    assert difference.abs().max() < 0.05  # torchvision rounds in another order


def test_the_generator_keeps_what_its_rules_say(teacher, image, monkeypatch):
    """Against loops over drawn logits: good, stable, and not the box of a better one again."""
    logits, qualities = drawn_blobs(60)
    monkeypatch.setattr(teacher.sam, "masks_at_points", lambda encoded, points: (logits, qualities))
    monkeypatch.setattr(teacher, "points", torch.zeros(20, 2))
    config = replace(teacher.config, min_quality=0.3, min_stability=0.8, max_overlap=0.6)
    monkeypatch.setattr(teacher, "config", config)

    kept, rejected = [], 0
    for row in sorted(range(60), key=lambda row: -qualities[row]):
        full = upsampled(logits[row][None], SIZE)[0].numpy()
        stability = (full > 1).sum() / max((full > -1).sum(), 1)
        if qualities[row] > 0.3 and stability > 0.8:
            near = [
                other
                for other in kept
                if box_overlap(full > 0, upsampled(logits[other][None], SIZE)[0].numpy() > 0) > 0.6
            ]
            kept += [] if near else [row]
            rejected += bool(near)
    [proposals] = teacher.propose([image])
    torch.testing.assert_close(proposals.masks, logits[kept])
    torch.testing.assert_close(proposals.scores, qualities[kept])
    assert len(kept) > 3 and rejected > 3


def drawn_blobs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round masks, half of them steep (stable) and half of them flat, and qualities."""
    generator = torch.manual_seed(0)
    centre, radius = (
        torch.rand(count, 2, 1, 1, generator=generator) * 16,
        2 + 4 * torch.rand(count, 1, 1, generator=generator),
    )
    grid = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"))
    steepness = torch.tensor([0.5, 20.0])[torch.arange(count) % 2, None, None]
    return steepness * (radius - (grid - centre).norm(dim=1)), torch.rand(count, generator=generator)


def box_overlap(one: np.ndarray, other: np.ndarray) -> float:
    boxes = []
    for mask in (one, other):
        rows, columns = np.nonzero(mask)
        boxes.append((columns.min(), rows.min(), columns.max(), rows.max()))
    return overlap_of(*boxes)
