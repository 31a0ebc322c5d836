"""The trainings of the ladder: a table of them, and how they are run; the command is `benchmarks/ladder.py`."""

import os
import shlex
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from label_ablation import REPOSITORY  # beside this file
from ladder_words import label_without_words

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, label_points


sys.path.insert(0, str(REPOSITORY / "examples"))
import demo  # noqa: E402


TRAIN_SCENES, TEST_SCENES, FRAMES_PER_SCENE = 20, 4, 4
BATCH_SIZE = 2
NUM_AT_ONCE = 2  # each on one thread
PRESET = "consolidated"
SETTINGS = (
    f"--dataset nuscenes --split train --per_device_train_batch_size {BATCH_SIZE} --optimizer adamw "
    "--weight_decay 0.01 --lr_scheduler_type cosine --warmup_steps 30 --dataloader_num_workers 0"
)
NETWORK = "--preset tiny --voxel_size 0.25 0.0262 0.25 --intensity_scaling unit_plus_one"
ONE_SCENE = f"--data_fraction {1 / TRAIN_SCENES}"
LEARNING_RATES = (0.003, 0.006, 0.012)


@dataclass(frozen=True)
class Training:
    """One run of an example script.

    Args:
        command (`str`): The script, and the options that are its own.
        steps (`int`): Optimiser steps.
        learning_rate (`float`): Of the network, and of a new head.
        start (`str`, *optional*): The training whose checkpoint it begins with.
        label_set (`str`): The label set that it reads.
    """

    command: str
    steps: int
    learning_rate: float
    start: str | None = None
    label_set: str = "labels"


# A run from scratch takes its sizes, voxels and words from the checkpoint it names, and none of its weights.
TRAININGS = {
    "tmp": Training(f"pretrain.py {NETWORK}", 400, 0.006),
    "scratch": Training("distill.py --from_scratch", 600, 0.006, "tmp"),
    "distilled": Training("distill.py", 200, 0.006, "tmp"),
    "text_head": Training("distill.py --head text", 200, 0.012, "tmp"),
    "one_scene_random": Training(f"finetune.py --from_scratch {ONE_SCENE}", 100, 0.012, "tmp"),
    "one_scene_tmp": Training(f"finetune.py {ONE_SCENE}", 100, 0.012, "tmp"),
    "one_scene_distilled": Training(f"finetune.py {ONE_SCENE}", 100, 0.012, "distilled"),
    "scratch_short": Training("distill.py --from_scratch", 200, 0.006, "tmp"),
}
WORD_TRAININGS = {
    **{name: TRAININGS[name] for name in ("tmp", "text_head")},
    "tmp_held_out": Training(f"pretrain.py {NETWORK}", 400, 0.006, label_set="labels_held_out"),
    "text_head_held_out": Training("distill.py --head text", 200, 0.012, "tmp_held_out", "labels_held_out"),
}
TUNED = [name for name in TRAININGS if name not in ("tmp", "scratch_short")]


def train_all(output_dir: Path, seeds: list[int], trainings: dict[str, Training]) -> None:
    """Make the towns and labels of every seed, and train what is not trained yet, two at a time."""
    for seed in seeds:
        prepare(output_dir / f"seed-{seed}", seed)
    running: dict[tuple[str, int], Future] = {}
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        for name, training in trainings.items():
            for seed in seeds:
                start = running.get((training.start, seed))  # submitted before, so it is done or being done
                running[name, seed] = pool.submit(train, output_dir / f"seed-{seed}", seed, name, training, start)
    for future in running.values():
        future.result()  # raises what a training raised


def prepare(folder: Path, seed: int) -> None:
    """Towns, the teacher's label sets about them, and the point labels; what is there already is used again."""
    street = folder / "street"
    if not (street / "splits.json").exists():
        towns = Namespace(
            train_scenes=TRAIN_SCENES, test_scenes=TEST_SCENES, frames_per_scene=FRAMES_PER_SCENE, seed=seed
        )
        demo.make_towns(towns, street)
    demo.launch(
        f"generate_label_set.py --teacher synthetic --dataset nuscenes --data_dir {street} --split all "
        f"--cameras {demo.CAMERAS} --output_dir {folder / 'labels'}"
    )
    frames = load_frames("nuscenes", "all", data_dir=street)
    label_without_words(folder / "labels_held_out", street, frames, demo.CAMERAS.split(","))
    for labels, presets in {"labels": ("paper", PRESET), "labels_held_out": (PRESET,)}.items():
        for preset in presets:
            label_points(LabelSet(folder / labels), frames, preset, show_progress=True)


def train(folder: Path, seed: int, name: str, training: Training, start: Future | None = None) -> None:
    """Run one training in a process of its own, on one thread, unless its checkpoint is there already."""
    if start is not None:
        start.result()
    checkpoint, log = folder / name, folder / f"{name}.log"
    if (checkpoint / "model.safetensors").exists():
        return
    print(f"Training {checkpoint} …", flush=True)
    words = [sys.executable, *shlex.split(command(folder, seed, name, training))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with open(log, "w", encoding="utf-8") as output:
        finished = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
    if finished.returncode:
        raise RuntimeError(f"{shlex.join(words)} failed; {log} says why.")


def command(folder: Path, seed: int, name: str, training: Training) -> str:
    """The command line of a training."""
    script = training.command.split()[0]
    options = [SETTINGS, f"--data_dir {folder / 'street'} --seed {seed} --max_train_steps {training.steps}"]
    options.append(f"--learning_rate {training.learning_rate} --checkpointing_steps {training.steps}")
    if script != "finetune.py":
        options.append(f"--label_set {folder / training.label_set} --point_labels_preset {PRESET}")
    if training.start is not None:
        options.append(f"--model_name_or_path {folder / training.start}")
        options.append(f"--head_learning_rate {training.learning_rate}")
    return f"{REPOSITORY / 'examples'}/{training.command} {' '.join(options)} --output_dir {folder / name}"


def tune(output_dir: Path, seeds: list[int]) -> list[str]:
    """A Markdown table of what each learning rate gives in the test towns of these seeds, by mean IoU."""
    from ladder_scores import score_checkpoint  # which needs this file

    train_all(output_dir, seeds, {name: TRAININGS[name] for name in ("tmp", "distilled")})
    trials = {
        f"{name}@{rate}": replace(TRAININGS[name], learning_rate=rate) for name in TUNED for rate in LEARNING_RATES
    }
    train_all(output_dir, seeds, trials)
    lines = [
        f"`python benchmarks/ladder.py --tune --seeds {' '.join(map(str, seeds))}`: mean IoU in % by learning rate.",
        "",
        f"| training | {' | '.join(map(str, LEARNING_RATES))} |",
        "|---|" + "---:|" * len(LEARNING_RATES),
    ]
    for name in TUNED:
        scores = [
            sum(score_checkpoint(output_dir / f"seed-{seed}", f"{name}@{rate}") for seed in seeds) / len(seeds)
            for rate in LEARNING_RATES
        ]
        best = max(scores)
        cells = [f"**{100 * score:.1f}**" if score == best else f"{100 * score:.1f}" for score in scores]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines
