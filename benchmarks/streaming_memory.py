"""Memory over 10,000 samples: does it grow, and how well is that known?

    python benchmarks/streaming_memory.py [--num_runs 3]

2,000 frames of 1,000 points in 50 scenes, with point labels, are read again and again in the shuffled order of a
training, from a raw nuScenes root and from Parquet, each run in a process of its own. After 2,000 samples, in which
caches fill, the resident memory is noted at every tenth sample, and its means over ten blocks of 1,000 samples tell
the slope: the mean of the nine steps from block to block, with the standard error of that mean. Memory wanders, and
the residuals of a line through it depend on one another, so that the error of a line is far too small. That of the
steps is right if memory wanders at random, and too large, rather than too small, if it stays where it is.

Beside it stands what is held at the end, more than at the beginning, by Python objects and in Arrow's buffers, and how
much of the resident memory the allocator gives back when it is asked to: that was free already, in pieces.
"""

import argparse
import ctypes
import gc
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from nuscenes_root import write_root
from PIL import Image

from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.data.writing import write_parquet
from uov_hf.datasets.nuscenes import NuScenes
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import ImageSegments, Teacher
from uov_hf.training.collation import collate_scans
from uov_hf.training.order import TrainingOrder
from uov_hf.training.samples import DistillationSamples
from uov_hf.vocabulary import load_vocabulary


NUM_BLOCKS, EVERY = 10, 10
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


@dataclass(frozen=True)
class Growth:
    """What came of a run: megabytes in 1,000 samples, and what explains them."""

    slope: float
    error: float
    lowest: float
    highest: float
    objects: int  # Python objects more than after the warm-up
    arrow: float  # megabytes in Arrow's buffers more than after the warm-up
    given_back: float  # megabytes that were free in the allocator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_scenes", type=int, default=50)
    parser.add_argument("--num_frames", type=int, default=2000)
    parser.add_argument("--num_samples", type=int, default=10_000)
    parser.add_argument("--num_warm_up", type=int, default=2000)
    parser.add_argument("--num_runs", type=int, default=3, help="From each of raw root and Parquet.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = prepare(Path(folder), args.num_scenes, args.num_frames)
        for name, where in sources.items():
            runs = []
            for _ in range(args.num_runs):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    how = (where, Path(folder) / "labels", args.num_warm_up, args.num_samples)
                    runs.append(process.submit(measure, *how).result())
                report(name, runs[-1])
            slopes = [run.slope for run in runs]
            if len(runs) > 1:
                error = np.std(slopes, ddof=1) / len(runs) ** 0.5
                print(f"{name}, mean of {len(runs)} runs: {np.mean(slopes):+.3f} ± {error:.3f} MB in 1,000 samples")


def prepare(folder: Path, num_scenes: int, num_frames: int) -> dict[str, dict[str, str]]:
    """What is measured, as arguments of `load_frames`; point labels are in `folder / "labels"`."""
    root = write_root(folder / "root", num_scenes, num_frames, 1000, Image.new("RGB", (56, 32)))
    builder = NuScenes(data_dir=root, splits=("all",), cache_dir=str(folder / "cache"))
    write_parquet(builder, folder / "parquet")
    raw, vocabulary = {"dataset": "nuscenes", "split": "all", "data_dir": str(root)}, load_vocabulary("nuscenes")
    frames, teacher = load_frames(**raw), OneSegment(vocabulary.prompts)
    label_set = LabelSet.create(folder / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    return {"raw root": raw, "Parquet": {"dataset": str(folder / "parquet"), "split": "all"}}


def measure(where: dict[str, str], labels: Path, num_warm_up: int, num_samples: int) -> Growth:
    """One run, in this process."""
    samples = DistillationSamples(load_frames(**where), PointLabels(labels), UOVFeatureExtractor())
    order = TrainingOrder(len(samples))
    megabytes = np.full(num_samples // EVERY, np.nan)  # not a list, which would grow
    for step in range(num_warm_up + num_samples):
        if step == num_warm_up:
            objects, arrow = _held()
        collate_scans([samples[key] for key in order.step_keys(step)])
        if step >= num_warm_up and step % EVERY == 0:
            megabytes[(step - num_warm_up) // EVERY] = _resident()
    objects_after, arrow_after = _held()
    steps = np.diff(megabytes.reshape(NUM_BLOCKS, -1).mean(axis=1)) * 1000 * NUM_BLOCKS / num_samples
    return Growth(
        slope=float(steps.mean()),
        error=float(steps.std(ddof=1) / len(steps) ** 0.5),
        lowest=float(megabytes.min()),
        highest=float(megabytes.max()),
        objects=objects_after - objects,
        arrow=arrow_after - arrow,
        given_back=_trim(),
    )


def _held() -> tuple[int, float]:
    gc.collect()
    return sys.getallocatedblocks(), pa.default_memory_pool().bytes_allocated() / 1e6


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def _trim() -> float:
    before = _resident()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    return before - _resident()


def report(name: str, growth: Growth) -> None:
    print(
        f"{name:>8}: {growth.slope:+.3f} ± {growth.error:.3f} MB in 1,000 samples, from {growth.lowest:.1f} to "
        f"{growth.highest:.1f} MB; {growth.objects:+d} blocks of Python objects, {growth.arrow:+.2f} MB in Arrow; "
        f"{growth.given_back:.1f} MB were free",
        flush=True,
    )


if __name__ == "__main__":
    main()
