"""What importing the package brings along, and the stopwatch of the pipeline's benchmark."""

import subprocess
import sys
import time
from types import SimpleNamespace

import imports
import pipeline
import pytest


NEW_LIBRARIES = """
import sys
{base}
before = {{name.split(".")[0] for name in sys.modules}}
import uov_hf
after = {{name.split(".")[0] for name in sys.modules}}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""


def test_importing_the_package_brings_no_library_that_transformers_does_not():
    program = NEW_LIBRARIES.format(base=imports.TRANSFORMERS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["uov_hf"]


def test_a_stage_inside_another_is_counted_once(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) / 1000)  # a millisecond passes at every look
    watch, things = pipeline.Stopwatch(), SimpleNamespace()
    things.inner = lambda: None
    things.outer = lambda: (things.inner(), things.inner())
    watch.wrap(things, "inner", "network")
    watch.wrap(things, "outer", "read")
    took = watch.measure(things.outer)
    assert {stage: value for stage, value in took.items() if value} == {
        "network": pytest.approx(2),
        "read": pytest.approx(3),
        "rest": pytest.approx(2),
        "total": pytest.approx(7),
    }
