"""One engine a run, chosen by device and dtype alone; spconv computes what plain torch does, whole or in parts."""

import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_sparse_unet import random_scan, tiny_network

from uov_hf import sparse_engines
from uov_hf.sparse_engines import LIBRARIES, Engine, SpconvPyramid, choose_engine
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


GPU, CPU = torch.device("cuda"), torch.device("cpu")
BOTH = ("spconv", "spconv_triton")


def fake_machine(monkeypatch, installed=BOTH, cpu_build=False, hip=None):
    """A machine with a GPU for `choose_engine`."""
    library = SimpleNamespace(conv=SimpleNamespace(CPU_ONLY_BUILD=cpu_build))
    found = {name: (library, "") if name in installed else (None, "it is not installed") for name in BOTH}
    monkeypatch.setattr(sparse_engines, "load_library", found.get)
    monkeypatch.setattr(torch.version, "hip", hip)


@pytest.mark.parametrize(
    "machine, dtype, expected",
    [
        ({}, torch.float32, "spconv"),
        ({}, torch.float16, "spconv"),
        ({}, torch.bfloat16, "spconv_triton"),  # spconv has no bfloat16
        ({}, torch.float64, "torch"),
        ({"installed": ("spconv_triton",)}, torch.float32, "spconv_triton"),
        ({"installed": ("spconv",)}, torch.bfloat16, "torch"),
        ({"installed": ()}, torch.float32, "torch"),
        ({"hip": "7.0"}, torch.float16, "spconv_triton"),  # spconv has kernels for NVIDIA only
        ({"hip": "7.0", "installed": ("spconv",)}, torch.float16, "torch"),
        ({"installed": ("spconv",), "cpu_build": True}, torch.float32, "torch"),
    ],
)
def test_auto_takes_the_first_library_that_computes_the_dtype_on_a_gpu(machine, dtype, expected, monkeypatch):
    fake_machine(monkeypatch, **machine)
    assert choose_engine("auto", GPU, dtype).name == expected


def test_auto_is_plain_torch_off_the_gpu_and_loads_no_library(monkeypatch):
    monkeypatch.setattr(sparse_engines, "load_library", lambda name: pytest.fail(f"{name} was loaded"))
    assert choose_engine("auto", CPU, torch.float32).name == "torch"
    assert choose_engine("auto", torch.device("mps"), torch.float16).name == "torch"


@pytest.mark.parametrize("backend", BOTH)
def test_a_named_engine_is_used_or_refused_with_the_reason(backend, monkeypatch):
    fake_machine(monkeypatch)
    assert choose_engine(backend, GPU, torch.float16).name == backend
    assert choose_engine("torch", GPU, torch.float16).name == "torch"
    with pytest.raises(RuntimeError, match=f"{backend} cannot be used here: it has no kernels for torch.float64"):
        choose_engine(backend, GPU, torch.float64)


def test_the_engine_is_logged_once_and_a_gpu_left_to_plain_torch_with_a_warning(monkeypatch, caplog):
    network = tiny_network()
    fake_machine(monkeypatch, installed=("spconv",))
    with caplog.at_level(logging.INFO, logger="uov_hf.sparse_unet"):
        for _ in range(2):
            assert network.engine("cuda", torch.float16).name == "spconv"
            assert network.engine("cuda", torch.bfloat16) == network.engine(GPU, torch.bfloat16)
    (info, warning) = caplog.records
    assert (info.levelname, warning.levelname) == ("INFO", "WARNING")
    assert "cuda in torch.float16: spconv (it computes" in info.getMessage()
    assert "torch (not spconv: it has no kernels for torch.bfloat16" in warning.getMessage()
    assert "expect it to be slower" in warning.getMessage()


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def test_a_run_keeps_its_engine_for_every_batch(one_thread):
    """Neither an empty batch nor one that spans too many cells is computed by another engine than the rest."""
    pytest.importorskip("spconv")
    network, (coords, features) = tiny_network(sparse_backend="spconv"), random_scan()
    expected = Engine("spconv", "set by `sparse_backend`")
    output = network(coords[:0], features[:0])  # no library takes an empty tensor: plain torch passes it through
    assert output.shape == (0, 32) and network.engine("cpu", torch.float32) == expected
    with pytest.raises(RuntimeError, match="2147483647 cells of one scan.*point_cloud_range.*sparse_backend='torch'"):
        network(coords * 100, features)
    assert network.engine("cpu", torch.float32) == expected


def test_a_library_that_is_missing_or_broken_is_named_with_the_way_out(one_thread, monkeypatch, tmp_path):
    monkeypatch.setitem(LIBRARIES, "absent_engine", LIBRARIES["spconv"])
    with pytest.raises(RuntimeError, match=r"not installed .*uov-hf\[cuda\].*sparse_backend='torch'"):
        choose_engine("absent_engine", CPU, torch.float32)
    (tmp_path / "broken_engine").mkdir()
    (tmp_path / "broken_engine" / "__init__.py").write_text("raise OSError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    module, problem = sparse_engines.load_library("broken_engine")
    assert module is None and problem == "it cannot be imported (OSError: built for another torch)"


@pytest.mark.parametrize("num_threads, autocast, message", [(2, False, "data race"), (1, True, "bfloat16")])
def test_spconv_is_refused_where_it_would_race_or_has_no_kernels(monkeypatch, num_threads, autocast, message):
    pytest.importorskip("spconv")
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    network, scan = tiny_network(sparse_backend="spconv"), random_scan()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), pytest.raises(RuntimeError, match=message):
        network(*scan)


def batch_of(*scans):
    coords = [[sample, *voxel] for sample, scan in enumerate(scans) for voxel in scan]
    return sort_voxels(torch.tensor(coords, dtype=torch.int32), num_levels=5)[0]


def parts_of(finest, **limits):
    library = replace(LIBRARIES["spconv"], **limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIBRARIES, "spconv", library)
        pyramid = SpconvPyramid("spconv", finest, total_stride=16, row_bytes=1024, kernel_volume=27)
    return [(part.batch_size, part.num_voxels(0), part.levels[0][1]) for part in pyramid.parts]


NEAR, FAR = [[0, 0, 0], [15, 15, 15]], [[0, 0, 0], [15, 15, -160]]  # 16 × 16 × 16 and 16 × 16 × 176 cells


@pytest.mark.parametrize(
    "scans, limits, expected",
    [
        ([NEAR, NEAR, NEAR], {}, [(3, 6, [16, 16, 16])]),
        ([NEAR, FAR, NEAR], {}, [(3, 6, [16, 16, 176])]),
        (  # one far point in a scan: that scan is a part of its own
            [NEAR, NEAR, FAR, NEAR],
            {"max_cells": 16 * 16 * 176},
            [(2, 4, [16, 16, 16]), (1, 2, [16, 16, 176]), (1, 2, [16, 16, 16])],
        ),
        ([NEAR, NEAR, [], NEAR], {"max_bytes": 4 * 1024}, [(2, 4, [16] * 3), (1, 2, [16] * 3)]),
    ],
)
def test_a_batch_beyond_the_limits_of_the_library_is_cut_between_scans(scans, limits, expected):
    assert parts_of(batch_of(*scans), **limits) == expected


def test_a_scan_beyond_the_limits_of_the_library_is_refused():
    with pytest.raises(RuntimeError, match="Scan 1 of the batch has 3 voxels .* supports at most 2 voxels"):
        parts_of(batch_of(NEAR, [*NEAR, [5, 5, 5]]), max_bytes=2 * 1024)
    finest = batch_of([[-(2**30) - 100, 0, 0], [2**30 + 100, 0, 0]])  # beyond int32
    with pytest.raises(RuntimeError, match="Scan 0 of the batch"):
        parts_of(finest, max_cells=2**62)


def test_the_device_is_waited_for_once(monkeypatch):
    waits, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: waits.append(self) or tolist(self))
    monkeypatch.setattr(torch.Tensor, "item", lambda self: pytest.fail("another wait"))
    finest = sort_voxels(random_scan(batch_size=4)[0], num_levels=5)[0]
    waits.clear()
    SpconvPyramid("spconv", finest, total_stride=16, row_bytes=1024, kernel_volume=27)
    assert len(waits) == 1


AGAINST_TORCH = """
import json
import sys
from dataclasses import replace

import spconv.pytorch as spconv
import spconv.pytorch.ops as ops
import torch
from test_sparse_engines import convolutions_at_once
from test_sparse_unet import gradients_of, random_scan
from uov_hf import UOVConfig, sparse_engines
from uov_hf.sparse_unet import SparseUNet

ops.get_current_stream = lambda: 0  # its CPU build asks CUDA for a stream in backward
library, parts, build = sparse_engines.LIBRARIES["spconv"], [], sparse_engines._Part.__init__
sparse_engines._Part.__init__ = lambda self, *arguments: parts.append(self) or build(self, *arguments)


def compare(options, dtype, training, limits):
    sparse_engines.LIBRARIES["spconv"] = replace(library, **limits)
    torch.manual_seed(0)
    network = SparseUNet(UOVConfig.from_preset(**options)).to(getattr(torch, dtype)).train(training)
    coords, features = random_scan(batch_size=4, channels=options.get("in_channels", 1))
    coords[coords[:, 0] == 2, 3] -= 160
    features, results = features.to(getattr(torch, dtype)), []
    parts.clear()
    for network.config.sparse_backend in ("torch", "spconv"):
        with torch.set_grad_enabled(training):
            results.append(gradients_of(network, coords, features) if training else [network(coords, features)])
    differences = [((ours - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in zip(*results)]
    return max(differences), len(parts)


cases = [compare(*case) for case in json.loads(sys.argv[1])]
print(json.dumps([cases, convolutions_at_once(spconv.SubMConv3d)]))
"""

# Options, dtype, whether it trains (output and all gradients, else the output), limits; parts, tolerance.
CASES = {
    "training": (({"preset": "tiny"}, "float64", True, {}), 1, 1e-10),
    "training in parts for their cells": (({"preset": "tiny"}, "float64", True, {"max_cells": 140_000}), 3, 1e-10),
    "training in parts for their bytes": (({"preset": "tiny"}, "float64", True, {"max_bytes": 200_000}), 4, 1e-10),
    "a stem of 5³": (({"preset": "tiny", "in_channels": 4, "stem_kernel_size": 5}, "float64", True, {}), 1, 1e-10),
    "evaluation": (({"preset": "tiny"}, "float32", False, {}), 1, 1e-5),
    "evaluation in parts": (({"preset": "tiny"}, "float32", False, {"max_cells": 140_000}), 3, 1e-5),
    "the paper's network": (({"preset": "minkunet34"}, "float32", False, {}), 1, 1e-5),
}


@pytest.fixture(scope="module")
def against_torch():
    """Largest relative difference to plain torch and number of parts of each case; and the difference of two threads.

    The process has one thread of OpenMP: with more, spconv's CPU build is wrong.
    """
    pytest.importorskip("spconv")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", AGAINST_TORCH, json.dumps([case for case, _, _ in CASES.values()])]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    cases, two_threads = json.loads(result.stdout)
    return dict(zip(CASES, cases, strict=True)), two_threads


@pytest.mark.parametrize("case", CASES)
def test_spconv_computes_what_plain_torch_does(case, against_torch):
    """In parts too: batch statistics are those of the whole batch, or the gradients would differ."""
    (difference, num_parts), (_, expected_parts, tolerance) = against_torch[0][case], CASES[case]
    assert difference <= tolerance and num_parts == expected_parts


def convolutions_at_once(module_class) -> float:
    """How far two threads, each with its own weight, are from what each computes alone."""
    coords, features = random_scan(channels=8)
    finest, order = sort_voxels(coords, num_levels=1)
    weights = [torch.rand(8, 3, 3, 3, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    meeting, forward = threading.Barrier(2), module_class.forward

    def meet_and_compute(self, *arguments):
        meeting.wait(timeout=60)  # both threads hold their module now
        return forward(self, *arguments)

    @torch.no_grad()
    def convolve(weight):
        pyramid = SpconvPyramid("spconv", finest, total_stride=1, row_bytes=64, kernel_volume=27)
        return pyramid.submanifold(0, 3).convolve(features[order], weight)

    expected = [VoxelPyramid(finest).submanifold(0, 3).convolve(features[order], weight) for weight in weights]
    module_class.forward = meet_and_compute
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(convolve, weights))
    return max((ours - theirs).abs().max().item() for ours, theirs in zip(results, expected, strict=True))


def test_two_threads_do_not_mix_up_their_weights(against_torch):
    assert against_torch[1] < 1e-4
