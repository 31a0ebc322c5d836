"""The torch engine computes exactly the convolution of the dense grid, at the voxels that are there."""

import pytest
import torch
from fake_gpu import NAME, to_gpu
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from uov_hf import sparse_conv, voxel_pyramid
from uov_hf.sparse_conv import SparseConv
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


pytestmark = pytest.mark.filterwarnings("error")  # torch only warns of a result that does not fit its memory
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


@pytest.fixture(params=["default sizes", "small sizes"])
def sizes(request, monkeypatch):
    """How many pairs are multiplied and gathered at a time, and from where on the weight is transposed."""
    if request.param == "small sizes":
        monkeypatch.setattr(voxel_pyramid, "GROUP_PAIRS", {"cpu": 16})
        monkeypatch.setattr(sparse_conv, "GATHER_BYTES", {"cpu": 2000})
        monkeypatch.setattr(sparse_conv, "TRANSPOSE_FROM", 0)


@pytest.mark.parametrize("kernel_size, level", [(3, 0), (5, 0), (3, 1)])
def test_a_submanifold_convolution_is_the_dense_one_at_the_voxels(kernel_size, level, sizes):
    coords, grid = random_voxels(density=0.1 if level else 0.3), [size // 2**level for size in GRID]
    pyramid, order = build_pyramid(coords)
    voxels = cell_of(coords) if level else coords[order]
    features, conv = random_features(len(voxels), 3), SparseConv(3, 4, kernel_size).double()
    weight = conv.weight.permute(0, 4, 1, 2, 3)
    dense = F.conv3d(to_dense(voxels, features, grid), weight, padding=kernel_size // 2)
    actual = conv(features, pyramid.submanifold(level, kernel_size))
    assert_same_values_and_gradients(actual, at(voxels, dense), [features, conv.weight])


def test_a_step_down_is_the_dense_convolution_of_stride_two():
    coords = random_voxels()
    features, conv = random_features(len(coords), 3), SparseConv(3, 4, 2).double()
    pyramid, order = build_pyramid(coords)
    dense = F.conv3d(to_dense(coords, features), conv.weight.permute(0, 4, 1, 2, 3), stride=2)
    actual = conv(features[order], pyramid.down(0))
    assert_same_values_and_gradients(actual, at(cell_of(coords), dense), [features, conv.weight])


def test_a_step_up_is_the_dense_transposed_convolution_at_the_voxels():
    coords = random_voxels()
    cells = cell_of(coords)
    features, conv = random_features(len(cells), 4), SparseConv(4, 3, 2, transposed=True).double()
    pyramid, order = build_pyramid(coords)
    dense = to_dense(cells, features, grid=[size // 2 for size in GRID])
    dense = F.conv_transpose3d(dense, conv.weight.permute(4, 0, 1, 2, 3), stride=2)
    assert_same_values_and_gradients(conv(features, pyramid.up(0)), at(coords, dense)[order], [features, conv.weight])


def test_a_single_voxel_meets_only_the_centre_of_the_kernel():
    pyramid, _ = build_pyramid(torch.tensor([[0, 3, -1, 2]], dtype=torch.int32))
    features, conv = random_features(1, 3), SparseConv(3, 4, 3).double()
    expected = features @ conv.weight[:, 1, 1, 1].T
    assert_same_values_and_gradients(conv(features, pyramid.submanifold(0, 3)), expected, [features, conv.weight])


def convolve_everywhere(device):
    """Values and gradients of a convolution on each of two levels, and of a step down and up."""
    torch.manual_seed(0)
    coords, convs = random_voxels(), [SparseConv(3, 3, size).double() for size in (5, 2, 3, 2)]
    features = torch.randn(len(coords), 3, dtype=torch.float64)
    if device == NAME:
        coords, features, convs = to_gpu(coords), to_gpu(features), [to_gpu(conv) for conv in convs]
    leaf = features.requires_grad_()
    pyramid, order = build_pyramid(coords)
    maps = pyramid.submanifold(0, 5), pyramid.down(0), pyramid.submanifold(1, 3), pyramid.up(0)
    features = leaf[order]
    for conv, kernel_map in zip(convs, maps, strict=True):
        features = conv(features, kernel_map)
    features.square().sum().backward()
    return [tensor.cpu() for tensor in (features.detach(), leaf.grad, *(conv.weight.grad for conv in convs))]


def test_an_accelerator_computes_what_the_cpu_does(traffic):
    for actual, expected in zip(convolve_everywhere(NAME), convolve_everywhere("cpu"), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_voxels_at_the_ends_of_rows_and_samples_are_no_neighbours():
    ends = [[0, 0, 0, 9], [0, 0, 11, 9], [0, 1, 0, 0], [0, 4, 4, 9], [0, 4, 5, 0], [0, 7, 11, 9], [1, 0, 0, 0]]
    pyramid, _ = build_pyramid(torch.tensor(ends, dtype=torch.int32))
    for kernel_size in (3, 5):
        assert sum(pyramid.submanifold(0, kernel_size).sizes) == len(ends)


def test_negative_coordinates_fall_into_the_cells_that_floor_gives():
    coords = torch.tensor([[0, -1, -1, -1], [0, -2, -2, -2], [0, 0, 0, 0], [0, -3, -1, -1]], dtype=torch.int32)
    pyramid, order = build_pyramid(coords)
    sums = SparseConv(1, 1, 2)
    torch.nn.init.ones_(sums.weight)
    values = torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    assert sorted(sums(values[order], pyramid.down(0)).flatten().tolist()) == [11.0, 100.0, 1000.0]


def test_kernel_maps_are_made_once():
    pyramid, _ = build_pyramid(random_voxels())
    assert pyramid.submanifold(0, 3) is pyramid.submanifold(0, 3)
    assert pyramid.down(0) is pyramid.down(0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precisions_follow_float64(dtype, tolerance):
    coords = random_voxels(density=0.5)
    pyramid, _ = build_pyramid(coords)
    features, conv = torch.randn(len(coords), 16), SparseConv(16, 32, 3)
    exact = conv.double()(features.double(), pyramid.submanifold(0, 3))
    rounded = conv.to(dtype)(features.to(dtype), pyramid.submanifold(0, 3))
    assert rounded.dtype == dtype
    assert (rounded.double() - exact).abs().max() <= tolerance * exact.abs().max()


def test_memory_of_an_inference_run_can_be_written_by_training():
    sparse_conv._workspaces.__dict__.clear()
    coords = random_voxels()
    pyramid, _ = build_pyramid(coords)
    conv, features = SparseConv(4, 4, 3), torch.randn(len(coords), 4)
    with torch.inference_mode():
        conv(features, pyramid.submanifold(0, 3))
    conv(features, pyramid.submanifold(0, 3)).sum().backward()
    assert conv.weight.grad.isfinite().all()


def test_the_memory_of_a_convolution_is_its_products_and_two_gathers_and_is_taken_again(monkeypatch):
    """A gather has as many pairs as the limit allows; the voxels themselves are not gathered."""
    monkeypatch.setattr(voxel_pyramid, "GROUP_PAIRS", {"cpu": 16})
    monkeypatch.setattr(
        sparse_conv, "GATHER_BYTES", {"cpu": 2 * 32 * 4 * 8}
    )  # two groups of 16 pairs and their mirrors
    sparse_conv._workspaces.__dict__.clear()
    coords = random_voxels()
    kernel_map, conv = build_pyramid(coords)[0].submanifold(0, 3), SparseConv(4, 4, 3).double()
    conv(random_features(len(coords), 4), kernel_map).sum().backward()
    memory = dict(vars(sparse_conv._workspaces))
    bytes_of_a_pair = 4 * 8
    assert sorted(part.numel() for part in memory.values()) == [2048, 2048, len(kernel_map.inputs) * bytes_of_a_pair]
    conv(random_features(len(coords), 4), kernel_map).sum().backward()
    assert all(vars(sparse_conv._workspaces)[name] is part for name, part in memory.items())


def scan_like(num_voxels, seed):
    """Random voxels of a few planes, `num_voxels` or a few less, sorted into a pyramid."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.randint(0, 60, (num_voxels, 4), generator=generator)
    coords[:, 0], coords[:, 3] = 0, coords[:, 3] % 5
    return build_pyramid(torch.unique(coords, dim=0).int(), num_levels=5)[0]


def weight_gradient(kernel_map, dtype):
    """Features and gradients are not centred, so that rounding does not cancel."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 3, 3, 3, 8, generator=generator, dtype=torch.float64)
    rows, grads = (torch.rand(kernel_map.sizes[0], 8, generator=generator).bfloat16() for _ in range(2))
    weight = weight.bfloat16().to(dtype).requires_grad_()
    kernel_map.convolve(rows.to(dtype), weight).backward(grads.to(dtype))
    return weight.grad.double()


@pytest.mark.parametrize("group_pairs", [16, 1 << 30])
def test_gradients_of_half_precision_weights_are_summed_in_float32(monkeypatch, group_pairs):
    """All that is lost is the rounding of the sum, however many groups it has: at most 2^-8."""
    monkeypatch.setattr(voxel_pyramid, "GROUP_PAIRS", {"cpu": group_pairs})
    kernel_map = scan_like(4000, seed=0).submanifold(0, 3)
    exact = weight_gradient(kernel_map, torch.float64)
    assert ((weight_gradient(kernel_map, torch.bfloat16) - exact).abs() <= 2**-7.99 * exact.abs()).all()


def test_autocast_reaches_the_convolution_and_does_not_round_gradients_of_float32_weights():
    kernel_map, conv = scan_like(2000, seed=0).submanifold(0, 3), SparseConv(8, 8, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = conv(torch.randn(kernel_map.sizes[0], 8), kernel_map)
    output.sum().backward()
    assert output.dtype == torch.bfloat16 and conv.weight.grad.dtype == torch.float32
    assert not torch.equal(conv.weight.grad, conv.weight.grad.bfloat16().float())


class Work(TorchDispatchMode):
    """Multiply-adds of products, and values that everything else reads and writes."""

    # These hold no values, or are views.
    FREE = {"aten.empty", "aten.new_empty", "aten.detach", "aten.as_strided"}

    def __init__(self):
        super().__init__()
        self.products, self.moved, self.names = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result, name = func(*args, **(kwargs or {})), str(func.overloadpacket)
        if func.is_view or name in self.FREE:
            return result
        self.names.add(name)
        if name in ("aten.bmm", "aten.mm"):
            left, right = args[:2]
            assert all(map(blas_reads, args[:2])), f"{name} of strides {left.stride()}, {right.stride()}"
            self.products += left.numel() * right.shape[-1]
        else:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.moved += sum(tensor.numel() for tensor in tensors)
        return result


def blas_reads(matrix):
    """Whether BLAS reads the last two axes without a copy: rows or columns are contiguous."""
    (rows, columns), (down, right) = matrix.shape[-2:], matrix.stride()[-2:]
    return (right == 1 and down >= columns) or (down == 1 and right >= rows)


MOVING_A_VALUE = 8  # multiply-adds that one thread does while it reads or writes a value


@pytest.mark.parametrize("channels", [16, 96])
def test_a_convolution_costs_at_most_ten_times_its_products_on_every_new_size(channels):
    """On every processor: only public products, of strides that BLAS takes, and not too much around them."""
    conv = SparseConv(channels, channels, 3)
    for seed in range(4):
        kernel_map = scan_like(2000 + 371 * seed, seed).submanifold(0, 3)
        features = torch.randn(kernel_map.sizes[0], channels, requires_grad=True)
        with Work() as forward:
            output = conv(features, kernel_map)
        with Work() as backward:
            output.backward(torch.ones_like(output))
        for work in (forward, backward):
            assert {name.split(".")[0] for name in work.names} == {"aten"}
            assert not any("mkldnn" in name or "linear" in name for name in work.names)
            assert work.products + MOVING_A_VALUE * work.moved <= 10 * work.products, work.names


@pytest.mark.parametrize("extra_rows", [-1, 1])
def test_features_of_other_voxels_are_refused(extra_rows):
    """One row too many was ignored."""
    coords = random_voxels()
    pyramid = VoxelPyramid(sort_voxels(coords, 2)[0])
    features = torch.ones(len(coords) + extra_rows, 2)
    for kernel_map, size in ((pyramid.submanifold(0, 3), 3), (pyramid.down(0), 2)):
        with pytest.raises(ValueError, match=rf"`features` must be .* \({len(coords)}, 2\), got .*{len(features)}"):
            SparseConv(2, 2, size)(features, kernel_map)


def test_features_that_are_no_floating_point_numbers_are_refused():
    coords = random_voxels()
    with pytest.raises(ValueError, match="`features` must be floating-point numbers of shape .* got torch.int64"):
        SparseConv(2, 2, 3)(torch.ones(len(coords), 2).long(), build_pyramid(coords)[0].submanifold(0, 3))


@pytest.mark.parametrize("options, fan", [({}, 4), ({"transposed": True}, 16)])
def test_weights_are_drawn_uniformly_up_to_one_by_the_root_of_the_fan(options, fan):
    weight = SparseConv(4, 16, 3, **options).weight
    bound = (fan * 27) ** -0.5
    assert weight.abs().max() <= bound and weight.max() > 0.99 * bound and weight.min() < -0.99 * bound
    assert weight.mean().abs() < 0.05 * bound


@pytest.mark.parametrize("kernel_size", [1, 2, 7])
def test_a_kernel_that_reaches_the_next_row_of_cells_is_refused(kernel_size):
    pyramid = VoxelPyramid(sort_voxels(random_voxels(), 2)[0])
    with pytest.raises(ValueError, match="`kernel_size` must be odd, from 3 to 5"):
        pyramid.submanifold(0, kernel_size)


def test_a_coordinate_at_the_end_of_int64_is_refused():
    with pytest.raises(ValueError, match="`voxel_coords` span"):
        sort_voxels(torch.tensor([[0, -(2**63), 0, 0]]), 3)
