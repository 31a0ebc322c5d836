"""The space before a model's last layer: labels keep their order, pieces of an image add up."""

import numpy as np
import pytest
import torch
from tiny_models import upsampled
from torch import nn
from torch.nn.functional import normalize

from uov_hf.teachers.label_space import LabelSpace, Piece, find_last_layer


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 5))


@pytest.fixture
def space(model):
    """Four labels and "no object"."""
    return LabelSpace(model, num_outputs=5, num_labels=4)


def test_cosines_with_the_labels_are_the_logits_times_a_factor(model, space):
    """Labels of different lengths and biases."""
    with torch.no_grad():
        model[2].weight *= torch.tensor([1.0, 3.0, 0.2, 1.0, 5.0])[:, None]
        model[2].bias += torch.tensor([2.0, 0.0, -1.0, 0.5, 9.0])
    space = LabelSpace(model, num_outputs=5, num_labels=4)
    features = torch.randn(7, 6, 1)  # six pixels, each a segment
    segmentation = torch.arange(1, 7)[:, None]
    embeds = space.embed_segments([Piece((slice(None), slice(None)), features)], segmentation, 6)
    assert (embeds.norm(dim=1) - 1).abs().max() < 1e-6 and (space.label_embeds.norm(dim=1) - 1).abs().max() < 1e-6
    logits = model[2](features[..., 0].T)[:, :4].double()
    cosines = (embeds @ space.label_embeds.T).double()
    torch.testing.assert_close(
        cosines / cosines.norm(dim=1, keepdim=True), normalize(logits, dim=1), atol=1e-5, rtol=0
    )


def test_prompts_after_the_labels_have_a_direction_of_their_own(space):
    embeds = space.embed_prompts(6)
    assert torch.equal(embeds[:4], space.label_embeds)
    assert embeds[4:].tolist() == [[0.0] * 8 + [1.0]] * 2


def test_overlapping_pieces_with_queries_add_up(space):
    generator = torch.Generator().manual_seed(0)
    segmentation = torch.randint(0, 3, (6, 10), generator=generator)
    areas = [(slice(None), slice(0, 6)), (slice(None), slice(4, 10))]
    pieces = [
        Piece(area, torch.rand(2, 3, 3, generator=generator), torch.randn(2, 7, generator=generator)) for area in areas
    ]
    wanted = torch.zeros(2, 9, dtype=torch.float64)
    for piece in pieces:
        dense = upsampled(piece.maps, (6, 6)).double()
        for row, column in np.ndindex(6, 6):
            segment = int(segmentation[row, column + piece.area[1].start])
            for query in range(2) if segment else ():
                vector = [*piece.vectors[query].tolist(), 1.0, 0.0]
                wanted[segment - 1] += dense[query, row, column] * torch.tensor(vector, dtype=torch.float64)
    found = space.embed_segments(pieces, segmentation, 2)
    torch.testing.assert_close(found.double(), normalize(wanted, dim=1), atol=1e-5, rtol=0)


def test_what_the_last_layer_reads_is_recorded_and_the_model_left_as_it_was(model, space):
    inputs = torch.randn(2, 3)
    with space.record() as features:
        model(inputs)
    model(inputs)
    torch.testing.assert_close(features, [model[1](model[0](inputs))])


def test_a_model_without_such_a_layer_is_refused_with_a_way_out(model):
    assert find_last_layer(model, 7) is model[0]
    with pytest.raises(ValueError, match="no last layer with 19 outputs .* as `embed_model_name_or_path`"):
        find_last_layer(model, 19)
