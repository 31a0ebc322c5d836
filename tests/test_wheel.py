"""What a new user has: the package alone in a fresh environment, without the extras and without the repository."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from document_runs import save_checkpoints
from space_server import SPACE, running_space

from uov_hf.extras import TRAIN
from uov_hf.vocabulary import load_vocabulary


REPOSITORY = Path(__file__).parents[1]
TOP_FILES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "Makefile",
    "constraints.txt",
    "CHANGELOG.md",
)
PACKAGES = ("uov_hf", "uov_hf_cli")
FOLDERS = (*PACKAGES, "dataset_scripts", "examples", "benchmarks", "docs", "tests", ".github", ".ci")
PRINT_RESULT = """
answer = next(value for value in list(globals().values()) if isinstance(value, dict) and "segmentation" in value)
print("\\nresult:", answer["segmentation"].shape, *answer["labels"][:2], uov_hf.__file__)
"""
# Runs before the code that a test gives: `None` in `sys.modules` is how Python marks a module that cannot be found.
WITHOUT_TRAIN = f"import sys\nsys.modules |= dict.fromkeys({TRAIN})\n"

slow = pytest.mark.slow  # pip downloads setuptools, then torch: some minutes


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a wheel and a source distribution, built from a copy without the results of earlier builds."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("built")
    for name in TOP_FILES:
        shutil.copy(REPOSITORY / name, sources)
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--outdir", built, sources)
    return built


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory) -> Path:
    """The `bin` of an environment that contains the wheel and its dependencies, without any extra."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", folder)
    install(folder / "bin", wheel)
    return folder / "bin"


@pytest.fixture
def at_home(tmp_path, monkeypatch) -> Path:
    """A working folder with what `make demo` leaves, but untrained, and far from the repository."""
    demo, vocabulary, generator = tmp_path / "out" / "demo", load_vocabulary("nuscenes"), np.random.default_rng(0)
    embeds = generator.normal(size=(len(vocabulary.prompts), 8)).astype(np.float32)
    label_set = SimpleNamespace(
        teacher_id="synthetic",
        embed_dim=8,
        class_names=vocabulary.class_names,
        prompts=vocabulary.prompts,
        prompt_to_class=vocabulary.prompt_to_class,
        prompt_embeds=embeds / np.linalg.norm(embeds, axis=1, keepdims=True),
    )
    save_checkpoints(label_set, demo / "tmp", demo / "uov", "text")
    points = generator.uniform([-20, -20, -2, 0], [20, 20, 2, 255], (2000, 4))
    points.astype(np.float32).tofile(demo / "scan.bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def run(*command, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def install(bin_folder: Path, requirement: object) -> None:
    run(bin_folder / "pip", "install", "--quiet", "--constraint", REPOSITORY / "constraints.txt", requirement)


def readme_block(language: str, word: str) -> str:
    """The README's first block in this language that contains the word."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return next(block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if word in block)


def segment_command() -> list[str]:
    """The arguments of the README's first `uov-hf segment`."""
    lines = readme_block("bash", "uov-hf segment").replace("\\\n", " ").splitlines()
    return shlex.split(next(line for line in lines if line.startswith("uov-hf segment")), comments=True)[1:]


def files_in(*folders: str) -> set[str]:
    """Path of every file in these folders, relative to the repository."""
    paths = [path for folder in folders for path in (REPOSITORY / folder).rglob("*")]
    return {
        path.relative_to(REPOSITORY).as_posix()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts and ".mypy_cache" not in path.parts
    }


def test_the_extra_train_is_the_one_that_the_library_checks_for():
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    assert sorted(re.match(r"[\w-]+", line).group() for line in extra) == sorted(TRAIN)


def test_inference_needs_no_extra_and_the_rest_names_it(at_home):
    training = "data labels training.loop evaluation.metrics own_car.recordings datasets.nuscenes".split()
    code = f"""
from importlib import import_module
import torch
import uov_hf.convert  # reads and converts weights; its option label_set alone needs the extra
from uov_hf.afi import approximate_flat_interaction
from uov_hf_cli.__main__ import main
assert main({segment_command()}) == 0
print(approximate_flat_interaction(torch.rand(500, 3), torch.rand(500, 3)).shape)
for name in ["segmenting", "hub.cards", "geometry", "vocabulary", "teachers", "synthetic"]:
    import_module(f"uov_hf.{{name}}")
for name in {training}:
    try:
        import_module(f"uov_hf.{{name}}")
    except ImportError as error:
        print(error)
"""
    code = WITHOUT_TRAIN + readme_block("python", "pipeline(") + PRINT_RESULT + code
    segmented, rest = run(sys.executable, "-c", code).split("torch.Size([500, 3])\n")
    assert "result: (2000,) barrier bicycle" in segmented and "2,000 points: " in segmented
    messages = rest.splitlines()
    assert len(messages) == len(training)
    for message in messages:
        assert "pip install 'uov-hf[train]'" in message and all(package in message for package in TRAIN)


@slow
def test_the_wheel_has_all_that_the_package_reads_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {*PACKAGES}
    assert not files_in(*PACKAGES) - names
    assert {"uov_hf/py.typed", "uov_hf/pictures/viewer.html", "uov_hf/vocabulary/nuscenes.yaml"} <= names
    assert "uov_hf/vocabulary/maps/cityscapes_nuscenes.yaml" in names
    scripts = {name.removeprefix("uov_hf/recipe/scripts/") for name in names if "/recipe/scripts/" in name}
    assert {"pretrain.py", "distill.py", "configs/one_camera/distill.yaml"} <= scripts
    assert not [name for name in names if re.search(r"(^|/)(tests?|benchmarks|examples)/", name)]


@slow
def test_the_source_distribution_has_all_that_the_tests_read(built):
    (path,) = built.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(path).getnames()}
    assert not (files_in(*FOLDERS) | {*TOP_FILES}) - names


@slow
def test_the_three_lines_of_the_readme_run(fresh, at_home):
    assert not run(fresh / "pip", "list", "--format", "freeze").count("scipy")
    printed = run(fresh / "python", "-c", readme_block("python", "pipeline(") + PRINT_RESULT)
    assert "result: (2000,) barrier bicycle" in printed and str(fresh.parent) in printed


@slow
def test_the_command_segments_a_scan(fresh, at_home):
    printed = run(fresh / "uov-hf", *segment_command())
    assert "2,000 points" in printed
    assert np.load(at_home / "out" / "scan" / "labels.npy").shape == (2000,)
    assert (at_home / "out" / "scan" / "viewer.html").is_file()


@slow
def test_a_recipe_runs_the_scripts_of_the_wheel(wheel, fresh, at_home):
    install(fresh, f"{wheel}[train]")
    size = ["--num_scenes", 2, "--frames_per_scene", 2, "--azimuth_steps", 120, "--image_size", 64, 112]
    run(fresh / "python", "-m", "uov_hf.synthetic", "--output_dir", at_home / "street", *size)
    words = ["train", "--data_dir", at_home / "street", "--teacher", "synthetic", "--output_dir", at_home / "run"]
    printed = run(fresh / "uov-hf", *words, "--until", "label_points")
    assert "[2/2] label_points: finished" in printed
    assert list((at_home / "run" / "labels" / "points" / "paper").glob("*.parquet"))
    logs = "".join(path.read_text() for path in (at_home / "run" / "logs").iterdir())
    assert "points have a label" in logs


@slow
def test_the_doctor_finds_nothing_broken(fresh, at_home):
    report = json.loads(run(fresh / "uov-hf", "doctor", "--json"))
    assert report["problems"] == [] and all(engine["installed"] is None for engine in report["engines"])
    assert report["engine"]["cpu"] == "torch" and all(test["passed"] for test in report["self_test"])


@slow
def test_the_space_starts(wheel, fresh, at_home):
    from urllib.request import urlopen

    install(fresh, f"{wheel}[space]")
    app = Path(shutil.copytree(SPACE, at_home / "space")) / "app.py"
    with running_space(fresh / "python", at_home / "out" / "demo" / "uov", at_home, app) as address:
        assert "LiDAR segmentation in your words" in urlopen(address, timeout=60).read().decode()
