"""What importing the package brings along, and the stopwatch of the pipeline's benchmark."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest


BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NEW_LIBRARIES = """
import sys
{base}
before = {{name.split(".")[0] for name in sys.modules}}
import uov_hf
after = {{name.split(".")[0] for name in sys.modules}}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_importing_the_package_brings_no_library_that_transformers_does_not():
    program = NEW_LIBRARIES.format(base=load("imports").TRANSFORMERS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["uov_hf"]


def test_a_stage_inside_another_is_counted_once():
    watch, things = load("pipeline").Stopwatch(), SimpleNamespace()
    things.inner = lambda: time.sleep(0.02)
    things.outer = lambda: (time.sleep(0.01), things.inner(), things.inner())
    watch.wrap(things, "inner", "network")
    watch.wrap(things, "outer", "read")
    took = watch.measure(lambda: (things.outer(), time.sleep(0.005)))
    assert 40 <= took["network"] and 10 <= took["read"] and 5 <= took["rest"]
    stages = sum(value for stage, value in took.items() if stage != "total")
    assert stages == pytest.approx(took["total"]) and took["text"] == 0
