"""Which test runs which line of some files: a plugin of pytest around coverage.py."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import coverage
import pytest


class ReachedLines:
    """Records lines by test and by fixture: a fixture of the session runs once, but serves many tests.

    Args:
        folder (`Path`): For what the recording process leaves to the process that reads.
        files (`list`): The files whose lines count.
    """

    def __init__(self, folder: Path, files: list[Path]):
        self.folder = folder
        self.files = files
        self.seconds: dict[str, float] = {}  # of processor time, by node id, fixtures included
        self._tests: dict[Path, dict[int, set[str]]] = {}
        self._contexts = ["import"]

    @contextmanager
    def recording(self) -> Iterator[None]:
        self.coverage = coverage.Coverage(
            data_file=self.folder / "coverage", include=[str(path) for path in self.files], config_file=False
        )
        self.coverage.start()
        yield
        self.coverage.stop()
        self.coverage.save()
        (self.folder / "seconds.json").write_text(json.dumps(self.seconds))

    @contextmanager
    def _context(self, name: str) -> Iterator[None]:
        self._contexts.append(name)
        self.coverage.switch_context(name)
        yield
        self._contexts.pop()
        self.coverage.switch_context(self._contexts[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.process_time()
        with self._context(f"test {item.nodeid}"):
            result = yield
        self.seconds[item.nodeid] = time.process_time() - start
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Iterator[None]:
        with self._context(f"fixture {fixturedef.argname}"):
            return (yield)

    def read(self, items: list[pytest.Item]) -> None:
        """Read what another process recorded of these tests."""
        self.seconds = json.loads((self.folder / "seconds.json").read_text())
        names = defaultdict(set)
        for item in items:
            for context in (f"test {item.nodeid}", *(f"fixture {name}" for name in item.fixturenames)):
                names[context].add(item.nodeid)
        data = coverage.CoverageData(str(self.folder / "coverage"))
        data.read()
        for path in self.files:
            lines = data.contexts_by_lineno(str(path))
            self._tests[path] = {
                line: set().union(*(names[context] for context in found)) for line, found in lines.items()
            }

    def tests_at(self, path: Path, first: int, last: int) -> set[str]:
        """Node ids of the tests that run one of the lines."""
        return set().union(*(self._tests[path].get(line, set()) for line in range(first, last + 1)))

    def seconds_of(self, item: pytest.Item) -> float:
        return self.seconds[item.nodeid]
