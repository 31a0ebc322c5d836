"""The three programs that write into the store, on a small recording: what `store_stress.py` starts and kills.

Each appends the id of a frame to a log before it makes the frame's row, and takes some milliseconds for every row.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from small_recording import SmallBuilder, SmallRecording, Stripes

from uov_hf.data import Frames
from uov_hf.data.shards import Sharing
from uov_hf.data.writing import write_parquet
from uov_hf.labels import LabelSet, identify_dataset, label_points
from uov_hf.labels.labelling import PointLabelRow, SequenceLabeller
from uov_hf.training.launch import sharing, start
from uov_hf.vocabulary import load_vocabulary


SECONDS = 0.004  # a row takes at least this long


@dataclass(frozen=True)
class Job:
    """
    One program in one folder.

    Args:
        kind (`str`): A key of `JOBS`.
        folder (`Path`): What it writes to.
        log (`Path`): Gets a line for every row, before it is made.
        lengths (`Sequence[int]`): Frames of the sequences.
    """

    kind: str
    folder: Path
    log: Path
    lengths: Sequence[int]

    def count(self, frame_id: str) -> None:
        with open(self.log, "a") as file:  # one short write: lines of two processes do not mix
            file.write(f"{frame_id}\n")


def generate(job: Job, share: Sharing) -> None:
    """A label set, as examples/generate_label_set.py writes it."""
    frames = Frames(SmallRecording(job.lengths))
    vocabulary = load_vocabulary("nuscenes")
    teacher = Stripes(vocabulary.prompts)
    teacher.on_predict, teacher.seconds = job.count, SECONDS
    if share["process_index"]:
        share["wait"]()  # process 0 creates the label set
    label_set = LabelSet.create(job.folder, teacher, vocabulary, {}, identify_dataset(frames, "small", None))
    if not share["process_index"]:
        share["wait"]()
    label_set.write(frames, teacher, **share)


def label(job: Job, share: Sharing) -> None:
    """Point labels with all votes, as examples/label_points.py writes them; the label set is in the folder."""
    make_row = SequenceLabeller.make_row

    def make_row_and_count(self: SequenceLabeller, index: int) -> PointLabelRow:
        job.count(self.frames.frame_ids[index])
        return make_row(self, index)

    with patch.object(SequenceLabeller, "make_row", make_row_and_count):
        label_points(LabelSet(job.folder), Frames(SmallRecording(job.lengths)), "consolidated", **share)


def convert(job: Job, share: Sharing) -> None:
    """Parquet, as the dataset scripts write it; `num_processes` is `--num_proc`."""

    def count(frame_id: str) -> None:
        job.count(frame_id)
        time.sleep(SECONDS)

    builder = SmallBuilder.of(SmallRecording(job.lengths, on_read=count), str(job.folder.parent))
    write_parquet(builder, job.folder, num_proc=share["num_processes"])


JOBS: dict[str, Callable[[Job, Sharing], None]] = {"generate": generate, "label": label, "convert": convert}


def run(job: Job, process_index: int, num_processes: int, wait: Callable[[], None]) -> None:
    """
    The process of a forked start.

    Its id is added to `<folder>.started`, its output goes to `<folder>.output`. If the folder is being written by
    another run, the message is in `<folder>.refused`.
    """
    with open(job.folder.with_suffix(".started"), "a") as file:
        file.write(f"{os.getpid()}\n")
    with open(job.folder.with_suffix(".output"), "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    torch.set_num_threads(1)  # the processes share few cores
    try:
        JOBS[job.kind](job, {"process_index": process_index, "num_processes": num_processes, "wait": wait})
    except RuntimeError as error:
        if "is being written by" not in str(error):
            raise
        job.folder.with_suffix(".refused").write_text(str(error))
        os._exit(3)  # at once, as the others wait for this process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=JOBS)
    for name in ("folder", "log"):
        parser.add_argument(name, type=Path)
    parser.add_argument("lengths", type=int, nargs="+")
    args = parser.parse_args()
    accelerator = start(args.folder, seed=0)
    JOBS[args.kind](Job(args.kind, args.folder, args.log, args.lengths), sharing(accelerator, "raise"))
    accelerator.end_training()


if __name__ == "__main__":
    main()
