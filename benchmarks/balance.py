"""How evenly processes share the frames of a run: the most that one writes, over the mean.

    python benchmarks/balance.py

No row is made. "labels" is the share that `write_shards` gives to processes that wait for each other, as those of a
launch do: of all frames, and of a run that goes on where half of the frames are written, in stretches that are drawn.
"Parquet" is `--num_proc` of the dataset scripts, whose processes take the next chunk of a sequence when they have
finished one; a frame takes the same time everywhere. nuScenes' scenes have 39 to 41 keyframes, drawn such that the sum
is right.
"""

import heapq
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import make_parser, table
from ranks import draw_sizes
from small_recording import SmallRecording

from uov_hf.data import Frames
from uov_hf.data.parquet import ShardIndex
from uov_hf.data.shard_file import MAX_FRAMES, ShardFile
from uov_hf.data.shards import Plan
from uov_hf.data.split_writer import cut_into_chunks


NUM_PROCESSES = (1, 2, 4, 8, 10, 16)
LENGTHS = {
    "nuScenes, 850 scenes": draw_sizes(0, 850, 34_149).tolist(),
    "nuScenes train, 700 scenes": draw_sizes(0).tolist(),
    "SemanticKITTI train, 10 sequences": [4541, 1101, 4661, 801, 271, 2761, 1101, 1101, 1591, 1201],
    "one sequence of 1,000 frames": [1000],
}
SCHEMA = pa.schema({"frame_id": pa.string()})


def main() -> None:
    args = make_parser(__doc__)
    args.add_argument("--seed", type=int, default=0, help="Of the stretches that are written.")
    seed = args.parse_args().seed
    rows = []
    for name, lengths in LENGTHS.items():
        frames = Frames(SmallRecording(lengths))
        with tempfile.TemporaryDirectory() as folder:
            rows.append([name, "labels", *balance_of_labels(Path(folder), frames)])
            write_half(Path(folder), frames, seed)
            rows.append([name, "labels, half are written", *balance_of_labels(Path(folder), frames)])
        rows.append([name, "Parquet", *map(balance_of_parquet(frames), NUM_PROCESSES)])
    cells = [[*row[:2], *(f"{value:.3f}" for value in row[2:])] for row in rows]
    print(table(["dataset", "run", *(f"{number} process{'es' * (number > 1)}" for number in NUM_PROCESSES)], cells))


def balance_of_labels(folder: Path, frames: Frames) -> list[float]:
    """The largest share over the mean, for every number of processes."""
    plan = Plan(folder, frames, lambda sequence: "", "raise")
    found = []
    for number in NUM_PROCESSES:
        shares = [plan.share(index, number, of_missing=True) for index in range(number)]
        written = {part.frame_ids[row] for share in shares for part, row in share}
        if len(written) != plan.num_missing or sum(map(len, shares)) != plan.num_missing:
            raise RuntimeError(f"{number} processes: expected every missing frame once.")
        found.append(max(map(len, shares)) * number / plan.num_missing)
    return found


def write_half(folder: Path, frames: Frames, seed: int) -> None:
    """Shards of half of the frames: stretches of up to `MAX_FRAMES` frames, with as many missing frames in all."""
    rng, is_written = np.random.default_rng(seed), np.zeros(len(frames), bool)
    while 2 * is_written.sum() < len(frames):
        start = rng.integers(len(frames))
        is_written[start : start + rng.integers(1, MAX_FRAMES)] = True
    for number, sequence in enumerate(frames.select(np.flatnonzero(is_written).tolist()).by_sequence()):
        index: ShardIndex = {
            "sequence_id": sequence.sequence_ids[0],
            "frame_ids": sequence.frame_ids,
            "skipped": {},
            "made_from": "",
        }
        with ShardFile(folder / f"{number:05d}.parquet", SCHEMA) as shard:
            shard.publish(index)


def balance_of_parquet(frames: Frames):
    """Number of processes -> the largest share over the mean; the process with the least takes the next chunk."""
    sizes = [len(chunk.frames) for chunk in cut_into_chunks(frames.by_sequence())]

    def balance(num_processes: int) -> float:
        shares = [0] * num_processes
        for size in sizes:
            heapq.heapreplace(shares, shares[0] + size)
        return max(shares) * num_processes / sum(sizes)

    return balance


if __name__ == "__main__":
    main()
