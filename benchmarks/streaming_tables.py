"""Time and memory to the first sample of nuScenes' trainval tables: 34,149 samples, 2.6 million rows of sample_data.

    python benchmarks/streaming_tables.py [--devkit_python devkit/bin/python]

The tables are generated (1.5 GB of JSON); those of boxes are left empty, which spares nuscenes-devkit a lot.
Each reader is a process of its own, which imports, opens the root, and reads and voxelises one scan, by index or as
the first of a stream; the first reader only imports. Its time counts from its start, its memory is the most it had.
nuscenes-devkit needs numpy < 2, hence an interpreter of its own:
`python -m venv devkit && devkit/bin/pip install nuscenes-devkit`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nuscenes_root import write_root


IMPORTS = """
from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
import uov_hf.datasets.nuscenes

content = "nothing"
"""
OURS = """
from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames

frames = load_frames("nuscenes", "all", data_dir=root).select_columns(["points", "intensity_max"])
frame = frames[0]
voxels = UOVFeatureExtractor()(frame["points"], intensity_max=frame["intensity_max"])
content = f"{len(frames)} frames"
"""
STREAMING = """
from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames

stream = load_frames("nuscenes", "all", data_dir=root).select_columns(["points", "intensity_max"]).stream()
frame = next(iter(stream))
voxels = UOVFeatureExtractor()(frame["points"], intensity_max=frame["intensity_max"])
content = f"{stream.num_shards} shards"
"""
DEVKIT = """
import numpy as np
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud

nusc = NuScenes(version="v1.0-trainval", dataroot=root, verbose=False)
points = LidarPointCloud.from_file(nusc.get_sample_data_path(nusc.sample[0]["data"]["LIDAR_TOP"])).points.T
x, y, z = points[:, :3].T
cells = np.floor(np.stack([np.hypot(x, y) / 0.1, np.degrees(np.arctan2(y, x)), z / 0.1], axis=1))
voxels = np.unique(cells, axis=0, return_index=True, return_inverse=True)
content = f"{len(nusc.sample)} samples"
"""
PROGRAM = """
import json, resource, sys
root = sys.argv[1]
{reader}
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{
    "content": content, "cpu": usage.ru_utime + usage.ru_stime, "gigabytes": usage.ru_maxrss / 1e6
}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--devkit_python", help="The Python of an environment with nuscenes-devkit; without, ours only."
    )
    parser.add_argument("--num_samples", type=int, default=34149)
    parser.add_argument("--num_scenes", type=int, default=850)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = write_root(Path(folder) / "root", args.num_scenes, args.num_samples)
        size = sum(path.stat().st_size for path in root.glob("v1.0-trainval/*.json"))
        print(
            f"{args.num_samples} samples, {77 * args.num_samples} rows of sample_data, {size / 1e9:.2f} GB of tables"
        )
        measure("nothing read", sys.executable, IMPORTS, root)
        measure("uov-hf", sys.executable, OURS, root)
        measure("uov-hf, streaming", sys.executable, STREAMING, root)
        if args.devkit_python:
            measure("nuscenes-devkit", args.devkit_python, DEVKIT, root)


def measure(name: str, python: str, reader: str, root: Path) -> None:
    command = [python, "-c", PROGRAM.format(reader=reader), str(root)]
    start = time.perf_counter()
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    seconds, usage = time.perf_counter() - start, json.loads(answer.stdout.splitlines()[-1])
    print(
        f"{name:>17}: first of {usage['content']} after {seconds:.1f} s ({usage['cpu']:.1f} s of them on the "
        f"processor), {usage['gigabytes']:.2f} GB at most"
    )


if __name__ == "__main__":
    main()
