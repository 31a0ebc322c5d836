"""Frames and scenes that 64 ranks read of nuScenes, with a check that no frame is lost or doubled.

    python benchmarks/ranks.py
    python benchmarks/ranks.py --scenes data/nuscenes/v1.0-trainval/scene.json    # with the scenes' own sizes

Nothing is trained and no frame is read: the samplers of the ranks are those of the training scripts. nuScenes' train
split has 700 scenes of some 40 keyframes, 28,130 in all (docs/explanation/method.md, 1.1). Without `--scenes` every
scene gets 39 to 41 of them, drawn such that the sum is right; order and steps depend on the sum alone.

The last row is a stream of `datasets` with one shard per scene: 700 is no multiple of 64, so `split_dataset_by_node`
lets every rank read every frame and drop those of the others.
"""

import json
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import make_parser, table
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node

from uov_hf.datasets.nuscenes_tables import read_official_splits
from uov_hf.training.order import MicroBatchSampler, TrainingOrder


NUM_SCENES, NUM_FRAMES = 700, 28_130
SCENE_SIZES = 39, 41  # keyframes


@dataclass
class Reading:
    """The reads of all ranks in one order.

    Args:
        num_steps (`list[int]`): Of every rank.
        surplus (`list[str]`): Frames of the last step that no whole epoch needs, `scene/frame`.
        scenes (`list[int]`): Scenes that a rank has frames of in an epoch, for every rank and epoch.
        mixed (`int`): Scenes in a step, the fewest of all.
    """

    num_steps: list[int]
    surplus: list[str]
    scenes: list[int]
    mixed: int


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--num_processes", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=4, help="Frames of a rank and step.")
    parser.add_argument("--num_epochs", type=int, default=2)
    parser.add_argument("--scenes", type=Path, help="nuScenes' table of scenes, scene.json.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sizes = read_sizes(args.scenes) if args.scenes else draw_sizes(args.seed)
    scene_of = np.repeat(np.arange(len(sizes)), sizes)  # (num_frames,)
    shared = {"batch_size": args.batch_size, "num_processes": args.num_processes, "seed": args.seed}
    print(
        f"{len(sizes)} scenes of {sizes.min()} to {sizes.max()} keyframes, {sizes.sum():,} in all; "
        f"{args.num_processes} ranks x {args.batch_size} frames, {args.num_epochs} epochs\n"
    )
    rows = []
    for local in (False, True):
        order = TrainingOrder(len(scene_of), local=local, **shared)
        reading = simulate(order, scene_of, args.num_epochs)
        opened = sum(reading.scenes) / args.num_epochs
        surplus = f"{len(reading.surplus)} of {order.frames_per_step}"
        scenes = f"{np.mean(reading.scenes):.1f} (at most {max(reading.scenes)})", f"{opened:,.0f}"
        names = "local" if local else "shuffled", reading.num_steps[0], f"{len(scene_of):,}"
        rows.append([*names, surplus, *scenes, f"at least {reading.mixed}"])
    frames, scenes = read_as_stream(sizes, args.num_processes)
    rows.append([f"`split_dataset_by_node`: rank 0 reads {frames:,} frames", "", "", "", scenes, "", ""])
    header = "order,steps of a rank,frames of an epoch read once,surplus,scenes of a rank and epoch,"
    print(table(f"{header}scenes opened by all ranks,scenes in a step".split(","), rows))
    print("\nSurplus of the local order, scene/frame:")
    print(textwrap.fill(" ".join(reading.surplus), width=119))


def read_sizes(table: Path) -> np.ndarray:
    """Keyframes of the official train scenes, in the order of nuScenes' table."""
    train = read_official_splits()["train"]
    return np.array([scene["nbr_samples"] for scene in json.loads(table.read_text()) if scene["name"] in train])


def draw_sizes(seed: int, num_scenes: int = NUM_SCENES, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Sizes of 39 to 41 whose sum is `num_frames`: by default the 700 scenes of the train split."""
    smallest, largest = SCENE_SIZES
    places = np.arange(num_scenes * (largest - smallest))  # every scene has room for so many more
    taken = np.random.default_rng(seed).choice(places, num_frames - num_scenes * smallest, replace=False)
    return smallest + np.bincount(taken % num_scenes, minlength=num_scenes)


def simulate(order: TrainingOrder, scene_of: np.ndarray, num_epochs: int) -> Reading:
    """Let every rank go through its micro-batches.

    Raises:
        RuntimeError: A frame is not read exactly once an epoch, or the ranks differ in steps.
    """
    end = order.num_steps(num_epochs)
    reads, num_steps, scenes = Counter(), [], []
    in_step = [set() for _ in range(end)]
    for rank in range(order.num_processes):
        met = [set() for _ in range(num_epochs + 1)]
        batches = list(MicroBatchSampler(order, rank, 0, end))
        for step, keys in enumerate(batches):
            reads.update(keys)
            for epoch, index in keys:
                met[epoch].add(scene_of[index])
                in_step[step].add(scene_of[index])
        num_steps.append(len(batches))
        scenes += [len(those) for those in met[:num_epochs]]
    surplus = order.surplus_keys(num_epochs)
    due = Counter((epoch, index) for epoch in range(num_epochs) for index in range(len(scene_of)))
    if reads != due + Counter(surplus) or len(surplus) >= order.frames_per_step or len(set(num_steps)) > 1:
        raise RuntimeError("Frames were lost or doubled, or ranks have different steps.")
    place = np.arange(len(scene_of)) - np.searchsorted(scene_of, scene_of)  # of a frame in its scene
    names = [f"{scene_of[index]}/{place[index]}" for _, index in surplus]
    return Reading(num_steps, names, scenes, min(len(those) for those in in_step))


def read_as_stream(sizes: np.ndarray, num_processes: int) -> tuple[int, int]:
    """Frames and scenes that `datasets` reads for rank 0 of a stream with one shard a scene."""
    read = []

    def generate(scenes):
        for scene in np.repeat(scenes, sizes[scenes]).tolist():
            read.append(scene)
            yield {"scene": scene}

    stream = IterableDataset.from_generator(generate, gen_kwargs={"scenes": list(range(len(sizes)))})
    for _ in split_dataset_by_node(stream, rank=0, world_size=num_processes):
        pass
    return len(read), len(set(read))


if __name__ == "__main__":
    main()
