"""Where a run takes place: versions, the state of the checkout, processor and GPUs."""

import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

from uov_hf.recipe.programs import PACKAGE


# Results may depend on them. The engines are there only if they are installed.
DISTRIBUTIONS = ("uov-hf", "torch", "numpy", "transformers", "accelerate", "datasets", "pyarrow", "safetensors")
ENGINES = ("spconv", "spconv_triton")  # the names of their modules; a distribution has its version of CUDA in its name


@dataclass(frozen=True)
class Environment:
    """What a result may depend on besides arguments and data.

    Args:
        versions (`dict[str, str]`): Of Python and of packages.
        git_commit (`str`, *optional*): Of the checkout of uov-hf; None for an installed package.
        git_is_dirty (`bool`, *optional*): Whether tracked files of the checkout differ from the commit.
        processor (`str`): Its name.
        num_cores (`int`, *optional*): Of this machine.
        gpus (`list[str]`, *optional*): Their names; none where the run does not use them.
    """

    versions: dict[str, str]
    git_commit: str | None
    git_is_dirty: bool | None
    processor: str
    num_cores: int | None
    gpus: list[str] = field(default_factory=list)

    def differences(self, other: "Environment") -> list[str]:
        """Each value that differs, and that of `other`, such as `torch 2.9.0 -> 2.10.0`."""
        ours, theirs = (
            {**{name: value for name, value in asdict(one).items() if name != "versions"}, **one.versions}
            for one in (self, other)
        )
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        return [f"{name} {ours.get(name)} -> {theirs.get(name)}" for name in names]

    def computes_as(self, other: "Environment") -> bool:
        """Whether the same code gives the same bits: the same processor and versions."""
        ours, theirs = (
            [one.processor, *(one.versions.get(name) for name in ("torch", "numpy"))] for one in (self, other)
        )
        return ours == theirs


def describe_environment(device: str) -> Environment:
    """The environment of this process.

    Args:
        device (`str`): `cpu` or `cuda`: of a run on the CPU the GPUs do not matter.
    """
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if device != "cpu" else []
    return Environment(_find_versions(), *git_state(PACKAGE.parent), processor_name(), os.cpu_count(), gpus)


def processor_name() -> str:
    """The processor, as its maker names it."""
    cpuinfo = Path("/proc/cpuinfo")  # of Linux; elsewhere Python has a name
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _find_versions() -> dict[str, str]:
    found = [module for module in ENGINES if find_spec(module)]
    engines = [name for module in found for name in metadata.packages_distributions()[module]]
    versions = {"python": platform.python_version()}
    for name in (*DISTRIBUTIONS, *engines):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # uov-hf may run from a checkout without being installed
            continue
    return versions | {"torch": torch.__version__}  # with its build, such as +cu126


def git_state(checkout: Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout, and whether tracked files differ from it; None of both where there is none."""
    if not (checkout / ".git").exists():  # git would find the repository around an environment, too
        return None, None
    try:
        commit = _git(checkout, "rev-parse", "HEAD").strip()
        return commit, bool(_git(checkout, "status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):  # git is not installed, or does not trust the owner of the folder
        return None, None


def _git(checkout: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(checkout), *words], capture_output=True, text=True, check=True, timeout=60
    ).stdout
