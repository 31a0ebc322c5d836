"""Sorted voxels and their levels: keys of every width, and no work for a level that is not there."""

import pytest
import torch
from test_sparse_conv import build_pyramid, random_voxels

from uov_hf import voxel_pyramid
from uov_hf.sparse_conv import SparseConv
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


# A batch index of 2 bits and 20 bits for each axis; beside the last voxel of a row lies one that is no neighbour.
WIDEST = [
    [0, 0, 0, 0],
    [0, 2**20 - 3, 2**20 - 3, 2**20 - 3],
    [1, 5, 0, 0],
    [1, 5, 0, 1],
    [1, 6, 0, 2**20 - 3],
    [3, 0, 0, 0],
]


def test_fields_are_the_coordinates_but_for_a_shift():
    coords = random_voxels(num_samples=5)
    level, order = sort_voxels(coords, 3)
    assert order.sort().values.tolist() == list(range(len(coords)))
    shifts = torch.stack(level.fields(), dim=1) - coords[order]
    assert (shifts == shifts[0]).all() and shifts[0, 0] == 0 and (shifts[0] % 4 == 0).all()
    assert coords[order].tolist() == sorted(coords.tolist())


def test_keys_of_sixty_two_bits_are_sorted_and_convolved_and_longer_ones_refused():
    coords = torch.tensor(WIDEST).flip(0)
    pyramid, order = build_pyramid(coords, num_levels=1)
    assert coords[order].tolist() == WIDEST
    kernel_map = pyramid.submanifold(0, 3)
    assert kernel_map.sizes == [6, 2] and kernel_map.inputs[6:].tolist() == [2, 3]
    for column in range(4):
        longer = coords.clone()
        longer[:, column] *= 2
        with pytest.raises(
            ValueError, match=r"`voxel_coords` span 2\^6[01] cells in [48] samples, more than the 2\^62"
        ):
            sort_voxels(longer, 1)


def test_the_cell_after_the_last_one_that_thirty_one_bits_number_is_empty():
    """Its number is the largest int32."""
    coords = torch.tensor([[0, 0, 0, 0], [0, 5, 5, 1021], [1, 1021, 1021, 1020]])
    assert build_pyramid(coords, num_levels=1)[0].submanifold(0, 3).sizes == [3]


def test_coordinates_must_be_whole_numbers():
    with pytest.raises(ValueError, match="`voxel_coords` must be whole numbers of shape .* got torch.float32"):
        sort_voxels(random_voxels().float(), 2)


def test_a_coordinate_three_cells_above_the_end_of_int64_is_sorted():
    level, order = sort_voxels(torch.tensor([[0, 9 - 2**63, 0, 0], [0, 8 - 2**63, 0, 0]]), 3)
    assert order.tolist() == [1, 0] and level.fields()[1].tolist() == [8, 9]


@pytest.mark.parametrize("num_voxels", [0, 50])
def test_only_the_levels_that_are_needed_are_made(num_voxels, monkeypatch):
    """From one level to the next the cells are searched once, from the coarsest one never."""
    searched, find = [], voxel_pyramid._find_parents
    monkeypatch.setattr(voxel_pyramid, "_find_parents", lambda level: searched.append(len(level.keys)) or find(level))
    pyramid, _ = build_pyramid(random_voxels()[:num_voxels], num_levels=3)
    pyramid.down(0)
    assert searched == [num_voxels]
    pyramid.submanifold(2, 3), pyramid.up(1)
    assert len(searched) == 2
    with pytest.raises(ValueError, match="`level` must be below 2, the coarsest level, got 2"):
        pyramid.down(2)
    for level in (-1, 3):
        with pytest.raises(ValueError, match=f"`level` must lie between 0 and 2, got {level}"):
            pyramid.submanifold(level, 3)


def test_more_rows_than_sixteen_bits_number_are_summed_in_their_cells():
    """Each cell along z sums its two voxels, and is added to both."""
    coords = torch.zeros(200_000, 4, dtype=torch.int32)
    coords[:, 3] = torch.arange(200_000)
    pyramid, features = VoxelPyramid(sort_voxels(coords, 2)[0]), torch.arange(200_000.0, dtype=torch.float64)[:, None]
    conv = SparseConv(1, 1, 2).double()
    torch.nn.init.ones_(conv.weight)
    sums = conv(features, pyramid.down(0))
    assert torch.equal(sums, features.view(-1, 2).sum(1, keepdim=True))
    assert torch.equal(conv(sums, pyramid.up(0)), sums.repeat_interleave(2, dim=0))
