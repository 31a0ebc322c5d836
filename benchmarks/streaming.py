"""Speed of training samples from a raw root and from Parquet, against the bare reads that they need, in one run.

    python benchmarks/streaming.py

A synthetic nuScenes root with six images of 900 x 1600 a frame, and a label set of 80 segments an image with
embeddings of 768 dimensions. All ways take turns, frame by frame, in one process with warm file caches. Their order is
drawn for every frame, because the second way to read a file finds it in the processor's cache. Times are medians of
processor time, so that other programs on the machine count less.

- bare: `np.fromfile` and the feature extractor; no labels, no tables, no checks.
- distillation: `DistillationSamples` without augmentation: points, voxels, point labels joined by frame id.
- pre-training: `TMPSamples` with augmentation.
- columns: points, labels and intensity_max of a frame, from Parquet; bare pyarrow: `read_row_group` of an open file.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import make_parser, table
from point_labels import Tiles  # beside this file

from uov_hf import UOVFeatureExtractor
from uov_hf.data import Frames, load_frames
from uov_hf.data.writing import write_parquet
from uov_hf.datasets.nuscenes import NuScenes
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.synthetic import generate_street
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.collation import collate_scans, collate_tmp
from uov_hf.training.samples import DistillationSamples, TMPSamples
from uov_hf.vocabulary import load_vocabulary


COLUMNS = ["points", "labels", "intensity_max"]
AZIMUTH_STEPS = 1260  # about as many points as a scan of nuScenes


class WideTiles(Tiles):
    """Embeddings as wide as those of the official teachers."""

    embed_dim = 768


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--num_frames", type=int, default=4)
    parser.add_argument("--num_rounds", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(prepare(Path(folder), args.num_frames), args.num_frames, args.num_rounds)
    bases = {"columns, Parquet": "bare pyarrow", "bare pyarrow": "bare pyarrow"}
    rows = [
        (name, f"{1000 * median:.1f}", f"{median / seconds[bases.get(name, 'bare')]:.2f}")
        for name, median in seconds.items()
    ]
    print(table(["way", "ms a sample", "times the bare read"], rows))


def prepare(folder: Path, num_frames: int) -> dict[str, Callable[[int, int], object]]:
    """What is measured, by name: functions of epoch and index of the frame."""
    vocabulary = load_vocabulary("nuscenes")
    root = generate_street(
        folder / "root", 1, num_frames, image_size=(900, 1600), azimuth_steps=AZIMUTH_STEPS, splits={"train": 1}
    )
    frames = load_frames("nuscenes", "all", data_dir=root)
    teacher = WideTiles(vocabulary.prompts)
    label_set = LabelSet.create(folder / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    write_parquet(NuScenes(data_dir=root, splits=("all",), cache_dir=str(folder / "cache")), folder / "parquet")
    (shard,) = (folder / "parquet").rglob("*.parquet")
    points = np.mean([len(frame["points"]) for frame in frames.select_columns(["points"])])
    size = shard.stat().st_size / num_frames / 1e6
    print(f"{num_frames} frames of about {points:.0f} points, {size:.2f} MB each in Parquet")
    stored = load_frames(str(folder / "parquet"))
    return raw_ways(frames, root, label_set) | parquet_ways(stored, shard, PointLabels(label_set.folder))


def raw_ways(frames: Frames, root: Path, label_set: LabelSet) -> dict:
    extractor, point_labels = UOVFeatureExtractor(), PointLabels(label_set.folder)
    scans = sorted(root.glob("samples/LIDAR_TOP/*"))
    distillation = DistillationSamples(frames, point_labels, extractor)
    pre_training = TMPSamples(frames, label_set, point_labels, extractor, AugmentationConfig())

    def bare(epoch, index):
        points = np.fromfile(scans[index], np.float32).reshape(-1, 5)[:, :4]
        return extractor(points, intensity_max=255.0, return_tensors="pt")

    return {
        "bare": bare,
        "distillation": lambda epoch, index: collate_scans([distillation[epoch, index]]),
        "pre-training": lambda epoch, index: collate_tmp([pre_training[epoch, index]]),
    }


def parquet_ways(frames: Frames, shard: Path, point_labels: PointLabels) -> dict:
    distillation = DistillationSamples(frames, point_labels, UOVFeatureExtractor())
    columns, file = frames.select_columns(COLUMNS), pq.ParquetFile(shard)
    return {
        "distillation, Parquet": lambda epoch, index: collate_scans([distillation[epoch, index]]),
        "columns, Parquet": lambda epoch, index: columns[index],
        "bare pyarrow": lambda epoch, index: file.read_row_group(index, columns=COLUMNS, use_threads=False),
    }


def measure(ways: dict, num_frames: int, num_rounds: int) -> dict[str, float]:
    """Median seconds of processor time."""
    seconds, order = defaultdict(list), np.random.default_rng(0)
    for epoch in range(num_rounds + 1):
        for index in range(num_frames):
            for name in order.permutation(list(ways)):
                start = time.process_time()
                ways[name](epoch, index)
                if epoch:  # the first round fills caches
                    seconds[name].append(time.process_time() - start)
    return {name: float(np.median(seconds[name])) for name in ways}


if __name__ == "__main__":
    main()
