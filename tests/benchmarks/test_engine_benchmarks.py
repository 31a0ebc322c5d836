"""The benchmarks of the engines: all scans differ, all products are counted, and a wrong engine fails the checks."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import gpu
import gpu_checks
import gpu_speed
import numpy as np
import pytest
import scans
import sparse_conv
import torch

from uov_hf import UOVConfig
from uov_hf.sparse_conv import KernelMap, SparseConv
from uov_hf.sparse_unet import SparseUNet


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SparseUNet(UOVConfig.from_preset("tiny", sparse_backend="torch"))


@pytest.fixture(scope="module")
def voxels():
    sensor = scans.SENSORS["nuScenes"]
    scan = next(scans.make_scans(sensor, Path("nowhere"), 1))[::40]
    batch = sensor.extractor()(scan)
    return batch["voxel_coords"], batch["voxel_features"]


@pytest.fixture(scope="module")
def cases(voxels):
    return gpu_checks.make_cases("tiny", voxels)


def count_flops(network, coords, features) -> int:
    """Operations of all convolutions, from their kernel maps, and linear layers of a forward pass."""
    flops = []

    def count(module, inputs, output):
        if isinstance(module, SparseConv):
            flops.append(2 * sum(inputs[1].sizes) * module.in_channels * module.out_channels)
        elif isinstance(module, torch.nn.Linear):
            flops.append(2 * len(output) * module.in_features * module.out_features)

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.no_grad():
        network.eval()(coords, features)
    for hook in hooks:
        hook.remove()
    return sum(flops)


def test_scans_made_from_one_sample_all_have_another_size(tmp_path):
    sensor = scans.SENSORS["nuScenes"]
    sample = next(scans.make_scans(sensor, tmp_path, 1))
    path = tmp_path / sensor.pattern.replace("*", "scan")
    path.parent.mkdir(parents=True)
    np.insert(sample, 4, 0, axis=1).tofile(path)  # the ring of nuScenes's files
    varied = list(scans.make_scans(sensor, tmp_path, 8))
    assert scans.find_scans(sensor, tmp_path) == [path]
    sizes = {len(sensor.extractor()(scan)["voxel_coords"]) for scan in varied}
    assert len(sizes) == 8 and all(0.3 * len(sample) < len(scan) <= len(sample) for scan in varied)


@pytest.mark.parametrize("name, least, most", [("nuScenes", 12_000, 26_000), ("SemanticKITTI", 35_000, 65_000)])
def test_a_computed_scan_has_about_as_many_voxels_as_a_real_one(name, least, most):
    sensor = scans.SENSORS[name]
    scan = scans.scan_a_street(sensor, np.random.default_rng(0))
    voxels = sensor.extractor()(scan, intensity_max=255.0)["voxel_coords"]
    assert scan.dtype == np.float32 and np.isfinite(scan).all() and least < len(voxels) < most


def test_the_bare_products_are_all_products_of_the_forward_pass(network, voxels):
    products = sparse_conv.record_products(lambda: sparse_conv.forward(network, *voxels))
    assert products.count_flops() == count_flops(network, *voxels) > 0
    product, operands, result = products.calls[-1]
    result.zero_()
    products.run()
    torch.testing.assert_close(result, product(*operands))
    assert result.any()


def test_both_engines_and_the_products_are_timed_on_a_scan(network, voxels):
    pytest.importorskip("spconv")
    sparse_conv.disarm_spconv("cpu")
    row = sparse_conv.compare_engines(network, *voxels, num_threads=1)
    row |= sparse_conv.compare_with_products(network, *voxels)
    assert row["difference"] < 1e-4
    ratio = row["forward"] / row["products"]
    tables = sparse_conv.to_markdown({("tiny", "nuScenes (synthetic)"): [row, row]}, num_threads=1)
    assert f"| {ratio:.2f}× ({ratio:.2f}…{ratio:.2f}) |" in tables


def test_the_torch_engine_passes_the_checks_and_a_wrong_one_does_not(cases, monkeypatch):
    for precision in ("fp32", "bf16"):
        result = gpu_checks.check(cases, "torch", precision, "cpu")
        assert len(result["passed"]) == len(cases) and not result["failed"] and not result["refused"]
    right = KernelMap.convolve
    monkeypatch.setattr(KernelMap, "convolve", lambda *args: right(*args) * 1.001)
    result = gpu_checks.check(cases, "torch", "fp32", "cpu")
    assert result["passed"] == ["empty batch"] and len(result["failed"]) == len(cases) - 1


def test_a_wrong_gradient_is_found_where_the_features_are_right(cases, monkeypatch):
    (case,) = [case for case in cases if case.name == "odd grid"]
    right = KernelMap.convolve

    def detached(kernel_map, features, weight):
        return right(kernel_map, features, weight.detach() if weight.shape[1] == 2 else weight)

    monkeypatch.setattr(KernelMap, "convolve", detached)
    result = gpu_checks.check([case], "torch", "fp32", "cpu")
    assert "gradient error 1.0e+00" in result["failed"]["odd grid"] and result["value_error"] < 1e-5


def test_an_engine_that_refuses_is_refused_with_its_reason(cases, monkeypatch):
    def refuse(*args):
        raise RuntimeError("spconv cannot be used here: no bfloat16. Use `sparse_backend='torch'` or 'auto'.")

    monkeypatch.setattr(KernelMap, "convolve", refuse)
    result = gpu_checks.check(cases[:2], "torch", "fp32", "cpu")
    assert "no bfloat16" in result["refused"]["one voxel"] and not result["failed"]


def test_odd_voxels_have_the_properties_of_their_names():
    voxels = gpu_checks.odd_voxels()
    assert len(voxels["empty batch"]) == 0 and len(voxels["one voxel"]) == 1
    assert (voxels["negative coordinates"][:, 1:].amin(0) < 0).all()
    assert not voxels["non-contiguous coordinates"].is_contiguous()
    assert voxels["sample without voxels"][:, 0].unique().tolist() == [0, 2]
    assert (voxels["odd grid"][:, 1:].amax(0) + 1).tolist() == [17, 31, 5]
    assert all(len(torch.unique(coords, dim=0)) == len(coords) for coords in voxels.values())


def test_the_work_of_a_batch_is_that_of_its_scans(network, voxels):
    timer = gpu_speed.NetworkTimer({"nuScenes": [voxels]}, "cpu", gpu_speed.EFFORTS["cpu"])
    once = timer.measure("torch", "fp32", "nuScenes", 1, training=False)
    assert once["flops"] == count_flops(network, *voxels)
    twice = timer.measure("torch", "bf16", "nuScenes", 2, training=True)
    assert twice["flops"] == 6 * once["flops"] and twice["bytes"] == 3 * once["bytes"]
    assert twice["num_voxels"] == 2 * len(voxels[0])


def test_a_job_that_hangs_or_dies_costs_only_itself(tmp_path):
    job = gpu.Job("card", "torch", "fp32")
    for is_dead, reason in ((False, "not done after"), (True, "it died with status -11")):
        runner = gpu.JobRunner(tmp_path, "cpu", end=float("inf"), longest=1.0)
        process, connection = Mock(exitcode=-11), Mock(poll=lambda seconds, is_dead=is_dead: is_dead)
        connection.recv.side_effect = EOFError
        runner.workers[False] = process, connection
        assert reason in str(runner.do(job)) and process.kill.called and not runner.workers
    runner = gpu.JobRunner(tmp_path, "cpu", end=0.0, longest=1.0)
    assert runner.do(job)["left_out"] == "no time was left"


@pytest.mark.slow
def test_the_whole_program_runs_on_a_cpu(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, gpu.__file__, "--device", "cpu", "--minutes", "6", "--output", output]
    done = subprocess.run([*map(str, command), "--data_dir", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())["results"]
    steps = [row for row in results if row["kind"] == "pretraining" and row["engine"] == "torch"]
    assert {row["precision"] for row in steps} == {"fp32", "fp16", "bf16"}
    assert all(np.isfinite(row["losses"]).all() for row in steps)
    assert any(row["kind"] == "network" and row["batch_size"] == 2 and row["training"] for row in results)
    assert "| torch | bf16 | 8 of 8 |" in done.stdout
