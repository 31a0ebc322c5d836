"""The house rules that a program can check: who imports whom, what remote code may need, how long things get."""

import ast
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest


REPOSITORY = Path(__file__).resolve().parents[1]
OURS = ("uov_hf", "uov_hf_cli", "dataset_scripts")
ROOMS = (*OURS, "examples", "benchmarks", "tests")
FILES = sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
SHIPPED = [path for path in FILES if path.relative_to(REPOSITORY).parts[0] in OURS]
PROGRAMS = [path for path in FILES if path.relative_to(REPOSITORY).parts[0] in ("examples", "benchmarks")]

NETWORK = ["configuration_uov", "sparse_conv", "voxel_pyramid", "sparse_engines", "sparse_unet", "losses"]
MODEL = [*NETWORK, "modeling_uov", "modeling_uov_pretraining", "modeling_uov_segmentation"]
INPUT = ["occlusion", "projection", "point_files", "feature_extraction_uov"]
BORDER = [*INPUT, "point_neighbors", "ground_ring", "afi", "processing_uov", "pipeline_uov"]
ANYTHING = [""]
# Who may import whom: a module or folder of the package, and what it may take besides its own folder.
MAY_IMPORT = {
    "configuration_uov": [],
    "sparse_conv": [],
    "voxel_pyramid": ["sparse_conv"],
    "losses": [],
    "occlusion": [],
    "calibration_evidence": ["occlusion", "projection"],
    "calibration_check": ["calibration_evidence", "projection"],
    "projection": ["occlusion"],
    "point_neighbors": [],
    "ground_ring": [],
    "afi": ["point_neighbors", "ground_ring"],
    "evaluation.metrics": [],
    "vocabulary": [],
    "sparse_engines": ["voxel_pyramid"],
    "sparse_unet": ["configuration_uov", "sparse_conv", "voxel_pyramid", "sparse_engines"],
    "modeling_uov": ["configuration_uov", "sparse_unet", "sparse_conv"],
    "modeling_uov_pretraining": ["configuration_uov", "modeling_uov", "losses"],
    "point_files": [],
    "feature_extraction_uov": ["point_files"],
    "processing_uov": ["feature_extraction_uov", "projection", "afi"],
    "modeling_uov_segmentation": ["configuration_uov", "modeling_uov", "losses"],
    "pipeline_uov": ["feature_extraction_uov", "modeling_uov", "modeling_uov_segmentation", "processing_uov"],
    "upload": [],
    "cards": [],
    "hub": [*MODEL, *BORDER, "upload", "cards"],
    "": [*MODEL, *BORDER, "hub"],
    "data": ["vocabulary", "projection", "dataset_scripts", "upload"],
    "dataset_scripts": ["vocabulary", "projection", "point_files", "data.frames", "data.writing"],
    "dataset_scripts.check_calibration": [
        "calibration_check",
        "calibration_evidence",
        "projection",
        "data.frames",
        "visualization",
    ],
    "synthetic": ["vocabulary", "projection"],
    "teachers": ["vocabulary", "projection"],
    "scan_colors": ["vocabulary"],
    "visualization": ["projection", "occlusion", "scan_colors"],
    "viewer": ["scan_colors", "vocabulary"],
    "labels": [
        "teachers.protocol",
        "vocabulary",
        "projection",
        "data",
        "evaluation.metrics",
        "scan_colors",
        "visualization",
        "upload",
    ],
    "training": ["data", "labels", "evaluation.metrics", "upload", "cards", "hub", "sparse_unet"],
    "evaluation": ["data", "labels", "vocabulary", "projection"],
    "convert": ANYTHING,
    "segmenting": ANYTHING,
    "uov_hf_cli": ANYTHING,
}
# What the model's files may need on a machine that has only transformers; anything else stands in a `try`.
AT_HAND = {*sys.stdlib_module_names, "torch", "numpy", "transformers", "huggingface_hub", "safetensors", "PIL"}
NEVER_WITH_THE_MODEL = {"datasets", "accelerate", "uov_hf"}

MACHINE_PATH = re.compile(r"(?<![\w.])(/(home|root|work|mnt|Users|tmp)/\w|[A-Z]:\\)")
ASSERTING_CALL = re.compile(r"(^|\.)(raises|warns|fail|assert\w*|_?check\w*)$")


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def module_of(path: Path) -> str:
    """Dotted name inside the package; `dataset_scripts` is a folder of it."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    parts = parts[1:] if parts[0] == "uov_hf" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def inside(module: str, folder: str) -> bool:
    return not folder or module == folder or module.startswith(f"{folder}.")


def is_module(name: str) -> bool:
    return any(module_of(path) == name for path in SHIPPED)


def our_imports(path: Path) -> list[tuple[str, str | None]]:
    """(module, name) of every import of ours, at any depth; the name is None where the module itself is taken."""
    here = module_of(path).split(".") if module_of(path) else []
    package = here if path.name == "__init__.py" else here[:-1]
    found = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = dotted("uov_hf", *package[: len(package) + 1 - node.level]) if node.level else ""
            found += [(dotted(base, node.module), alias.name) for alias in node.names]
    ours = [(re.sub(r"^uov_hf(\.|$)", "", module), name) for module, name in found if is_ours(module)]
    return [
        (dotted(module, name), None) if is_module(dotted(module, name)) else (module, name) for module, name in ours
    ]


def dotted(*names: str | None) -> str:
    return ".".join(filter(None, names))


def is_ours(module: str) -> bool:
    return module.split(".")[0] in OURS


def rule_for(module: str) -> str:
    """The longest entry of the table that the module lies in."""
    entries = [entry for entry in MAY_IMPORT if entry and inside(module, entry)]
    return max(entries, key=len, default="" if not module else module)


def functions_in(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef)]


def num_code_lines(function: ast.FunctionDef) -> int:
    """Lines from `def` to the end, the docstring not counted."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    return (
        function.end_lineno - function.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)
    )


def calls(tree: ast.AST) -> list[str]:
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_imports_go_downwards_only(path):
    module = module_of(path)
    rule = rule_for(module)
    assert rule in MAY_IMPORT, f"{name_of(path)} has no rule: give it one in MAY_IMPORT."
    allowed = [*MAY_IMPORT[rule], *([rule] if rule else [])]
    wrong = {taken for taken, _ in our_imports(path) if not any(inside(taken, entry) for entry in allowed)}
    assert not wrong, f"{name_of(path)} may import {allowed}, not {sorted(wrong)}."


@pytest.mark.parametrize("path", PROGRAMS, ids=name_of)
def test_programs_use_public_names_only(path):
    private = [(module, name) for module, name in our_imports(path) if "._" in f".{module}.{name}"]
    assert not private, f"{name_of(path)} imports what is private: {private}."


def hub_closure() -> list[Path]:
    """The files that remote code may bring along: the model's, and all that they import."""
    reached = {*MODEL, *BORDER}
    while True:
        paths = [path for path in SHIPPED if module_of(path) in reached]
        further = {module for path in paths for module, _ in our_imports(path)} - reached
        if not further:
            return paths
        reached |= further


@pytest.mark.parametrize("path", hub_closure(), ids=name_of)
def test_remote_code_can_follow_the_model(path):
    assert path.parent == REPOSITORY / "uov_hf" and path.name != "__init__.py", "Remote code is flat."
    tree = parse(path)
    guarded = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module, (
                f"{name_of(path)}:{node.lineno}: write `from .module import Name`; remote code follows nothing else."
            )
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            packages = {module.split(".")[0] for module in modules}
            assert not packages & NEVER_WITH_THE_MODEL, f"{name_of(path)}:{node.lineno}: {packages} with the model."
            assert packages <= AT_HAND or id(node) in guarded, (
                f"{name_of(path)}:{node.lineno}: {packages - AT_HAND} may be absent: import it inside `try:`."
            )


@pytest.mark.parametrize("path", [path for path in FILES if path.read_text(encoding="utf-8").strip()], ids=name_of)
def test_a_file_says_what_it_is_and_stays_short(path):
    assert ast.get_docstring(parse(path)), f"{name_of(path)} opens with a one-sentence docstring."
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= 400, f"{name_of(path)} has {num_lines} lines: split it at its second idea."
    long = {
        function.name: num_code_lines(function) for function in functions_in(path) if num_code_lines(function) > 70
    }
    assert not long, f"{name_of(path)}: longer than 70 lines without the docstring: {long}."


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_the_library_raises_and_does_not_print(path):
    tree = parse(path)
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, f"{name_of(path)}: raise an error that tells the way out instead of `assert`, lines {asserts}."
    may_talk = path.name == "__main__.py" or path.parent.name == "dataset_scripts"
    assert may_talk or "print" not in calls(tree), f"{name_of(path)}: use a logger instead of `print`."


def test_no_file_knows_a_machine():
    documents = [path for pattern in ("*", "docs/*", ".ci/*") for path in REPOSITORY.glob(pattern) if path.is_file()]
    documents = [path for path in documents if path.name != ".git"]  # in a worktree it is a file
    kept = [path for path in documents if path.suffix in ("", ".md", ".toml", ".txt", ".cff", ".yaml")]
    for path in {*FILES, *kept}:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [f"{name_of(path)}:{number}" for number, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
        assert not found, f"Paths of one machine: {found}."


def test_every_test_asserts_something():
    silent = [
        f"{name_of(path)}::{function.name}"
        for path in FILES
        if path.name.startswith("test_")
        for function in functions_in(path)
        if function.name.startswith("test_")
        if not any(isinstance(node, ast.Assert) for node in ast.walk(function))
        and not any(ASSERTING_CALL.search(call) for call in calls(function))
    ]
    assert not silent


def test_test_files_have_names_of_their_own():
    names = Counter(path.name for path in FILES if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_checks_see_what_they_forbid():
    """The import reader itself: relative, absolute and nested imports all come out as modules of the package."""
    house = REPOSITORY / "uov_hf" / "visualization.py"
    assert {("projection", "Camera"), ("scan_colors", "label_colors")} <= set(our_imports(house))
    assert rule_for("evaluation.metrics") == "evaluation.metrics" and rule_for("evaluation.reports") == "evaluation"
    assert rule_for("unheard_of") not in MAY_IMPORT
    assert MACHINE_PATH.search("open('" + "/home" + "/me/data')") and not MACHINE_PATH.search("out/home/x")
