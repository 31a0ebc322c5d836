"""The house rules that a program can check: who imports whom, what remote code may need, how long things get."""

import ast
import re
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest


REPOSITORY = Path(__file__).resolve().parents[1]
OURS = ("uov_hf", "uov_hf_cli")
PROGRAM_FOLDERS = ("dataset_scripts", "examples", "benchmarks")
FILES = sorted(path for room in (*OURS, *PROGRAM_FOLDERS, "tests") for path in (REPOSITORY / room).rglob("*.py"))
SHIPPED = [path for path in FILES if path.relative_to(REPOSITORY).parts[0] in OURS]
PROGRAMS = [path for path in FILES if path.relative_to(REPOSITORY).parts[0] in PROGRAM_FOLDERS]

# The flat modules, which travel with a checkpoint, and what each may import of the others.
FLAT = {
    "configuration_uov": [],
    "array_checks": [],
    "sparse_conv": ["array_checks"],
    "voxel_pyramid": ["array_checks", "sparse_conv"],
    "sparse_engines": ["voxel_pyramid"],
    "sparse_unet": ["configuration_uov", "sparse_conv", "voxel_pyramid", "sparse_engines"],
    "losses": ["configuration_uov", "array_checks"],
    "modeling_uov": ["configuration_uov", "sparse_unet", "sparse_conv"],
    "modeling_uov_pretraining": ["configuration_uov", "array_checks", "modeling_uov", "losses"],
    "modeling_uov_segmentation": ["configuration_uov", "modeling_uov", "losses"],
    "point_fields": [],
    "bin_files": [],
    "pcd_files": ["point_fields"],
    "text_points": ["point_fields"],
    "las_files": ["point_fields"],
    "numpy_files": ["point_fields"],
    "ply_files": ["point_fields"],
    "point_files": ["point_fields", "bin_files", "las_files", "numpy_files", "pcd_files", "ply_files", "text_points"],
    "voxel_grid": ["point_fields"],
    "point_neighbors": ["array_checks"],
    "ground_ring": [],
    "views": ["array_checks"],
    "configuration_afi": ["ground_ring"],
    "afi": ["configuration_uov", "array_checks", "configuration_afi", "point_neighbors", "ground_ring"],
    "feature_extraction_uov": ["point_files", "point_fields", "voxel_grid"],
    "processing_uov": ["configuration_uov", "array_checks", "feature_extraction_uov", "configuration_afi", "afi"],
    "pipeline_uov": [
        "configuration_uov",
        "feature_extraction_uov",
        "modeling_uov",
        "modeling_uov_segmentation",
        "processing_uov",
        "views",
        "voxel_grid",
    ],
}
# Small files without a room: they import nothing of ours, and every room may import them.
HELPERS = """extras image_files counts foreign_paths leftovers bag_paths digests written_together
setting_files tensor_files""".split()
# Who may import whom. A row may import rows above it only, so that no two rooms import each other.
ROOMS = {
    **FLAT,
    "extras": [],
    "image_files": [],
    "counts": [],
    "foreign_paths": [],
    "leftovers": [],
    "bag_paths": [],
    "digests": [],
    "written_together": [],
    "setting_files": [],
    "tensor_files": [],
    "geometry": [*FLAT],
    "vocabulary": [*FLAT, "setting_files"],
    "hub": [*FLAT, "setting_files", "digests", "written_together"],
    "": [*FLAT, "hub"],
    "pictures": [*FLAT, "geometry", "vocabulary"],
    "results": [*FLAT, *HELPERS, "pictures", "vocabulary"],
    "data": [*FLAT, *HELPERS, "vocabulary", "geometry", "hub"],
    "own_car": [*FLAT, *HELPERS, "geometry", "vocabulary", "data", "pictures"],
    "bags": [*FLAT, *HELPERS, "geometry", "vocabulary", "own_car"],
    "datasets": [*FLAT, *HELPERS, "geometry", "vocabulary", "data", "own_car", "bags"],
    "synthetic": [*FLAT, *HELPERS, "geometry", "vocabulary"],
    "teachers": [*FLAT, *HELPERS, "geometry", "vocabulary"],
    "labels": [*FLAT, *HELPERS, "geometry", "vocabulary", "data", "teachers", "hub"],
    "training": [*FLAT, *HELPERS, "data", "labels", "teachers", "hub"],
    "evaluation": [
        *FLAT,
        *HELPERS,
        "geometry",
        "vocabulary",
        "pictures",
        "results",
        "data",
        "labels",
        "training",
        "hub",
    ],  # fmt: skip
    "recipe": ["", *FLAT, *HELPERS, "vocabulary", "data", "labels", "training", "evaluation"],
    "reproduction": [*FLAT, *HELPERS, "data", "labels", "training", "recipe"],
    "convert": ["", *FLAT, *HELPERS, "hub", "vocabulary", "labels"],
    "tiles": [*FLAT],
    "segmenting": ["", *FLAT, *HELPERS, "hub", "pictures", "vocabulary", "teachers", "results", "tiles"],
    "segmenting_bags": ["", *FLAT, "bag_paths", "bags", "pictures", "segmenting", "written_together"],
}
ROOMS["uov_hf_cli"] = [*ROOMS]

# What the model's files may need on a machine that has only transformers; anything else stands in a `try`.
AT_HAND = {*sys.stdlib_module_names, "torch", "numpy", "transformers", "huggingface_hub", "safetensors", "PIL"}
NEVER_WITH_THE_MODEL = {"datasets", "accelerate", "uov_hf"}

MACHINE_PATH = re.compile(r"(?<![\w.])(/(home|root|work|mnt|Users|tmp)/\w|[A-Z]:\\)")
SPEAKING = re.compile(r"\b(says|said|hears|heard|speaks|spoke|tells|told|knows|asks|listens)\b", re.IGNORECASE)
ASSERTING_CALL = re.compile(r"(^|\.)(raises|warns|fail|assert\w*|_?check\w*)$")


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def module_of(path: Path) -> str:
    """Dotted name inside the package."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    parts = parts[1:] if parts[0] == "uov_hf" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def inside(module: str, folder: str) -> bool:
    return not folder or module == folder or module.startswith(f"{folder}.")


MODULES = {module_of(path) for path in SHIPPED}


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
        (dotted(module, name), None) if dotted(module, name) in MODULES else (module, name) for module, name in ours
    ]


def dotted(*names: str | None) -> str:
    return ".".join(filter(None, names))


def is_ours(module: str) -> bool:
    return module.split(".")[0] in OURS


def room_of(module: str) -> str:
    """The flat module, folder or package that a module belongs to; "" is `uov_hf/__init__.py`."""
    return module.split(".")[0]


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


def test_no_room_may_import_a_room_below_it_in_the_table():
    order = [*ROOMS]
    upwards = {(room, taken) for room in ROOMS for taken in ROOMS[room] if order.index(taken) >= order.index(room)}
    assert not upwards


def test_no_modules_import_each_other():
    imports = {module_of(path): {module for module, _ in our_imports(path)} - {module_of(path)} for path in SHIPPED}
    assert list(TopologicalSorter(imports).static_order())  # raises CycleError with the modules of a cycle


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_imports_go_downwards_only(path):
    room = room_of(module_of(path))
    assert room in ROOMS, f"{name_of(path)} belongs to no room: give it a row in ROOMS."
    taken = {room_of(module) for module, _ in our_imports(path)} - {room}
    wrong = taken - {*ROOMS[room]}
    assert not wrong, f"{name_of(path)} may import {ROOMS[room]}, not {sorted(wrong)}."


@pytest.mark.parametrize("path", PROGRAMS, ids=name_of)
def test_programs_use_public_names_only(path):
    private = [(module, name) for module, name in our_imports(path) if "._" in f".{module}.{name}"]
    assert not private, f"{name_of(path)} imports what is private: {private}."


def hub_closure() -> list[Path]:
    """The files that remote code may bring along: the model's, and all that they import."""
    reached = {*FLAT}
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
    assert path.name == "__main__.py" or "print" not in calls(tree), (
        f"{name_of(path)}: use a logger instead of `print`."
    )


def test_no_file_knows_a_machine():
    documents = [
        path for pattern in ("*", "docs/**/*", ".ci/*") for path in REPOSITORY.glob(pattern) if path.is_file()
    ]
    # In a worktree `.git` is a file; `make coverage` leaves its data.
    documents = [path for path in documents if path.name != ".git" and not path.name.startswith(".coverage")]
    kept = [path for path in documents if path.suffix in ("", ".md", ".toml", ".txt", ".cff", ".yaml")]
    for path in {*FILES, *kept}:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [f"{name_of(path)}:{number}" for number, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
        assert not found, f"Paths of one machine: {found}."


def test_prose_is_plain():
    """Programs and files do not speak: a scan has, a file contains, a message names, a program requires."""
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in [*SHIPPED, *PROGRAMS, *documents, *REPOSITORY.glob("uov_hf/**/*.yaml")]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if SPEAKING.search(line)
    ]
    assert not found, "\n".join(found)


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
    house = REPOSITORY / "uov_hf" / "pictures" / "visualization.py"
    assert {("geometry.projection", "Camera"), ("pictures.scan_colors", "label_colors")} <= set(our_imports(house))
    assert room_of("evaluation.metrics") == "evaluation" and room_of("") == "" and "unheard_of" not in ROOMS
    assert MACHINE_PATH.search("open('" + "/home" + "/me/data')") and not MACHINE_PATH.search("out/home/x")
