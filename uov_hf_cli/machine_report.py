"""The report of `uov-hf doctor`: its fields, as JSON has them, and its lines of text."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata


# The purpose of each extra of the package.
EXTRAS = {
    "train": "datasets, label sets, training, evaluation and figures",
    "cuda": "spconv, an engine on NVIDIA GPUs, for Python up to 3.13 on x86-64",
    "triton": "spconv-triton, the engine on AMD GPUs, and of bfloat16 and Python 3.14",
    "clouds": "scans in .laz, .las, .ply and .pcd files",
    "bags": "recordings of ROS: .bag, .mcap and .db3",
    "lenses": "cameras with lens distortion, of your own recordings",
    "onnx": "uov-hf export, and ONNX Runtime for the exported network",
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
    yield from (f"  ✗ {package.name} {package.wanted}: {package.installed or 'missing'}" for package in wrong)
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


def installed_version(distribution: str) -> str | None:
    """Version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def one_line(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
