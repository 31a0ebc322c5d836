"""Say which engines, GPU and packages are here and what is missing; test the engines and their speed in seconds.

The status is 1 if something that the package needs is broken. What is merely absent is no error: optional packages
stand there with what they are for.

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
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any


# What each extra of the package is for.
EXTRAS = {
    "cuda": "spconv, an engine on NVIDIA GPUs, for Python up to 3.13 on x86-64",
    "triton": "spconv-triton, the engine on AMD GPUs, and of bfloat16 and Python 3.14",
    "clouds": "scans in .laz, .las, .ply and .pcd files",
    "lenses": "cameras with lens distortion, of your own recordings",
    "tensorboard": "curves of a training: --report_to tensorboard",
    "trackio": "curves of a training: --report_to trackio",
    "demo": "the baseline of examples/demo.py",
    "space": "the web app in examples/space",
    "rerun": "uov-hf view --viewer rerun",
    "completion": "uov-hf --print_completion",
}


@dataclass
class Package:
    """A distribution that the package names in its metadata; `installed` is a version, or None."""

    name: str
    wanted: str
    installed: str | None
    extra: str | None
    is_right: bool


@dataclass
class Engine:
    """An engine that is a package of its own: `installed` names its distribution and version, or is None."""

    name: str
    installed: str | None
    imports: bool
    verdict: str


@dataclass
class Report:
    """What was found; `problems` is what must be repaired, `notes` is what might be better."""

    versions: dict[str, str] = field(default_factory=dict)
    packages: list[Package] = field(default_factory=list)
    torch: dict[str, Any] = field(default_factory=dict)
    gpus: list[dict[str, str]] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    engine: dict[str, str] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    self_test: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def run(args: argparse.Namespace) -> Iterable[str]:
    report = examine()
    yield from [json.dumps(asdict(report), indent=2)] if args.json else describe(report)
    if report.problems:
        raise ValueError(f"doctor: to be repaired: {len(report.problems)}.")


def examine() -> Report:
    """Look at everything; what is broken becomes a problem of the report, never an error of this function."""
    report = Report()
    own_version = installed_version("uov-hf")
    if own_version is None:
        report.notes.append("uov-hf is not installed, so nothing says which packages it needs: pip install -e .")
    report.versions = {"uov-hf": own_version or "(not installed)", "python": platform.python_version()}
    report.versions["platform"] = f"{platform.system()} {platform.machine()}"
    report.packages = list(find_packages())
    for package in report.packages:
        if not package.is_right and (package.extra is None or package.installed):
            came = f"{package.installed} is installed" if package.installed else "it is not installed"
            complaint = f"{package.name} {package.wanted} is expected, and {came}: "
            complaint += f"pip install '{package.name}{package.wanted}'"
            (report.notes if package.extra else report.problems).append(complaint)
    report.gpus = find_gpus()
    try:
        import torch

        report.torch = {"version": torch.__version__, "cuda": torch.version.cuda, "rocm": torch.version.hip}
        report.torch |= {"threads": torch.get_num_threads(), "sees_gpu": torch.cuda.is_available()}
        if report.torch["sees_gpu"] and not report.gpus:  # AMD's
            count = torch.cuda.device_count()
            report.gpus = [{"name": torch.cuda.get_device_name(index)} for index in range(count)]
    except Exception as error:  # whatever a broken installation raises is what is to be told
        report.problems.append(f"torch cannot be imported: {one_line(error)}")
        return report
    _judge_gpu(report)
    try:
        from uov_hf_cli import self_test
    except Exception as error:
        report.problems.append(f"uov_hf cannot be imported: {one_line(error)}")
        return report
    self_test.examine_engines(report)
    return report


def find_packages() -> Iterator[Package]:
    """Each requirement in the metadata of the installed package, but those of the package itself and of `dev`."""
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


def find_gpus() -> list[dict[str, str]]:
    """NVIDIA's GPUs by its own tool, which works also where torch sees none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        printed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in printed.splitlines()]
    return [dict(zip(("name", "memory", "driver"), row, strict=True)) for row in rows if len(row) == 3]


def installed_version(distribution: str) -> str | None:
    """Version of a distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def describe(report: Report) -> Iterator[str]:
    """The report as lines to read."""
    torch = report.torch
    yield ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if torch:
        builds = {"CUDA": torch["cuda"], "ROCm": torch["rocm"]}
        build = ", ".join(f"{name} {version}" for name, version in builds.items() if version) or "CPU build"
        yield f"torch    {torch['version']} ({build}), {torch['threads']} threads"
    found = [
        f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" if "driver" in gpu else gpu["name"]
        for gpu in report.gpus
    ]
    yield f"GPU      {'; '.join(found) or 'none (torch finds none, and nvidia-smi names none)'}"
    if report.engine:
        yield f"engine   {', '.join(f'{engine} on {device}' for device, engine in report.engine.items())}"
    for engine in report.engines:
        yield f"  {engine.name}: {engine.installed or 'not installed'}, {engine.verdict}"
    if report.speed:
        yield (
            f"speed    the torch engine computes {report.speed['gflops']:.1f} GFLOP/s on one thread of the processor, "
            f"{report.speed['share']:.0%} of a large product ({report.speed['num_scans']} scans of different sizes)"
        )
    needed = [package for package in report.packages if package.extra is None]
    wrong = [package for package in needed if not package.is_right]
    yield f"\nneeded   {len(needed) - len(wrong)} of {len(needed)} packages are here, in versions that fit"
    yield from (f"  {'✗'} {package.name} {package.wanted}: {package.installed or 'missing'}" for package in wrong)
    yield "optional"
    for extra, purpose in EXTRAS.items():
        own = [package for package in report.packages if package.extra == extra]
        is_here = own and all(package.installed for package in own)
        found = ", ".join(f"{package.name} {package.installed}" for package in own)
        yield f"  {'✓' if is_here else '–'} {purpose}: " + (found if is_here else f"pip install 'uov-hf[{extra}]'")
    if report.self_test:
        yield "self-test"
    for test in report.self_test:
        yield f"  {'✓' if test['passed'] else '✗'} {test['name']}: {test['result']} ({test['seconds']:.1f} s)"
    yield ""
    yield from (f"to repair: {problem}" for problem in report.problems)
    yield from (f"note: {note}" for note in report.notes)
    yield "Something is broken." if report.problems else "Nothing is broken."


def _judge_gpu(report: Report) -> None:
    if not report.gpus or report.torch["sees_gpu"]:
        return
    if report.torch["cuda"] is None:
        report.notes.append("torch is a CPU build and leaves the GPU idle: https://pytorch.org/get-started/locally")
    else:
        report.problems.append(
            f"torch for CUDA {report.torch['cuda']} cannot use the GPU (driver {report.gpus[0]['driver']}): update "
            "the driver, or install a torch for an older CUDA: https://pytorch.org/get-started/previous-versions"
        )


def _is_of(requirement: Any, extra: str) -> bool:
    """Whether a requirement is of this extra, and would not be there without it."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def one_line(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
