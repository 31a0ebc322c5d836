"""Memory over 10,000 samples: does it grow, and how well is that known?

    python benchmarks/streaming_memory.py

2,000 frames of 1,000 points in 50 scenes, with point labels, are read again and again in the shuffled order of a
training, first from a raw nuScenes root, then from Parquet. After 2,000 samples, in which caches fill, the resident
memory of the process is noted at every tenth sample. Its slope is that of a line through the means of 20 blocks of 500
samples, and its error that of the line, which therefore knows of slow waves, not only of noise.
"""

import argparse
import gc
import tempfile
from pathlib import Path

import numpy as np
from nuscenes_root import write_root
from PIL import Image

from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.data.collation import collate_scans
from uov_hf.data.writing import write_parquet
from uov_hf.dataset_scripts.nuscenes import NuScenes
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import ImageSegments, Teacher
from uov_hf.training.order import TrainingOrder
from uov_hf.training.samples import DistillationSamples
from uov_hf.vocabulary import load_vocabulary


NUM_WARM_UP, NUM_SAMPLES, NUM_BLOCKS, EVERY = 2000, 10_000, 20, 10
PAGE = 4096


class OneSegment(Teacher):
    """To whom every image is one segment; it opens none."""

    name, embed_dim, settings = "one-segment", 8, {}

    def encode_prompts(self, prompts):
        return np.tile(np.eye(1, self.embed_dim, dtype=np.float32), (len(prompts), 1))

    def segment(self, frame):
        embeds = np.eye(1, self.embed_dim, dtype=np.float32)
        return [
            ImageSegments(np.ones(size, np.uint8), np.array([0]), np.ones(1), embeds) for size in frame["image_sizes"]
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_scenes", type=int, default=50)
    parser.add_argument("--num_frames", type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = write_root(Path(folder) / "root", args.num_scenes, args.num_frames, 1000, Image.new("RGB", (56, 32)))
        builder = NuScenes(data_dir=root, splits=("all",), cache_dir=str(Path(folder) / "cache"))
        write_parquet(builder, Path(folder) / "parquet")
        frames = load_frames("nuscenes", "all", data_dir=root)
        point_labels = make_point_labels(Path(folder) / "labels", frames)
        for name, source in (("raw root", frames), ("Parquet", load_frames(str(Path(folder) / "parquet"), "all"))):
            report(name, *measure(DistillationSamples(source, point_labels, UOVFeatureExtractor())))


def make_point_labels(folder: Path, frames) -> PointLabels:
    vocabulary = load_vocabulary("nuscenes")
    teacher = OneSegment(vocabulary.prompts)
    label_set = LabelSet.create(folder, teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    return PointLabels(folder)


def measure(samples: DistillationSamples) -> tuple[np.ndarray, np.ndarray]:
    """Samples read after the warm-up, and megabytes resident then."""
    order, counts, megabytes = TrainingOrder(len(samples)), [], []
    gc.collect()
    for step in range(NUM_WARM_UP + NUM_SAMPLES):
        collate_scans([samples[key] for key in order.step_keys(step)])
        if step >= NUM_WARM_UP and step % EVERY == 0:
            counts.append(step - NUM_WARM_UP)
            megabytes.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6)
    return np.array(counts), np.array(megabytes)


def report(name: str, counts: np.ndarray, megabytes: np.ndarray) -> None:
    x, y = (values.reshape(NUM_BLOCKS, -1).mean(axis=1) for values in (counts, megabytes))
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    print(
        f"{name:>8}: {1000 * slope:+.4f} MB in 1,000 samples, standard error {1000 * covariance[0, 0] ** 0.5:.4f}; "
        f"from {megabytes.min():.1f} to {megabytes.max():.1f} MB"
    )


if __name__ == "__main__":
    main()
