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
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from packaging.requirements import Requirement

# The purpose of each extra of the package.
EXTRAS = {
    "train": "datasets, label sets, training, evaluation and figures",
    "cuda": "spconv, an engine on NVIDIA GPUs, for Python up to 3.13 on x86-64",
    "triton": "spconv-triton, the engine on AMD GPUs, and of bfloat16 and Python 3.14",
    "clouds": "scans in .laz, .las, .ply and .pcd files",
    "lenses": "cameras with lens distortion, of your own recordings",
    "tensorboard": "curves of a training: --report_to tensorboard",
    "trackio": "curves of a training: --report_to trackio",
    "demo": "the baseline of examples/demo.py",
    "space": "the web app in examples/space",
    "rerun": "uov-hf view --viewer rerun",
}


@dataclass
class Package:
    """A distribution that the package requires; `installed` is a version, or None."""

    name: str
    wanted: str
    installed: str | None
    extra: str | None
    is_right: bool


@dataclass
class Engine:
    """An engine in a package of its own; `installed` is its distribution and version, or None."""

    name: str
    installed: str | None
    imports: bool
    verdict: str


@dataclass
class Torch:
    """The installed torch; `cuda` and `rocm` are versions, or None."""

    version: str
    cuda: str | None
    rocm: str | None
    threads: int
    sees_gpu: bool


@dataclass
class GPU:
    """A graphics card; memory and driver are known of NVIDIA's only."""

    name: str
    memory: str | None = None
    driver: str | None = None


@dataclass
class Speed:
    """Products of the torch engine: operations per second, also as a share of those of one large product."""

    share: float
    gflops: float
    num_scans: int


@dataclass
class SelfTest:
    """One test of an engine."""

    name: str
    passed: bool
    result: str
    seconds: float


@dataclass
class Report:
    """The findings; `problems` must be repaired, `notes` can be improved."""

    versions: dict[str, str] = field(default_factory=dict)
    packages: list[Package] = field(default_factory=list)
    torch: Torch | None = None
    gpus: list[GPU] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    engine: dict[str, str] = field(default_factory=dict)
    speed: Speed | None = None
    self_test: list[SelfTest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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


def installed_version(distribution: str) -> str | None:
    """Version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def describe(report: Report) -> Iterator[str]:
    """The report as lines of text."""
    yield ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if report.torch:
        builds = {"CUDA": report.torch.cuda, "ROCm": report.torch.rocm}
        build = ", ".join(f"{name} {version}" for name, version in builds.items() if version) or "CPU build"
        yield f"torch    {report.torch.version} ({build}), {report.torch.threads} threads"
    found = [f"{gpu.name}, {gpu.memory}, driver {gpu.driver}" if gpu.driver else gpu.name for gpu in report.gpus]
    yield f"GPU      {'; '.join(found) or 'none (neither torch nor nvidia-smi finds one)'}"
    if report.engine:
        yield f"engine   {', '.join(f'{engine} on {device}' for device, engine in report.engine.items())}"
    for engine in report.engines:
        yield f"  {engine.name}: {engine.installed or 'not installed'}, {engine.verdict}"
    if report.speed:
        yield (
            f"speed    the torch engine computes {report.speed.gflops:.1f} GFLOP/s on one thread of the processor, "
            f"{report.speed.share:.0%} of a large product ({report.speed.num_scans} scans of different sizes)"
        )
    needed = [package for package in report.packages if package.extra is None]
    wrong = [package for package in needed if not package.is_right]
    yield f"\nneeded   {len(needed) - len(wrong)} of {len(needed)} packages are installed in a version that fits"
    yield from (f"  {'✗'} {package.name} {package.wanted}: {package.installed or 'missing'}" for package in wrong)
    yield "optional"
    for extra, purpose in EXTRAS.items():
        own = [package for package in report.packages if package.extra == extra]
        is_here = own and all(package.installed for package in own)
        versions = ", ".join(f"{package.name} {package.installed}" for package in own)
        yield f"  {'✓' if is_here else '–'} {purpose}: " + (versions if is_here else f"pip install 'uov-hf[{extra}]'")
    if report.self_test:
        yield "self-test"
    for test in report.self_test:
        yield f"  {'✓' if test.passed else '✗'} {test.name}: {test.result} ({test.seconds:.1f} s)"
    yield ""
    yield from (f"to repair: {problem}" for problem in report.problems)
    yield from (f"note: {note}" for note in report.notes)
    yield "Something is broken." if report.problems else "Nothing is broken."


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


def one_line(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
