"""Clouds of ten million points are voxelised, projected and scored in memory of a small multiple of the input."""

import subprocess
import sys

import pytest


NUM_POINTS = 10_000_000
# The peak is that of the process, with torch's memory, which tracemalloc does not see.
PROGRAM = """
import resource
import numpy as np
from uov_hf import UOVFeatureExtractor
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.geometry import Camera, project_points

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

generator = np.random.default_rng(0)
{inputs}
size, before = sum(array.nbytes for array in inputs), peak()
{call}
assert {check}
print((peak() - before) / size)
"""
# In place: the peak before the call is that of the input.
POINTS = """points = np.empty(({num}, 4), np.float32)
generator.random(out=points, dtype=np.float32)
points -= np.float32(0.5)
points *= np.float32([200, 200, 6, 1])
inputs = [points]"""
IDS = "inputs = [generator.integers(0, 17, {num}, dtype=np.uint8) for _ in range(2)]"
CAMERA = "Camera(np.eye(4)[[1, 2, 0, 3]], [[700, 0, 800], [0, 700, 450], [0, 0, 1]], (900, 1600))"
CASES = {
    # the program, and the multiple of the bytes of the input: 16 of a point, 2 of a pair of labels
    "voxels": (POINTS, "batch = UOVFeatureExtractor()(inputs[0])", "len(batch['point_to_voxel']) == {num}", 12),
    "pixels": (POINTS, f"pixels, in_view = project_points(inputs[0], {CAMERA})", "0 < in_view.sum() < {num}", 9),
    "counts": (IDS, "matrix = ConfusionMatrix(17)\nmatrix.update(*inputs)", "matrix.counts.sum() == {num}", 30),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_memory_is_a_small_multiple_of_ten_million_points(name):
    inputs, call, check, most = CASES[name]
    program = PROGRAM.format(inputs=inputs, call=call, check=check).replace("{num}", str(NUM_POINTS))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) <= most, f"{name}: {run.stdout} times the input"
