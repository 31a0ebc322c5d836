"""Time and memory of a label set of nuScenes' size: 850 scenes, 34,149 frames, with small masks and clouds.

    python benchmarks/label_store_size.py

The frames, the teacher and the masks are those of `small_recording.py`, as the number of frames is what counts here.
Each step is a process of its own: segments (`LabelSet.write`), point labels (`label_points`, preset `paper`), the
first sample, and training samples of all frames in a shuffled order (`DistillationSamples`, `TMPSamples`).

- first sample: from the opening of label set and point labels to the first `DistillationSamples`; imports not
  included. The files were dropped from the page cache before.
- peak: the largest resident memory of the process (`ru_maxrss`); after imports: before the step begins.
- slope: of a straight line through the resident memory at every 100th frame, after the first fifth of the frames, in
  MB per 10,000 frames, with its standard error. Neighbouring values depend on each other, so the error is that of the
  means of 20 blocks.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from common import describe_machine, make_parser, table
from ranks import draw_sizes
from small_recording import SmallRecording, Stripes

from uov_hf import UOVFeatureExtractor
from uov_hf.data import Frames
from uov_hf.labels import LabelSet, PointLabels, identify_dataset, label_points
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.samples import DistillationSamples, TMPSamples
from uov_hf.vocabulary import load_vocabulary


NUM_SCENES, NUM_FRAMES = 850, 34_149
INTERVAL = 100  # frames between two looks at the memory
WARM_UP = 0.2  # of the frames
NUM_BLOCKS = 20


class Memory:
    """The resident memory of this process at every `INTERVAL`-th frame."""

    def __init__(self, num_frames: int) -> None:
        self.process = psutil.Process()
        self.before = self.process.memory_info().rss
        self.num_frames = 0
        self._bytes = np.ones(num_frames // INTERVAL, np.int64)  # a list would grow, and be measured, too

    def count(self, frame_id: str) -> None:
        self.num_frames += 1
        place, rest = divmod(self.num_frames, INTERVAL)
        if rest == 0 and place <= len(self._bytes):
            self._bytes[place - 1] = self.process.memory_info().rss

    def values(self) -> list[tuple[int, int]]:
        """Frames and bytes."""
        num_values = min(self.num_frames // INTERVAL, len(self._bytes))
        return [((place + 1) * INTERVAL, int(self._bytes[place])) for place in range(num_values)]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--num_scenes", type=int, default=NUM_SCENES)
    parser.add_argument("--num_frames", type=int, default=NUM_FRAMES, help="39 to 41 a scene.")
    parser.add_argument("--folder", type=Path, help="Of the label set; by default one that is removed at the end.")
    parser.add_argument("--step", choices=STEPS, help="Run this step alone, in this process.")
    args = parser.parse_args()
    if args.step:
        print(json.dumps(run_step(args.step, args.folder, args.num_scenes, args.num_frames)))
        return
    print(f"{describe_machine()}; {args.num_frames:,} frames in {args.num_scenes} scenes\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--num_scenes", str(args.num_scenes), "--num_frames", str(args.num_frames)]
        rows = []
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, "--folder", str(args.folder or folder), *sizes]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(describe(step, json.loads(done.stdout)))
            print(*rows[-1], sep=" | ", flush=True)
    print()
    print(table(["step", "seconds", "frames/s", "first sample", "after imports", "peak", "slope", "on disk"], rows))


def run_step(step: str, folder: Path, num_scenes: int, num_frames: int) -> dict:
    """Seconds and memory of one step."""
    memory = Memory(num_frames)
    lengths = draw_sizes(0, num_scenes, num_frames).tolist()
    frames = Frames(SmallRecording(lengths, on_read=memory.count))
    start = time.perf_counter()
    first = STEPS[step](folder, frames)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "seconds": time.perf_counter() - start,
        "first": first,
        "before": memory.before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "values": memory.values(),
        "num_frames": len(frames),
        "num_files": len(files),
        "num_bytes": sum(path.stat().st_size for path in files),
    }


def segment(folder: Path, frames: Frames) -> None:
    vocabulary = load_vocabulary("nuscenes")
    teacher = Stripes(vocabulary.prompts)
    label_set = LabelSet.create(folder, teacher, vocabulary, {}, identify_dataset(frames, "small", None))
    label_set.write(frames, teacher)


def label(folder: Path, frames: Frames) -> None:
    label_points(LabelSet(folder), frames)


def open_samples(folder: Path, frames: Frames) -> float:
    """Seconds to the first sample, from the disk."""
    drop_from_cache(folder)
    start = time.perf_counter()
    samples = DistillationSamples(frames, PointLabels(LabelSet(folder).folder), UOVFeatureExtractor())
    samples[0, len(frames) // 2]
    return time.perf_counter() - start


def distil(folder: Path, frames: Frames) -> None:
    read_all(DistillationSamples(frames, PointLabels(folder), UOVFeatureExtractor()))


def pre_train(folder: Path, frames: Frames) -> None:
    read_all(TMPSamples(frames, LabelSet(folder), PointLabels(folder), UOVFeatureExtractor(), AugmentationConfig()))


STEPS: dict[str, Callable[[Path, Frames], float | None]] = {
    "segments": segment,
    "point labels": label,
    "first sample": open_samples,
    "distillation samples": distil,
    "pre-training samples": pre_train,
}


def read_all(samples: DistillationSamples | TMPSamples) -> None:
    for index in np.random.default_rng(0).permutation(len(samples)).tolist():
        samples[0, index]
    gc.collect()


def drop_from_cache(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fit_slope(values: list[tuple[int, int]]) -> tuple[float, float]:
    """MB per 10,000 frames, and the standard error."""
    frames, memory = np.array(values[int(len(values) * WARM_UP) :], np.float64).T
    blocks = np.array_split(np.arange(len(frames)), NUM_BLOCKS)
    x, y = (np.array([column[block].mean() for block in blocks]) for column in (frames / 1e4, memory / 1e6))
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def describe(step: str, found: dict) -> list[str]:
    is_long = len(found["values"]) >= 2 * NUM_BLOCKS
    slope = "{:+.3f} ± {:.3f}".format(*fit_slope(found["values"])) if is_long else ""
    return [
        step,
        f"{found['seconds']:.1f}" if found["first"] is None else "",
        f"{found['num_frames'] / found['seconds']:.0f}" if found["first"] is None else "",
        "" if found["first"] is None else f"{found['first']:.2f} s",
        f"{found['before'] / 1e6:.0f} MB",
        f"{found['peak'] / 1e6:.0f} MB",
        slope,
        f"{found['num_files']} files, {found['num_bytes'] / 1e6:.0f} MB",
    ]


if __name__ == "__main__":
    main()
