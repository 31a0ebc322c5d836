"""Report the engines, GPUs and packages of this machine, and test the engines and their speed in seconds.

The exit status is 1 if something that the package needs is broken. A missing optional package is no error; the report
lists it with its purpose.

examples:
  uov-hf doctor
  uov-hf doctor --json > report.json
"""

import argparse
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING

from uov_hf_cli.machine_report import EXTRAS, GPU, Package, Report, Torch, describe, installed_version, one_line


if TYPE_CHECKING:
    from packaging.requirements import Requirement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> Iterable[str]:
    report = examine()
    yield from [json.dumps(asdict(report), indent=2)] if args.json else describe(report)
    if report.problems:
        raise ValueError(f"doctor found {len(report.problems)} problems.")


def examine() -> Report:
    """Examine the machine. Whatever is broken becomes a problem of the report, never an error of this function."""
    report = Report()
    own_version = installed_version("uov-hf")
    if own_version is None:
        report.notes.append("uov-hf is not installed, so the packages that it requires are unknown: pip install -e .")
    report.versions = {"uov-hf": own_version or "(not installed)", "python": platform.python_version()}
    report.versions["platform"] = f"{platform.system()} {platform.machine()}"
    report.packages = list(find_packages())
    for package in report.packages:
        if not package.is_right and (package.extra is None or package.installed):
            found = f"{package.installed} is installed" if package.installed else "it is not installed"
            line = f"{package.name} {package.wanted} is expected, and {found}: "
            line += f"pip install '{package.name}{package.wanted}'"
            (report.notes if package.extra else report.problems).append(line)
    report.gpus = find_gpus()
    try:
        import torch

        builds = torch.version.cuda, torch.version.hip
        report.torch = Torch(torch.__version__, *builds, torch.get_num_threads(), torch.cuda.is_available())
        if report.torch.sees_gpu and not report.gpus:  # AMD's
            report.gpus = [GPU(torch.cuda.get_device_name(index)) for index in range(torch.cuda.device_count())]
    except Exception as error:  # a broken installation may raise anything
        report.problems.append(f"torch cannot be imported: {one_line(error)}")
        return report
    _judge_gpu(report, report.torch)
    try:
        from uov_hf_cli import self_test
    except Exception as error:
        report.problems.append(f"uov_hf cannot be imported: {one_line(error)}")
        return report
    self_test.examine_engines(report)
    return report


def find_packages() -> Iterator[Package]:
    """The requirements in the metadata of the installed package, except the package itself and `dev`."""
    from packaging.requirements import Requirement

    if installed_version("uov-hf") is None:
        return
    for line in metadata.requires("uov-hf") or []:
        requirement = Requirement(line)
        extra = next((name for name in EXTRAS if _is_of(requirement, name)), None)
        if requirement.name == "uov-hf" or (requirement.marker and extra is None):
            continue
        installed = installed_version(requirement.name)
        is_right = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        yield Package(requirement.name, str(requirement.specifier), installed, extra, is_right)


def find_gpus() -> list[GPU]:
    """NVIDIA's GPUs by its own tool, which also works where torch sees none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        printed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in printed.splitlines()]
    return [GPU(*row) for row in rows if len(row) == 3]


def _judge_gpu(report: Report, torch: Torch) -> None:
    if not report.gpus or torch.sees_gpu:
        return
    if torch.cuda is None:
        report.notes.append("torch is a CPU build and does not use the GPU: https://pytorch.org/get-started/locally")
    else:
        report.problems.append(
            f"torch for CUDA {torch.cuda} cannot use the GPU (driver {report.gpus[0].driver}): update "
            "the driver, or install a torch for an older CUDA: https://pytorch.org/get-started/previous-versions"
        )


def _is_of(requirement: "Requirement", extra: str) -> bool:
    """Whether only this extra has the requirement."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
