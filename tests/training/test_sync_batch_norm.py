"""Synchronised batch normalisation: two processes with the halves of a batch are one process with all of it."""

import pytest
import torch
from forks import run_on_two
from torch import distributed, nn
from torch.utils.checkpoint import checkpoint

from uov_hf.sparse_unet import VoxelBatchNorm
from uov_hf.training.sync_batch_norm import SyncVoxelBatchNorm, synchronize_batch_norm


CHANNELS, NUM_STEPS = 5, 2
HALVES = {"unequal": (7, 2), "one empty": (9, 0), "two voxels": (1, 1), "one voxel": (0, 1), "none": (0, 0)}


def layer() -> VoxelBatchNorm:
    torch.manual_seed(1)
    norm = VoxelBatchNorm(CHANNELS, momentum=0.3).double().train()
    for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        values.copy_(torch.rand(CHANNELS) + 0.5)
    return norm


def train_on(norm: nn.Module, rows: slice, num_rows: int, is_checkpointed: bool = False) -> dict[str, torch.Tensor]:
    """Steps on some rows of the batch, far from zero; the loss is a sum over rows that is different for each."""
    torch.manual_seed(2)
    result = {}
    for step in range(NUM_STEPS):
        features = (torch.randn(num_rows, CHANNELS, dtype=torch.float64) * 3 + 1000 * step)[rows].requires_grad_()
        targets = torch.randn(num_rows, CHANNELS, dtype=torch.float64)[rows]
        output = torch.relu_(checkpoint(norm, features, use_reentrant=False) if is_checkpointed else norm(features))
        (output * targets + output.square()).sum().backward()
        result |= {f"output {step}": output.detach(), f"gradient {step}": features.grad}
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in norm.named_parameters()}
    return result | gradients | norm.state_dict()


def on_a_half(rank: int, sizes: tuple[int, int], is_checkpointed: bool = False) -> dict[str, torch.Tensor]:
    norm = synchronize_batch_norm(layer())
    rows = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], None)
    return train_on(norm, rows, sum(sizes), is_checkpointed)


def on_all_halves(rank: int) -> dict[str, dict[str, torch.Tensor]]:
    distributed.init_process_group("gloo")
    results = {name: on_a_half(rank, sizes) for name, sizes in HALVES.items()}
    results["checkpointed"] = on_a_half(rank, HALVES["unequal"], is_checkpointed=True)
    distributed.destroy_process_group()
    return results


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    return run_on_two(on_all_halves, tmp_path_factory.mktemp("halves"))


@pytest.mark.parametrize("name", HALVES)
def test_two_processes_with_halves_are_one_with_the_whole_batch(halves, name):
    whole = train_on(layer(), slice(None), sum(HALVES[name]))
    first, second = (half[name] for half in halves)
    for key, expected in whole.items():
        if key.startswith("gradient of"):  # of the voxels of a process: DDP adds them up
            found = [first[key] + second[key]]
        elif key[-1].isdigit():
            found = [torch.cat([first[key], second[key]])]
        else:
            found = [first[key], second[key]]
        for value in found:
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


def test_what_gradient_checkpointing_computes_twice_counts_once(halves):
    for half in halves:
        assert all(torch.equal(half["checkpointed"][key], value) for key, value in half["unequal"].items())


def test_fewer_than_two_voxels_in_all_leave_the_statistics_alone(halves):
    before = layer().state_dict()
    for name in ("one voxel", "none"):
        for half in halves:
            for key in ("running_mean", "running_var", "num_batches_tracked"):
                assert torch.equal(half[name][key], before[key])


def test_a_converted_model_keeps_its_weights_and_names_and_evaluates_as_before():
    model = nn.Sequential(nn.Linear(3, CHANNELS), VoxelBatchNorm(CHANNELS), nn.BatchNorm1d(CHANNELS)).eval()
    before, features = dict(model.state_dict()), torch.randn(4, 3)
    expected = model(features)
    synchronize_batch_norm(model)
    assert isinstance(model[1], SyncVoxelBatchNorm) and type(model[2]) is nn.BatchNorm1d
    assert model.state_dict().keys() == before.keys()
    assert all(value.data_ptr() == before[name].data_ptr() for name, value in model.state_dict().items())
    assert torch.equal(model(features), expected)
    with torch.no_grad():
        hidden = model[0](features)
        assert model[1](hidden).data_ptr() == hidden.data_ptr()
