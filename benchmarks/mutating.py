"""Mutants of a source file: small changes of its code, each of which some test should find."""

import os
from dataclasses import dataclass
from itertools import accumulate

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_assignment


# Not mutated. `len` and `isinstance` of other arguments only raise `TypeError`.
EXCLUDED = (
    m.Annotation()
    | m.Decorator()
    | m.Raise()  # the words of a message; the condition that leads to it is mutated
    | m.Call(func=m.Name("len") | m.Name("isinstance") | m.Name("cast") | m.Name("TypeVar"))
    | m.Call(func=m.Attribute(value=m.Name("logger") | m.Name("warnings")))
    | m.Assign(targets=[m.AssignTarget(m.Name("__all__") | m.Name("logger"))])
    | m.If(test=m.Name("TYPE_CHECKING"))
    | m.SimpleStatementLine(body=[m.Expr(m.SimpleString())])  # docstrings
    | m.Import()
    | m.ImportFrom()
    # Arguments that change nothing where the rest is right: a check of lengths, the encoding and the device that are
    # the default on the machine of the tests.
    | m.Arg(keyword=m.Name("strict") | m.Name("encoding") | m.Name("device"))
)


# Checks of arguments. Their texts are names and shapes for a message, and kinds of dtypes, to which "XX" adds none.
CHECKS = m.Call(
    func=m.Name("check_array")
    | m.Name("check_ids")
    | m.Name("are_in_range")
    | m.Name("to_tensor")
    | m.Name("to_array")
)


@dataclass(frozen=True)
class Mutant:
    """One change of a file.

    Args:
        line (`int`), column (`int`): Where the text differs first, both from 1.
        code (`str`): That line, without its indent and its comment.
        change (`str`): `before → after`, of the expression that contains the change.
        source (`str`): The whole mutated file.
    """

    line: int
    column: int
    code: str
    change: str
    source: str


def find_mutants(source: str) -> list[Mutant]:
    """The mutants of a file by the operators of mutmut, in the order of the code.

    Values that become `None` are left out: such a mutant stops nearly every test, so it only raises the score.
    """
    wrapper = MetadataWrapper(cst.parse_module(source))
    positions = wrapper.resolve(WhitespaceInclusivePositionProvider)
    starts = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]  # of the lines
    finder = _Finder()
    wrapper.module.visit(finder)
    mutants = []
    for before, after in finder.found:
        start, end = (starts[at.line - 1] + at.column for at in (positions[before].start, positions[before].end))
        mutants.append(_make_mutant(source, start, end, wrapper.module.code_for_node(after)))
    unique = {mutant.source: mutant for mutant in mutants if mutant.source != source}
    return sorted(unique.values(), key=lambda mutant: (mutant.line, mutant.column))


class _Finder(cst.CSTVisitor):
    """Collects nodes and what replaces them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []
        self.texts_of_checks: set[cst.CSTNode] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, EXCLUDED) or node in self.texts_of_checks:
            return False
        if m.matches(node, CHECKS):
            self.texts_of_checks |= {*m.findall(node, m.SimpleString() | m.FormattedString())}
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and operator is not operator_assignment:
                self.found += [(node, after) for after in operator(node) if not _is_excluded(node, after)]
        return True


def _is_excluded(before: cst.CSTNode, after: cst.CSTNode) -> bool:
    """Whether an argument becomes `None`, is in `EXCLUDED`, or differs only in capitals."""
    if isinstance(before, cst.Call) and isinstance(after, cst.Call):
        changed = [argument for argument in before.args if argument not in after.args]
        return len(before.args) == len(after.args) or any(m.matches(argument, EXCLUDED) for argument in changed)
    return isinstance(after, cst.SimpleString) and "XX" not in after.value


def _make_mutant(source: str, start: int, end: int, after: str) -> Mutant:
    """The mutant with the text `after` in place of the characters from `start` to `end`."""
    before = source[start:end]
    place = start + len(os.path.commonprefix([before, after]))
    line, column = source.count("\n", 0, place) + 1, place - source.rfind("\n", 0, place)
    code = source.splitlines()[line - 1].split("  # ")[0].strip()
    change = " → ".join(" ".join(text.split()) for text in (before, after))
    return Mutant(line, column, code, change, source[:start] + after + source[end:])
