"""The fake GPU refuses and counts what CUDA refuses and waits for, and leaves nothing behind."""

import numpy as np
import pytest
import torch
from fake_gpu import NAME, FakeGPU, to_gpu
from torch import nn


@pytest.fixture
def x(traffic):
    return to_gpu(torch.arange(12.0).view(3, 4))


def totals(traffic: FakeGPU) -> tuple[int, int, int]:
    return traffic.launches.total(), traffic.syncs.total(), traffic.copies.total()


def test_moving_to_the_device_is_not_counted(traffic, x):
    module = to_gpu(nn.Linear(4, 2))
    several = to_gpu({"a": [torch.ones(2)], "b": 3})
    assert {tensor.device.type for tensor in (x, module.weight, several["a"][0])} == {NAME}
    assert totals(traffic) == (0, 0, 0)


def test_numpy_does_not_read_the_device(x):
    for read in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="can't convert fakegpu:0 device type tensor to numpy"):
            read()


def test_devices_do_not_mix_but_for_numbers_and_indices(x):
    host, rows = torch.ones(3, 4), to_gpu(torch.tensor([2, 0]))
    for mix in (lambda: x + host, lambda: host * x[0, 0], lambda: torch.cat([x, host]), lambda: host[rows]):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            mix()
    assert (x + torch.ones(())).tolist() == (x + 1).tolist()
    assert x[rows.cpu()].tolist() == x[rows].tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    "read",
    [
        lambda x, mask: x[0, 0].item(),
        lambda x, mask: bool(mask.any()),
        lambda x, mask: x.tolist(),
        lambda x, mask: x.cpu(),
        lambda x, mask: x[x[0, 1].long()],
        lambda x, mask: x[mask],
        lambda x, mask: x.__setitem__(mask, x[0, 0]),
        lambda x, mask: x.masked_fill(mask, x[0, 0]),
        lambda x, mask: mask.nonzero(),
        lambda x, mask: torch.where(mask),
        lambda x, mask: mask.argwhere(),
        lambda x, mask: x.masked_select(mask),
        lambda x, mask: x.unique(),
        lambda x, mask: x.unique_consecutive(),
        lambda x, mask: x[0].long().bincount(),
        lambda x, mask: torch.isin(x, x),
        lambda x, mask: torch.equal(x, x),
        lambda x, mask: torch.allclose(x, x),
        lambda x, mask: x.repeat_interleave(mask[:, 3].long(), dim=0),
        lambda x, mask: nn.functional.one_hot(x.long()),
        lambda x, mask: torch.linalg.pinv(x),
        lambda x, mask: torch.linalg.inv(x[:, :3] + torch.eye(3, device=x.device)),
    ],
)
def test_the_host_waits_once_for_what_it_must_read(traffic, x, read):
    mask = x > 3
    traffic.clear()
    read(x, mask)
    assert traffic.syncs.total() == 1


@pytest.mark.parametrize(
    "compute",
    [
        lambda x, mask: torch.where(mask, 0, x),
        lambda x, mask: x.masked_fill(mask, 0),
        lambda x, mask: x.__setitem__(mask, 0.0),
        lambda x, mask: x.masked_scatter(mask, x),
        lambda x, mask: x[x[0].long() % 3],
        lambda x, mask: x.sort(dim=1).values.cumsum(dim=0),
        lambda x, mask: x.topk(2, dim=1),
        lambda x, mask: mask.sum(dim=1).argmax(),
        lambda x, mask: x.repeat_interleave(mask[:, 3].long(), dim=0, output_size=2),
        lambda x, mask: nn.functional.one_hot(x.long(), 12),
        lambda x, mask: nn.functional.embedding_bag(x.long() % 3, x, per_sample_weights=x, mode="sum"),
        lambda x, mask: torch.nonzero_static(mask, size=2),
    ],
)
def test_the_host_does_not_wait_for_what_stays_on_the_device(traffic, x, compute):
    mask = x > 3
    traffic.clear()
    compute(x, mask)
    launches, *others = totals(traffic)
    assert launches > 0 and others == [0, 0]


@pytest.mark.parametrize(
    "copy",
    [
        lambda x: torch.ones(3).to(x.device),
        lambda x: torch.tensor([1, 2], device=x.device),
        lambda x: torch.as_tensor(np.ones(2), device=x.device),
        lambda x: x.new_tensor([1, 2]),
        lambda x: x.copy_(torch.ones(3, 4)),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x[[0, 1]],
    ],
)
def test_what_comes_from_the_host_is_one_copy(traffic, x, copy):
    copy(x)
    assert traffic.copies.total() == 1 and not traffic.syncs


def test_what_goes_to_the_host_is_a_copy_and_a_sync(traffic, x):
    x.cpu()
    torch.ones(3, 4).copy_(x)
    assert totals(traffic) == (0, 2, 2)


def test_a_launch_is_what_computes_and_no_view_or_allocation(traffic, x):
    for view in (x.T, x.view(4, 3), x[0], x[:, None], x.unflatten(0, (1, 3)), x.split([1, 2])[0], x.expand(2, 3, 4)):
        assert view.device == x.device
    torch.empty(3, device=x.device), x.new_empty(3), torch.empty_like(x), x.to(NAME)
    assert totals(traffic) == (0, 0, 0)
    x @ x.T
    assert [name for name, _ in traffic.launches] == ["mm"]
    torch.zeros(3, device=x.device), torch.arange(3, device=x.device), x.double(), x.T.contiguous()
    assert totals(traffic) == (5, 0, 0)


def test_each_entry_has_the_line_that_caused_it(traffic, x):
    x[0, 0].item()
    ((_, where),) = traffic.syncs
    assert where.startswith("test_fake_gpu.py:") and f"1 x _local_scalar_dense at {where}" in str(traffic)


class Square(torch.autograd.Function):
    """With a sync on the way back."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 2 * x * torch.ones(int(x.isfinite().all()), device=x.device)


def test_backward_is_counted_though_it_runs_in_another_thread(traffic, x):
    layer = to_gpu(nn.Linear(4, 2))
    loss = Square.apply(layer(x)).sum()
    traffic.clear()
    loss.backward()
    assert layer.weight.grad.device == x.device and traffic.syncs.total() == 1
    launched = dict(traffic.launches.keys())
    assert launched["ones"].startswith("test_fake_gpu.py:") and launched["mm"] == "autograd"
    on_host = nn.Linear(4, 2)
    on_host.load_state_dict({name: value.cpu() for name, value in layer.state_dict().items()})
    on_host(x.cpu()).square().sum().backward()
    assert torch.equal(layer.weight.grad.cpu(), on_host.weight.grad)


def test_autocast_takes_products_to_its_dtype_and_sums_to_float32(x):
    layer = to_gpu(nn.Linear(4, 2))
    with torch.autocast(NAME, dtype=torch.bfloat16):
        product = layer(x)
        dtypes = [product.dtype, product.softmax(dim=1).dtype, product.sum().dtype, (x * x).dtype]
    assert dtypes == [torch.bfloat16, torch.float32, torch.float32, torch.float32]
    product.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32 and layer(x).dtype == torch.float32


def test_outside_of_the_context_there_is_no_device():
    before = torch.accelerator.is_available()
    with FakeGPU():
        x = torch.ones(3, device=NAME)
        assert torch.accelerator.is_available()
    assert torch.accelerator.is_available() == before
    with pytest.raises(RuntimeError, match="inside `with FakeGPU\\(\\)` only"):
        x + 1
    with pytest.raises(NotImplementedError):
        torch.ones(3, device=NAME)
    assert torch.tensor([1.0]).numpy().tolist() == [1.0]
