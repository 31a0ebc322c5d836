"""Puts a mutated source in effect: changes the functions of an imported module in place, so all importers run it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any


class NotInEffect(Exception):
    """Nothing that runs would differ."""


def put_in_effect(module: ModuleType, path: Path, source: str) -> None:
    """Give an imported module the functions, constants and class attributes of another source of it.

    Raises:
        NotInEffect: No function and no constant changed.
    """
    mutated = ModuleType(module.__name__)
    mutated.__package__, mutated.__file__ = module.__package__, str(path)
    exec(compile(source, str(path), "exec"), vars(mutated))
    try:
        changes = _transfer(module, vars(mutated))
    except (ValueError, RecursionError) as error:  # such as a function of other free variables
        raise NotInEffect(f"{path.name}: {error}") from error
    if not changes:
        raise NotInEffect(f"{path.name}: the change is in no function, constant or class attribute.")


def _transfer(owner: Any, new: dict[str, Any]) -> int:
    """The number of changes."""
    changes = 0
    for name, after in list(new.items()):
        before = vars(owner).get(name)
        if before is after or (name.startswith("__") and not callable(after)):
            continue
        if isinstance(before, type):
            if before.__name__ != name:
                continue  # a class that another one refers to, as an autograd function and its graph do
            changes += _transfer(before, dict(vars(after)))
        elif functions := [*_functions(after)]:
            pairs = zip(_functions(before), functions, strict=True)
            changes += sum(_change_function(*pair) for pair in pairs)
        else:
            changes += _set_constant(owner, name, before, after)
    return changes


def _set_constant(owner: Any, name: str, before: Any, after: Any) -> bool:
    """Change a constant of a module, or of a class, and the copies that other modules imported."""
    if repr(before) == repr(after) or " at 0x" in repr(after):  # an object of its own, such as a logger's
        return False
    setattr(owner, name, after)
    if isinstance(owner, ModuleType):
        for module in list(sys.modules.values()):
            if vars(module).get(name, module) is before:
                setattr(module, name, after)
    return True


def _functions(value: Any) -> Iterator[FunctionType]:
    """The Python functions of a function, a method or a property, also under decorators."""
    if isinstance(value, FunctionType):
        yield value
    for part in ("__wrapped__", "__func__", "fget", "fset", "func"):
        if isinstance(inner := getattr(value, part, None), FunctionType):
            yield from _functions(inner)


def _change_function(function: FunctionType, other: FunctionType) -> bool:
    before = _content(function)
    function.__code__, function.__defaults__ = other.__code__, other.__defaults__
    function.__kwdefaults__ = other.__kwdefaults__
    return _content(function) != before


def _content(function: FunctionType) -> tuple:
    return _instructions(function.__code__), repr(function.__defaults__), repr(function.__kwdefaults__)


def _instructions(code: CodeType) -> tuple:
    """What a code object does, without its place in the file."""
    constants = [_instructions(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, constants
