"""Teachers from outside the package: a class in a Python file, or an entry point of an installed package."""

import hashlib
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from uov_hf.teachers.protocol import Teacher


ENTRY_POINTS = "uov_hf.teachers"  # the group


def is_file_teacher(name: str) -> bool:
    """Whether a name has the form of a class in a Python file, or of the file alone."""
    return name.endswith(".py") or ".py:" in name


def load_file_teacher(name: str, trust_code: bool) -> type[Teacher]:
    """Import the class `path/to/file.py:ClassName`.

    Its `name` becomes `file.py:ClassName@<digest of the file>`: label sets record it, and must not contain a folder of
    this machine.

    Raises:
        ValueError: the name has another form, the code is not trusted, or the file has no such teacher.
        FileNotFoundError: there is no such file.
    """
    file, _, class_name = name.rpartition(":")
    if not file.endswith(".py") or not class_name.isidentifier():
        raise ValueError(
            f"A teacher in a file has the form path/to/file.py:ClassName, got {name!r}. For example: "
            "--teacher my_teacher.py:MyTeacher."
        )
    if not trust_code:
        raise ValueError(
            f"The teacher {name!r} runs the Python code of {file}, with your rights on this machine. Read the file, "
            "then give --trust_teacher_code."
        )
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the Python file of the teacher {name!r}, got no file.")
    code = path.read_bytes()
    digest = hashlib.sha256(code).hexdigest()[:8]
    found = getattr(_run_file(path, code), class_name, None)
    return _named(found, f"{path.name}:{class_name}@{digest}", f"`{class_name}` of {path}")


def find_entry_points() -> dict[str, EntryPoint]:
    """The teachers of installed packages, by name."""
    return {one.name: one for one in entry_points(group=ENTRY_POINTS)}


def load_installed_teacher(entry_point: EntryPoint) -> type[Teacher]:
    """Import the class of an entry point.

    Raises:
        ValueError: it is no teacher.
    """
    return _named(entry_point.load(), entry_point.name, f"The entry point {entry_point.name} = {entry_point.value}")


def _run_file(path: Path, code: bytes) -> ModuleType:
    module = ModuleType(f"uov_hf_teacher_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    # No import: it would run stored bytecode, which may be of an older file of the same size and second.
    exec(compile(code, path, "exec"), module.__dict__)
    return module


def _named(found: object, name: str, source: str) -> type[Teacher]:
    """The class under another name; `source` names it in messages."""
    if not (isinstance(found, type) and issubclass(found, Teacher)):
        raise ValueError(f"{source} is no teacher: expected a subclass of `uov_hf.teachers.Teacher`, got {found!r}.")
    # A subclass, because the class itself may belong to this package.
    return type(found.__name__, (found,), {"name": name, "__module__": found.__module__})
