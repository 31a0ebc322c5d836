"""What a new user has: a wheel of this repository in a fresh environment, and nothing else of it."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from space_server import SPACE, running_space


REPOSITORY = Path(__file__).parents[1]
SOURCES = ("uov_hf", "uov_hf_cli", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow  # the whole installation, torch included: some minutes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: what earlier builds left in the repository could come along."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, sources)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", built, sources)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory) -> Path:
    """The `bin` of an environment into which only the wheel was installed, and what it asks for."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--constraint", REPOSITORY / "constraints.txt"]
    run(*pip, f"{wheel}[space]")
    return folder / "bin"


@pytest.fixture
def at_home(tiny_segmenter, tmp_path, monkeypatch) -> Path:
    """A working folder as `make demo` leaves it, with a small checkpoint; nothing of the repository is near."""
    demo = tmp_path / "out" / "demo"
    shutil.copytree(tiny_segmenter, demo / "uov")
    points = np.random.default_rng(0).uniform([-20, -20, -2, 0], [20, 20, 2, 255], (2000, 4))
    points.astype(np.float32).tofile(demo / "scan.bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def run(*command) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def readme_blocks(language: str) -> list[str]:
    """Code of the README's section "Three lines"."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Three lines\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_the_wheel_has_all_that_the_package_reads_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"uov_hf", "uov_hf_cli"}
    for folder in ("uov_hf", "uov_hf_cli"):
        files = [
            path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        assert not {path.relative_to(REPOSITORY).as_posix() for path in files} - names
    assert {"uov_hf/py.typed", "uov_hf/pictures/viewer.html", "uov_hf/vocabulary/nuscenes.yaml"} <= names
    assert not [name for name in names if re.search(r"(^|/)(tests?|benchmarks|examples)/", name)]


def test_the_three_lines_of_the_readme_run(fresh, at_home):
    code = readme_blocks("python")[0] + '\nprint(answer["labels"], answer["segmentation"].shape, uov_hf.__file__)'
    printed = run(fresh / "python", "-c", code)
    assert printed.startswith("['car', 'road', 'tree'] (2000,)") and str(fresh.parent) in printed


def test_the_command_segments_a_scan(fresh, at_home):
    command = next(line for line in readme_blocks("bash")[0].splitlines() if line.startswith("uov-hf segment"))
    printed = run(fresh / "uov-hf", *command.split()[1:])
    assert "2,000 points" in printed
    assert np.load(at_home / "out" / "scan" / "labels.npy").shape == (2000,)
    assert (at_home / "out" / "scan" / "viewer.html").is_file()


def test_the_doctor_finds_nothing_broken(fresh, at_home):
    report = json.loads(run(fresh / "uov-hf", "doctor", "--json"))
    assert report["problems"] == [] and all(engine["installed"] is None for engine in report["engines"])
    assert report["engine"]["cpu"] == "torch" and all(test["passed"] for test in report["self_test"])


def test_the_space_starts(fresh, at_home):
    from urllib.request import urlopen

    app = Path(shutil.copytree(SPACE, at_home / "space")) / "app.py"
    with running_space(fresh / "python", at_home / "out" / "demo" / "uov", at_home, app) as address:
        assert "LiDAR segmentation in your words" in urlopen(address, timeout=60).read().decode()
