"""The U-Net of the paper: the same for any order of voxels, and closed to what an engine would get wrong."""

import pytest
import torch

from uov_hf.configuration_uov import UOVConfig
from uov_hf.sparse_unet import SparseUNet


def tiny_network(seed=0, **overrides):
    torch.manual_seed(seed)
    return SparseUNet(UOVConfig.from_preset("tiny", **overrides))


def random_scan(num_voxels=600, batch_size=2, seed=0, channels=1):
    """Voxels on a few planes, as LiDAR has them, some with negative coordinates."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.randint(-20, 20, (num_voxels, 4), generator=generator)
    coords[:, 0] = torch.randint(0, batch_size, (num_voxels,), generator=generator)
    coords[:, 3] %= 4
    coords = torch.unique(coords, dim=0)
    coords = coords[torch.randperm(len(coords), generator=generator)].int()
    return coords, torch.rand(len(coords), channels, generator=generator)


def gradients_of(network, coords, features):
    network.zero_grad()
    output = network(coords, features)
    output.square().mean().backward()
    return [output.detach(), *(parameter.grad.clone() for parameter in network.parameters())]


def test_output_has_a_row_per_voxel_in_the_order_of_the_input():
    network, (coords, features) = tiny_network().eval(), random_scan()
    order = torch.randperm(len(coords))
    with torch.no_grad():
        output, permuted = network(coords, features), network(coords[order], features[order])
    assert output.shape == (len(coords), network.config.hidden_sizes[-1])
    assert torch.equal(output[order], permuted)


def test_a_scan_does_not_depend_on_the_others_of_its_batch():
    network, (coords, features) = tiny_network().eval(), random_scan(batch_size=3)
    with torch.no_grad():
        together = network(coords, features)
        for sample in range(3):
            rows = coords[:, 0] == sample
            torch.testing.assert_close(network(coords[rows], features[rows]), together[rows], rtol=1e-4, atol=1e-5)


def test_a_shift_by_the_total_stride_changes_nothing():
    network, (coords, features) = tiny_network().eval(), random_scan()
    with torch.no_grad():
        shifted = network(coords + torch.tensor([0, -160, 32, 1600], dtype=torch.int32), features)
        assert torch.equal(shifted, network(coords, features))


def test_empty_samples_single_voxels_and_empty_batches_are_allowed():
    network, (coords, features) = tiny_network(), random_scan(batch_size=1)
    coords[:, 0] = 5  # samples 0 to 4 have no voxel
    assert network(coords, features).isfinite().all() and network(coords[:1], features[:1]).isfinite().all()
    output = network(coords[:0], features[:0])
    output.sum().backward()
    assert output.shape == (0, network.config.hidden_sizes[-1])
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in network.parameters())


def test_two_threads_give_the_same_bits_every_time(set_num_threads):
    set_num_threads(2)
    network, (coords, features) = tiny_network(), random_scan(num_voxels=2000)
    first = gradients_of(network, coords, features)
    for _ in range(2):
        again = gradients_of(network, coords, features)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_weights_train_in_bfloat16_with_a_larger_stem_kernel_and_more_channels():
    network, (coords, features) = tiny_network(stem_kernel_size=5, in_channels=4), random_scan(channels=4)
    output, *gradients = gradients_of(network.bfloat16(), coords, features.bfloat16())
    assert output.shape == (len(coords), 32) and all(gradient.isfinite().all() for gradient in gradients)


def with_value(tensor, value, *position):
    tensor = tensor.clone()
    tensor[position] = value
    return tensor


BAD_INPUT = {
    "int16 coordinates": ("coords", lambda c: c.short(), "must be torch.int32"),
    "float coordinates": ("coords", lambda c: c.float(), "must be torch.int32"),
    "three columns": ("coords", lambda c: c[:, 1:], "4 columns"),
    "flat coordinates": ("coords", lambda c: c[0], "4 columns"),
    "fewer feature rows": ("features", lambda f: f[1:], "must have shape"),
    "more feature rows": ("features", lambda f: torch.cat([f, f]), "must have shape"),
    "other channels": ("features", lambda f: f.expand(-1, 2), "must have shape"),
    "integer features": ("features", lambda f: f.int(), "must be floating point"),
    "NaN": ("features", lambda f: with_value(f, float("nan"), 0, 0), "NaN or infinity"),
    "infinity": ("features", lambda f: with_value(f, float("inf"), 0, 0), "NaN or infinity"),
    "negative sample": ("coords", lambda c: with_value(c, -1, 0, 0), "starts at 0, got -1"),
    "duplicates": ("coords", lambda c: torch.cat([c[:1], c[:1], c[2:]]), r"1 voxels occur again, the first being \["),
    "far apart": ("coords", lambda c: c * 2**26, "point_cloud_range"),
    "another device": ("features", lambda f: f.to("meta"), "Move one"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused(case):
    name, change, message = BAD_INPUT[case]
    inputs = dict(zip(("coords", "features"), random_scan(), strict=True))
    with pytest.raises(ValueError, match=message):
        tiny_network()(*(inputs | {name: change(inputs[name])}).values())


@pytest.mark.parametrize("change", [torch.Tensor.long, lambda coords: coords.T.contiguous().T])
def test_int64_or_strided_coordinates_give_the_same_output(change):
    network, (coords, features) = tiny_network().eval(), random_scan()
    with torch.no_grad():
        assert torch.equal(network(change(coords), features), network(coords, features))
