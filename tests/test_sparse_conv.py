"""The torch engine computes exactly the convolution of the dense grid, at the voxels that are there."""

import pytest
import torch
from torch.nn import functional as F

from uov_hf.sparse_conv import SparseConv
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


GRID = (8, 12, 10)


def random_voxels(num_samples=2, density=0.3, seed=0, grid=GRID):
    """Occupied cells of `num_samples` random grids in random order, as int32 (batch, x, y, z)."""
    generator = torch.Generator().manual_seed(seed)
    coords = (torch.rand(num_samples, *grid, generator=generator) < density).nonzero()
    return coords[torch.randperm(len(coords), generator=generator)].int()


def build_pyramid(coords, num_levels=3):
    finest, order = sort_voxels(coords, num_levels)
    return VoxelPyramid(finest), order


def to_dense(coords, features, grid=GRID):
    """`(B, C, X, Y, Z)` grid with the features at their cells and zero elsewhere."""
    batch_size = int(coords[:, 0].max()) + 1
    dense = features.new_zeros(batch_size, *grid, features.shape[1])
    return dense.index_put(tuple(coords.long().T), features).permute(0, 4, 1, 2, 3)


def at(coords, dense):
    return dense.permute(0, 2, 3, 4, 1)[tuple(coords.long().T)]


def assert_same_values_and_gradients(actual, expected, inputs):
    """Equal outputs, and equal gradients of a random linear function of them."""
    direction = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad((actual * direction).sum(), inputs)
    references = torch.autograd.grad((expected * direction).sum(), inputs)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


def random_features(num_rows, channels, **kwargs):
    return torch.randn(num_rows, channels, dtype=torch.float64, requires_grad=True, **kwargs)


def cell_of(coords):
    """Coordinates of the stride-2 cells, in the order of their keys."""
    coarse = coords.clone()
    coarse[:, 1:] = torch.div(coords[:, 1:], 2, rounding_mode="floor")
    return torch.unique(coarse, dim=0)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_submanifold_convolution_is_the_dense_one_at_the_voxels(kernel_size):
    coords = random_voxels()
    features, conv = random_features(len(coords), 3), SparseConv(3, 4, kernel_size).double()
    pyramid, order = build_pyramid(coords)

    actual = conv(features[order], pyramid.submanifold(0, kernel_size))
    dense = F.conv3d(to_dense(coords, features), conv.weight.permute(0, 4, 1, 2, 3), padding=kernel_size // 2)

    assert_same_values_and_gradients(actual, at(coords, dense)[order], [features, conv.weight])


def test_a_step_down_is_the_dense_convolution_of_stride_two():
    coords = random_voxels()
    features, conv = random_features(len(coords), 3), SparseConv(3, 4, 2).double()
    pyramid, order = build_pyramid(coords)

    actual = conv(features[order], pyramid.down(0))
    dense = F.conv3d(to_dense(coords, features), conv.weight.permute(0, 4, 1, 2, 3), stride=2)

    assert_same_values_and_gradients(actual, at(cell_of(coords), dense), [features, conv.weight])


def test_a_step_up_is_the_dense_transposed_convolution_at_the_voxels():
    coords = random_voxels()
    cells = cell_of(coords)
    features, conv = random_features(len(cells), 4), SparseConv(4, 3, 2, transposed=True).double()
    pyramid, order = build_pyramid(coords)

    actual = conv(features, pyramid.up(0))
    dense = to_dense(cells, features, grid=[size // 2 for size in GRID])
    dense = F.conv_transpose3d(dense, conv.weight.permute(4, 0, 1, 2, 3), stride=2)

    assert_same_values_and_gradients(actual, at(coords, dense)[order], [features, conv.weight])


def test_the_coarse_level_convolves_like_the_dense_coarse_grid():
    coords = random_voxels(density=0.1)
    cells = cell_of(coords)
    features, conv = random_features(len(cells), 3), SparseConv(3, 3, 3).double()
    pyramid, _ = build_pyramid(coords)

    actual = conv(features, pyramid.submanifold(1, 3))
    dense = to_dense(cells, features, grid=[size // 2 for size in GRID])
    dense = F.conv3d(dense, conv.weight.permute(0, 4, 1, 2, 3), padding=1)

    assert_same_values_and_gradients(actual, at(cells, dense), [features, conv.weight])


def test_gradients_are_the_numerical_ones():
    coords = random_voxels(num_samples=1, density=0.05)
    pyramid, order = build_pyramid(coords)
    conv = SparseConv(2, 2, 3).double()
    features = random_features(len(coords), 2)
    assert torch.autograd.gradcheck(
        lambda features, weight: pyramid.submanifold(0, 3).convolve(features, weight), (features[order], conv.weight)
    )


def test_the_edge_of_one_row_does_not_touch_the_next_row_or_sample():
    ends = [[0, 0, 0, 9], [0, 0, 11, 9], [0, 1, 0, 0], [0, 4, 4, 9], [0, 4, 5, 0], [0, 7, 11, 9], [1, 0, 0, 0]]
    pyramid, _ = build_pyramid(torch.tensor(ends, dtype=torch.int32))
    for kernel_size in (3, 5):
        assert sum(pyramid.submanifold(0, kernel_size).sizes) == len(ends)  # every voxel meets itself alone


def test_negative_coordinates_fall_into_the_cells_that_floor_gives():
    coords = torch.tensor([[0, -1, -1, -1], [0, -2, -2, -2], [0, 0, 0, 0], [0, -3, -1, -1]], dtype=torch.int32)
    pyramid, order = build_pyramid(coords)
    (down,) = [pyramid.down(0)]
    sums = SparseConv(1, 1, 2)
    torch.nn.init.ones_(sums.weight)
    values = torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    assert sorted(sums(values[order], down).flatten().tolist()) == [11.0, 100.0, 1000.0]


def test_kernel_maps_are_made_once():
    pyramid, _ = build_pyramid(random_voxels())
    assert pyramid.submanifold(0, 3) is pyramid.submanifold(0, 3)
    assert pyramid.down(0) is pyramid.down(0)


def test_duplicate_voxels_are_refused_by_name():
    coords = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 3]], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"1 voxels occur again, the first being \[0, 1, 2, 3\]"):
        sort_voxels(coords, 3)


def test_coordinates_too_far_apart_for_a_key_are_refused():
    far = torch.tensor([[0, -(2**31), 0, -(2**31)], [0, 2**31 - 1, 2**30, 0]], dtype=torch.int32)
    with pytest.raises(ValueError, match="point_cloud_range"):
        sort_voxels(far, 5)


def test_without_voxels_nothing_comes_out_and_gradients_are_zero():
    pyramid, _ = build_pyramid(torch.empty(0, 4, dtype=torch.int32))
    features, conv = torch.zeros(0, 3), SparseConv(3, 4, 3)
    output = conv(features, pyramid.submanifold(0, 3))
    output.sum().backward()
    assert output.shape == (0, 4) and not conv.weight.grad.any()
    assert SparseConv(3, 4, 2)(features, pyramid.down(0)).shape == (0, 4)
    assert SparseConv(4, 3, 2)(features.new_zeros(0, 4), pyramid.up(0)).shape == (0, 3)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precisions_follow_float64(dtype, tolerance):
    coords = random_voxels(density=0.5)
    pyramid, _ = build_pyramid(coords)
    features, conv = torch.randn(len(coords), 16), SparseConv(16, 32, 3)
    exact = conv.double()(features.double(), pyramid.submanifold(0, 3))
    rounded = conv.to(dtype)(features.to(dtype), pyramid.submanifold(0, 3))
    assert rounded.dtype == dtype
    assert (rounded.double() - exact).abs().max() <= tolerance * exact.abs().max()


def test_autocast_reaches_the_convolution_and_leaves_gradients_in_the_weights_dtype():
    coords = random_voxels()
    pyramid, _ = build_pyramid(coords)
    conv = SparseConv(4, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = conv(torch.randn(len(coords), 4), pyramid.submanifold(0, 3))
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and conv.weight.grad.dtype == torch.float32


def test_memory_of_an_inference_run_can_be_written_by_training():
    from uov_hf import sparse_conv

    sparse_conv._workspaces.__dict__.clear()
    coords = random_voxels()
    pyramid, _ = build_pyramid(coords)
    conv, features = SparseConv(4, 4, 3), torch.randn(len(coords), 4)
    with torch.inference_mode():
        conv(features, pyramid.submanifold(0, 3))
    conv(features, pyramid.submanifold(0, 3)).sum().backward()
    assert conv.weight.grad.isfinite().all()


def test_both_gemms_give_the_same_convolution(monkeypatch):
    from uov_hf import sparse_conv

    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch has no oneDNN")
    coords = random_voxels(density=0.5)
    pyramid, _ = build_pyramid(coords)
    conv, features = SparseConv(16, 32, 3), torch.randn(len(coords), 16, requires_grad=True)
    results = []
    for slow in (False, True):
        monkeypatch.setattr(sparse_conv, "_mkl_is_slow", lambda slow=slow: slow)
        output = conv(features, pyramid.submanifold(0, 3))
        results.append((output, *torch.autograd.grad(output.square().sum(), (features, conv.weight))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_initial_weights_are_uniform_in_the_fan_of_the_paper():
    down, up = SparseConv(16, 64, 2), SparseConv(16, 64, 2, transposed=True)
    assert down.weight.abs().max().item() == pytest.approx((16 * 8) ** -0.5, rel=0.01)
    assert up.weight.abs().max().item() == pytest.approx((64 * 8) ** -0.5, rel=0.01)
