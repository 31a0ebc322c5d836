"""Properties of the sparse convolutions in plain torch: equal to loops over voxels, for any coordinates."""

import itertools

import numpy as np
import torch
from hostile_arrays import FLOATS, INTEGERS, anything, as_tensor, generators, result_or_error
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_config

from uov_hf import UOVModel
from uov_hf.sparse_conv import KernelMap
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


EXTREMES = st.sampled_from([0, -1, 7, 2**15, -(2**15), 2**20, -(2**31), 2**31 - 1, 2**45, 2**62, -(2**63), 2**63 - 1])


@st.composite
def voxels(draw: st.DrawFn, reach: int = 5, max_voxels: int = 30) -> torch.Tensor:
    """Unique voxels (batch, x, y, z), near each other or far from zero, in any order."""
    generator = draw(generators())
    cells = generator.integers(-reach, reach, (draw(st.integers(0, max_voxels)), 4))
    cells[:, 0] = np.abs(cells[:, 0]) % 3
    cells = np.unique(cells, axis=0)
    cells[:, 1:] += draw(st.sampled_from([0, 1000, -(2**20)]))
    dtype = draw(st.sampled_from([torch.int32, torch.int64]))
    return torch.from_numpy(generator.permutation(cells)).to(dtype)


@given(voxels(reach=2**14), st.integers(1, 5))
def test_sorted_voxels_are_the_same_voxels_in_ascending_order(coords, num_levels):
    level, order = result_or_error([], sort_voxels, coords, num_levels)
    assert sorted(order.tolist()) == list(range(len(coords)))
    assert coords[order].tolist() == sorted(coords.tolist())
    assert (level.keys[1:] > level.keys[:-1]).all()
    if len(coords):
        shifted = torch.stack(level.fields(), dim=1)
        assert (shifted.diff(dim=0) == coords[order].long().diff(dim=0)).all()


@given(
    voxels(reach=3, max_voxels=20),
    generators(),
    st.sampled_from([3, 3, 5]),
    st.sampled_from([torch.float64, torch.float32]),
)
def test_a_submanifold_convolution_is_the_sum_over_neighbours(coords, generator, kernel_size, dtype):
    level, order = sort_voxels(coords, 2)
    kernel_map = VoxelPyramid(level).submanifold(0, kernel_size)
    features = torch.from_numpy(generator.normal(0, 1, (len(coords), 2))).to(dtype)
    weight = torch.from_numpy(generator.normal(0, 1, (3, kernel_size, kernel_size, kernel_size, 2))).to(dtype)
    found = result_or_error([], KernelMap.convolve, kernel_map, features, weight)
    row_of = {tuple(cell): row for row, cell in enumerate(coords[order].tolist())}
    radius, expected = kernel_size // 2, torch.zeros(len(coords), 3, dtype=dtype)
    for (batch, x, y, z), row in row_of.items():
        for i, j, k in itertools.product(range(kernel_size), repeat=3):
            other = row_of.get((batch, x + i - radius, y + j - radius, z + k - radius))
            if other is not None:
                expected[row] += weight[:, i, j, k] @ features[other]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@given(voxels(), generators())
def test_a_convolution_down_sums_the_voxels_of_a_cell_and_the_one_up_returns_to_them(coords, generator):
    level, order = sort_voxels(coords, 2)
    pyramid = VoxelPyramid(level)
    features = torch.from_numpy(generator.normal(0, 1, (len(coords), 2)))
    weight = torch.from_numpy(generator.normal(0, 1, (3, 2, 2, 2, 2)))
    down = pyramid.down(0).convolve(features, weight)
    cells: dict[tuple, torch.Tensor] = {}
    for row, (batch, x, y, z) in enumerate(coords[order].tolist()):
        own = weight[:, x % 2, y % 2, z % 2] @ features[row]
        cell = (batch, x // 2, y // 2, z // 2)
        cells[cell] = cells.get(cell, 0) + own
    expected = torch.stack([cells[cell] for cell in sorted(cells)]) if cells else torch.zeros(0, 3).double()
    torch.testing.assert_close(down, expected)
    back = torch.from_numpy(generator.normal(0, 1, (4, 2, 2, 2, 3)))
    up, rows = pyramid.up(0).convolve(down, back), {cell: row for row, cell in enumerate(sorted(cells))}
    for row, (batch, x, y, z) in enumerate(coords[order].tolist()):
        torch.testing.assert_close(up[row], back[:, x % 2, y % 2, z % 2] @ down[rows[batch, x // 2, y // 2, z // 2]])


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, -1, 5, 2**40]), EXTREMES, EXTREMES, EXTREMES), max_size=5),
    st.integers(1, 5),
)
def test_any_whole_coordinates_are_sorted_or_an_error_names_them(rows, num_levels):
    coords = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)
    found = result_or_error(["voxel_coords"], sort_voxels, coords, num_levels)
    if found is not None:
        assert coords[found[1]].tolist() == sorted(map(list, set(rows)))
    else:
        assert len(set(rows)) < len(rows) or any(abs(value) > 2**14 or value < 0 for row in rows for value in row)


@given(
    anything([(5, 4), (0, 4), (5, 3)], INTEGERS + FLOATS + ["?", "c8"]), anything([(5, 1), (5, 2)], FLOATS + ["i8"])
)
def test_any_arrays_are_voxels_or_an_error_names_them(coords, features):
    arrays = as_tensor(coords), as_tensor(features)
    if all(isinstance(array, torch.Tensor) for array in arrays):
        found = result_or_error(["voxel_coords", "voxel_features"], sort_voxels, arrays[0], 3, arrays[1])
        assert found is None or (found[1].sort().values == torch.arange(len(coords))).all()


@given(
    voxels(max_voxels=9), anything([(9, 2), (5, 2), (0, 2)], FLOATS + ["i4"]), st.integers(-1, 8), st.integers(-1, 3)
)
def test_features_that_do_not_fit_a_map_are_refused(coords, features, kernel_size, level):
    pyramid = VoxelPyramid(sort_voxels(coords, 3)[0])
    kernel_map = result_or_error(["kernel_size", "level"], pyramid.submanifold, level, kernel_size)
    assert (kernel_map is not None) == (kernel_size in (3, 5) and 0 <= level <= 2)
    features = as_tensor(features)
    if kernel_map is not None and isinstance(features, torch.Tensor):
        weight = torch.ones(1, kernel_size, kernel_size, kernel_size, 2, dtype=torch.float64)
        found = result_or_error(["features"], KernelMap.convolve, kernel_map, features, weight)
        assert (found is not None) == (features.shape == (kernel_map.num_inputs, 2) and features.is_floating_point())
    down = result_or_error(["level"], pyramid.down, level)
    assert (down is not None) == (0 <= level < 2)


MODEL = UOVModel(small_config()).eval()


@given(voxels(max_voxels=20), generators())
def test_the_network_gives_the_same_in_any_order_of_the_voxels(coords, generator):
    features = torch.from_numpy(generator.random((len(coords), 1)).astype("f4"))
    order = torch.from_numpy(generator.permutation(len(coords)))
    with torch.no_grad():
        found = result_or_error([], MODEL.get_point_features, coords, features)
        assert found.shape == (len(coords), 12) and found.isfinite().all()
        torch.testing.assert_close(MODEL.get_point_features(coords[order], features[order]), found[order])


@given(anything([(5, 4), (0, 4), (5, 3)], INTEGERS + ["f4", "?"]), anything([(5, 1), (5, 2)], FLOATS + ["i8"]))
def test_any_arrays_go_through_the_network_or_an_error_names_them(coords, features):
    arrays = as_tensor(coords), as_tensor(features)
    if all(isinstance(array, torch.Tensor) for array in arrays):
        with torch.no_grad():
            found = result_or_error(["voxel_coords", "voxel_features"], MODEL.get_point_features, *arrays)
        assert found is None or found.shape == (len(coords), 12)
