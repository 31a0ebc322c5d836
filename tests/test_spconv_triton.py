"""spconv-triton computes what plain torch does, in every kind of map and a network: by Triton's interpreter."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


MISSING = [name for name in ("triton", "spconv_triton") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (`pip install triton spconv-triton`)"
    ),
]
KINDS = ("submanifold 3", "submanifold 5", "down", "up")
TOLERANCES = {
    "float32": 2e-6,
    "float16": 2e-3,
    "bfloat16": 1e-2,
    "autocast": 1e-2,
    "parts": 2e-6,
    "more cells than an int32 has": 2e-6,
}


@pytest.fixture(scope="module")
def results():
    """What `triton_interpreter.py` prints: a batch of some voxels, an empty, a one-voxel and another sample."""
    program = Path(__file__).with_name("triton_interpreter.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", TOLERANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_map_has_plain_torchs_values_and_gradients(kind, case, results):
    """Against float64, as shares of the largest value: the output, the gradients of features and of weight."""
    assert max(results[case][kind]["differences"]) <= TOLERANCES[case]


def test_half_precision_stays_half_and_autocast_gives_gradients_of_the_weights_dtype(results):
    for name in ("float32", "float16", "bfloat16"):
        assert results[name]["down"]["dtypes"] == [f"torch.{name}"] * 3
    assert results["autocast"]["down"]["dtypes"] == ["torch.bfloat16", "torch.float32", "torch.float32"]


def test_the_cases_were_computed_in_the_parts_they_are_about(results):
    assert results["parts"]["num_parts"] == 2
    assert results["more cells than an int32 has"]["num_parts"] == results["float32"]["num_parts"] == 1
    assert results["more cells than an int32 has"]["num_cells"] > 2**31


def test_a_network_has_plain_torchs_output_and_gradients(results):
    assert results["network"]["output"] <= 2e-6 and results["network"]["gradients"] <= 2e-6


def test_two_threads_do_not_disturb_each_other(results):
    assert results["two threads"] <= 2e-6
