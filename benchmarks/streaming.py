"""Speed of samples from a raw root and from Parquet, against what cannot be done without, in one run.

    python benchmarks/streaming.py

A nuScenes root of random scans of 34,688 points and six images of 900 x 1600, of each of which a label set has 80
segments with embeddings of 768 dimensions. All ways take turns, frame by frame, in one process with warm file caches;
their order is drawn for every frame, because the second one that reads a file finds it in the processor's cache. Times
are medians of those on the processor: what else runs on the machine counts less so.

- bare: `np.fromfile` and the feature extractor; no labels, no tables, no checks.
- distillation: `DistillationSamples` without augmentation: points, voxels, point labels joined by frame id.
- pre-training: `TMPSamples` with augmentation; official: the official loader's way, as in benchmarks/tmp_samples.py.
- columns: points, labels and intensity_max of a frame, from Parquet; bare pyarrow: `read_row_group` of an open file.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from nuscenes_root import write_root
from PIL import Image
from tmp_samples import AUGMENTATION, OfficialSamples, write_official_folder

from uov_hf import UOVFeatureExtractor
from uov_hf.data import Frames, load_frames
from uov_hf.data.writing import write_parquet
from uov_hf.datasets.nuscenes import NuScenes
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import ImageSegments, Teacher
from uov_hf.training.collation import collate_scans, collate_tmp
from uov_hf.training.samples import DistillationSamples, TMPSamples
from uov_hf.vocabulary import load_vocabulary


COLUMNS = ["points", "labels", "intensity_max"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_frames", type=int, default=4)
    parser.add_argument("--num_rounds", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ways = prepare(Path(folder), args.num_frames)
        report(measure(ways, args.num_frames, args.num_rounds))


class Mosaic(Teacher):
    """To whom every image is 80 rectangles; it opens none."""

    name, embed_dim, settings = "mosaic", 768, {}
    rows, columns = 8, 10

    def encode_prompts(self, prompts):
        return self._embeds(len(prompts))

    def segment(self, frame):
        return [self._answer(*size) for size in frame["image_sizes"]]

    def _answer(self, height, width):
        num_segments = self.rows * self.columns
        row, column = np.arange(height) * self.rows // height, np.arange(width) * self.columns // width
        segmentation = (1 + row[:, None] * self.columns + column).astype(np.uint8)
        labels = np.arange(num_segments) % len(self.prompts)
        return ImageSegments(segmentation, labels, np.ones(num_segments), self._embeds(num_segments))

    def _embeds(self, number):
        embeds = np.random.default_rng(number).normal(size=(number, self.embed_dim))
        return (embeds / np.linalg.norm(embeds, axis=1, keepdims=True)).astype(np.float32)


def prepare(folder: Path, num_frames: int) -> dict[str, Callable[[int, int], object]]:
    """What is measured, by name: functions of epoch and index of the frame."""
    vocabulary = load_vocabulary("nuscenes")
    noise = np.random.default_rng(0).integers(0, 256, (56, 100, 3), np.uint8)
    picture = Image.fromarray(noise).resize((1600, 900), Image.Resampling.BICUBIC)
    root = write_root(folder / "root", 1, num_frames, 34688, picture)
    frames = load_frames("nuscenes", "all", data_dir=root)
    teacher = Mosaic(vocabulary.prompts)
    label_set = LabelSet.create(folder / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    write_official_folder(folder / "official", frames, label_set)
    write_parquet(NuScenes(data_dir=root, splits=("all",), cache_dir=str(folder / "cache")), folder / "parquet")
    (shard,) = (folder / "parquet").rglob("*.parquet")
    points = np.mean([len(frame["points"]) for frame in frames.select_columns(["points"])])
    size = shard.stat().st_size / num_frames / 1e6
    print(f"{num_frames} frames of about {points:.0f} points, {size:.2f} MB each in Parquet")
    return raw_ways(frames, root, label_set, folder) | parquet_ways(
        load_frames(str(folder / "parquet")), shard, label_set
    )


def raw_ways(frames: Frames, root: Path, label_set: LabelSet, folder: Path) -> dict:
    extractor, point_labels = UOVFeatureExtractor(), PointLabels(label_set.folder)
    scans = sorted(root.glob("samples/LIDAR_TOP/*"))
    distillation = DistillationSamples(frames, point_labels, extractor)
    pre_training = TMPSamples(frames, label_set, point_labels, extractor, AUGMENTATION)
    official = OfficialSamples(frames, folder / "official", extractor)

    def bare(epoch, index):
        points = np.fromfile(scans[index], np.float32).reshape(-1, 5)[:, :4]
        return extractor(points, intensity_max=255.0, return_tensors="pt")

    return {
        "bare": bare,
        "distillation": lambda epoch, index: collate_scans([distillation[epoch, index]]),
        "pre-training": lambda epoch, index: collate_tmp([pre_training[epoch, index]]),
        "official": official.batch,
    }


def parquet_ways(frames: Frames, shard: Path, label_set: LabelSet) -> dict:
    distillation = DistillationSamples(frames, PointLabels(label_set.folder), UOVFeatureExtractor())
    columns, file = frames.select_columns(COLUMNS), pq.ParquetFile(shard)
    return {
        "distillation, Parquet": lambda epoch, index: collate_scans([distillation[epoch, index]]),
        "columns, Parquet": lambda epoch, index: columns[index],
        "bare pyarrow": lambda epoch, index: file.read_row_group(index, columns=COLUMNS, use_threads=False),
    }


def measure(ways: dict, num_frames: int, num_rounds: int) -> dict[str, float]:
    """Median seconds on the processor."""
    seconds, order = defaultdict(list), np.random.default_rng(0)
    for epoch in range(num_rounds + 1):
        for index in range(num_frames):
            for name in order.permutation(list(ways)):
                start = time.process_time()
                ways[name](epoch, index)
                if epoch:  # the first round fills caches
                    seconds[name].append(time.process_time() - start)
    return {name: float(np.median(seconds[name])) for name in ways}


def report(seconds: dict[str, float]) -> None:
    for name, median in seconds.items():
        print(f"{name:>22}: {1000 * median:8.2f} ms {1 / median:8.1f} samples/s")
    ratio = "distillation takes {:.2f} times the time of bare reading and voxelising, from Parquet {:.2f} times;"
    print(ratio.format(*(seconds[f"distillation{end}"] / seconds["bare"] for end in ("", ", Parquet"))))
    print(f"pre-training is {seconds['official'] / seconds['pre-training']:.1f} times, distillation", end=" ")
    print(f"{seconds['official'] / seconds['distillation']:.1f} times as fast as the official loader;")
    print(
        f"columns of Parquet are read at {seconds['bare pyarrow'] / seconds['columns, Parquet']:.2f} of bare pyarrow."
    )


if __name__ == "__main__":
    main()
