"""Tests of mutants: pytest collects once, and each mutant lives in a fork, which runs the tests that reach its line.

A fork starts in milliseconds. Processes that a test starts by itself run the code without the change.
"""

import ast
import gc
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from mutant_effect import NotInEffect, put_in_effect
from mutating import Mutant
from reached_lines import ReachedLines


SURVIVED, KILLED, NOT_IN_EFFECT = range(3)  # exit codes of a fork
OUTCOMES = {SURVIVED: "survived", KILLED: "killed", NOT_IN_EFFECT: "not in effect", -signal.SIGXCPU: "timed out"}
NOT_REACHED = "not reached"  # by any test
MEMORY = 8 * 2**30  # bytes that a mutant may take beyond what its parent has


class MutantTests:
    """A plugin of pytest that tests mutants in place of the ordinary run.

    Args:
        modules (`dict`): By file, the name of the module.
        mutants (`list`): Pairs of a file and its mutant.
        report (`Callable`): Called after each mutant with its file, itself, and its outcome.
    """

    def __init__(
        self,
        modules: dict[Path, str],
        mutants: list[tuple[Path, Mutant]],
        report: Callable[[Path, Mutant, str], None],
    ):
        self.modules = modules
        self.mutants = mutants
        self.report = report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("The tests cannot be collected.")
        self._check_effect(session)
        reached = self._run_without_mutant(session)
        gc.freeze()  # else a collection in a fork would copy all memory of its parent
        for path, mutant in self.mutants:
            self.report(path, mutant, self._test(session, path, mutant, reached))
        return True

    def _check_effect(self, session: pytest.Session) -> None:
        """Check that a source without a change changes nothing: else every mutant of its file would look killed."""
        for path, name in self.modules.items():
            source = path.read_text(encoding="utf-8")
            outcome = in_fork(partial(put_in_effect, sys.modules[name], path, source), seconds=60)
            if outcome != "not in effect":
                raise session.Failed(f"{path.name} cannot be mutated in place: without a change, {outcome}.")

    def _run_without_mutant(self, session: pytest.Session) -> ReachedLines:
        with tempfile.TemporaryDirectory() as folder:
            reached = ReachedLines(Path(folder), list(self.modules))

            def work() -> bool:
                session.config.pluginmanager.register(reached)
                with reached.recording():
                    return run_tests(session, session.items)

            outcome = in_fork(work, seconds=3600)
            if outcome != "survived":
                raise session.Failed(f"Expected that all tests pass without a mutant, got: {outcome}.")
            reached.read(session.items)
        return reached

    def _test(self, session: pytest.Session, path: Path, mutant: Mutant, reached: ReachedLines) -> str:
        first, last, in_function = statement_at(path, mutant.line)
        # A statement outside functions runs on import, before any test.
        names = reached.tests_at(path, first, last) if in_function else set(reached.seconds)
        items = sorted((item for item in session.items if item.nodeid in names), key=reached.seconds_of)
        if not items:
            return NOT_REACHED

        def work() -> bool:
            put_in_effect(sys.modules[self.modules[path]], path, mutant.source)
            return run_tests(session, items)

        return in_fork(work, seconds=10 + 5 * sum(map(reached.seconds_of, items)))


def run_tests(session: pytest.Session, items: list[pytest.Item]) -> bool:
    """Whether all tests pass; ends at the first that fails."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


def in_fork(work: Callable[[], bool | None], seconds: float) -> str:
    """The outcome of `work` in a child process with limits of processor time, time by the clock, and memory.

    Args:
        work (`Callable`): Returns whether the tests passed.
        seconds (`float`): Of processor time, which other processes do not shorten; by the clock ten times that.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        child = os.fork()
        if not child:
            os._exit(_work_confined(work, int(seconds), folder))
        deadline = time.monotonic() + 10 * seconds
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGXCPU)
            time.sleep(0.005)
        try:
            os.killpg(child, signal.SIGKILL)  # what the tests started and left
        except ProcessLookupError:
            pass
    return OUTCOMES.get(os.waitstatus_to_exitcode(ended[1]), "killed")  # any other signal is a crash


def _work_confined(work: Callable[[], bool], seconds: int, folder: str) -> int:
    """Exit code of a fork. An error outside a test is a kill, as an error of the import would be."""
    try:
        os.setpgid(0, 0)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder  # for `tmp_path`
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        return SURVIVED if work() else KILLED
    except NotInEffect:
        return NOT_IN_EFFECT
    except BaseException:
        return KILLED


def statement_at(path: Path, line: int) -> tuple[int, int, bool]:
    """First and last line of the innermost statement at a line, and whether it is in a function.

    Of a statement with a body it is the head. The defaults of a function's arguments are not in the function.
    """
    found = line, line, False
    nodes: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), False)]
    for node, in_function in nodes:  # grows by the children, so that inner statements come later
        if isinstance(node, ast.stmt):
            last = max(node.lineno, node.body[0].lineno - 1) if hasattr(node, "body") else node.end_lineno
            found = (node.lineno, last, in_function) if node.lineno <= line <= last else found
        inside = in_function or isinstance(node, ast.FunctionDef)
        nodes += [(child, inside) for child in ast.iter_child_nodes(node)]
    return found
