"""`uov-hf doctor` finds broken and missing packages, and tests the engines and their speed."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from uov_hf.sparse_conv import KernelMap, SparseConv
from uov_hf_cli import doctor, machine_report, self_test
from uov_hf_cli.__main__ import main


REPOSITORY = Path(__file__).parents[1]


def run_doctor(folder: Path) -> tuple[int, dict]:
    """Exit status and report of a doctor that finds the packages in `folder` before any other."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "uov_hf_cli", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def one_thread(set_num_threads):
    set_num_threads(1)


@pytest.fixture
def busy_machine(monkeypatch):
    """The speed of a machine that does other work, too, is no problem."""
    monkeypatch.setattr(self_test, "LEAST_SHARE", 0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by a millisecond with each reading; the speed is that of one scan."""
    clock = SimpleNamespace(now=0.0)

    def perf_counter():
        clock.now += 0.001
        return clock.now

    clock.perf_counter = perf_counter
    monkeypatch.setattr(self_test, "time", clock)
    monkeypatch.setattr(self_test, "SECONDS_OF_SPEED", 0)
    return clock


def test_a_sound_installation_has_no_problems(capsys, one_thread, busy_machine):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Nothing is broken."
    assert f"torch    {torch.__version__}" in lines[1]
    tests = lines[lines.index("self-test") + 1 :]
    assert any("torch engine on cpu, a convolution: differs by" in line for line in tests)
    assert not any("✗" in line for line in lines)
    assert any(line.startswith("speed    the torch engine computes") for line in lines)
    assert "  spconv_triton: not installed, only needed for speed on GPUs" in lines or find_spec("spconv_triton")


def test_each_extra_is_named_with_what_it_is_for():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(machine_report.EXTRAS) == set(extras) - {"browser", "dev", "docs", "reliability", "slow"}


def test_a_missing_extra_is_listed_with_the_command_that_installs_it(monkeypatch):
    def version(name):
        if name in ("laspy", "plyfile", "pypcd4"):
            raise metadata.PackageNotFoundError(name)
        return metadata.distribution(name).version

    monkeypatch.setattr(metadata, "version", version)
    report = machine_report.Report(versions={"uov-hf": "0"}, packages=list(doctor.find_packages()))
    lines = list(machine_report.describe(report))
    assert "  – scans in .laz, .las, .ply and .pcd files: pip install 'uov-hf[clouds]'" in lines
    assert lines[-1] == "Nothing is broken."


def test_a_version_out_of_range_is_a_problem_and_the_exit_status_is_1(monkeypatch, capsys):
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "4.0.0" if name == "transformers" else installed(name))
    monkeypatch.setattr(self_test, "examine_engines", lambda report: None)
    assert main(["doctor", "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem.startswith("transformers <6,>=5.23 is expected, and 4.0.0 is installed: pip install")


@pytest.mark.parametrize(
    "package, error, problem",
    [
        ("torch", "OSError('libcudart.so')", "torch cannot be imported: OSError: libcudart.so"),
        ("transformers", "RuntimeError('half of it')", "uov_hf cannot be imported: RuntimeError: half of it"),
    ],
)
def test_a_package_that_cannot_be_imported_is_a_problem_and_no_error(package, error, problem, tmp_path):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"raise {error}")
    status, report = run_doctor(tmp_path)
    assert status == 1 and len(report["problems"]) == 1 and report["problems"][0].startswith(problem)
    assert package == "transformers" or report["self_test"] == []
    assert package == "torch" or report["torch"]["version"] == torch.__version__


def test_engines_that_cannot_be_imported_are_problems(tmp_path):
    for name in self_test.DISTRIBUTIONS:
        distribution = tmp_path / f"{name}-2.3.8.dist-info"
        distribution.mkdir()
        metadata_lines = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 2.3.8\n"
        (distribution / "METADATA").write_text(metadata_lines)
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('built for another torch')")
    status, report = run_doctor(tmp_path)
    assert status == 1 and all(test["passed"] for test in report["self_test"])
    assert [(engine["name"], engine["installed"], engine["imports"]) for engine in report["engines"]] == [
        ("spconv", "spconv 2.3.8", False),
        ("spconv_triton", "spconv-triton 2.3.8", False),
    ]
    reason = "is installed and cannot be imported: RuntimeError: built for another torch"
    # A busy machine has slow products, too.
    problems = [problem for problem in report["problems"] if "cannot be imported" in problem]
    assert problems == [f"spconv {reason}", f"spconv_triton {reason}"]


@pytest.fixture
def gpu(monkeypatch, clock):
    """A GPU on which no engine runs: only the conclusions from the comparisons are tested."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(self_test, "convolve", lambda device: 0.0)
    monkeypatch.setattr(self_test, "train_a_step", lambda device: 0.0)
    monkeypatch.setattr(self_test, "find_engine", lambda name: machine_report.Engine(name, f"{name} 1.0", True, ""))


@pytest.mark.parametrize(
    "differences, used, verdicts",
    [
        ((0.0, 0.0), "spconv", ["used on cuda", "right on cuda"]),
        ((1.0, 0.0), "spconv_triton", ["wrong here: pip uninstall it", "used on cuda"]),
    ],
)
def test_on_a_gpu_the_first_engine_that_is_right_is_used(differences, used, verdicts, monkeypatch, gpu):
    by_name = dict(zip(("spconv", "spconv_triton"), differences, strict=True))
    monkeypatch.setattr(self_test, "why_not", lambda name, device, dtype: None)
    monkeypatch.setattr(self_test, "compare_engines", lambda name, device: by_name[name])
    report = machine_report.Report()
    self_test.examine_engines(report)
    assert report.engine == {"cpu": "torch", "cuda": used}
    assert [engine.verdict for engine in report.engines] == verdicts


def test_a_build_that_the_network_does_not_use_is_no_problem(monkeypatch, gpu):
    """As spconv's build for CPUs, which the tests need, on a machine with a GPU."""
    monkeypatch.setattr(self_test, "why_not", lambda name, device, dtype: "the installed build is that for CPUs")
    report = machine_report.Report()
    self_test.examine_engines(report)
    assert report.problems == [] and report.engine == {"cpu": "torch", "cuda": "torch"}
    assert {engine.verdict for engine in report.engines} == {"not used: the installed build is that for CPUs"}


def test_the_gpu_of_a_torch_for_rocm_is_named():
    report = machine_report.Report(
        torch=machine_report.Torch("2.13.0", cuda=None, rocm="7.0", threads=1, sees_gpu=True)
    )
    report.gpus = [machine_report.GPU("AMD Instinct MI300X")]
    lines = list(machine_report.describe(report))
    assert "torch    2.13.0 (ROCm 7.0), 1 threads" in lines and "GPU      AMD Instinct MI300X" in lines


def test_the_speed_counts_all_products_of_a_training_step(one_thread):
    """Each convolution and linear layer, three times over: its result, and the gradients of its input and weight."""
    coords, features = self_test._scan()
    network, products = self_test._network("torch"), []

    def count(module, inputs, output):
        if isinstance(module, SparseConv):
            rows, width = sum(inputs[1].sizes), module.in_channels * module.out_channels
        else:
            rows, width = len(output), module.weight.numel()
        is_stem = module is network.stem.conv  # nothing needs the gradient of the network's input
        products.append(2 * rows * width * (2 if is_stem else 3))

    for module in network.modules():
        if isinstance(module, (SparseConv, nn.Linear)):
            module.register_forward_hook(count)
    assert self_test.count_operations(network, coords, features) == sum(products) > 0


def test_the_share_is_operations_over_time_beside_those_of_a_large_product(monkeypatch, clock, one_thread):
    monkeypatch.setattr(self_test, "count_operations", lambda *args: 3e6)
    speed = self_test.measure_speed()
    # A step and a product read the clock twice, and so take a millisecond each.
    assert speed.gflops == pytest.approx(3.0)
    assert speed.share == pytest.approx(3e6 / (2 * 1024**3))
    assert speed.num_scans == 1


def test_each_scan_of_the_speed_has_another_number_of_voxels(monkeypatch, clock, one_thread):
    monkeypatch.setattr(self_test, "SECONDS_OF_SPEED", 0.02)
    monkeypatch.setattr(self_test, "count_operations", lambda *args: 3e6)
    sizes = []
    monkeypatch.setattr(self_test, "_train", lambda network, coords, features: sizes.append(len(coords)))
    assert self_test.measure_speed().num_scans == len(sizes) == len(set(sizes)) > 1


def test_slow_products_are_a_problem_and_fast_ones_are_none(monkeypatch, clock, one_thread):
    report = machine_report.Report()
    self_test.examine_engines(report)
    assert report.speed.share > self_test.LEAST_SHARE and not report.problems
    right = KernelMap.convolve

    def slow(*args):
        clock.now += 1
        return right(*args)

    monkeypatch.setattr(KernelMap, "convolve", slow)
    report = machine_report.Report()
    self_test.examine_engines(report)
    (problem,) = report.problems
    assert problem.startswith("the torch engine reaches 0.") and "5% is expected" in problem
    assert list(machine_report.describe(report))[-1] == "Something is broken."


def test_a_wrong_convolution_is_found(monkeypatch, clock, one_thread):
    right = KernelMap.convolve
    assert self_test.convolve("cpu") < 1e-6
    monkeypatch.setattr(KernelMap, "convolve", lambda *args: right(*args) * 1.001)
    report = machine_report.Report()
    self_test.examine_engines(report)
    assert report.problems[0].startswith("torch engine on cpu, a convolution: differs by 1e-03")


def test_spconv_equals_the_torch_engine(one_thread):
    pytest.importorskip("spconv")
    assert self_test.compare_engines("spconv", "cpu") < 1e-5


def test_the_self_test_leaves_the_number_of_threads_as_it_was(clock, set_num_threads):
    set_num_threads(2)
    self_test.examine_engines(machine_report.Report())
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "build, problems, notes", [(None, 0, 1), ("13.0", 1, 0)], ids=["a CPU build", "a driver that is too old"]
)
def test_a_gpu_that_torch_does_not_use_is_reported(build, problems, notes, tmp_path, monkeypatch, busy_machine):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 470.82'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = doctor.examine()
    assert report.gpus == [machine_report.GPU("NVIDIA H200", "143771 MiB", "470.82")]
    assert (len(report.problems), len(report.notes)) == (problems, notes)


def test_a_checkout_that_is_not_installed_is_examined_too(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(metadata, "requires", absent)
    monkeypatch.setattr(self_test, "examine_engines", lambda report: None)
    report = doctor.examine()
    assert report.versions["uov-hf"] == "(not installed)" and not report.packages and not report.problems
    assert "uov-hf is not installed" in report.notes[0]
    assert list(machine_report.describe(report))[-1] == "Nothing is broken."
